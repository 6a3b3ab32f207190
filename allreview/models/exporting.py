"""A trained model as a file for other programs: ONNX, TensorFlow SavedModel, or Keras.

Every export takes RGB pixels in 0..255, float32 [n, size, size, 3], and prepares them itself, so that nobody can
feed it wrongly; it gives float32 [n, classes]. What it gives is compared with the model it came from before it
gets its name: an export that differs is not kept.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from allreview.errors import UserError
from allreview.models.grafting import graft, prepared, raw_pixels
from allreview.models.saving import TrainedModel

Format = Literal["onnx", "savedmodel", "keras"]
FORMATS: tuple[Format, ...] = get_args(Format)
TOLERANCE = 1e-4
"""How far a probability of an export may be from the model's own."""
DESCRIPTION = "allreview"
"""What an ONNX file's metadata calls the description, and a SavedModel's folder its file (with .json)."""
OPSET = 17
"""The ONNX operators used: those of ONNX 1.12 (2022), which every runtime of today knows."""
INPUT, OUTPUT = "pixels", "probabilities"

Predict = Callable[[np.ndarray], np.ndarray]


def export_model(
    trained: TrainedModel, target: Path, format: Format, description: dict[str, Any], pixels: np.ndarray
) -> float:
    """Write the model to `target` in the format, and return the largest difference to the model itself.

    `pixels` uint8 [n, size, size, 3] are the images to compare on. `description`, plain values, is put into ONNX
    metadata and SavedModel folder, and beside the file as `<stem>.json`, with what goes in and what comes out.

    Raises:
        UserError: something is there already, it cannot be written, or the outputs differ by more than 1e-4.
    """
    beside = target / f"{DESCRIPTION}.json" if format == "savedmodel" else target.with_suffix(".json")
    for path in (target, beside):
        if path.exists():
            raise UserError(f"There is something at {path} already: remove it, or name another place.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as folder:
            made = Path(folder) / target.name
            description = {**_interface(trained), **description}
            difference = _written(trained, made, format, description, pixels)
            text = json.dumps({**description, "largest_difference": difference}, indent=2, ensure_ascii=False)
            (made / beside.name if format == "savedmodel" else beside).write_text(text, encoding="utf-8")
            made.replace(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}.") from None
    return difference


def _written(
    trained: TrainedModel, made: Path, format: Format, description: dict[str, Any], pixels: np.ndarray
) -> float:
    write, reader = _WRITERS[format]
    write(raw_model(trained), made, description)
    with _full_precision():
        found = reader(made)(pixels.astype(np.float32))
        difference = float(np.abs(found - trained.probabilities(pixels)).max())
    if not difference <= TOLERANCE:
        raise UserError(
            f"The exported model's probabilities differ from the run's own by up to {difference:.2g}, more than "
            f"{TOLERANCE:g}, so it was not kept: export it in another format."
        )
    return difference


@contextmanager
def _full_precision() -> Iterator[None]:
    """Multiply 32-bit numbers as such: newer GPUs round them to 19 bits first, which differs by more than 1e-4."""
    rounding = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(rounding)


def raw_model(trained: TrainedModel) -> keras.Model:
    """The model on raw pixels, with its own preparation inside; a model of several branches is that already."""
    if trained.recipe.partner is not None:
        return trained.model
    pixels = raw_pixels(trained.recipe.image_size)
    name = trained.recipe.backbone
    return keras.Model(pixels, graft(trained.model, prepared(pixels, name), prefix=name), name=name)


def _interface(trained: TrainedModel) -> dict[str, Any]:
    size = trained.recipe.image_size
    crop = trained.recipe.crop
    kept = f"the centre square of {crop} pixels, " if crop else ""
    colours = (
        "colours normalized as by allreview.cells.staining, " if trained.recipe.preparation.normalized else ""
    )
    return {
        "input": {
            "name": INPUT,
            "type": "float32",
            "shape": ["cells", size, size, 3],
            "content": f"RGB in 0..255: {kept}{colours}resized to {size} x {size} pixels; nothing else is to be done",
        },
        "output": {"name": OUTPUT, "type": "float32", "shape": ["cells", len(trained.classes)]},
        "classes": trained.classes,
        "recipe": trained.recipe.model_dump(),
        "temperature": trained.temperature,
    }


def _signature(model: keras.Model) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(model.input_shape, tf.float32, name=INPUT)]


def _write_onnx(model: keras.Model, path: Path, description: dict[str, Any]) -> None:
    """By tf2onnx, on the graph with its weights as constants.

    `tf2onnx.convert` first sends the graph through TensorFlow's optimiser (Grappler), which refuses it from
    TensorFlow 2.21 on ("Failed to import metagraph"). The steps after it are called here one by one: tf2onnx's
    own optimiser then folds the constants all the same.
    """
    import tf2onnx.optimizer
    import tf2onnx.tfonnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function: Any = tf.function(
        lambda pixels: model(pixels, training=False), input_signature=_signature(model)
    )
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    (given,), (wanted,) = frozen.inputs, frozen.outputs
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.graph.as_graph_def(), name="")
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph,
            input_names=[given.name],
            output_names=[wanted.name],
            tensors_to_rename={given.name: INPUT, wanted.name: OUTPUT},
            opset=OPSET,
        )
        proto = tf2onnx.optimizer.optimize_graph(converted).make_model("allreview")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "cells"
    entry = proto.metadata_props.add()
    entry.key, entry.value = DESCRIPTION, json.dumps(description)
    path.write_bytes(proto.SerializeToString())


def _read_onnx(path: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run([OUTPUT], {INPUT: pixels})[0])


def _write_saved_model(model: keras.Model, path: Path, description: dict[str, Any]) -> None:
    archive: Any = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        lambda pixels: {OUTPUT: model(pixels, training=False)},
        input_signature=_signature(model),
    )
    archive.write_out(str(path), verbose=False)


def _read_saved_model(path: Path) -> Predict:
    loaded: Any = tf.saved_model.load(str(path))
    return lambda pixels: loaded.serve(tf.constant(pixels))[OUTPUT].numpy()


def _write_keras(model: keras.Model, path: Path, description: dict[str, Any]) -> None:
    model.save(path)


def _read_keras(path: Path) -> Predict:
    loaded: Any = keras.saving.load_model(path, compile=False)
    return lambda pixels: np.asarray(loaded(pixels, training=False))


_WRITERS: dict[str, tuple[Callable[[keras.Model, Path, dict[str, Any]], None], Callable[[Path], Predict]]] = {
    "onnx": (_write_onnx, _read_onnx),
    "savedmodel": (_write_saved_model, _read_saved_model),
    "keras": (_write_keras, _read_keras),
}
