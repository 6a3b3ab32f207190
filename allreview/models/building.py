"""The paper's head on one backbone or two, as one flat functional graph.

Flat, because tf-keras-vis cannot see into nested models. With frozen backbones the graph can also be had in
parts, each backbone up to its pooled vector and the head on the joined vector: what the parts give, the joined
model gives too, to rounding.

With one backbone the graph takes pixels that `preprocess_of` has prepared. With two (`recipe.partner`, combined
by concatenation) it takes RGB in 0..255 and prepares them for each backbone itself; `preprocess_of` hides that.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from allreview.models.backbones import backbone_named, unchanged
from allreview.models.grafting import graft, prepared, raw_pixels
from allreview.models.pooling import pooled
from allreview.models.symmetries import MeanOfSymmetries
from allreview.recipe import BackboneName, Pooling, Recipe

NORMALIZATION_MOMENTUM = 0.99
"""The paper's, in the head."""
HEAD_LAYERS = ("head_normalization", "hidden", "head_dropout", "probabilities")
OPTIMIZERS = {
    "adamax": keras.optimizers.Adamax,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}


def preprocess_of(recipe: Recipe) -> Callable[[np.ndarray], np.ndarray]:
    """What turns RGB pixels in 0..255 [..., 3] into what the recipe's whole model takes, float32."""
    return backbone_named(recipe.backbone).preprocess if recipe.partner is None else unchanged


def preprocessing_of(recipe: Recipe) -> str:
    """The preprocessing of the recipe's backbones by name, as stored with a model."""
    return "+".join(backbone_named(name).preprocessing for name in recipe.backbones)


def build_model(recipe: Recipe, classes: Sequence[str], weights: Mapping[BackboneName, Path]) -> keras.Model:
    """The whole network: images [n, size, size, 3] (see `preprocess_of`) to probabilities [n, classes], float32.

    `weights` has the pretrained file of each of `recipe.backbones`, and is empty from scratch. In *features*
    mode the backbones are frozen. In *finetune* mode they train, except that batch normalisation which came with
    pretrained weights keeps the statistics it came with, unless the recipe says *trained*: batches of a small set
    are few to estimate them anew.

    Raises:
        UserError: the image is too small for a backbone, or a file does not hold its backbone's weights.
    """
    _check(recipe, weights)
    bodies = [_body(name, recipe.image_size, weights.get(name), recipe.seed) for name in recipe.backbones]
    for body in bodies:
        if recipe.mode == "features":
            _freeze(body.layers)
        elif recipe.weights == "imagenet":
            _set_normalization(body, frozen=recipe.backbone_normalization == "frozen")
    vectors = [
        _pooled(name, body, recipe.pooling) for name, body in zip(recipe.backbones, bodies, strict=True)
    ]
    model = _with_head(recipe, len(classes), vectors)
    _draw_weights((model.get_layer(name) for name in HEAD_LAYERS), recipe.seed)
    return model


def build_backbone(
    name: BackboneName, image_size: int, weights: Path, pooling: Pooling = "max"
) -> keras.Model:
    """A frozen backbone up to the pooled vector: images prepared for it [n, size, size, 3] to [n, features].

    Raises:
        UserError: as `build_model`.
    """
    body = _body(name, image_size, weights, 0)
    _freeze(body.layers)
    return _pooled(name, body, pooling)


def build_head(recipe: Recipe, n_features: int, n_classes: int) -> keras.Model:
    """The head alone: pooled vectors [n, features] to probabilities [n, classes], float32.

    Several heads (`recipe.n_heads`) are one that is as much wider: `cross_fitting.as_one_head`.
    """
    inputs = keras.layers.Input(shape=(n_features,), name="features")
    head = keras.Model(inputs, _head(recipe, n_classes, inputs), name="head")
    _draw_weights((head.get_layer(name) for name in HEAD_LAYERS), recipe.seed)
    return head


def join(backbones: Sequence[keras.Model], head: keras.Model, recipe: Recipe) -> keras.Model:
    """One flat model of frozen backbones (`build_backbone`) and a trained head (`build_head`).

    `backbones` are those of `recipe.backbones`, in that order, as are the features the head was trained on. The
    layers of a single backbone are shared, those of two are copied; the head's weights are copied.
    """
    layers: dict[str, Any] = {layer.name: layer for layer in head.layers}
    model = _with_head(recipe, layers["probabilities"].units, backbones)
    for name in HEAD_LAYERS:
        model.get_layer(name).set_weights(layers[name].get_weights())
    return model


def head_of(model: keras.Model) -> keras.Model:
    """The head of a flat model, on the joined pooled vectors: what `build_head` gives, sharing its layers."""
    joined: Any = model.get_layer(HEAD_LAYERS[0]).input
    x = inputs = keras.layers.Input(shape=joined.shape[1:], name="features")
    for name in HEAD_LAYERS:
        x = model.get_layer(name)(x)
    return keras.Model(inputs, x, name="head")


def features_network(model: keras.Model) -> keras.Model:
    """The flat model up to its head: what it takes, to the joined pooled vectors [n, features]."""
    joined: Any = model.get_layer(HEAD_LAYERS[0]).input
    return keras.Model(model.input, joined, name="features")


def temper(model: keras.Model, temperature: float) -> keras.Model:
    """Divide the logits by `temperature` for good, by dividing the last layer's kernel and bias.

    Where the model gives a mean over symmetries, the mean's logarithm is divided: its own layer does that.

    Temperature scaling (Guo et al., On Calibration of Modern Neural Networks, ICML 2017): the most probable
    class stays, its probability changes. The model itself is changed, and returned. Tempering is not repeated
    by itself: a model tempered by 2 twice is tempered by 4.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"a temperature is above 0 and finite, not {temperature}")
    ending: Any = model.output
    output = ending._keras_history.operation
    if isinstance(output, MeanOfSymmetries):
        output.temperature *= temperature
    elif not isinstance(output, keras.layers.Dense):
        raise TypeError("only a model with one softmax layer has a temperature")
    elif temperature != 1:
        output.set_weights([weight / np.float32(temperature) for weight in output.get_weights()])
    return model


def compile_model(model: keras.Model, recipe: Recipe, learning_rate: Any = None) -> keras.Model:
    """Set the recipe's optimiser, categorical cross-entropy on (smoothed) one-hot labels, and accuracy.

    `learning_rate` may be a schedule of Keras; the recipe's own rate otherwise. AdamW leaves biases and the scales of
    normalisation undecayed, as is usual (He et al. 2018, arXiv:1812.01187, section 3.1). The metric `cross_entropy` is
    without smoothing and penalties. Cells count alike in metrics, but with several heads by their weights: not every
    head is judged by as many.
    """
    rate = recipe.learning_rate if learning_rate is None else learning_rate
    metrics = [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        keras.metrics.CategoricalCrossentropy(name="cross_entropy"),
    ]
    model.compile(
        optimizer=_optimizer(recipe, rate),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=None if recipe.n_heads > 1 else metrics,
        weighted_metrics=metrics if recipe.n_heads > 1 else None,
    )
    return model


def _optimizer(recipe: Recipe, rate: Any) -> keras.optimizers.Optimizer:
    averaging: dict[str, Any] = {}
    if recipe.weight_averaging:
        averaging = {"use_ema": True, "ema_momentum": recipe.weight_averaging}
    if recipe.optimizer != "adamw":
        return OPTIMIZERS[recipe.optimizer](learning_rate=rate, **averaging)
    optimizer = keras.optimizers.AdamW(learning_rate=rate, weight_decay=recipe.weight_decay, **averaging)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _check(recipe: Recipe, weights: Mapping[BackboneName, Path]) -> None:
    if recipe.members:
        raise ValueError("an averaged ensemble is made of its members' models, not built by its recipe")
    wanted = set() if recipe.weights == "none" else set(recipe.backbones)
    if set(weights) != wanted:
        raise ValueError(f"weights={recipe.weights} in the recipe, but the weight files are {dict(weights)}")


def _body(name: BackboneName, size: int, weights: Path | None, seed: int) -> keras.Model:
    body = backbone_named(name).build((size, size, 3), weights)
    if weights is None:
        _draw_weights(body.layers, seed)
    return body


def _with_head(recipe: Recipe, n_classes: int, backbones: Sequence[keras.Model]) -> keras.Model:
    """The head on pooled backbones: on the only one itself, or on copies of several."""
    name = "_".join(recipe.backbones)
    if len(backbones) == 1:
        inputs: Any = backbones[0].input
        pooled: Any = backbones[0].output
    else:
        inputs = raw_pixels(recipe.image_size)
        pooled = keras.layers.Concatenate(name="joined_features")(
            [
                graft(backbone, prepared(inputs, name), prefix=name)
                for name, backbone in zip(recipe.backbones, backbones, strict=True)
            ]
        )
    return keras.Model(inputs, _head(recipe, n_classes, pooled), name=name)


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


def _set_normalization(body: keras.Model, *, frozen: bool) -> None:
    """Keep a pretrained backbone's batch normalisation as it came, or let it learn with the head's momentum.

    MobileNetV2's own momentum of 0.999 is meant for a million images: after ten epochs of a few thousand cells its
    statistics would still be half ImageNet's, and predictions useless.
    """
    for layer in body.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not frozen
            if not frozen:
                layer.momentum = min(layer.momentum, NORMALIZATION_MOMENTUM)


def _freeze(layers: Any) -> None:
    for layer in layers:
        layer.trainable = False


def _pooled(name: BackboneName, body: keras.Model, pooling: Pooling) -> keras.Model:
    backbone = backbone_named(name)
    return pooled(body, pooling, backbone.depths, backbone.preprocessing)


def _head(recipe: Recipe, n_classes: int, pooled: Any) -> Any:
    """The paper's head: batch normalisation, a regularised hidden layer, dropout, softmax.

    In float32 whatever the precision of the backbone: it costs nothing, and the penalty on the hidden layer's
    output, a sum over a whole batch, would overflow 16 bits.
    """
    layers, regularizers = keras.layers, keras.regularizers
    x = layers.BatchNormalization(
        axis=-1, momentum=NORMALIZATION_MOMENTUM, epsilon=0.001, dtype="float32", name="head_normalization"
    )(pooled)
    x = layers.Dense(
        recipe.n_heads * recipe.dense_units,
        activation="relu",
        kernel_regularizer=regularizers.L2(recipe.kernel_l2),
        activity_regularizer=regularizers.L1(recipe.activity_l1),
        bias_regularizer=regularizers.L1(recipe.bias_l1),
        dtype="float32",
        name="hidden",
    )(x)
    x = layers.Dropout(recipe.dropout, seed=recipe.seed, dtype="float32", name="head_dropout")(x)
    return layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities")(x)
