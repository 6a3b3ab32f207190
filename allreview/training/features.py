"""Cached features of a frozen backbone.

A frozen backbone says the same of the same image every time, so each image passes through it once. Under
`features/<key>/` lie the pooled vectors of one key: backbone, weights, image size, crop, preprocessing,
view and precision (`key.json` says which). The folder is append-only: a chunk is `<id>.npy`, the vectors,
and `<id>.sha256.npy`, the cells' hashes, written last as its commit mark. So a killed worker leaves at most
an unmarked file that nobody reads, and two workers on one folder at worst compute a cell twice.
"""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

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


def cached_features(
    images: Sequence[CellImage],
    recipe: Recipe,
    weights: Path,
    settings: Settings,
    *,
    flipped: bool,
    progress: Progress,
    check: Check,
) -> np.ndarray:
    """The pooled features of the cells, float32 [n, features], in the order given; computes what is missing.

    `progress(done, total, rate)` counts distinct cells, those found in the cache included; `rate` is in
    images a second, of the computed ones (0 while there are none). `check()` is called before every batch
    and may raise to stop: what is committed by then stays.

    Raises:
        UserError: a file cannot be read or has changed, or the weights do not fit the backbone.
    """
    backbone = frozen_backbone(recipe, weights)
    folder = _open_folder(recipe, backbone, settings, flipped)
    found = _load_chunks(folder, backbone.n_features, {image.sha256 for image in images})
    distinct = {image.sha256: image for image in images}
    missing = [image for sha256, image in distinct.items() if sha256 not in found]
    started, total = time.perf_counter(), len(distinct)
    progress(len(found), total, 0.0)
    chunk: dict[str, np.ndarray] = {}
    computed = 0
    try:
        for batch, pixels in _decoded(missing, recipe, settings.max_pixels):
            check()
            vectors = backbone(pixels[:, :, ::-1] if flipped else pixels)
            chunk |= {image.sha256: vector for image, vector in zip(batch, vectors, strict=True)}
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

    def __init__(self, recipe: Recipe, weights: Path, weights_hash: str) -> None:
        self.model = build_backbone(recipe, weights)
        self.weights_hash = weights_hash
        self.n_features = int(self.model.output_shape[-1])
        self._preprocess = backbone_named(recipe.backbone).preprocess
        signature = [tf.TensorSpec((BATCH, recipe.image_size, recipe.image_size, 3), tf.float32)]
        self._forward: Any = tf.function(
            lambda batch: self.model(batch, training=False), input_signature=signature
        )

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Features float32 [n, features] of pixels uint8 [n, size, size, 3], n at most `BATCH`."""
        padded = np.zeros((BATCH, *pixels.shape[1:]), dtype=np.float32)
        padded[: len(pixels)] = self._preprocess(pixels)
        return self._forward(tf.constant(padded)).numpy()[: len(pixels)]


def frozen_backbone(recipe: Recipe, weights: Path) -> FrozenBackbone:
    """The recipe's frozen backbone. The last two are kept in memory, known by their weights' content."""
    return _build_backbone(recipe.backbone, recipe.image_size, weights, file_hash(weights))


@lru_cache(maxsize=2)
def _build_backbone(name: BackboneName, size: int, weights: Path, weights_hash: str) -> FrozenBackbone:
    recipe = Recipe(backbone=name, image_size=size)  # pyright: ignore[reportCallIssue]
    return FrozenBackbone(recipe, weights, weights_hash)


def _open_folder(recipe: Recipe, backbone: FrozenBackbone, settings: Settings, flipped: bool) -> Path:
    key = {
        "format": FORMAT,
        "backbone": recipe.backbone,
        "weights_sha256": backbone.weights_hash,
        "image_size": recipe.image_size,
        "crop": recipe.crop,
        "preprocessing": backbone_named(recipe.backbone).preprocessing,
        "pooling": "max",
        "precision": "float32",
        "view": "flipped" if flipped else "original",
    }
    text = json.dumps(key, sort_keys=True, indent=2)
    folder = settings.features / hashlib.sha256(text.encode()).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "key.json").exists():
        temporary = folder / f"{uuid.uuid4().hex}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / "key.json")
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
    if not chunk:
        return
    name = uuid.uuid4().hex
    _write_array(folder / f"{name}.npy", np.stack(list(chunk.values())))
    _write_array(folder / f"{name}.sha256.npy", np.array(list(chunk), dtype="S64"))


def _write_array(path: Path, array: np.ndarray) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
    put_in_place(temporary, path)


def _decoded(
    images: Sequence[CellImage], recipe: Recipe, max_pixels: int
) -> Iterator[tuple[Sequence[CellImage], np.ndarray]]:
    """Batches with their pixels, decoded in threads while the batch before is in the network."""
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:

        def submit(batch: Iterable[CellImage]) -> list[Future[np.ndarray]]:
            return [pool.submit(read_cell, image, recipe, max_pixels) for image in batch]

        try:
            ahead = submit(batches[0]) if batches else []
            for position, batch in enumerate(batches):
                pixels = np.stack([future.result() for future in ahead])
                ahead = submit(batches[position + 1]) if position + 1 < len(batches) else []
                yield batch, pixels
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
