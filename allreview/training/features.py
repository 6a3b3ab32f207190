"""Cached features of frozen backbones.

A frozen backbone says the same of the same image every time, so each image passes through it once in each view
of it. What is computed is kept by `feature_store` under a key: backbone, weights, image size, crop, preprocessing,
view, and what computes in which numbers. The cells are known by their content, and a file is compared with what was
imported whenever it is read. So whatever is changed, nothing stale is ever found.

An ensemble's features are those of its backbones side by side, each from its own cache, which single runs share.
Whatever is missing of a cell, in several views and of several backbones, is computed from one reading of its file.
"""

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from allreview.cells.decoding import cell_pixels, decode_rgb, read_bytes
from allreview.errors import UserError
from allreview.models.backbones import backbone_named
from allreview.places import AT_ONCE, is_object
from allreview.recipe import BackboneName, Recipe
from allreview.settings import Settings
from allreview.training import threads
from allreview.training.engines import BATCH, Computing
from allreview.training.feature_sharing import obtain_features, share_features
from allreview.training.feature_store import FORMAT, FeatureFolder, Writer
from allreview.training.frozen import FrozenBackbone, frozen_backbone
from allreview.training.views import ORIGINAL, CellImage, View

Progress = Callable[[int, int, float], None]
Check = Callable[[], None]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def read_cell(cell: CellImage, recipe: Recipe, max_pixels: int) -> np.ndarray:
    """The cell as the recipe's network sees it, uint8 [size, size, 3].

    Raises:
        UserError: the file is gone, unreadable, or no longer the one that was imported; names the file.
    """
    try:
        data = read_bytes(cell.path)
        if hashlib.sha256(data).hexdigest() != cell.sha256:
            raise UserError("it has changed since it was imported; restore it or import it again")
        return cell_pixels(decode_rgb(data, max_pixels), recipe.preparation)
    except UserError as error:
        raise UserError(f"{str(cell.path)!r} cannot be used: {error}.") from None


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
    before every batch and may raise to stop: what is computed by then stays.

    Raises:
        UserError: a file cannot be read or has changed, or the weights do not fit the backbone.
    """
    shelves = _shelves(recipe, weights, settings, [view])
    distinct = {image.sha256: image for image in images}
    hashes, cells = list(distinct), list(distinct.values())
    ends = np.cumsum([shelf.width for shelf in shelves])
    found = np.empty((len(cells), ends[-1]), dtype=np.float32)
    columns = [found[:, end - shelf.width : end] for end, shelf in zip(ends, shelves, strict=True)]
    present = [shelf.folder.read(hashes, part) for shelf, part in zip(shelves, columns, strict=True)]
    wanting = [shelf for shelf, whole in zip(shelves, present, strict=True) if not whole.all()]
    if obtain_features(settings, _folders(wanting)) or _settle(wanting):
        return cached_features(images, recipe, weights, settings, view=view, progress=progress, check=check)
    place = {sha256: row for row, sha256 in enumerate(hashes)}
    parts = dict(zip(shelves, columns, strict=True))

    def keep(shelf: "_Shelf", computed: Sequence[str], vectors: np.ndarray) -> None:
        parts[shelf][[place[sha256] for sha256 in computed]] = vectors

    lacking = {
        shelf: [cell for cell, whole in zip(cells, present[number], strict=True) if not whole]
        for number, shelf in enumerate(shelves)
    }
    _compute(lacking, len(shelves) * len(cells), recipe, settings, keep=keep, progress=progress, check=check)
    if len(images) == len(cells):
        return found
    return found[[place[image.sha256] for image in images]]


def cache_features(
    wanted: Sequence[tuple[Sequence[CellImage], View]],
    recipe: Recipe,
    weights: Mapping[BackboneName, Path],
    settings: Settings,
    *,
    progress: Progress,
    check: Check,
) -> None:
    """Compute what the cache lacks of cells in several views, reading each file once; see `cached_features`.

    `wanted` has the cells of each view. `progress` counts a cell once for each of its views and each backbone.

    Raises:
        UserError: as `cached_features`.
    """
    lacking_features(wanted, recipe, weights, settings).compute(progress=progress, check=check)


def lacking_features(
    wanted: Sequence[tuple[Sequence[CellImage], View]],
    recipe: Recipe,
    weights: Mapping[BackboneName, Path],
    settings: Settings,
) -> "Lacking":
    """What the cache lacks of cells in several views, now. Backbones that are needed for it are made ready.

    Raises:
        UserError: the weights do not fit a backbone.
    """
    cells = {view: list({image.sha256: image for image in images}.values()) for images, view in wanted}
    shelves = _shelves(recipe, weights, settings, list(cells))
    lacking: dict[_Shelf, list[CellImage]] = {}
    for shelf in shelves:
        known = shelf.folder.known([cell.sha256 for cell in cells[shelf.view]])
        lacking[shelf] = [cell for cell, there in zip(cells[shelf.view], known, strict=True) if not there]
    wanting = [shelf for shelf, missing in lacking.items() if missing]
    if obtain_features(settings, _folders(wanting)) or _settle(wanting):
        return lacking_features(wanted, recipe, weights, settings)
    return Lacking(lacking, sum(len(cells[shelf.view]) for shelf in shelves), recipe, settings)


class Lacking:
    """What the cache lacks of some cells. `total` counts a cell once for each of its views and each backbone, those
    that are known included."""

    def __init__(
        self, shelves: Mapping["_Shelf", list[CellImage]], total: int, recipe: Recipe, settings: Settings
    ) -> None:
        self.total = total
        self._shelves = shelves
        self._recipe, self._settings = recipe, settings

    @property
    def left(self) -> int:
        """How many of all are not known."""
        return sum(map(len, self._shelves.values()))

    @property
    def views(self) -> dict[tuple[BackboneName, Computing], Counter[str]]:
        """In how many views each cell is missing, by its SHA-256, for each backbone and what computes it."""
        found: dict[tuple[BackboneName, Computing], Counter[str]] = {}
        for shelf, missing in self._shelves.items():
            counter = found.setdefault((shelf.backbone.name, shelf.backbone.computing), Counter())
            counter.update(cell.sha256 for cell in missing)
        return found

    @property
    def rows(self) -> int:
        """How many vectors were ever written where these are kept; quick enough to ask every second."""
        return sum(shelf.folder.rows for shelf in self._shelves)

    def compute(self, *, progress: Progress, check: Check) -> None:
        """Compute and store it all; see `cache_features`."""
        _compute(
            self._shelves,
            self.total,
            self._recipe,
            self._settings,
            keep=lambda *_: None,
            progress=progress,
            check=check,
        )


def feature_key(
    recipe: Recipe,
    name: BackboneName,
    weights_hash: str,
    view: View = ORIGINAL,
    computing: Computing | None = None,
) -> dict[str, Any]:
    """What the features of one of the recipe's backbones depend on besides the cell.

    Without `computing`, it says nothing of what computes them, which changes a few digits only.
    """
    return {
        "format": FORMAT,
        "backbone": name,
        "weights_sha256": weights_hash,
        "image_size": recipe.image_size,
        "crop": recipe.crop,
        **({"colours": recipe.colours} if recipe.colours != "original" else {}),
        "preprocessing": backbone_named(name).preprocessing,
        "pooling": recipe.pooling,
        "view": view.key(recipe),
        **(asdict(computing) if computing else {}),
    }


@dataclass(frozen=True, eq=False)
class _Shelf:
    """The features of one backbone in one view, and where they are kept."""

    backbone: FrozenBackbone
    view: View
    folder: FeatureFolder

    @cached_property
    def width(self) -> int:
        return self.folder.width or self.backbone.n_features


def _shelves(
    recipe: Recipe, weights: Mapping[BackboneName, Path], settings: Settings, views: Sequence[View]
) -> list[_Shelf]:
    found = []
    for name in recipe.backbones:
        backbone = frozen_backbone(name, recipe.image_size, weights[name], settings.engine, recipe.pooling)
        for view in views:
            key = feature_key(recipe, name, backbone.weights_hash, view, backbone.computing)
            found.append(_Shelf(backbone, view, FeatureFolder(settings.features, key)))
    return found


def _folders(shelves: Iterable[_Shelf]) -> list[Path]:
    return [shelf.folder.path for shelf in shelves]


def _settle(shelves: Iterable[_Shelf]) -> bool:
    """Make the backbones ready to compute, and say whether any does so otherwise than was thought: its features
    then have another key."""
    return any(backbone.settle() for backbone in {shelf.backbone: None for shelf in shelves})


def _compute(
    lacking: Mapping[_Shelf, Sequence[CellImage]],
    total: int,
    recipe: Recipe,
    settings: Settings,
    *,
    keep: Callable[[_Shelf, Sequence[str], np.ndarray], None],
    progress: Progress,
    check: Check,
) -> None:
    """Compute and store what each shelf lacks, a batch at a time, and hand it to `keep`."""
    cells = {cell.sha256: cell for missing in lacking.values() for cell in missing}
    wanted: dict[str, list[_Shelf]] = {sha256: [] for sha256 in cells}
    for shelf, missing in lacking.items():
        for cell in missing:
            wanted[cell.sha256].append(shelf)
    left = sum(map(len, lacking.values()))
    started, found, computed = time.perf_counter(), total - left, 0
    progress(found, total, 0.0)
    waiting: dict[FrozenBackbone, list[tuple[_Shelf, str, np.ndarray]]] = {}
    writers: dict[_Shelf, Writer] = {}
    with ExitStack() as stack:

        def compute(backbone: FrozenBackbone) -> None:
            nonlocal computed
            batch = waiting.pop(backbone)
            check()
            vectors = backbone(np.stack([pixels for _, _, pixels in batch]))
            for shelf in dict.fromkeys(shelf for shelf, _, _ in batch):
                places = [place for place, entry in enumerate(batch) if entry[0] is shelf]
                hashes = [batch[place][1] for place in places]
                if shelf not in writers:
                    writers[shelf] = shelf.folder.writer(vectors.shape[1])
                    stack.callback(writers[shelf].close)
                writers[shelf].add(hashes, vectors[places])
                keep(shelf, hashes, vectors[places])
            computed += len(batch)
            progress(found + computed, total, computed / (time.perf_counter() - started))

        def views(cell: CellImage) -> dict[View, np.ndarray]:
            pixels = read_cell(cell, recipe, settings.max_pixels)
            asked = {shelf.view for shelf in wanted[cell.sha256]}
            return {view: view.of(pixels, cell, recipe) for view in asked}

        largest = max(map(len, wanted.values()), default=1)
        for cell, shown in _in_threads(
            cells.values(), views, ahead=max(2 * BATCH // largest, 2), workers=_threads(cells.values())
        ):
            for shelf in wanted[cell.sha256]:
                batch = waiting.setdefault(shelf.backbone, [])
                batch.append((shelf, cell.sha256, shown[shelf.view]))
                if len(batch) == shelf.backbone.batch:
                    compute(shelf.backbone)
        for backbone in list(waiting):
            compute(backbone)
    share_features(settings, _folders(writers))


def decoded(
    images: Sequence[CellImage], recipe: Recipe, max_pixels: int
) -> Iterator[tuple[Sequence[CellImage], np.ndarray]]:
    """Batches of at most `BATCH` cells with their pixels uint8 [n, size, size, 3], read in threads while whoever
    asks works on the batch before.

    Raises:
        UserError: a file cannot be read or has changed; names it.
    """
    read = _in_threads(
        images,
        lambda image: read_cell(image, recipe, max_pixels),
        ahead=2 * BATCH,
        workers=_threads(images),
    )
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        yield batch, np.stack([next(read)[1] for _ in batch])


def _in_threads(
    items: Iterable[_Item], work: Callable[[_Item], _Result], *, ahead: int, workers: int
) -> Iterator[tuple[_Item, _Result]]:
    """Each item with what `work` gives for it, in order; threads work on so many of them ahead."""
    pool = ThreadPoolExecutor(max_workers=workers)
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _threads(images: Iterable[CellImage]) -> int:
    """A thread a core; more where cells come from object storage, because those mostly wait."""
    return AT_ONCE if any(is_object(image.path) for image in images) else threads.count()
