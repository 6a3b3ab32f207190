"""The steps of a run. Each can be run again after a kill and then finds what is done already.

features -> fit -> evaluate -> explain
"""

from pathlib import Path

import numpy as np
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.labels import NOT_CLASSES
from allreview.models import pretrained
from allreview.models.saving import save_model
from allreview.recipe import Recipe
from allreview.settings import Settings
from allreview.training import fitting
from allreview.training.features import CellImage, cached_features
from allreview.training.progress import RunProgress
from allreview.training.runs import RunRow, get_run
from allreview.training.snapshots import SnapshotLine, lines
from db.tables import Run


def compute_features(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Compute what the cache lacks: each cell as it is, and training cells mirrored when the recipe flips."""
    run, cells = load(engine, run_id)
    if run.recipe.mode != "features":
        return
    progress = RunProgress(engine, run_id)
    progress.stage("features")
    features_of(run.recipe, cells, settings, progress, flipped=False)
    if run.recipe.flip:
        features_of(run.recipe, fitted(cells, "train"), settings, progress, flipped=True)


def fit(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Train, resuming at the epoch, and save the model with its best weights; after Stop too."""
    run, cells = load(engine, run_id)
    settings.run_folder(run_id).mkdir(parents=True, exist_ok=True)
    progress = RunProgress(engine, run_id)
    progress.stage("fit")
    train, validation = fitted(cells, "train"), fitted(cells, "validation")
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
        return features_of(run.recipe, cells, settings, progress, flipped=flipped, quiet=True)

    fitting.fit_head(
        run.recipe,
        [features(train), features(train, flipped=True)] if run.recipe.flip else [features(train)],
        indices(train, run.classes),
        features(validation),
        indices(validation, run.classes),
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
        cell_images(train),
        indices(train, run.classes),
        cell_images(validation),
        indices(validation, run.classes),
        run.classes,
        weights_of(run.recipe, settings),
        settings.run_folder(run.id),
        settings,
        progress,
    )


def load(engine: sa.Engine, run_id: int) -> tuple[RunRow, list[SnapshotLine]]:
    with db.reading(engine) as session:
        run = get_run(session, run_id, with_epochs=False)
        return run, lines(session, run.snapshot_id)


def weights_of(recipe: Recipe, settings: Settings) -> Path | None:
    return pretrained.obtain(recipe.backbone, settings) if recipe.weights == "imagenet" else None


def fitted(cells: list[SnapshotLine], part: str) -> list[SnapshotLine]:
    return [cell for cell in cells if cell.part == part and cell.label not in NOT_CLASSES]


def indices(cells: list[SnapshotLine], classes: list[str]) -> np.ndarray:
    position = {name: index for index, name in enumerate(classes)}
    return np.array([position[cell.label] for cell in cells], dtype=np.int64)


def cell_images(cells: list[SnapshotLine]) -> list[CellImage]:
    return [CellImage(cell.sha256, Path(cell.path)) for cell in cells]


def features_of(
    recipe: Recipe,
    cells: list[SnapshotLine],
    settings: Settings,
    progress: RunProgress,
    *,
    flipped: bool,
    quiet: bool = False,
) -> np.ndarray:
    weights = weights_of(recipe, settings)
    if weights is None:
        raise UserError("Features need pretrained weights: set weights=imagenet, or mode=finetune.")
    return cached_features(
        cell_images(cells),
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
    weights = weights_of(run.recipe, settings)
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
