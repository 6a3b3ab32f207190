"""From feature maps to one vector: the paper's global max pooling, the mean, or statistics of several depths, over the
whole map or within the cell."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from allreview.models.grafting import PREPARE
from allreview.recipe import Pooling

_LEAST_VARIANCE = 1e-6  # the slope of a root is infinite at 0
_LEAST_LEVEL = 1.5  # of 255: what is darker in all colours is the frame, also after rounding to 16 bits


@keras.saving.register_keras_serializable(package="allreview")
class MeanAndDeviation(keras.layers.Layer):
    """Feature maps [n, h, w, channels] to each channel's mean and standard deviation over the map [n, 2 channels].

    The means come first. First and second moments of feature maps describe texture: Huang and Belongie 2017,
    arXiv:1703.06868, section 3.
    """

    def call(self, inputs: Any) -> Any:
        mean = keras.ops.mean(inputs, axis=(1, 2), keepdims=True)
        variance = keras.ops.mean(keras.ops.square(inputs - mean), axis=(1, 2))
        deviation = keras.ops.sqrt(variance + _LEAST_VARIANCE)
        return keras.ops.concatenate([keras.ops.squeeze(mean, axis=(1, 2)), deviation], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], 2 * input_shape[-1])


@keras.saving.register_keras_serializable(package="allreview")
class CellShare(keras.layers.Layer):
    """Prepared images [n, height, width, 3] to how much of each place of a feature map is cell, 0 to 1: [n, rows,
    columns].

    What is black is the frame around a cut-out cell; in a picture without one everything is cell. `preprocessing` says
    how the pixels were prepared, and so what black became. Places cover equal areas of the image.
    """

    def __init__(self, preprocessing: str, rows: int, columns: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.preprocessing, self.rows, self.columns = preprocessing, int(rows), int(columns)
        black, dark = (PREPARE[preprocessing](np.full(3, level, np.float32)) for level in (0, _LEAST_LEVEL))
        self._black, self._least = black, np.abs(dark - black)

    def call(self, inputs: Any) -> Any:
        _, height, width, _ = inputs.shape
        inside = keras.ops.any(keras.ops.abs(inputs - self._black) > self._least, axis=-1)
        by_rows = keras.ops.matmul(_areas(height, self.rows), keras.ops.cast(inside, "float32"))
        return keras.ops.matmul(by_rows, _areas(width, self.columns).T)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], self.rows, self.columns)

    def get_config(self) -> dict[str, Any]:
        own = {"preprocessing": self.preprocessing, "rows": self.rows, "columns": self.columns}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="allreview")
class MeanAndDeviationWithin(keras.layers.Layer):
    """As `MeanAndDeviation`, each place counting as much as its share says: maps [n, h, w, channels] and shares
    [n, h, w] to [n, 2 channels].

    In float32 whatever the precision of the rest: sums over a map are long. Where no place counts all is 0, to
    rounding.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, inputs: Any) -> Any:
        maps, shares = inputs
        shares = shares[..., None] / (keras.ops.sum(shares, axis=(1, 2), keepdims=True)[..., None] + 1e-6)
        mean = keras.ops.sum(maps * shares, axis=(1, 2), keepdims=True)
        variance = keras.ops.sum(keras.ops.square(maps - mean) * shares, axis=(1, 2))
        deviation = keras.ops.sqrt(variance + _LEAST_VARIANCE)
        return keras.ops.concatenate([keras.ops.squeeze(mean, axis=(1, 2)), deviation], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0][0], 2 * input_shape[0][-1])


def pooled(body: keras.Model, pooling: Pooling, depths: Sequence[str], preprocessing: str) -> keras.Model:
    """The backbone up to its pooled vector [n, features].

    `depths` names the layers whose maps *depths* and *cell* pooling describe; what comes after the last of them is left
    out. `preprocessing` says how the images were prepared.
    """
    if pooling in ("depths", "cell"):
        maps = [body.get_layer(name).output for name in depths]
        described = (
            _over_everything(maps) if pooling == "depths" else _within(body.input, maps, preprocessing)
        )
        vector: Any = keras.layers.Concatenate(name="statistics_of_depths")(described)
    elif pooling == "average":
        vector = keras.layers.GlobalAveragePooling2D(name="global_average_pooling")(body.output)
    else:
        vector = keras.layers.GlobalMaxPooling2D(name="global_max_pooling")(body.output)
    return keras.Model(body.input, vector, name=f"{body.name}_features")


def _over_everything(maps: Sequence[Any]) -> list[Any]:
    return [MeanAndDeviation(name=f"{_name(tensor)}_statistics")(tensor) for tensor in maps]


def _within(images: Any, maps: Sequence[Any], preprocessing: str) -> list[Any]:
    shares: dict[tuple[int, int], Any] = {}
    for _, rows, columns, _ in (tensor.shape for tensor in maps):
        if (rows, columns) not in shares:
            name = f"cell_share_{rows}_{columns}"
            shares[rows, columns] = CellShare(preprocessing, rows, columns, name=name)(images)
    return [
        MeanAndDeviationWithin(name=f"{_name(tensor)}_statistics")([tensor, shares[tensor.shape[1:3]]])
        for tensor in maps
    ]


def _name(tensor: Any) -> str:
    return tensor._keras_history.operation.name


def _areas(side: int, places: int) -> np.ndarray:
    """What part of each place lies over each of `side` pixels: float32 [places, side], rows adding up to 1."""
    edges = np.arange(places + 1) * (side / places)
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(overlap, 0) * (places / side)).astype(np.float32)
