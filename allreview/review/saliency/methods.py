"""Heat maps: which pixels speak for a class, by tf-keras-vis. Imports Keras, so only the worker may.

Each method looks at the class score before softmax (softmax gradients vanish where the model is sure) and
gives every cell a map that depends on that cell alone, not on the cells it was computed together with:

- Grad-CAM (Selvaraju et al., ICCV 2017) and Grad-CAM++ (Chattopadhay et al., WACV 2018), in batches, on feature
  maps that both share.
- Score-CAM (Wang et al., CVPR Workshops 2020) on the channels that vary most, as Faster Score-CAM does.
- SmoothGrad (Smilkov et al., 2017), the mean absolute gradient over noisy copies, always the same noise.

An ensemble has several branches, each with its own last feature maps: its map is the mean of the branches' maps,
each stretched to 0..1 first. Where the branches' features are joined, they share the class score; where their
probabilities are averaged, each branch is explained by its own score.
"""

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from allreview.errors import UserError
from allreview.review.saliency.cut_models import ClassScore, CutModel, of_classes
from allreview.review.saliency.overlays import METHODS

BATCH = 16
SCORECAM_CHANNELS = 32
"""Score-CAM masks the input once for each of this many channels, those that vary most: all 1,280 of a
MobileNetV2 take 30 times as long for a similar map (r = 0.94 and 0.98 on two real cells)."""
SMOOTH_SAMPLES = 20
SMOOTH_NOISE = 0.2
"""Standard deviation of SmoothGrad's noise, as a share of the input's range (the paper's 10 to 20 %)."""

Maps = NDArray[np.float32]


_cut: WeakKeyDictionary[keras.Model, CutModel] = WeakKeyDictionary()
_cutting = threading.Lock()


def heatmaps(model: keras.Model, inputs: Maps, class_indices: Sequence[int], method: str) -> Maps:
    """Heat maps of many cells.

    Args:
        model: a flat functional model with one image input and one row of class scores as output. It is not
            changed; its weights of this moment are used.
        inputs: float32 [n, s, s, 3], preprocessed as the model expects.
        class_indices: n positions of the class each map explains.
        method: one of `overlays.METHODS`.

    Returns:
        float32 [n, s, s]; each map spans 0 to 1, or is 0 everywhere where nothing speaks for the class.

    Raises:
        UserError: an unknown method, a model of another kind, or inputs and classes that do not fit it.
    """
    return heatmaps_by_method(model, inputs, class_indices, [method])[method]


def heatmaps_by_method(
    model: keras.Model, inputs: Maps, class_indices: Sequence[int], methods: Sequence[str]
) -> dict[str, Maps]:
    """What `heatmaps` gives, for several methods at once: those that need the feature maps share them."""
    for method in methods:
        if method not in METHODS:
            raise UserError(f"There is no saliency method {method!r}: choose one of {', '.join(METHODS)}.")
    inputs = np.asarray(inputs, dtype=np.float32)
    indices = np.asarray(class_indices, dtype=np.int32)
    cut = _cut_of(model)
    _check_fit(model, inputs, indices)
    found: dict[str, list[Maps]] = {method: [] for method in methods}
    for start in range(0, len(inputs), BATCH):
        part = slice(start, start + BATCH)
        batch = _Batch(cut, inputs[part], indices[part])
        for method in methods:
            found[method].append(_joint(_RAW[method](batch), inputs.shape[1]))
    return {
        method: np.concatenate(parts) if parts else inputs[..., 0].copy() for method, parts in found.items()
    }


class _Batch:
    """Cells that are explained together, and their feature maps, computed when a method first needs them."""

    def __init__(self, cut: CutModel, inputs: Maps, indices: NDArray[np.int32]) -> None:
        self.scores = cut.scores
        self.inputs = inputs
        self.indices = indices
        self._cut = cut

    @cached_property
    def feature_maps(self) -> list[Any]:
        return self._cut.feature_maps(tf.constant(self.inputs))


def _cut_of(model: keras.Model) -> CutModel:
    with _cutting:
        if model not in _cut:
            _cut[model] = CutModel(model)
        cut = _cut[model]
        # The model may have been trained on since it was cut.
        for score in cut.scores:
            score.follow()
    return cut


def _check_fit(model: keras.Model, inputs: Maps, indices: NDArray[np.int32]) -> None:
    classes = model.output_shape[-1]
    if inputs.ndim != 4 or inputs.shape[1] != inputs.shape[2] or len(inputs) != len(indices):
        raise UserError(
            f"Saliency needs square images as [n, s, s, 3] and one class for each: got {list(inputs.shape)}"
            f" and {len(indices)} classes."
        )
    if ((indices < 0) | (indices >= classes)).any():
        raise UserError(f"Saliency was asked for a class the model does not have: it has {classes}.")


def _gradcam(batch: _Batch) -> list[Maps]:
    return _class_activation(batch, lambda score: score.gradcam, of_classes(batch.indices))


def _gradcam_plus_plus(batch: _Batch) -> list[Maps]:
    of_class = of_classes(batch.indices)

    def shifted(output: Any) -> Any:
        # Moved to 0: the method takes the score's exponential, which otherwise overflows. The factor cancels out in
        # the finished map, so nothing else changes.
        score = of_class(output)
        return score - tf.stop_gradient(score)

    return _class_activation(batch, lambda score: score.gradcam_plus_plus, shifted)


def _class_activation(
    batch: _Batch, method_of: Callable[[ClassScore], Any], of_class: Callable[[Any], Any]
) -> list[Maps]:
    """The maps [n, h, w] of each branch, by gradients from the class score to the branch's feature maps."""
    found: list[Maps] = []
    for score in batch.scores:
        feature_maps = [batch.feature_maps[place] for place in score.places]
        for layer in score.maps_layers:
            found.append(
                np.asarray(method_of(score)(of_class, feature_maps, penultimate_layer=layer, **_AS_IT_IS))
            )
    return found


def _scorecam(batch: _Batch) -> list[Maps]:
    # Cell by cell: in a batch the library scores every cell on the union of all cells' channels.
    return [
        np.concatenate(
            [
                score.scorecam(
                    of_classes([index]),
                    cell[None],
                    penultimate_layer=layer,
                    max_N=min(SCORECAM_CHANNELS, channels),
                    **_AS_IT_IS,
                )
                for cell, index in zip(batch.inputs, batch.indices, strict=True)
            ]
        )
        for score in batch.scores
        for layer, channels in zip(score.ends, score.channels, strict=True)
    ]


def _smoothgrad(batch: _Batch) -> list[Maps]:
    # Gradients by pixel need no feature maps, so there is one map for each class score.
    return [
        np.stack(
            [
                _mean_gradient(score, cell, index)
                for cell, index in zip(batch.inputs, batch.indices, strict=True)
            ]
        )
        for score in batch.scores
    ]


def _mean_gradient(score: ClassScore, cell: Maps, index: int) -> Maps:
    # The library's own `smooth_samples` draws from NumPy's global generator, so that a map would depend on
    # what ran before, and takes one copy at a time; a batch of copies is the same formula and faster.
    sigma = SMOOTH_NOISE * (cell.max() - cell.min())
    noise = np.random.default_rng(0).normal(0.0, sigma, (SMOOTH_SAMPLES, *cell.shape)).astype(np.float32)
    gradients = score.gradients(tf.constant(cell + noise), tf.fill([SMOOTH_SAMPLES], int(index)))
    mean = gradients.numpy().mean(axis=0).max(axis=-1)
    # A few pixels have far higher gradients than all others; the paper caps them (section 3.1).
    return np.minimum(mean, np.quantile(mean, 0.99))


def _joint(by_branch: list[Maps], side: int) -> Maps:
    """The finished maps [n, side, side] of cells with one raw map for each branch."""
    finished = [np.stack([_finished(cell, side) for cell in raw]) for raw in by_branch]
    if len(finished) == 1:
        return finished[0]
    return np.stack([_finished(cell, side) for cell in np.mean(finished, axis=0)])


def _finished(raw: Maps, side: int) -> Maps:
    """One map [h, w] resized to [side, side], pixel centres kept in place, and stretched to 0..1."""
    image = Image.fromarray(np.asarray(raw, dtype=np.float32))
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    heat = np.asarray(image)
    low, high = heat.min(), heat.max()
    # A map that is even up to rounding has nothing to show.
    if not np.isfinite(high - low) or high - low <= 1e-5 * max(abs(low), abs(high)):
        return np.zeros_like(heat)
    return (heat - low) / (high - low)


_AS_IT_IS = {
    "seek_penultimate_conv_layer": False,
    # The library stretches maps corner to corner, which moves hot spots outwards; `_finished` does not.
    "expand_cam": False,
    "normalize_cam": False,
}
_RAW: dict[str, Callable[[_Batch], list[Maps]]] = {
    "gradcam": _gradcam,
    "gradcam_plus_plus": _gradcam_plus_plus,
    "scorecam": _scorecam,
    "smoothgrad": _smoothgrad,
}
