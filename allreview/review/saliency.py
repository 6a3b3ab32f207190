"""Heat maps: which pixels speak for a class, by tf-keras-vis. Imports Keras, so only the worker may.

Each method looks at the class score before softmax (softmax gradients vanish where the model is sure) and
gives every cell a map that depends on that cell alone, not on the cells it was computed together with:

- Grad-CAM (Selvaraju et al., ICCV 2017) and Grad-CAM++ (Chattopadhay et al., WACV 2018), in batches.
- Score-CAM (Wang et al., CVPR Workshops 2020) on the channels that vary most, as Faster Score-CAM does.
- SmoothGrad (Smilkov et al., 2017), the mean absolute gradient over noisy copies, always the same noise.

An ensemble has several branches, each with its own last feature maps: its map is the mean of the branches' maps,
each stretched to 0..1 first. Where the branches' features are joined, they share the class score; where their
probabilities are averaged, each branch is explained by its own score.
"""

import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

from allreview.errors import UserError
from allreview.review.overlays import METHODS

BATCH = 16
SCORECAM_CHANNELS = 32
"""Score-CAM masks the input once for each of this many channels, those that vary most: all 1,280 of a
MobileNetV2 take 30 times as long for a similar map (r = 0.94 and 0.98 on two real cells)."""
SMOOTH_SAMPLES = 20
SMOOTH_NOISE = 0.2
"""Standard deviation of SmoothGrad's noise, as a share of the input's range (the paper's 10 to 20 %)."""

Maps = NDArray[np.float32]


class _Explainers:
    """What tf-keras-vis needs for one branch: a linear model, the branch's last feature maps, one object a
    method."""

    def __init__(self, linear: keras.Model, features: keras.Layer) -> None:
        self.linear = linear
        self.features = features
        self.gradcam = Gradcam(linear)
        self.gradcam_plus_plus = GradcamPlusPlus(linear)
        self.scorecam = Scorecam(linear)
        self.saliency = Saliency(linear)


class _Explained:
    """A copy of a model, and what explains each of its branches."""

    def __init__(self, model: keras.Model) -> None:
        self.copy = _copy(model)
        self.branches = _branches(self.copy)

    def explainers(self, method: str) -> list[_Explainers]:
        """One for each map that the method makes. Gradients by pixel need no feature maps, so there is one for
        each class score."""
        if method != "smoothgrad":
            return self.branches
        return list({id(branch.linear): branch for branch in self.branches}.values())


_explained: WeakKeyDictionary[keras.Model, _Explained] = WeakKeyDictionary()
_lock = threading.Lock()


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
    if method not in METHODS:
        raise UserError(f"There is no saliency method {method!r}: choose one of {', '.join(METHODS)}.")
    inputs = np.asarray(inputs, dtype=np.float32)
    indices = [int(index) for index in class_indices]
    with _lock, warnings.catch_warnings():
        # tf-keras-vis wraps the input in a list, and Keras remarks on it at every call.
        warnings.filterwarnings("ignore", message="The structure of `inputs`")
        explained = _explained_by(model)
        _check_fit(explained.copy, inputs, indices)
        if not indices:
            return inputs[..., 0].copy()
        side = inputs.shape[1]
        by_branch = [
            np.stack([_finished(cell, side) for cell in _RAW[method](explainers, inputs, indices)])
            for explainers in explained.explainers(method)
        ]
    if len(by_branch) == 1:
        return by_branch[0]
    return np.stack([_finished(cell, side) for cell in np.mean(by_branch, axis=0)])


def _explained_by(model: keras.Model) -> _Explained:
    if model not in _explained:
        _explained[model] = _Explained(model)
    explained = _explained[model]
    # The model may have been trained on since its copy was made.
    explained.copy.set_weights(model.get_weights())
    return explained


def _copy(model: keras.Model) -> keras.Model:
    is_functional = isinstance(model, type(_tiny_functional()))
    if not is_functional or any(isinstance(layer, keras.Model) for layer in model.layers):
        raise UserError(
            "Saliency needs a flat functional model, without models inside models: build the head on the"
            " backbone's output instead of stacking the two."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise UserError("Saliency needs a model with one image input and one row of class scores as output.")
    return keras.models.clone_model(model)


def _branches(model: keras.Model) -> list[_Explainers]:
    """What explains each branch: on the model's class score, or on its own where probabilities are averaged."""
    output: Any = model.outputs[0]
    branches = _branch_outputs(output)
    if branches and isinstance(output._keras_history.operation, keras.layers.Average):
        explained = [keras.Model(model.inputs, branch) for branch in branches]
        return [_Explainers(_linear(member), _last_feature_maps(member)) for member in explained]
    linear = _linear(model)
    ends = branches or [output]
    return [_Explainers(linear, _last_feature_maps(keras.Model(model.inputs, end))) for end in ends]


def _branch_outputs(output: Any) -> list[Any]:
    """The rows of numbers that several branches give where they first meet, seen from the output; else none."""
    operation = output._keras_history.operation
    while True:
        given = operation.input if not isinstance(operation, keras.layers.InputLayer) else None
        if isinstance(given, list):
            return given if all(len(tensor.shape) == 2 for tensor in given) else []
        if given is None or len(given.shape) != 2:
            return []
        operation = given._keras_history.operation


def _linear(model: keras.Model) -> keras.Model:
    """The model with its softmax taken off, on the layers it has."""
    output_layer = model.get_layer(model.output_names[0])
    if not hasattr(output_layer, "activation"):
        raise UserError(
            f"Saliency cannot look behind the model's last layer {output_layer.name!r}: end the model with a"
            " Dense layer that has the softmax as its activation."
        )
    ReplaceToLinear()(model)
    cast: Any = model
    cast.predict = partial(model.predict, verbose=0)  # pyright: ignore[reportArgumentType]
    return model


def _tiny_functional() -> keras.Model:
    only = keras.Input((1,))
    return keras.Model(only, only)


def _last_feature_maps(model: keras.Model) -> keras.Layer:
    """The last layer whose output still has rows and columns: what the global pooling pools."""
    for layer in reversed(model.layers):
        shape = getattr(getattr(layer, "output", None), "shape", ())
        if len(shape) == 4 and shape[1] != 1 and not isinstance(layer, keras.layers.InputLayer):
            return layer
    raise UserError(
        "Saliency needs a convolutional model: this one has no feature maps with rows and columns."
    )


def _check_fit(model: keras.Model, inputs: Maps, indices: list[int]) -> None:
    classes = model.output_shape[-1]
    if inputs.ndim != 4 or inputs.shape[1] != inputs.shape[2] or len(inputs) != len(indices):
        raise UserError(
            f"Saliency needs square images as [n, s, s, 3] and one class for each: got {list(inputs.shape)}"
            f" and {len(indices)} classes."
        )
    if any(not 0 <= index < classes for index in indices):
        raise UserError(f"Saliency was asked for a class the model does not have: it has {classes}.")


class _ShiftedScore(CategoricalScore):
    """The class score, moved to 0. Grad-CAM++ takes its exponential, which otherwise overflows; the factor
    cancels out in the finished map, so nothing else changes."""

    def __call__(self, output: Any) -> Any:
        score = super().__call__(output)
        return score - tf.stop_gradient(score)


def _gradient_maps(name: str, score: type[CategoricalScore]) -> "_RawMaps":
    def maps(explainers: _Explainers, inputs: Maps, indices: list[int]) -> list[Maps]:
        found: list[Maps] = []
        for start in range(0, len(inputs), BATCH):
            part = slice(start, start + BATCH)
            found += list(np.asarray(_cam(explainers, name, score(indices[part]), inputs[part])))
        return found

    return maps


def _scorecam_maps(explainers: _Explainers, inputs: Maps, indices: list[int]) -> list[Maps]:
    # Cell by cell: in a batch the library scores every cell on the union of all cells' channels.
    output: Any = explainers.features.output
    channels = min(SCORECAM_CHANNELS, output.shape[-1])
    return [
        np.asarray(_cam(explainers, "scorecam", CategoricalScore(index), cell[None], max_N=channels))[0]
        for cell, index in zip(inputs, indices, strict=True)
    ]


def _cam(explainers: _Explainers, name: str, score: CategoricalScore, inputs: Maps, **options: Any) -> Any:
    return getattr(explainers, name)(
        score,
        inputs,
        penultimate_layer=explainers.features,
        seek_penultimate_conv_layer=False,
        # The library stretches maps corner to corner, which moves hot spots outwards; `_finished` does not.
        expand_cam=False,
        normalize_cam=False,
        **options,
    )


def _smoothgrad_maps(explainers: _Explainers, inputs: Maps, indices: list[int]) -> list[Maps]:
    # The library's own `smooth_samples` draws from NumPy's global generator, so that a map would depend on
    # what ran before, and takes one copy at a time; a batch of copies is the same formula and faster.
    return [
        _smoothgrad(explainers.saliency, cell, index) for cell, index in zip(inputs, indices, strict=True)
    ]


def _smoothgrad(saliency: Saliency, cell: Maps, index: int) -> Maps:
    sigma = SMOOTH_NOISE * (cell.max() - cell.min())
    noise = np.random.default_rng(0).normal(0.0, sigma, (SMOOTH_SAMPLES, *cell.shape)).astype(np.float32)
    gradients: Any = saliency(
        CategoricalScore([index] * SMOOTH_SAMPLES), cell + noise, keepdims=True, normalize_map=False
    )
    mean = np.asarray(gradients).mean(axis=0).max(axis=-1)
    # A few pixels have far higher gradients than all others; the paper caps them (section 3.1).
    return np.minimum(mean, np.quantile(mean, 0.99))


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


_RawMaps = Callable[[_Explainers, Maps, list[int]], list[Maps]]
_RAW: dict[str, _RawMaps] = {
    "gradcam": _gradient_maps("gradcam", CategoricalScore),
    "gradcam_plus_plus": _gradient_maps("gradcam_plus_plus", _ShiftedScore),
    "scorecam": _scorecam_maps,
    "smoothgrad": _smoothgrad_maps,
}
