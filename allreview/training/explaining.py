"""Heat maps: for the head of a finished run's queue, and for cells somebody is waiting for."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import sqlalchemy as sa

import db
from allreview.cells.decoding import read_rgb
from allreview.models.saving import TrainedModel, load_model
from allreview.review import overlays, saliency
from allreview.review.queues import queue_of
from allreview.settings import Settings
from allreview.training.progress import RunProgress
from db.tables import Cell, CellFile, Prediction

EXPLAINED = {"gradcam_plus_plus": 60, "gradcam": 16}
"""Heat maps of so many cells at the head of the queue are ready before the run is called finished: enough of the
method the desk shows first; of the others the desk asks for more as the reviewer goes along."""
_EXPLAINED_TOGETHER = 4


def explain_run(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Heat maps for the head of the queue, so that the first cells of a review are there at once."""
    progress = RunProgress(engine, run_id)
    progress.stage("explain")
    with db.reading(engine) as session:
        head = queue_of(session, run_id, parts=("train", "validation"), limit=max(EXPLAINED.values()))
    cells = {method: [entry.cell_id for entry in head[:most]] for method, most in EXPLAINED.items()}
    total, before = sum(map(len, cells.values())), 0
    for method, cell_ids in cells.items():

        def on_done(count: int, before: int = before) -> None:
            progress.on_batch(before + count, total, 0.0, 0.0)

        explain_cells(engine, settings, run_id, method, cell_ids, on_done=on_done)
        before += len(cell_ids)


def explain_cells(
    engine: sa.Engine,
    settings: Settings,
    run_id: int,
    method: str,
    cell_ids: Sequence[int],
    *,
    on_done: Callable[[int], None] = lambda _count: None,
) -> None:
    """Make the heat maps that are missing, in the order given."""
    with db.reading(engine) as session:
        rows = {
            cell_id: (sha, label, Path(path))
            for cell_id, sha, label, path in session.execute(
                sa.select(Cell.id, Cell.sha256, Prediction.label, sa.func.min(CellFile.path))
                .join(Prediction, sa.and_(Prediction.cell_id == Cell.id, Prediction.run_id == run_id))
                .join(CellFile, CellFile.cell_id == Cell.id)
                .where(Cell.id.in_(cell_ids))
                .group_by(Cell.id, Cell.sha256, Prediction.label)
            )
        }
    wanted = [rows[cell_id] for cell_id in cell_ids if cell_id in rows]
    absent = set(overlays.missing(settings, run_id, method, [sha for sha, _, _ in wanted]))
    todo = [row for row in wanted if row[0] in absent]
    model = _model(str(settings.run_folder(run_id)))
    done = 0
    while done < len(todo):
        # The first alone: somebody may be waiting for it.
        batch = todo[done : done + (_EXPLAINED_TOGETHER if done else 1)]
        pixels = model.prepare([read_rgb(path, settings.max_pixels) for _, _, path in batch])
        targets = [model.classes.index(label) for _, label, _ in batch]
        maps = saliency.heatmaps(model.model, model.inputs(pixels), targets, method)
        for (sha, _, _), heatmap in zip(batch, maps, strict=True):
            overlays.save_heatmap(settings, run_id, method, sha, heatmap)
        done += len(batch)
        on_done(done)


@lru_cache(maxsize=2)
def _model(folder: str) -> TrainedModel:
    return load_model(Path(folder))
