"""The steps of a run. Each can be run again after a kill and then finds what is done already.

features -> fit -> evaluate -> rank; once the run is finished, keep, explain and the map
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.evaluation.calibration import fit_temperature
from allreview.labels import NOT_CLASSES
from allreview.models import pretrained
from allreview.models.building import temper
from allreview.models.saving import TrainedModel, model_file, save_model
from allreview.models.symmetries import over_symmetries
from allreview.places import cell_file
from allreview.recipe import BackboneName, Recipe
from allreview.settings import Settings
from allreview.training import cross_fitting, fitting, machine
from allreview.training.batches import smallest_batch
from allreview.training.checkpoints import kept_epoch
from allreview.training.epochs import StopRequested
from allreview.training.features import cached_features, lacking_features
from allreview.training.leaving_out import held_out
from allreview.training.progress import RunProgress
from allreview.training.runs import RunRow, get_run
from allreview.training.shards import Shard, plan
from allreview.training.snapshots import SnapshotLine, lines
from allreview.training.views import ORIGINAL, CellImage, View, prediction_views, training_views
from db.tables import Run

ALL = slice(None)


def compute_features(
    engine: sa.Engine, settings: Settings, run_id: int, *, share: bool = False
) -> list[Shard]:
    """Compute what the cache lacks. Where that is much, and it may be shared, nothing is computed, and the shards are
    returned instead."""
    run, cells = load(engine, run_id)
    if run.recipe.mode != "features":
        return []
    progress = RunProgress(engine, run_id)
    progress.stage("features")
    lacking = lacking_features(
        wanted_features(run.recipe, cells), run.recipe, weights_of(run.recipe, settings), settings
    )
    if share:
        shards = plan({(name, how.engine, how.precision): n for (name, how), n in lacking.views.items()})
        if shards:
            return shards
    lacking.compute(progress=progress.on_images, check=progress.check)
    return []


def wanted_features(recipe: Recipe, cells: list[SnapshotLine]) -> list[tuple[list[CellImage], View]]:
    """What a run needs of these cells: each in the views that predictions are of, and those that train in all views
    they are trained on."""
    of_all = prediction_views(recipe)
    views = [view for view in training_views(recipe) if view not in of_all]
    own = fitted(cells, "train") + (fitted(cells, "validation") if recipe.n_heads > 1 else [])
    everyone, training = cell_images(cells), cell_images(own)
    return [*((everyone, view) for view in of_all), *((training, view) for view in views)]


def fit(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Train, resuming at the epoch, and save the model with its best weights; after Stop too."""
    run, cells = load(engine, run_id)
    settings.run_folder(run_id).mkdir(parents=True, exist_ok=True)
    progress = RunProgress(engine, run_id)
    progress.stage("fit")
    train, validation = fitted(cells, "train"), fitted(cells, "validation")
    assert not {cell.sha256 for cell in train} & {cell.sha256 for cell in validation}
    found = _note_machine(engine, run, len(train), len(validation))
    try:
        if run.recipe.n_heads > 1:
            _fit_heads(run, cells, settings, progress)
        elif run.recipe.mode == "features":
            _fit_head(run, train, validation, settings, progress)
        else:
            _fit_end_to_end(run, train, validation, settings, progress, found["precision"])
    except StopRequested:
        _save_best(engine, run, cells, settings, progress)
        raise
    _save_best(engine, run, cells, settings, progress)


def _note_machine(engine: sa.Engine, run: RunRow, n_train: int, n_validation: int) -> dict[str, Any]:
    """Store what the fit is computed on. A fit that goes on elsewhere keeps its precision."""
    most = machine.most_devices(*(smallest_batch(run.recipe, n) for n in (n_train, n_validation)))
    found = machine.describe(run.recipe, most)
    found["precision"] = run.machine.get("precision", found["precision"])
    with db.writing(engine) as session:
        session.execute(sa.update(Run).where(Run.id == run.id).values(machine=found))
    return found


def _fit_head(
    run: RunRow,
    train: list[SnapshotLine],
    validation: list[SnapshotLine],
    settings: Settings,
    progress: RunProgress,
) -> None:
    def features(cells: list[SnapshotLine], view: View = ORIGINAL) -> np.ndarray:
        return features_of(run.recipe, cells, settings, progress, view=view)

    fitting.fit_head(
        run.recipe,
        [features(train, view) for view in training_views(run.recipe)],
        indices(train, run.classes),
        features(validation),
        indices(validation, run.classes),
        len(run.classes),
        settings.run_folder(run.id),
        progress,
    )


def _fit_heads(run: RunRow, cells: list[SnapshotLine], settings: Settings, progress: RunProgress) -> None:
    own = [*fitted(cells, "train"), *fitted(cells, "validation")]
    fitting.fit_heads(
        run.recipe,
        [features_of(run.recipe, own, settings, progress, view=view) for view in training_views(run.recipe)],
        indices(own, run.classes),
        held_out(run.recipe, own),
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
    precision: machine.Precision,
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
        precision=precision,
    )


def load(engine: sa.Engine, run_id: int) -> tuple[RunRow, list[SnapshotLine]]:
    with db.reading(engine) as session:
        run = get_run(session, run_id, with_epochs=False)
        return run, lines(session, run.snapshot_id)


def weights_of(recipe: Recipe, settings: Settings) -> dict[BackboneName, Path]:
    """The file with each backbone's weights: as it came, or the model of the run that trained it; empty from scratch.

    Raises:
        UserError: as `pretrained.obtain`, or the run's model is not to be had.
    """
    if recipe.backbone_run is not None:
        return {recipe.backbone: model_file(settings, recipe.backbone_run)}
    if recipe.weights == "none":
        return {}
    return {name: pretrained.obtain(name, settings) for name in recipe.backbones}


def fitted(cells: list[SnapshotLine], part: str) -> list[SnapshotLine]:
    return [cell for cell in cells if cell.part == part and cell.label not in NOT_CLASSES]


def indices(cells: list[SnapshotLine], classes: list[str]) -> np.ndarray:
    position = {name: index for index, name in enumerate(classes)}
    return np.array([position[cell.label] for cell in cells], dtype=np.int64)


def cell_images(cells: list[SnapshotLine]) -> list[CellImage]:
    return [CellImage(cell.sha256, cell_file(cell.path)) for cell in cells]


def features_of(
    recipe: Recipe,
    cells: list[SnapshotLine],
    settings: Settings,
    progress: RunProgress,
    *,
    view: View = ORIGINAL,
    report: Callable[[int, int, float], None] = lambda *_: None,
) -> np.ndarray:
    """The cells' features float32 [n, d] in one view, from the cache where they are there."""
    if recipe.weights == "none" and recipe.backbone_run is None:
        raise UserError("Features need pretrained weights: set weights=imagenet, or mode=finetune.")
    return cached_features(
        cell_images(cells),
        recipe,
        weights_of(recipe, settings),
        settings,
        view=view,
        progress=report,
        check=progress.check,
    )


def by_features(
    run: RunRow,
    cells: list[SnapshotLine],
    settings: Settings,
    progress: RunProgress,
    *,
    only: np.ndarray | slice = ALL,
) -> tuple[keras.Model, np.ndarray]:
    """The head with the weights of its best epoch, and what is said of a snapshot's cells, or `only` of some by their
    rows, before it is calibrated, float32 [n, classes]: the mean over the recipe's views. No backbone is loaded for it.

    Of several heads, only those speak of a cell that never saw it nor its leak group.
    """
    wanted = [cells[row] for row in np.arange(len(cells))[only]]
    n_features = features_of(run.recipe, wanted[:1], settings, progress).shape[1]
    shape = (run.recipe, n_features, len(run.classes), settings.run_folder(run.id))
    head = fitting.best_head(*shape)
    assert head is not None
    say = partial(fitting.head_probabilities, head)
    if run.recipe.n_heads > 1:
        heads, left_out = fitting.best_heads(*shape), held_out(run.recipe, cells)[:, only]
        assert heads is not None
        say = partial(cross_fitting.unseen_probabilities, heads, run.recipe, left_out=left_out)
    said = [
        say(features=features_of(run.recipe, wanted, settings, progress, view=view))
        for view in prediction_views(run.recipe)
    ]
    return head, np.mean(said, axis=0)


def _save_best(
    engine: sa.Engine, run: RunRow, cells: list[SnapshotLine], settings: Settings, progress: RunProgress
) -> None:
    """Save the model with the weights of its best epoch, if there was one, calibrated on validation cells, with several
    heads on all that one of them left out.

    The weights kept for resuming stay as the fit left them, so this can be done again after a kill.
    """
    folder = settings.run_folder(run.id)
    kept = kept_epoch(folder)
    if kept is None:
        return
    weights = weights_of(run.recipe, settings)
    ways = [view.way for view in prediction_views(run.recipe)]
    if run.recipe.mode == "features":
        left_out = np.flatnonzero(held_out(run.recipe, cells).any(axis=0))
        validation = [cells[row] for row in left_out]
        head, probabilities = by_features(run, cells, settings, progress, only=left_out)
        model = over_symmetries(fitting.with_backbones(head, run.recipe, weights), ways)
    else:
        validation = fitted(cells, "validation")
        best = fitting.best_model(run.recipe, run.classes, weights, folder)
        assert best is not None
        model = over_symmetries(best, ways)
        trained = TrainedModel(model, run.recipe, run.classes)
        probabilities = fitting.image_probabilities(trained, cell_images(validation), settings.max_pixels)
    temperature = fit_temperature(indices(validation, run.classes), probabilities)
    weights_hash = pretrained.files_hash(weights)
    model_hash = save_model(
        folder,
        temper(model, temperature),
        recipe=run.recipe,
        classes=run.classes,
        weights_hash=weights_hash,
        temperature=temperature,
    )
    with db.writing(engine) as session:
        session.execute(
            sa.update(Run)
            .where(Run.id == run.id)
            .values(
                best_epoch=kept.epoch,
                weights_hash=weights_hash,
                model_hash=model_hash,
                temperature=temperature,
            )
        )
