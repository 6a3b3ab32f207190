"""Several networks in one flat graph that sees raw pixels: what both ensembles are made of.

A network is grafted as a copy of its layers under prefixed names, for two networks may use the same ones. Each
branch begins with a layer that prepares the pixels for it, so a graph of several branches takes RGB in 0..255
and nobody can feed it wrongly.
"""

from typing import Any

import keras
import numpy as np

from allreview.models.backbones import IMAGENET_BGR_MEANS, backbone_named
from allreview.recipe import BackboneName


@keras.saving.register_keras_serializable(package="allreview")
class Preparation(keras.layers.Layer):
    """RGB pixels in 0..255 as one backbone takes them: `Backbone.preprocess`, inside the graph.

    `preprocessing` is the name that `Backbone.preprocessing` gives. The layer computes in float32 whatever the
    precision of the rest, and keeps the shape.
    """

    def __init__(self, preprocessing: str, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        if preprocessing not in PREPARE:
            raise ValueError(f"there is no preprocessing {preprocessing!r} in a graph")
        self.preprocessing = preprocessing

    def call(self, inputs: Any) -> Any:
        return PREPARE[self.preprocessing](inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "preprocessing": self.preprocessing}


def _minus_one_to_one(pixels: Any) -> Any:
    return pixels / 127.5 - 1.0


def _bgr_less_imagenet_means(pixels: Any) -> Any:
    # Not `flip` nor `take`, which become several operations in ONNX.
    return pixels[..., ::-1] - np.array(IMAGENET_BGR_MEANS, dtype=np.float32)


def _unchanged(pixels: Any) -> Any:
    return pixels


PREPARE = {
    "minus_one_to_one": _minus_one_to_one,
    "bgr_less_imagenet_means": _bgr_less_imagenet_means,
    "unchanged": _unchanged,
}
"""Each `Backbone.preprocessing` on tensors: float32 RGB in 0..255 of shape [..., 3], which is kept."""


def raw_pixels(size: int) -> Any:
    """The input of a graph that sees RGB in 0..255: float32 [n, size, size, 3]."""
    return keras.layers.Input(shape=(size, size, 3), dtype="float32", name="pixels")


def prepared(pixels: Any, backbone: BackboneName) -> Any:
    """Raw pixels as the backbone takes them."""
    scheme = backbone_named(backbone).preprocessing
    return Preparation(scheme, name=f"{backbone}_preparation")(pixels)


def graft(
    network: keras.Model,
    tensor: Any,
    prefix: str | None = None,
    *,
    without: tuple[type[keras.layers.Layer], ...] = (),
) -> Any:
    """What `network` gives for `tensor`, computed by copies of its layers with copies of its weights.

    `network` is flat, with one input and one output. The copies are named `<prefix>_<name>`, or as the originals are,
    and train where the originals do; the originals are left as they are. Layers of the kinds in `without` are passed
    by.
    """
    originals: dict[str, keras.Layer] = {}
    outputs: dict[str, Any] = {}

    def named(name: str) -> str:
        return name if prefix is None else f"{prefix}_{name}"

    def copy(layer: Any) -> Any:
        name = named(layer.name)
        originals[name] = layer
        return type(layer).from_config({**layer.get_config(), "name": name})

    def call(layer: Any, *arguments: Any, **options: Any) -> Any:
        outputs[layer.name] = arguments[0] if isinstance(layer, without) else layer(*arguments, **options)
        return outputs[layer.name]

    keras.models.clone_model(network, input_tensors=tensor, clone_function=copy, call_function=call)
    for name, original in originals.items():
        if isinstance(original, without):
            continue
        copied: Any = outputs[name]._keras_history.operation
        _copy_weights(original, copied)
    return outputs[named(network.output_names[0])]


def _copy_weights(source: keras.Layer, target: keras.Layer) -> None:
    """As a saved file would: some layers keep more than their weights in step (Normalization)."""
    weights: dict[str, Any] = {}
    source.save_own_variables(weights)
    if weights:
        target.load_own_variables(weights)
    target.trainable = source.trainable
