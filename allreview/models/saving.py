"""A model with its class names and its preprocessing, saved and loaded as one thing.

`model.keras` holds the graph and the weights; `model.json` says what its outputs mean, how to prepare a
cell for it, and the hash of the `model.keras` it belongs to.
"""

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import allreview
from allreview.artefacts import obtain
from allreview.cells.decoding import cell_pixels
from allreview.errors import UserError
from allreview.models.building import features_network, preprocess_of, preprocessing_of
from allreview.models.pretrained import file_hash
from allreview.models.symmetries import of_one_way, ways_of
from allreview.recipe import Recipe, make_recipe
from allreview.settings import Settings

MODEL_FILE = "model.keras"
DESCRIPTION_FILE = "model.json"
MODEL_FILES = (MODEL_FILE, DESCRIPTION_FILE)
DESCRIPTION_FORMAT = 1


@dataclass(frozen=True)
class TrainedModel:
    """A network that knows its class names and how its cells are prepared.

    `classes[i]` names output i. `model` takes what `inputs` returns. `temperature` is what its logits, or
    the logarithm of its mean over symmetries, were divided by already.
    """

    model: keras.Model
    recipe: Recipe
    classes: list[str]
    temperature: float = 1.0

    def prepare(self, images: Sequence[Image.Image]) -> np.ndarray:
        """RGB images of any size as pixels, uint8 [n, size, size, 3], cropped and resized by the recipe."""
        size = self.recipe.image_size
        pixels = np.empty((len(images), size, size, 3), dtype=np.uint8)
        for row, image in zip(pixels, images, strict=True):
            row[:] = cell_pixels(image, self.recipe.preparation)
        return pixels

    def inputs(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels in 0..255 [n, size, size, 3] as the network takes them, float32 of the same shape."""
        return preprocess_of(self.recipe)(pixels)

    def probabilities(self, pixels: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """The probability of each class, float32 [n, classes], for pixels uint8 [n, size, size, 3]."""
        found = np.empty((len(pixels), len(self.classes)), dtype=np.float32)
        together = max(1, batch_size // ways_of(self.model))
        for start in range(0, len(pixels), together):
            batch = slice(start, start + together)
            found[batch] = self._forward(tf.constant(self.inputs(pixels[batch]))).numpy()
        return found

    @cached_property
    def of_one_way(self) -> keras.Model:
        """What the network says of a cell as it lies, where its answer is a mean over symmetries."""
        return of_one_way(self.model)

    @cached_property
    def _forward(self) -> Any:
        """The network traced once, for batches of any length."""
        size = self.recipe.image_size
        signature = [tf.TensorSpec((None, size, size, 3), tf.float32)]
        return tf.function(lambda batch: self.model(batch, training=False), input_signature=signature)


def save_model(
    folder: Path,
    model: keras.Model,
    *,
    recipe: Recipe,
    classes: Sequence[str],
    weights_hash: str | None,
    temperature: float = 1.0,
) -> str:
    """Write `model.keras` and `model.json`, and return the SHA-256 of `model.keras`.

    Each file is written beside its place and renamed; the description comes last and names the hash, so a
    pair that was cut short is refused on loading. `classes` are in the order of the outputs; `weights_hash`
    is that of the pretrained files (`pretrained.files_hash`), or None from scratch; `temperature` what the model
    given was tempered by (`building.temper`).
    """
    if model.output_shape[-1] != len(classes):
        raise ValueError(
            f"the model has {model.output_shape[-1]} outputs, but {len(classes)} classes are named"
        )
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{uuid.uuid4().hex}.keras"
    try:
        model.save(temporary)
        digest = file_hash(temporary)
        put_in_place(temporary, folder / MODEL_FILE)
        description = {
            "format": DESCRIPTION_FORMAT,
            "classes": list(classes),
            "recipe": recipe.model_dump(),
            "preprocessing": preprocessing_of(recipe),
            "image_size": recipe.image_size,
            "crop": recipe.crop,
            "colours": recipe.colours,
            "weights_sha256": weights_hash,
            "temperature": temperature,
            "model_sha256": digest,
            "versions": {
                "allreview": allreview.__version__,
                "keras": keras.__version__,
                "tensorflow": tf.__version__,
            },
        }
        temporary.write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
        put_in_place(temporary, folder / DESCRIPTION_FILE)
    finally:
        temporary.unlink(missing_ok=True)
    return digest


def load_model(folder: Path) -> TrainedModel:
    """Read back what `save_model` wrote.

    Raises:
        UserError: the model is missing, damaged or incomplete, or was made by an incompatible allreview.
    """
    path, description = folder / MODEL_FILE, _description(folder)
    if not path.is_file():
        raise UserError(f"There is no trained model at {path}: train again.")
    if file_hash(path) != description["model_sha256"]:
        raise UserError(f"{path} was damaged or changed since it was saved: restore it, or train again.")
    try:
        recipe = make_recipe(description["recipe"])
        classes = [str(name) for name in description["classes"]]
        temperature = float(description.get("temperature", 1.0))
        model: Any = keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise UserError(f"{path} cannot be loaded by this version of allreview: train again.") from error
    if description["preprocessing"] != preprocessing_of(recipe):
        raise UserError(f"{path} was trained on cells prepared in another way than now: train again.")
    if model.output_shape[-1] != len(classes):
        raise UserError(f"{path} does not fit the class names beside it: restore both files, or train again.")
    return TrainedModel(model, recipe, classes, temperature)


def load_model_of(settings: Settings, run_id: int) -> TrainedModel:
    """The model of a run, which another machine may have trained.

    Raises:
        UserError: as `load_model`, or artefacts cannot be read.
    """
    obtain(settings, run_id, MODEL_FILES)
    return load_model(settings.run_folder(run_id))


def model_file(settings: Settings, run_id: int) -> Path:
    """Where the model of a run lies, which another machine may have trained.

    Raises:
        UserError: it has none any more, or artefacts cannot be read.
    """
    obtain(settings, run_id, MODEL_FILES)
    path = settings.run_folder(run_id) / MODEL_FILE
    if not path.is_file():
        raise UserError(f"The model of run {run_id} is not at {path} any more: restore it, or train again.")
    return path


def trained_backbone(path: Path) -> keras.Model:
    """The network of a saved model up to its head, frozen: prepared images [n, size, size, 3] to features [n, d].

    Raises:
        UserError: the file cannot be read.
    """
    try:
        model: Any = keras.saving.load_model(path, compile=False)
    except Exception as error:
        raise UserError(f"{path} cannot be loaded by this version of allreview: train again.") from error
    network = features_network(of_one_way(model))
    network.trainable = False
    return network


def put_in_place(temporary: Path, target: Path) -> None:
    """Rename a finished file to its name, once its content is on the disk."""
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(target)


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION_FILE
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no trained model in {folder}: train first.") from None
    except (OSError, ValueError):
        description = None
    wanted = {"classes", "recipe", "preprocessing", "model_sha256"}
    if not isinstance(description, dict) or not wanted <= description.keys():
        raise UserError(f"{path} is damaged: restore it, or train again.")
    return description
