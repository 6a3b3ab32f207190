"""A model cut at its last feature maps: up to there it only runs forward, and once for all saliency methods.

Class activation maps need gradients from a class score back to the last feature maps, never further. So a model is
run as one traced function up to these maps, and tf-keras-vis is given the short rest of it. The layers are the
model's own, so nothing of a backbone is copied and its weights of the moment count. Imports Keras, so only the
worker may.
"""

from functools import partial
from typing import Any

import keras
import tensorflow as tf
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam

from allreview.errors import UserError
from allreview.models.pooling import CellShare


class ClassScore:
    """One row of class scores before softmax, and what tf-keras-vis needs to explain it.

    `ends` are the layers that give the last feature maps it is made of. `gradcam` and `gradcam_plus_plus` take what the
    cut model gives at `places`: these maps, and after them how much of each place is cell, where the pooling asks.
    `scorecam` and `gradients` take what the model takes.
    """

    def __init__(
        self, model: keras.Model, output: Any, ends: list[keras.Layer], given: list[keras.Layer]
    ) -> None:
        own = set(keras.Model(model.inputs, output).layers)
        self.ends = ends
        taken = [*ends, *(layer for layer in given if isinstance(layer, CellShare) and layer in own)]
        self.places = [given.index(layer) for layer in taken]
        self.channels = [_shape(end)[-1] for end in ends]
        self._last = output._keras_history.operation
        self._twin, scores = _without_softmax(self._last)
        rest = _rest(taken, scores)
        self.maps_layers = [tensor._keras_history.operation for tensor in rest.inputs[: len(ends)]]
        self.gradcam = Gradcam(rest)
        self.gradcam_plus_plus = GradcamPlusPlus(rest)
        whole = keras.Model(model.inputs, [scores])
        self.scorecam = Scorecam(_predicting_by_trace(whole))
        self.gradients = _traced_gradients(whole)

    def follow(self) -> None:
        """Take over the weights of the model's last layer; all other layers are the model's own."""
        self._twin.set_weights(self._last.get_weights())


class CutModel:
    """A model's last feature maps, and the class scores made of them.

    There is one score where the branches of an ensemble are joined, and one for each member where their
    probabilities are averaged.

    Raises:
        UserError: a model of another kind than saliency can look into.
    """

    def __init__(self, model: keras.Model) -> None:
        _check_kind(model)
        parts = _scores_and_ends(model)
        ends = list(dict.fromkeys(end for _, ends in parts for end in ends))
        given = [*ends, *(layer for layer in model.layers if isinstance(layer, CellShare))]
        self.scores = [ClassScore(model, output, own, given) for output, own in parts]
        body = keras.Model(model.inputs, [layer.output for layer in given])
        self.feature_maps = _traced(body)
        """What the model takes, float32 [n, s, s, 3], to the last feature maps of each branch [n, h, w, channels] and
        how much of their places is cell [n, h, w]."""


def _check_kind(model: keras.Model) -> None:
    is_functional = isinstance(model, type(_tiny_functional()))
    if not is_functional or any(isinstance(layer, keras.Model) for layer in model.layers):
        raise UserError(
            "Saliency needs a flat functional model, without models inside models: build the head on the"
            " backbone's output instead of stacking the two."
        )
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise UserError("Saliency needs a model with one image input and one row of class scores as output.")


def _tiny_functional() -> keras.Model:
    only = keras.Input((1,))
    return keras.Model(only, only)


def _scores_and_ends(model: keras.Model) -> list[tuple[Any, list[keras.Layer]]]:
    """Each row of class scores, with the layers that give its last feature maps: one for every branch."""
    output: Any = model.outputs[0]
    branches = _branch_outputs(output)
    if branches and isinstance(output._keras_history.operation, keras.layers.Average):
        return [(branch, [_last_feature_maps(model, branch)]) for branch in branches]
    ends = [_last_feature_maps(model, branch) for branch in _leaves(branches) or [output]]
    return [(output, list(dict.fromkeys(ends)))]


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


def _leaves(branches: list[Any]) -> list[Any]:
    """Branches that themselves are made of several, by these."""
    return [leaf for branch in branches for leaf in _leaves(_branch_outputs(branch)) or [branch]]


def _last_feature_maps(model: keras.Model, output: Any) -> keras.Layer:
    """The last layer before the output that still has rows and columns: what the global pooling pools."""
    for layer in reversed(keras.Model(model.inputs, output).layers):
        shape = _shape(layer)
        if len(shape) == 4 and shape[1] != 1 and not isinstance(layer, keras.layers.InputLayer):
            return layer
    raise UserError(
        "Saliency needs a convolutional model: this one has no feature maps with rows and columns."
    )


def _shape(layer: keras.Layer) -> tuple[int, ...]:
    """The shape of the layer's output, batch first; empty where it has several outputs."""
    return getattr(getattr(layer, "output", None), "shape", ())


def _rest(taken: list[keras.Layer], scores: Any) -> keras.Model:
    given: list[Any] = [layer.output for layer in taken]
    try:
        return keras.Model(given, [scores])
    except ValueError as error:
        raise UserError(
            "Saliency needs class scores that are made of the model's last feature maps alone: this model also"
            " has a way around them."
        ) from error


def _without_softmax(last: Any) -> tuple[keras.Layer, Any]:
    """A copy of the last layer that leaves the scores as they are, and the scores it gives."""
    if not hasattr(last, "activation"):
        raise UserError(
            f"Saliency cannot look behind the model's last layer {last.name!r}: end the model with a"
            " Dense layer that has the softmax as its activation."
        )
    twin = type(last).from_config({**last.get_config(), "activation": "linear"})
    return twin, twin(last.input)


def _traced(model: keras.Model) -> Any:
    """The model as one function, traced once for batches of any length; gives the list of its outputs."""
    signature = [tf.TensorSpec(model.inputs[0].shape, tf.float32)]
    return tf.function(
        lambda batch: tf.nest.flatten(model([batch], training=False)), input_signature=signature
    )


def _predicting_by_trace(model: keras.Model) -> keras.Model:
    """The model with a `predict` that is traced once: Keras's own takes longer to begin than a batch takes."""
    forward = _traced(model)

    def predict(inputs: list[Any], batch_size: int) -> Any:
        (images,) = inputs
        parts = [
            forward(tf.constant(images[start : start + batch_size], tf.float32))[0]
            for start in range(0, len(images), batch_size)
        ]
        return tf.concat(parts, axis=0).numpy()

    patched: Any = model
    patched.predict = predict
    return model


def _traced_gradients(model: keras.Model) -> Any:
    """From images [n, s, s, 3] and n class positions to how much each pixel's value changes the class score."""
    saliency = Saliency(model)
    signature = [tf.TensorSpec(model.inputs[0].shape, tf.float32), tf.TensorSpec((None,), tf.int32)]

    def gradients(images: Any, indices: Any) -> Any:
        return saliency(of_classes(indices), images, keepdims=True, normalize_map=False)

    return tf.function(gradients, input_signature=signature)


def of_classes(indices: Any) -> Any:
    """What picks one class score for each cell: a score of tf-keras-vis that can be traced."""
    return partial(tf.gather, indices=tf.convert_to_tensor(indices), batch_dims=1)
