"""The mean of what a model says of a cell in several of the ways a square can lie, as one flat graph.

Test-time augmentation: a cell has no up nor down, so what is said of it should not depend on how it lies. The ways
follow one another along the batch, so the layers between run once, with one set of weights.

The mean is calibrated, not each way for itself: a mean is less sure than what it is of (Rahaman and Thiery, Uncertainty
Quantification and Deep Ensembles, NeurIPS 2021).
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from allreview.models.grafting import graft

Way = tuple[bool, int]
"""One way to lie: mirrored left to right or not, and then so many quarter turns to the left."""


@keras.saving.register_keras_serializable(package="allreview")
class Symmetries(keras.layers.Layer):
    """Images [n, s, s, 3] laid in so many ways, all cells in the first way first: [ways * n, s, s, 3]."""

    def __init__(self, ways: Sequence[Way], **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.ways = [(bool(mirrored), int(turns)) for mirrored, turns in ways]

    def call(self, inputs: Any) -> Any:
        return keras.ops.concatenate([_laid(inputs, way) for way in self.ways], axis=0)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None, *input_shape[1:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ways": self.ways}


@keras.saving.register_keras_serializable(package="allreview")
class MeanOfSymmetries(keras.layers.Layer):
    """Probabilities [ways * n, classes], as `Symmetries` orders them, to their mean [n, classes], whose logarithm is
    divided by `temperature` (`building.temper`)."""

    def __init__(self, ways: int, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.ways, self.temperature = int(ways), float(temperature)

    def call(self, inputs: Any) -> Any:
        mean = keras.ops.mean(keras.ops.reshape(inputs, (self.ways, -1, inputs.shape[-1])), axis=0)
        if self.temperature == 1:
            return mean
        least = float(np.finfo(np.float32).tiny)
        return keras.ops.softmax(keras.ops.log(keras.ops.maximum(mean, least)) / self.temperature, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (None, *input_shape[1:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "ways": self.ways, "temperature": self.temperature}


def over_symmetries(model: keras.Model, ways: Sequence[Way]) -> keras.Model:
    """The flat model's probabilities as their mean over the ways, by copies of its layers; of one way, the model."""
    if len(ways) == 1:
        return model
    pixels = keras.layers.Input(shape=model.input_shape[1:], dtype="float32", name="pixels")
    laid = Symmetries(ways, name="symmetries")(pixels)
    mean = MeanOfSymmetries(len(ways), name="mean_of_symmetries")(graft(model, laid))
    return keras.Model(pixels, mean, name=model.name)


def of_one_way(model: keras.Model) -> keras.Model:
    """What the flat model says of a cell as it lies, by copies of its layers; a model of one way itself."""
    if ways_of(model) == 1:
        return model
    pixels = keras.layers.Input(shape=model.input_shape[1:], dtype="float32", name="pixels")
    said = graft(model, pixels, without=(Symmetries, MeanOfSymmetries))
    return keras.Model(pixels, said, name=model.name)


def ways_of(model: keras.Model) -> int:
    """In how many ways the model looks at a cell."""
    return max((len(layer.ways) for layer in model.layers if isinstance(layer, Symmetries)), default=1)


def _laid(images: Any, way: Way) -> Any:
    """As `numpy.rot90` turns. By slices: `flip` becomes several operations in ONNX."""
    mirrored, turns = way
    images = images[:, :, ::-1] if mirrored else images
    if turns == 1:
        return keras.ops.transpose(images, (0, 2, 1, 3))[:, ::-1]
    if turns == 2:
        return images[:, ::-1, ::-1]
    return keras.ops.transpose(images[:, ::-1], (0, 2, 1, 3)) if turns == 3 else images
