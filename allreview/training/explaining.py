"""Heat maps: for the head of a finished run's queue, and for cells somebody is waiting for.

A run's maps lie in its folder and are never another run's: a retrain makes its own, with its own weights. A map is of
the cell as it lies, also where the prediction is a mean over symmetries.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from PIL import Image

import db
from allreview.artefacts import obtain
from allreview.cells.decoding import decode_rgb, read_bytes
from allreview.errors import UserError
from allreview.models.saving import MODEL_FILES, TrainedModel, load_model
from allreview.places import AT_ONCE, File, cell_file, is_object
from allreview.review.queues import queue_of
from allreview.review.saliency import overlays
from allreview.review.saliency.methods import heatmaps_by_method
from allreview.settings import Settings
from db.tables import Cell, CellFile, Prediction

log = logging.getLogger("allreview.worker")

HEAD = 200
"""Heat maps of so many cells at the head of the queue are made when a run is over; for those behind them the desk
asks as the reviewer goes along."""
HEAD_METHODS = ("gradcam_plus_plus", "gradcam")
"""What the desk shows first, and what comes nearly for free with it: they share the model's feature maps."""

_TOGETHER = {"gradcam": 16, "gradcam_plus_plus": 16}
_SLOW_TOGETHER = 2  # of the methods that take a second a cell, so that maps appear as they are made
_threads = ThreadPoolExecutor(4, thread_name_prefix="saliency")


@dataclass(frozen=True)
class _Wanted:
    """A cell to explain: its file, and the class the run predicted for it."""

    sha256: str
    label: str
    path: File


def explain_run(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Heat maps for the head of the queue, its first cells first, so that a review can begin at once."""
    with db.reading(engine) as session:
        head = queue_of(session, run_id, parts=("train", "validation"), limit=HEAD, settings=settings)
    _explain(engine, settings, run_id, HEAD_METHODS, [entry.cell_id for entry in head])


def explain_cells(
    engine: sa.Engine, settings: Settings, run_id: int, method: str, cell_ids: Sequence[int]
) -> None:
    """Make the heat maps that are missing, in the order given.

    A cell whose file is gone, damaged or no longer what was imported gets none, and holds up no other.
    """
    _explain(engine, settings, run_id, [method], cell_ids)


def _explain(
    engine: sa.Engine, settings: Settings, run_id: int, methods: Sequence[str], cell_ids: Sequence[int]
) -> None:
    wanted = _without_maps(settings, run_id, methods, _wanted(engine, run_id, cell_ids))
    if not wanted:
        return
    batches = list(_batches(wanted, min(_TOGETHER.get(method, _SLOW_TOGETHER) for method in methods)))
    saving: list[Future[None]] = []
    pictures = _threads.submit(_pictures, settings, batches[0])
    model = _model(settings, run_id)
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        read = pictures.result()
        if following is not None:
            # The files of the next cells are read while these are computed.
            pictures = _threads.submit(_pictures, settings, following)
        # Somebody may have asked for some of them meanwhile.
        todo = [cell for cell in _without_maps(settings, run_id, methods, batch) if cell in read]
        if not todo:
            continue
        pixels = model.prepare([read[cell] for cell in todo])
        targets = [model.classes.index(cell.label) for cell in todo]
        maps = heatmaps_by_method(model.of_one_way, model.inputs(pixels), targets, methods)
        for method in methods:
            saving.append(_threads.submit(_save, settings, run_id, method, todo, maps[method]))
    for saved in saving:
        saved.result()


def _wanted(engine: sa.Engine, run_id: int, cell_ids: Sequence[int]) -> list[_Wanted]:
    """Those of the cells that the run predicted, in the order given."""
    with db.reading(engine) as session:
        rows = {
            cell_id: _Wanted(sha, label, cell_file(path))
            for cell_id, sha, label, path in session.execute(
                sa.select(Cell.id, Cell.sha256, Prediction.label, sa.func.min(CellFile.path))
                .join(Prediction, sa.and_(Prediction.cell_id == Cell.id, Prediction.run_id == run_id))
                .join(CellFile, CellFile.cell_id == Cell.id)
                .where(Cell.id.in_(cell_ids))
                .group_by(Cell.id, Cell.sha256, Prediction.label)
            )
        }
    return [rows[cell_id] for cell_id in cell_ids if cell_id in rows]


def _without_maps(
    settings: Settings, run_id: int, methods: Sequence[str], cells: Sequence[_Wanted]
) -> list[_Wanted]:
    absent: set[str] = set()
    for method in methods:
        absent.update(overlays.missing(settings, run_id, method, [cell.sha256 for cell in cells]))
    return [cell for cell in cells if cell.sha256 in absent]


def _batches(cells: list[_Wanted], together: int) -> Iterator[list[_Wanted]]:
    """The first alone: somebody may be waiting for it."""
    yield cells[:1]
    for start in range(1, len(cells), together):
        yield cells[start : start + together]


def _pictures(settings: Settings, cells: Sequence[_Wanted]) -> dict[_Wanted, Image.Image]:
    """The cells whose files are still what was imported, decoded."""

    def read(cell: _Wanted) -> Image.Image | None:
        try:
            data = read_bytes(cell.path)
            if hashlib.sha256(data).hexdigest() != cell.sha256:
                raise UserError("the file is not the one that was imported")
            return decode_rgb(data, settings.max_pixels)
        except UserError as error:
            log.warning("no heat map of %s: %s", cell.path.name, error)
            return None

    if not any(is_object(cell.path) for cell in cells):
        read_all = map(read, cells)
    else:
        with ThreadPoolExecutor(min(AT_ONCE, len(cells))) as pool:
            read_all = list(pool.map(read, cells))
    return {cell: image for cell, image in zip(cells, read_all, strict=True) if image is not None}


def _save(settings: Settings, run_id: int, method: str, cells: Sequence[_Wanted], maps: np.ndarray) -> None:
    for cell, heatmap in zip(cells, maps, strict=True):
        overlays.save_heatmap(settings, run_id, method, cell.sha256, heatmap)


def _model(settings: Settings, run_id: int) -> TrainedModel:
    """The run's model, kept from one request to the next; loaded once when two ask for it at the same time, while
    requests for other runs go on."""
    obtain(settings, run_id, MODEL_FILES)
    try:
        return _loading(settings.run_folder(run_id)).result()
    except Exception:
        _loading.cache_clear()
        raise


@lru_cache(maxsize=2)
def _loading(folder: Path) -> "Future[TrainedModel]":
    return _threads.submit(load_model, folder)
