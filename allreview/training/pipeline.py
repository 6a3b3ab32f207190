"""The steps of a run. Each can be run again after a kill and then finds what is done already.

features -> fit -> evaluate -> explain
"""

import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import sqlalchemy as sa

import db
from allreview.cells.decoding import read_rgb
from allreview.errors import UserError
from allreview.evaluation.metrics import evaluate
from allreview.labels import NOT_CLASSES, current_label, standing
from allreview.models import pretrained
from allreview.models.saving import TrainedModel, load_model, save_model
from allreview.recipe import Recipe
from allreview.review import overlays, saliency
from allreview.review.queues import queue_of
from allreview.settings import Settings
from allreview.training import fitting
from allreview.training.features import CellImage, cached_features
from allreview.training.progress import RunProgress
from allreview.training.runs import RunRow, get_run
from allreview.training.snapshots import SnapshotLine, lines
from db.tables import Cell, CellFile, Prediction, Run

EXPLAINED = {"gradcam_plus_plus": 60, "gradcam": 16}
"""Heat maps of so many cells at the head of the queue are ready before the run is called finished: enough of the
method the desk shows first; of the others the desk asks for more as the reviewer goes along."""
_BATCH = 32
_EXPLAINED_TOGETHER = 4


def compute_features(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Compute what the cache lacks: each cell as it is, and training cells mirrored when the recipe flips."""
    run, cells = _load(engine, run_id)
    if run.recipe.mode != "features":
        return
    progress = RunProgress(engine, run_id)
    progress.stage("features")
    _features(run.recipe, cells, settings, progress, flipped=False)
    if run.recipe.flip:
        _features(run.recipe, _fitted(cells, "train"), settings, progress, flipped=True)


def fit(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Train, resuming at the epoch, and save the model with its best weights; after Stop too."""
    run, cells = _load(engine, run_id)
    settings.run_folder(run_id).mkdir(parents=True, exist_ok=True)
    progress = RunProgress(engine, run_id)
    progress.stage("fit")
    train, validation = _fitted(cells, "train"), _fitted(cells, "validation")
    assert not {cell.sha256 for cell in train} & {cell.sha256 for cell in validation}
    fit_by_mode = _fit_head if run.recipe.mode == "features" else _fit_end_to_end
    try:
        fit_by_mode(run, train, validation, settings, progress)
    except fitting.StopRequested:
        _save_best(engine, run, settings)
        raise
    _save_best(engine, run, settings)


def _fit_head(
    run: RunRow,
    train: list[SnapshotLine],
    validation: list[SnapshotLine],
    settings: Settings,
    progress: RunProgress,
) -> None:
    def features(cells: list[SnapshotLine], flipped: bool = False) -> np.ndarray:
        return _features(run.recipe, cells, settings, progress, flipped=flipped, quiet=True)

    fitting.fit_head(
        run.recipe,
        [features(train), features(train, flipped=True)] if run.recipe.flip else [features(train)],
        _indices(train, run.classes),
        features(validation),
        _indices(validation, run.classes),
        len(run.classes),
        settings.run_folder(run.id),
        progress,
    )


def _fit_end_to_end(
    run: RunRow,
    train: list[SnapshotLine],
    validation: list[SnapshotLine],
    settings: Settings,
    progress: RunProgress,
) -> None:
    fitting.fit_end_to_end(
        run.recipe,
        _images(train),
        _indices(train, run.classes),
        _images(validation),
        _indices(validation, run.classes),
        run.classes,
        _weights(run.recipe, settings),
        settings.run_folder(run.id),
        settings,
        progress,
    )


def evaluate_run(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Predict every cell of the snapshot; keep predictions and the metrics of each part."""
    run, cells = _load(engine, run_id)
    progress = RunProgress(engine, run_id)
    progress.stage("evaluate")
    # The fit is over and recorded as such: what it kept for resuming is not needed any more.
    shutil.rmtree(settings.run_folder(run_id) / "backup", ignore_errors=True)
    model = load_model(settings.run_folder(run_id))
    if run.recipe.mode == "features":
        features = _features(run.recipe, cells, settings, progress, flipped=False, quiet=True)
        probabilities = fitting.head_probabilities(model, features)
    else:
        probabilities = _predict(model, cells, settings, progress)
    _store_predictions(engine, run_id, cells, probabilities, model.classes)
    metrics = _metrics(engine, cells, probabilities, model.classes)
    with db.writing(engine) as session:
        session.execute(sa.update(Run).where(Run.id == run_id).values(metrics=metrics))


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


def _load(engine: sa.Engine, run_id: int) -> tuple[RunRow, list[SnapshotLine]]:
    with db.reading(engine) as session:
        run = get_run(session, run_id, with_epochs=False)
        return run, lines(session, run.snapshot_id)


@lru_cache(maxsize=2)
def _model(folder: str) -> TrainedModel:
    return load_model(Path(folder))


def _weights(recipe: Recipe, settings: Settings) -> Path | None:
    return pretrained.obtain(recipe.backbone, settings) if recipe.weights == "imagenet" else None


def _fitted(cells: list[SnapshotLine], part: str) -> list[SnapshotLine]:
    return [cell for cell in cells if cell.part == part and cell.label not in NOT_CLASSES]


def _indices(cells: list[SnapshotLine], classes: list[str]) -> np.ndarray:
    position = {name: index for index, name in enumerate(classes)}
    return np.array([position[cell.label] for cell in cells], dtype=np.int64)


def _images(cells: list[SnapshotLine]) -> list[CellImage]:
    return [CellImage(cell.sha256, Path(cell.path)) for cell in cells]


def _features(
    recipe: Recipe,
    cells: list[SnapshotLine],
    settings: Settings,
    progress: RunProgress,
    *,
    flipped: bool,
    quiet: bool = False,
) -> np.ndarray:
    weights = _weights(recipe, settings)
    if weights is None:
        raise UserError("Features need pretrained weights: set weights=imagenet, or mode=finetune.")
    return cached_features(
        _images(cells),
        recipe,
        weights,
        settings,
        flipped=flipped,
        progress=(lambda *_: None) if quiet else progress.on_images,
        check=progress.check,
    )


def _save_best(engine: sa.Engine, run: RunRow, settings: Settings) -> None:
    """Save the model with the weights of its best epoch, if there was one."""
    folder = settings.run_folder(run.id)
    weights = _weights(run.recipe, settings)
    model = fitting.best_model(run.recipe, run.classes, weights, folder)
    kept = fitting.kept_epoch(folder)
    if model is None or kept is None:
        return
    weights_hash = pretrained.file_hash(weights) if weights else None
    model_hash = save_model(folder, model, recipe=run.recipe, classes=run.classes, weights_hash=weights_hash)
    with db.writing(engine) as session:
        session.execute(
            sa.update(Run)
            .where(Run.id == run.id)
            .values(best_epoch=kept.epoch, weights_hash=weights_hash, model_hash=model_hash)
        )


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
