"""The paper's head on a backbone, as one flat functional graph.

Flat, because tf-keras-vis cannot see into nested models. With a frozen backbone the graph can also be had
in two parts, the backbone up to the pooled vector and the head on a vector: what the parts give, the joined
model gives too, to rounding.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from allreview.models.backbones import backbone_named
from allreview.recipe import Recipe

HEAD_LAYERS = ("head_normalization", "hidden", "head_dropout", "probabilities")
OPTIMIZERS = {
    "adamax": keras.optimizers.Adamax,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}


def build_model(recipe: Recipe, classes: Sequence[str], weights: Path | None) -> keras.Model:
    """The whole network: prepared images [n, size, size, 3] to probabilities [n, classes], float32.

    In *features* mode the backbone is frozen. In *finetune* mode it trains, except that batch normalisation
    which came with pretrained weights keeps the statistics it came with: batches of a small set are too
    few to estimate them anew.

    Raises:
        UserError: the image is too small for the backbone, or `weights` does not hold its weights.
    """
    body = _body(recipe, weights)
    if recipe.mode == "features":
        _freeze(body.layers)
    elif recipe.weights == "imagenet":
        _freeze(layer for layer in body.layers if isinstance(layer, keras.layers.BatchNormalization))
    outputs = _head(recipe, len(classes), _pooling()(body.output))
    model = keras.Model(body.input, outputs, name=recipe.backbone)
    _draw_weights((model.get_layer(name) for name in HEAD_LAYERS), recipe.seed)
    return model


def build_backbone(recipe: Recipe, weights: Path | None) -> keras.Model:
    """The frozen backbone up to the pooled vector: prepared images [n, size, size, 3] to [n, features]."""
    body = _body(recipe, weights)
    _freeze(body.layers)
    return keras.Model(body.input, _pooling()(body.output), name=f"{recipe.backbone}_features")


def build_head(recipe: Recipe, n_features: int, n_classes: int) -> keras.Model:
    """The head alone: pooled vectors [n, features] to probabilities [n, classes], float32."""
    inputs = keras.layers.Input(shape=(n_features,), name="features")
    head = keras.Model(inputs, _head(recipe, n_classes, inputs), name="head")
    _draw_weights((head.get_layer(name) for name in HEAD_LAYERS), recipe.seed)
    return head


def join(backbone: keras.Model, head: keras.Model, recipe: Recipe) -> keras.Model:
    """One flat model of a frozen backbone (`build_backbone`) and a trained head (`build_head`).

    The backbone's layers are shared, not copied; the head's weights are copied.
    """
    layers: dict[str, Any] = {layer.name: layer for layer in head.layers}
    n_classes = layers["probabilities"].units
    model = keras.Model(backbone.input, _head(recipe, n_classes, backbone.output), name=recipe.backbone)
    for name in HEAD_LAYERS:
        model.get_layer(name).set_weights(layers[name].get_weights())
    return model


def head_of(model: keras.Model) -> keras.Model:
    """The head of a flat model, on the pooled vector: what `build_head` gives, sharing the model's layers."""
    pooled: Any = model.get_layer("global_max_pooling").output
    x = inputs = keras.layers.Input(shape=pooled.shape[1:], name="features")
    for name in HEAD_LAYERS:
        x = model.get_layer(name)(x)
    return keras.Model(inputs, x, name="head")


def compile_model(model: keras.Model, recipe: Recipe) -> keras.Model:
    """Set the recipe's optimiser, categorical cross-entropy on one-hot labels, and accuracy."""
    model.compile(
        optimizer=OPTIMIZERS[recipe.optimizer](learning_rate=recipe.learning_rate),
        loss=keras.losses.CategoricalCrossentropy(),
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.CategoricalCrossentropy(name="cross_entropy"),
        ],
    )
    return model


def _body(recipe: Recipe, weights: Path | None) -> keras.Model:
    if (weights is None) != (recipe.weights == "none"):
        raise ValueError(f"weights={recipe.weights} in the recipe, but the weight file is {weights}")
    shape = (recipe.image_size, recipe.image_size, 3)
    body = backbone_named(recipe.backbone).build(shape, weights)
    if weights is None:
        _draw_weights(body.layers, recipe.seed)
    return body


def _draw_weights(layers: Iterable[keras.Layer], seed: int) -> None:
    """Draw the layers' starting weights from the seed and each layer's place, and nothing else.

    Keras takes the seeds of unseeded initialisers from Python's global generator, which other threads of the
    worker use too: the same recipe would start elsewhere each time.
    """
    for place, layer in enumerate(layers):
        for initializer, weight in (("kernel_initializer", "kernel"), ("depthwise_initializer", "kernel")):
            drawn_by: Any = getattr(layer, initializer, None)
            kernel: Any = getattr(layer, weight, None)
            if drawn_by is None or kernel is None or "seed" not in drawn_by.get_config():
                continue
            own_seed = int(np.random.SeedSequence([seed, place]).generate_state(1)[0] >> 1)
            seeded = type(drawn_by).from_config({**drawn_by.get_config(), "seed": own_seed})
            kernel.assign(seeded(kernel.shape, kernel.dtype))


def _freeze(layers: Any) -> None:
    for layer in layers:
        layer.trainable = False


def _pooling() -> keras.layers.Layer:
    return keras.layers.GlobalMaxPooling2D(name="global_max_pooling")


def _head(recipe: Recipe, n_classes: int, pooled: Any) -> Any:
    """The paper's head: batch normalisation, a regularised hidden layer, dropout, softmax."""
    layers, regularizers = keras.layers, keras.regularizers
    x = layers.BatchNormalization(axis=-1, momentum=0.99, epsilon=0.001, name="head_normalization")(pooled)
    x = layers.Dense(
        recipe.dense_units,
        activation="relu",
        kernel_regularizer=regularizers.L2(recipe.kernel_l2),
        activity_regularizer=regularizers.L1(recipe.activity_l1),
        bias_regularizer=regularizers.L1(recipe.bias_l1),
        name="hidden",
    )(x)
    x = layers.Dropout(recipe.dropout, seed=recipe.seed, name="head_dropout")(x)
    return layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities")(x)
