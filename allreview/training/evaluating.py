"""The step after the fit: predict every cell of the snapshot, and keep predictions and figures."""

import shutil
from pathlib import Path

import numpy as np
import sqlalchemy as sa

import db
from allreview.cells.decoding import read_rgb
from allreview.evaluation.metrics import evaluate
from allreview.labels import NOT_CLASSES, current_label, standing
from allreview.models.saving import TrainedModel, load_model
from allreview.settings import Settings
from allreview.training import fitting
from allreview.training.pipeline import features_of, load
from allreview.training.progress import RunProgress
from allreview.training.snapshots import SnapshotLine
from db.tables import Cell, Prediction, Run

_BATCH = 32


def evaluate_run(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Predict every cell of the snapshot; keep predictions and the metrics of each part."""
    run, cells = load(engine, run_id)
    progress = RunProgress(engine, run_id)
    progress.stage("evaluate")
    # The fit is over and recorded as such: what it kept for resuming is not needed any more.
    shutil.rmtree(settings.run_folder(run_id) / "backup", ignore_errors=True)
    model = load_model(settings.run_folder(run_id))
    if run.recipe.mode == "features":
        features = features_of(run.recipe, cells, settings, progress)
        probabilities = fitting.head_probabilities(model, features)
    else:
        probabilities = _predict(model, cells, settings, progress)
    _store_predictions(engine, run_id, cells, probabilities, model.classes)
    metrics = _metrics(engine, cells, probabilities, model.classes)
    with db.writing(engine) as session:
        session.execute(sa.update(Run).where(Run.id == run_id).values(metrics=metrics))


def _predict(
    model: TrainedModel, cells: list[SnapshotLine], settings: Settings, progress: RunProgress
) -> np.ndarray:
    found = []
    for start in range(0, len(cells), _BATCH):
        progress.check()
        batch = cells[start : start + _BATCH]
        pixels = model.prepare([read_rgb(Path(cell.path), settings.max_pixels) for cell in batch])
        found.append(model.probabilities(pixels))
        progress.on_batch(start + len(batch), len(cells), 0.0, 0.0)
    return np.concatenate(found)


def _store_predictions(
    engine: sa.Engine, run_id: int, cells: list[SnapshotLine], probabilities: np.ndarray, classes: list[str]
) -> None:
    rows = []
    for cell, row in zip(cells, probabilities, strict=True):
        best = int(row.argmax())
        rows.append(
            {
                "run_id": run_id,
                "cell_id": cell.cell_id,
                "label": classes[best],
                "probability": float(row[best]),
                "probabilities": {name: float(value) for name, value in zip(classes, row, strict=True)},
            }
        )
    with db.writing(engine) as session:
        session.execute(sa.delete(Prediction).where(Prediction.run_id == run_id))
        session.execute(sa.insert(Prediction), rows)


def _metrics(
    engine: sa.Engine, cells: list[SnapshotLine], probabilities: np.ndarray, classes: list[str]
) -> dict[str, dict[str, object]]:
    """{part: scores on source labels, with those on current labels under `current`}."""
    now = standing()
    with db.reading(engine) as session:
        query = (
            sa.select(Cell.id, current_label(now))
            .join(now, now.c.cell_id == Cell.id)
            .where(Cell.dataset_id == session.get_one(Cell, cells[0].cell_id).dataset_id)
        )
        current = {cell_id: label for cell_id, label in session.execute(query)}  # noqa: C416
    found: dict[str, dict[str, object]] = {}
    for part in ("train", "validation", "test"):
        here = [index for index, cell in enumerate(cells) if cell.part == part]
        labels = [cells[index].source_label for index in here]
        judged = [(index, current.get(cells[index].cell_id, cells[index].source_label)) for index in here]
        judged = [(index, label) for index, label in judged if label not in NOT_CLASSES]
        on_current = evaluate(
            [label for _, label in judged], probabilities[[index for index, _ in judged]], classes
        )
        on_source = evaluate(labels, probabilities[here], classes)
        found[part] = {**on_source, "current": on_current}
    return found
