"""The step after the fit: predict every cell of the snapshot, and keep predictions and figures."""

import shutil

import numpy as np
import sqlalchemy as sa

import db
from allreview.evaluation.calibration import tempered
from allreview.evaluation.summaries import run_metrics
from allreview.models.saving import TrainedModel, load_model_of
from allreview.settings import Settings
from allreview.training import averaging
from allreview.training.features import decoded
from allreview.training.pipeline import by_features, cell_images, load
from allreview.training.progress import RunProgress
from allreview.training.runs import RunRow
from allreview.training.snapshots import SnapshotLine
from db.tables import Prediction, Run


def evaluate_run(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Predict every cell of the snapshot; keep predictions and the metrics of each part."""
    run, cells = load(engine, run_id)
    progress = RunProgress(engine, run_id)
    progress.stage("evaluate")
    # The fit is over and recorded as such: what it kept for resuming is not needed any more.
    shutil.rmtree(settings.run_folder(run_id) / "backup", ignore_errors=True)
    probabilities = _probabilities(engine, settings, run, cells, progress)
    _store_predictions(engine, run_id, cells, probabilities, run.classes)
    metrics = run_metrics(engine, run_id)
    with db.writing(engine) as session:
        session.execute(sa.update(Run).where(Run.id == run_id).values(metrics=metrics))


def _probabilities(
    engine: sa.Engine, settings: Settings, run: RunRow, cells: list[SnapshotLine], progress: RunProgress
) -> np.ndarray:
    """What the run's model says of each cell, [n, classes], by the shortest way."""
    if run.members:
        return averaging.probabilities(engine, run.id, [cell.cell_id for cell in cells])
    if run.recipe.mode == "features":
        assert run.temperature is not None
        return tempered(by_features(run, cells, settings, progress)[1], run.temperature)
    model = load_model_of(settings, run.id)
    assert model.classes == run.classes
    return _predict(model, cells, settings, progress)


def _predict(
    model: TrainedModel, cells: list[SnapshotLine], settings: Settings, progress: RunProgress
) -> np.ndarray:
    found, done = [], 0
    for batch, pixels in decoded(cell_images(cells), model.recipe, settings.max_pixels):
        progress.check()
        found.append(model.probabilities(pixels))
        done += len(batch)
        progress.on_batch(done, len(cells), 0.0, 0.0)
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
