"""Cached features of frozen backbones.

A frozen backbone says the same of the same image every time, so each image passes through it once in each view
of it. Under `features/<key>/` lie the pooled vectors of one key: backbone, weights, image size, crop,
preprocessing, view and precision (`key.json` says which). The folder is append-only: a chunk is `<id>.npy`, the
vectors, and `<id>.sha256.npy`, the cells' hashes, written last as its commit mark. So a killed worker leaves at
most an unmarked file that nobody reads, and two workers on one folder at worst compute a cell twice.

An ensemble's features are those of its backbones side by side, each from its own cache, which single runs share.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from allreview.cells.decoding import cell_pixels, decode_rgb, read_bytes
from allreview.errors import UserError
from allreview.models.backbones import backbone_named
from allreview.models.building import build_backbone
from allreview.models.pretrained import file_hash
from allreview.models.saving import put_in_place
from allreview.recipe import BackboneName, Recipe
from allreview.settings import Settings
from allreview.training.augmentation import SETTINGS, VERSION, augmented

BATCH = 32
"""Images per forward pass. Fixed and padded, so that an image's features do not depend on its neighbours."""
CHUNK = 96
"""Images per committed chunk: what a kill loses at most."""
FORMAT = 1
"""Raise it when decoding or resizing changes, so that older features are not mixed with new ones."""

Progress = Callable[[int, int, float], None]
Check = Callable[[], None]


@dataclass(frozen=True)
class CellImage:
    """One cell to read: the SHA-256 of its file, and where a file with that content lies."""

    sha256: str
    path: Path


def read_cell(cell: CellImage, recipe: Recipe, max_pixels: int) -> np.ndarray:
    """The cell as the recipe's network sees it, uint8 [size, size, 3].

    Raises:
        UserError: the file is gone, unreadable, or no longer the one that was imported; names the file.
    """
    try:
        data = read_bytes(cell.path)
        if hashlib.sha256(data).hexdigest() != cell.sha256:
            raise UserError("it has changed since it was imported; restore it or import it again")
        return cell_pixels(decode_rgb(data, max_pixels), recipe.image_size, recipe.crop)
    except UserError as error:
        raise UserError(f"{str(cell.path)!r} cannot be used: {error}.") from None


@dataclass(frozen=True)
class View:
    """One way to show a cell to a frozen backbone: as it is, mirrored, or in a version drawn at random.

    Of the drawn versions there are many, told apart by `number`. Each follows from the cell's content, the
    recipe's augmentation and seed, and the number: of more views the first are those there were before.
    """

    kind: Literal["original", "flipped", "drawn"]
    number: int = 0

    def of(self, pixels: np.ndarray, cell: CellImage, recipe: Recipe) -> np.ndarray:
        """The cell's pixels uint8 [size, size, 3] in this view."""
        if self.kind == "drawn":
            content = [int(cell.sha256[start : start + 8], 16) for start in range(0, 64, 8)]
            return augmented(pixels, recipe, np.random.default_rng([recipe.seed, self.number, *content]))
        return pixels[:, ::-1] if self.kind == "flipped" else pixels

    def key(self, recipe: Recipe) -> Any:
        """What the features in this view depend on besides the cell."""
        if self.kind != "drawn":
            return self.kind
        settings = {name: getattr(recipe, name) for name in SETTINGS}
        return {"drawn": self.number, "seed": recipe.seed, "version": VERSION, **settings}


ORIGINAL, FLIPPED = View("original"), View("flipped")


def training_views(recipe: Recipe) -> list[View]:
    """The views a head is trained on: the cell itself and, when the recipe only mirrors, the mirrored cell; with
    any other augmentation `recipe.views` drawn versions."""
    if recipe.augments_pixels:
        return [View("drawn", number) for number in range(recipe.views)]
    return [ORIGINAL, FLIPPED] if recipe.flip else [ORIGINAL]


def cached_features(
    images: Sequence[CellImage],
    recipe: Recipe,
    weights: Mapping[BackboneName, Path],
    settings: Settings,
    *,
    view: View = ORIGINAL,
    progress: Progress,
    check: Check,
) -> np.ndarray:
    """The pooled features of the cells, float32 [n, features], in the order given; computes what is missing.

    Those of several backbones stand side by side, in the order of `recipe.backbones`; `weights` has the file of
    each. `progress(done, total, rate)` counts distinct cells, once for each backbone, those found in the cache
    included; `rate` is in images a second, of the computed ones (0 while there are none). `check()` is called
    before every batch and may raise to stop: what is committed by then stays.

    Raises:
        UserError: a file cannot be read or has changed, or the weights do not fit the backbone.
    """
    names = recipe.backbones
    distinct = len({image.sha256 for image in images})
    found = []
    for place, name in enumerate(names):

        def in_all(done: int, total: int, rate: float, place: int = place) -> None:
            progress(place * distinct + done, len(names) * total, rate)

        backbone = frozen_backbone(name, recipe.image_size, weights[name])
        found.append(_of_one(images, recipe, backbone, settings, view=view, progress=in_all, check=check))
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def _of_one(
    images: Sequence[CellImage],
    recipe: Recipe,
    backbone: "FrozenBackbone",
    settings: Settings,
    *,
    view: View,
    progress: Progress,
    check: Check,
) -> np.ndarray:
    folder = _open_folder(recipe, backbone, settings, view)
    found = _load_chunks(folder, backbone.n_features, {image.sha256 for image in images})
    distinct = {image.sha256: image for image in images}
    missing = [image for sha256, image in distinct.items() if sha256 not in found]
    started, total = time.perf_counter(), len(distinct)
    progress(len(found), total, 0.0)
    chunk: dict[str, np.ndarray] = {}
    computed = 0
    try:
        for batch, pixels in decoded(missing, recipe, settings.max_pixels, view):
            check()
            chunk |= {image.sha256: vector for image, vector in zip(batch, backbone(pixels), strict=True)}
            computed += len(batch)
            if len(chunk) >= CHUNK:
                _commit(folder, chunk)
                found |= chunk
                chunk = {}
            rate = computed / (time.perf_counter() - started)
            progress(total - len(missing) + computed, total, rate)
    finally:
        _commit(folder, chunk)
    found |= chunk
    if not images:
        return np.empty((0, backbone.n_features), dtype=np.float32)
    return np.stack([found[image.sha256] for image in images])


class FrozenBackbone:
    """A backbone with its weights, traced once. `model` is what `allreview.models.building.join` takes."""

    def __init__(self, name: BackboneName, image_size: int, weights: Path, weights_hash: str) -> None:
        self.name: BackboneName = name
        self.weights_hash = weights_hash
        self.model = build_backbone(name, image_size, weights)
        self.n_features = int(self.model.output_shape[-1])
        self._preprocess = backbone_named(name).preprocess
        signature = [tf.TensorSpec((BATCH, image_size, image_size, 3), tf.float32)]
        self._forward: Any = tf.function(
            lambda batch: self.model(batch, training=False), input_signature=signature
        )

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Features float32 [n, features] of pixels uint8 [n, size, size, 3], n at most `BATCH`."""
        padded = np.zeros((BATCH, *pixels.shape[1:]), dtype=np.float32)
        padded[: len(pixels)] = self._preprocess(pixels)
        return self._forward(tf.constant(padded)).numpy()[: len(pixels)]


def frozen_backbone(name: BackboneName, image_size: int, weights: Path) -> FrozenBackbone:
    """A frozen backbone. The last two are kept in memory, known by their weights' content."""
    return _build_backbone(name, image_size, weights, file_hash(weights))


@lru_cache(maxsize=2)
def _build_backbone(name: BackboneName, size: int, weights: Path, weights_hash: str) -> FrozenBackbone:
    return FrozenBackbone(name, size, weights, weights_hash)


def feature_key(
    recipe: Recipe, name: BackboneName, weights_hash: str, view: View = ORIGINAL
) -> dict[str, Any]:
    """What the features of one of the recipe's backbones depend on besides the cell."""
    return {
        "format": FORMAT,
        "backbone": name,
        "weights_sha256": weights_hash,
        "image_size": recipe.image_size,
        "crop": recipe.crop,
        "preprocessing": backbone_named(name).preprocessing,
        "pooling": "max",
        "precision": "float32",
        "view": view.key(recipe),
    }


def _open_folder(recipe: Recipe, backbone: FrozenBackbone, settings: Settings, view: View) -> Path:
    key = feature_key(recipe, backbone.name, backbone.weights_hash, view)
    text = json.dumps(key, sort_keys=True, indent=2)
    folder = settings.features / hashlib.sha256(text.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "key.json").exists():
        _write(folder / "key.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return folder


def _load_chunks(folder: Path, n_features: int, wanted: set[str]) -> dict[str, np.ndarray]:
    """The wanted vectors that lie in whole chunks; a chunk that cannot be read whole is passed over."""
    found: dict[str, np.ndarray] = {}
    for mark in sorted(folder.glob("*.sha256.npy")):
        try:
            hashes = np.load(mark, allow_pickle=False).astype(str)
            vectors = np.load(mark.with_name(mark.name.replace(".sha256", "")), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            continue
        whole = vectors.shape == (len(hashes), n_features) and vectors.dtype == np.float32
        if whole and np.isfinite(vectors).all():
            found |= {
                sha256: vector for sha256, vector in zip(hashes, vectors, strict=True) if sha256 in wanted
            }
    return found


def _commit(folder: Path, chunk: dict[str, np.ndarray]) -> None:
    """Write a chunk whole, or leave nothing of it."""
    if not chunk:
        return
    name = uuid.uuid4().hex
    vectors, mark = folder / f"{name}.npy", folder / f"{name}.sha256.npy"
    _write_array(vectors, np.stack(list(chunk.values())))
    try:
        _write_array(mark, np.array(list(chunk), dtype="S64"))
    except BaseException:
        vectors.unlink(missing_ok=True)
        raise


def _write_array(path: Path, array: np.ndarray) -> None:
    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)

    _write(path, write)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside its place, and rename it there; on failure nothing is left."""
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        write(temporary)
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def decoded(
    images: Sequence[CellImage], recipe: Recipe, max_pixels: int, view: View = ORIGINAL
) -> Iterator[tuple[Sequence[CellImage], np.ndarray]]:
    """Batches of at most `BATCH` cells with their pixels uint8 [n, size, size, 3], read in threads while whoever
    asks works on the batch before.

    Raises:
        UserError: a file cannot be read or has changed; names it.
    """
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:

        def shown(image: CellImage) -> np.ndarray:
            return view.of(read_cell(image, recipe, max_pixels), image, recipe)

        def submit(batch: Iterable[CellImage]) -> list[Future[np.ndarray]]:
            return [pool.submit(shown, image) for image in batch]

        try:
            ahead = submit(batches[0]) if batches else []
            for position, batch in enumerate(batches):
                pixels = np.stack([future.result() for future in ahead])
                ahead = submit(batches[position + 1]) if position + 1 < len(batches) else []
                yield batch, pixels
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
