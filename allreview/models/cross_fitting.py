"""Several heads that are trained side by side, each without another part of the cells, and the one head they make.

Every cell can so be judged by a head that never saw it nor its like, as in cross-validation, and nothing of the
training set is lost to validation: a committee by cross-validation (Krogh and Vedelsby, Neural Network Ensembles, Cross
Validation, and Active Learning, NIPS 1995). What the committee says is the softmax of the mean of its members' logits.
The members' last layer is linear before the softmax, so they can be written as a single head that is as much wider, and
everything that knows what a head is knows what they are.
"""

from typing import Any

import keras
import numpy as np

from allreview.models.building import build_head
from allreview.recipe import Recipe

LAYERS_WITH_WEIGHTS = ("head_normalization", "hidden", "probabilities")


def build_heads(recipe: Recipe, n_features: int, n_classes: int) -> keras.Model:
    """`recipe.n_heads` heads in one graph: pooled vectors [n, heads, features], to each head its own, to probabilities
    [n, heads, classes], float32.

    Each is what `build_head` gives of a recipe with one head, started by a seed of its own; nothing is shared. The
    layers have the names of a head's.
    """
    layers, heads, units = keras.layers, recipe.n_heads, recipe.dense_units
    alone = [_one_head(recipe, number, n_features, n_classes) for number in range(heads)]
    normalization, hidden, dropout, probabilities = (
        alone[0].get_layer(name).get_config()
        for name in ("head_normalization", "hidden", "head_dropout", "probabilities")
    )
    inputs = layers.Input(shape=(heads, n_features), name="features")
    x = layers.Reshape((heads * n_features,), dtype="float32", name="features_in_a_row")(inputs)
    x = layers.BatchNormalization.from_config(normalization)(x)
    x = layers.Reshape((heads, n_features), dtype="float32", name="features_by_head")(x)
    x = _dense_by_head("bhf,hfu->bhu", (heads, units), hidden)(x)
    x = layers.Dropout.from_config(dropout)(x)
    x = _dense_by_head("bhu,huc->bhc", (heads, n_classes), probabilities)(x)
    model = keras.Model(inputs, x, name="heads")
    for name in LAYERS_WITH_WEIGHTS:
        each = zip(*(head.get_layer(name).get_weights() for head in alone), strict=True)
        joined = np.concatenate if name == "head_normalization" else np.stack
        model.get_layer(name).set_weights([joined(weights) for weights in each])
    return model


def as_one_head(heads: keras.Model, recipe: Recipe) -> keras.Model:
    """The mean of the heads (`build_heads`) as one head: pooled vectors [n, features] to probabilities [n, classes].

    It is `build_head` of the recipe, to rounding: it normalises once, and what the heads do besides is in its hidden
    weights.
    """
    _, n_heads, n_features = heads.input_shape
    n_classes, units = heads.output_shape[-1], recipe.dense_units
    normalization: Any = heads.get_layer("head_normalization")
    scale, shift, mean, variance = (
        weights.reshape(n_heads, n_features).astype(np.float64) for weights in normalization.get_weights()
    )
    scale = scale / np.sqrt(variance + normalization.epsilon)
    shift = shift - mean * scale
    hidden, hidden_bias = (w.astype(np.float64) for w in heads.get_layer("hidden").get_weights())
    last, last_bias = (w.astype(np.float64) for w in heads.get_layer("probabilities").get_weights())
    mean, variance = mean.mean(axis=0), variance.mean(axis=0)
    spread = np.sqrt(variance + normalization.epsilon)
    kernel = (scale * spread)[..., None] * hidden
    bias = hidden_bias + np.einsum("hf,hfu->hu", scale * mean + shift, hidden)
    one = build_head(recipe, n_features, n_classes)
    of_layers = {
        "head_normalization": [np.ones(n_features), np.zeros(n_features), mean, variance],
        "hidden": [kernel.transpose(1, 0, 2).reshape(n_features, n_heads * units), bias.ravel()],
        "probabilities": [last.reshape(n_heads * units, n_classes) / n_heads, last_bias.mean(axis=0)],
    }
    for name, weights in of_layers.items():
        one.get_layer(name).set_weights([array.astype(np.float32) for array in weights])
    return one


def each_head(heads: keras.Model, recipe: Recipe) -> list[keras.Model]:
    """Every one of the heads (`build_heads`) alone: pooled vectors [n, features] to probabilities [n, classes]."""
    _, n_heads, n_features = heads.input_shape
    alone = [_one_head(recipe, number, n_features, heads.output_shape[-1]) for number in range(n_heads)]
    for name in LAYERS_WITH_WEIGHTS:
        weights = heads.get_layer(name).get_weights()
        for number, head in enumerate(alone):
            split = (
                array.reshape(n_heads, n_features) if name == "head_normalization" else array
                for array in weights
            )
            head.get_layer(name).set_weights([array[number] for array in split])
    return alone


def _one_head(recipe: Recipe, number: int, n_features: int, n_classes: int) -> keras.Model:
    own_seed = int(np.random.SeedSequence([recipe.seed, number]).generate_state(1)[0] >> 1)
    return build_head(recipe.model_copy(update={"heads": 1, "seed": own_seed}), n_features, n_classes)


def _dense_by_head(equation: str, shape: tuple[int, int], config: dict[str, Any]) -> keras.layers.EinsumDense:
    """A layer like the dense one with this configuration, with weights and biases for each head."""
    kept = ("name", "activation", "kernel_regularizer", "bias_regularizer", "activity_regularizer", "dtype")
    biases = equation.split("->")[1][1:]
    return keras.layers.EinsumDense.from_config(
        {name: config.get(name) for name in kept}
        | {"equation": equation, "output_shape": shape, "bias_axes": biases}
    )
