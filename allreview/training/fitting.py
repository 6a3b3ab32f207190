"""The fit, in both modes, resumable at the epoch."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from allreview.errors import UserError
from allreview.models.building import build_head, build_model, join
from allreview.models.cross_fitting import as_one_head, build_heads
from allreview.models.saving import TrainedModel
from allreview.recipe import BackboneName, Recipe
from allreview.settings import Settings
from allreview.training import machine, threads
from allreview.training.batches import (
    CrossFitBatches,
    FeatureBatches,
    ImageBatches,
    drawn,
    one_hot,
    smallest_batch,
)
from allreview.training.callbacks import EpochKeeper, Reporter
from allreview.training.checkpoints import BEST_FILE, kept_epoch, restore_backup
from allreview.training.compiling import compiled
from allreview.training.cross_fitting import validation_of
from allreview.training.epochs import FitHooks, is_over
from allreview.training.features import decoded
from allreview.training.frozen import frozen_backbone
from allreview.training.heads import head_trainer
from allreview.training.tensorboard import EventLog
from allreview.training.views import CellImage

_CELLS_TOGETHER = 4096
"""Cells by their features that are predicted at once."""


def fit_head(
    recipe: Recipe,
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    validation: np.ndarray,
    validation_labels: np.ndarray,
    n_classes: int,
    folder: Path,
    hooks: FitHooks,
) -> None:
    """Train the head on cached features; `best_head` gives it with the weights of its best epoch.

    `views` holds the training cells' features float32 [n, d], once for each of `features.training_views`; see
    `batches.drawn` for which is shown when. `labels` are class positions [n]. `folder` is the run's own; a fit
    found half done there goes on.

    Raises:
        StopRequested: from `hooks.check`; `best_model` then has the best complete epoch, if there is one.
        UserError: there are no cells, or the loss diverged.
    """
    _require_cells(labels, validation_labels)
    _seed(recipe)
    train = FeatureBatches(recipe, views, labels, n_classes)
    kept = head_trainer(recipe, views[0].shape[1], n_classes, len(train))
    _start_normalization(kept.head, views, drawn(recipe, labels, 1, 0)[0])
    ones = np.ones(len(validation), np.float32)
    held_out = (validation, one_hot(validation_labels, n_classes), ones)

    def run(epochs: range, callbacks: list[Any]) -> None:
        kept.fit(train, held_out, epochs, callbacks)

    _fit(kept.head, kept.trainer, recipe, train, run, folder=folder, hooks=hooks)


def fit_heads(
    recipe: Recipe,
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    left_out: np.ndarray,
    n_classes: int,
    folder: Path,
    hooks: FitHooks,
) -> None:
    """Train several heads side by side; `best_head` gives them as one, `best_heads` as they are.

    An epoch is judged by the mean of all heads' figures, each on the cells it leaves out: `left_out` [heads, n] of the
    training and validation cells. `views` begins with the cells as they lie. For the rest see `fit_head`.

    Raises:
        StopRequested, UserError: as `fit_head`.
    """
    _require_cells(labels, labels[left_out.any(axis=0)])
    _seed(recipe)
    train = CrossFitBatches(recipe, views, labels, left_out, n_classes)
    kept = head_trainer(recipe, views[0].shape[1], n_classes, len(train))
    _start_normalization(kept.head, views, np.arange(len(labels)))
    held_out = validation_of(views[0], labels, left_out, n_classes)

    def run(epochs: range, callbacks: list[Any]) -> None:
        kept.fit(train, held_out, epochs, callbacks)

    _fit(kept.head, kept.trainer, recipe, train, run, folder=folder, hooks=hooks)


def fit_end_to_end(
    recipe: Recipe,
    train: Sequence[CellImage],
    labels: np.ndarray,
    validation: Sequence[CellImage],
    validation_labels: np.ndarray,
    classes: Sequence[str],
    weights: Mapping[BackboneName, Path],
    folder: Path,
    settings: Settings,
    hooks: FitHooks,
    *,
    precision: machine.Precision = "float32",
    devices: Sequence[str] | None = None,
) -> keras.Model:
    """Train backbones and head together on images, and return the model with the weights of its best epoch.

    `weights` has the pretrained file of each backbone, none from scratch. `devices` share each batch: all GPUs
    unless they are named. For the rest see `fit_head`.

    Raises:
        StopRequested: from `hooks.check`.
        UserError: there are no cells, a file cannot be read, the weights do not fit, or the loss diverged.
    """
    _require_cells(labels, validation_labels)
    _seed(recipe)
    with ThreadPoolExecutor(max_workers=threads.count()) as pool:
        reading = {"max_pixels": settings.max_pixels, "pool": pool}
        batches = ImageBatches(recipe, train, labels, len(classes), training=True, **reading)
        held_out = ImageBatches(
            recipe, validation, validation_labels, len(classes), training=False, **reading
        )
        smallest = [smallest_batch(recipe, part.n_cells) for part in (batches, held_out)]
        strategy = machine.strategy(devices, machine.most_devices(*smallest))
        try:
            with strategy.scope(), machine.computing_in(precision):
                model = build_model(recipe, classes, weights)
                trainer = compiled(keras.Model(model.inputs, model.outputs), recipe, len(batches))
                if tf.distribute.get_strategy().num_replicas_in_sync > 1:
                    machine.build_by(trainer, batches[0])

                def run(epochs: range, callbacks: list[Any]) -> None:
                    trainer.fit(
                        batches,  # pyright: ignore[reportArgumentType]
                        validation_data=held_out,  # pyright: ignore[reportArgumentType]
                        epochs=epochs.stop,
                        initial_epoch=epochs.start,
                        shuffle=False,
                        verbose=0,  # pyright: ignore[reportArgumentType]
                        callbacks=callbacks,
                    )

                _fit(model, trainer, recipe, batches, run, folder=folder, hooks=hooks)
                model.load_weights(folder / BEST_FILE)
                return model
        except tf.errors.OpError:
            # tf.data hides what a Python reader raised behind an error of its own.
            failure = batches.failure or held_out.failure
            if failure is None:
                raise
            raise failure from None


def best_model(
    recipe: Recipe, classes: Sequence[str], weights: Mapping[BackboneName, Path], folder: Path
) -> keras.Model | None:
    """The whole model with the weights of the best epoch in `folder`; None if no epoch was completed.

    After a fit in *finetune* mode has ended or was stopped; it computes in float32 whatever it was trained in.
    """
    if kept_epoch(folder) is None:
        return None
    model = build_model(recipe, classes, weights)
    model.load_weights(folder / BEST_FILE)
    return model


def best_head(recipe: Recipe, n_features: int, n_classes: int, folder: Path) -> keras.Model | None:
    """The head with the weights of the best epoch in `folder`; None if no epoch was completed.

    After a fit in *features* mode has ended or was stopped; several heads are given as the one they make. Its mean
    over the views that predictions are of, with the run's temperature (`calibration.tempered`), is what the run's
    saved model says of images.
    """
    if recipe.n_heads > 1:
        heads = best_heads(recipe, n_features, n_classes, folder)
        return heads and as_one_head(heads, recipe)
    if kept_epoch(folder) is None:
        return None
    head = build_head(recipe, n_features, n_classes)
    head.load_weights(folder / BEST_FILE)
    return head


def best_heads(recipe: Recipe, n_features: int, n_classes: int, folder: Path) -> keras.Model | None:
    """Several heads (`cross_fitting.build_heads`) with the weights of the best epoch in `folder`; None if no epoch was
    completed."""
    if kept_epoch(folder) is None:
        return None
    heads = build_heads(recipe, n_features, n_classes)
    heads.load_weights(folder / BEST_FILE)
    return heads


def with_backbones(head: keras.Model, recipe: Recipe, weights: Mapping[BackboneName, Path]) -> keras.Model:
    """The whole flat model of a head that was trained on features.

    The layers of a single backbone are those of the one kept in memory.
    """
    backbones = [
        frozen_backbone(name, recipe.image_size, weights[name], pooling=recipe.pooling).model
        for name in recipe.backbones
    ]
    return join(backbones, head, recipe)


def head_probabilities(head: keras.Model, features: np.ndarray) -> np.ndarray:
    """What a head says of cells by their cached features [n, d]: probabilities float32 [n, classes]."""
    found = np.empty((len(features), head.output_shape[-1]), dtype=np.float32)
    for start in range(0, len(features), _CELLS_TOGETHER):
        rows = slice(start, start + _CELLS_TOGETHER)
        found[rows] = np.asarray(head(features[rows], training=False))
    return found


def image_probabilities(model: TrainedModel, images: Sequence[CellImage], max_pixels: int) -> np.ndarray:
    """What the model says of cells by their images: probabilities float32 [n, classes].

    Raises:
        UserError: a file cannot be read or has changed; names it.
    """
    batches = decoded(images, model.recipe, max_pixels)
    return np.concatenate([model.probabilities(pixels) for _, pixels in batches])


def _fit(
    network: keras.Model,
    trainer: keras.Model,
    recipe: Recipe,
    batches: FeatureBatches | CrossFitBatches | ImageBatches,
    run: Callable[[range, list[Any]], None],
    *,
    folder: Path,
    hooks: FitHooks,
) -> None:
    """Have the epochs run that the folder lacks, counted from 0, and keep the best and the last of them there.

    `network` is uncompiled, so it saves weights only; `trainer` is compiled, on the same layers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = restore_backup(trainer, folder)
    events = EventLog(folder, rows)
    try:
        if not is_over(rows, recipe):
            hooks.check()
            averages = keras.callbacks.SwapEMAWeights() if recipe.weight_averaging else None
            if averages is not None:
                averages.set_model(trainer)
            keeper = EpochKeeper(network, trainer, recipe, batches, folder, rows, events, hooks, averages)
            callbacks = [Reporter(trainer, recipe, batches, hooks), averages, keeper]
            run(range(len(rows), recipe.epochs), [one for one in callbacks if one is not None])
    finally:
        events.close()


def _start_normalization(head: keras.Model, views: Sequence[np.ndarray], rows: np.ndarray) -> None:
    """Start the moving statistics of the head, or of all heads alike, at those of the features of an epoch, `rows`,
    where they would end.

    The features of a frozen backbone never change, so neither do their mean and variance. From Keras's start
    (0 and 1) with the paper's momentum of 0.99, hundreds of steps would pass before predictions can be trusted:
    more than a few hundred cells have in twenty epochs.
    """
    layer: Any = head.get_layer("head_normalization")
    shown = np.sort(rows)
    heads = layer.moving_mean.shape[0] // views[0].shape[1]
    mean = np.mean([view[shown].mean(axis=0) for view in views], axis=0)
    variance = np.mean([view[shown].var(axis=0) for view in views], axis=0)
    layer.moving_mean.assign(np.tile(mean, heads))
    layer.moving_variance.assign(np.tile(variance, heads))


def _seed(recipe: Recipe) -> None:
    keras.utils.set_random_seed(recipe.seed)


def _require_cells(labels: np.ndarray, validation_labels: np.ndarray) -> None:
    for name, found in (("training", labels), ("validation", validation_labels)):
        if len(found) == 0:
            raise UserError(f"There are no {name} cells: label more cells, or change the split.")
