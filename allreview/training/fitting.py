"""The fit, in both modes, resumable at the epoch.

Order, views and dropout of an epoch follow from the recipe's seed and the epoch's number: a fit that was
killed and resumed gives the numbers of one that was not.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from allreview.errors import UserError
from allreview.models.backbones import backbone_named
from allreview.models.building import build_head, build_model, compile_model, head_of, join
from allreview.models.saving import TrainedModel
from allreview.recipe import Recipe
from allreview.settings import Settings
from allreview.training.callbacks import (
    BEST_FILE,
    Batches,
    EpochKeeper,
    EpochRow,
    FitHooks,
    Reporter,
    StopRequested,
    best_epoch,
    kept_epoch,
    restore_backup,
)
from allreview.training.features import CellImage, frozen_backbone, read_cell

__all__ = [
    "EpochRow",
    "FitHooks",
    "StopRequested",
    "best_epoch",
    "best_model",
    "fit_end_to_end",
    "fit_head",
    "head_probabilities",
    "kept_epoch",
]

VALIDATION_BATCH = 256
PIXEL_MEMORY_BYTES = 1 << 30
"""Decoded training cells are kept in memory between epochs up to this size; the rest is decoded anew."""


def fit_head(
    recipe: Recipe,
    views: Sequence[np.ndarray],
    labels: np.ndarray,
    validation: np.ndarray,
    validation_labels: np.ndarray,
    n_classes: int,
    folder: Path,
    hooks: FitHooks,
) -> keras.Model:
    """Train the head on cached features, and return it with the weights of its best epoch.

    `views` holds the training cells' features float32 [n, d], once for each view (original, and mirrored
    when the recipe flips); in every epoch each cell appears once, in a view chosen at random. `labels` are
    class positions [n]. `folder` is the run's own; a fit found half done there goes on.

    Raises:
        StopRequested: from `hooks.check`; `best_model` then has the best complete epoch, if there is one.
        UserError: there are no cells, or the loss diverged.
    """
    _require_cells(labels, validation_labels)
    _seed(recipe)
    head = build_head(recipe, views[0].shape[1], n_classes)
    _start_normalization(head, views)
    train = FeatureBatches(recipe, views, labels, n_classes)
    held_out = (validation, _one_hot(validation_labels, n_classes))
    return _fit(head, recipe, train, held_out, folder=folder, hooks=hooks)


def fit_end_to_end(
    recipe: Recipe,
    train: Sequence[CellImage],
    labels: np.ndarray,
    validation: Sequence[CellImage],
    validation_labels: np.ndarray,
    classes: Sequence[str],
    weights: Path | None,
    folder: Path,
    settings: Settings,
    hooks: FitHooks,
) -> keras.Model:
    """Train backbone and head together on images, and return the model with the weights of its best epoch.

    `weights` is the pretrained file, None when the recipe starts from scratch. For the rest see `fit_head`.

    Raises:
        StopRequested: from `hooks.check`.
        UserError: there are no cells, a file cannot be read, the weights do not fit, or the loss diverged.
    """
    _require_cells(labels, validation_labels)
    _seed(recipe)
    model = build_model(recipe, classes, weights)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        reading = {"max_pixels": settings.max_pixels, "pool": pool}
        batches = ImageBatches(recipe, train, labels, len(classes), training=True, **reading)
        held_out = ImageBatches(
            recipe, validation, validation_labels, len(classes), training=False, **reading
        )
        try:
            return _fit(model, recipe, batches, held_out, folder=folder, hooks=hooks)
        except tf.errors.OpError:
            # tf.data hides what a Python reader raised behind an error of its own.
            failure = batches.failure or held_out.failure
            if failure is None:
                raise
            raise failure from None


def best_model(
    recipe: Recipe, classes: Sequence[str], weights: Path | None, folder: Path
) -> keras.Model | None:
    """The whole flat model with the weights of the best epoch in `folder`; None if no epoch was completed.

    For both modes, after a fit has ended or was stopped. In *features* mode the backbone's layers are those
    of the backbone kept in memory.
    """
    if kept_epoch(folder) is None:
        return None
    if recipe.mode == "finetune":
        model = build_model(recipe, classes, weights)
        model.load_weights(folder / BEST_FILE)
        return model
    if weights is None:
        raise ValueError("a frozen backbone needs its weights")
    backbone = frozen_backbone(recipe, weights)
    head = build_head(recipe, backbone.n_features, len(classes))
    head.load_weights(folder / BEST_FILE)
    return join(backbone.model, head, recipe)


def head_probabilities(model: TrainedModel, features: np.ndarray) -> np.ndarray:
    """What the model says of cells by their cached features [n, d]: probabilities float32 [n, classes]."""
    head: Any = head_of(model.model)
    return head.predict(features, batch_size=VALIDATION_BATCH, verbose=0)


class FeatureBatches(keras.utils.PyDataset):
    """Batches of features, labels (one-hot) and cell weights."""

    def __init__(
        self, recipe: Recipe, views: Sequence[np.ndarray], labels: np.ndarray, n_classes: int
    ) -> None:
        super().__init__()
        self.recipe, self.views = recipe, views
        self.targets = _one_hot(labels, n_classes)
        self.weights = _cell_weights(recipe, labels, n_classes)
        self.n_cells = len(labels)
        self.begin(0)

    def begin(self, epoch: int) -> None:
        self.order, self.choice = _draw(self.recipe, self.n_cells, len(self.views), epoch)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        rows = self.order[index]
        features = self.views[0][rows]
        for number, view in enumerate(self.views[1:], start=1):
            chosen = self.choice[rows] == number
            features[chosen] = view[rows[chosen]]
        return features, self.targets[rows], self.weights[rows]


class ImageBatches(keras.utils.PyDataset):
    """Batches of prepared images, labels (one-hot) and, in training, cell weights.

    A batch is decoded by the pool's threads; Keras asks for it while the one before is in the network.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: Sequence[CellImage],
        labels: np.ndarray,
        n_classes: int,
        *,
        max_pixels: int,
        pool: ThreadPoolExecutor,
        training: bool,
    ) -> None:
        super().__init__()
        self.recipe, self.images, self.max_pixels = recipe, images, max_pixels
        self.pool, self.training = pool, training
        self.targets = _one_hot(labels, n_classes)
        self.weights = _cell_weights(recipe, labels, n_classes)
        self.preprocess = backbone_named(recipe.backbone).preprocess
        self.n_cells = len(labels)
        self.kept: dict[int, np.ndarray] = {}
        self.may_keep = PIXEL_MEMORY_BYTES // (recipe.image_size**2 * 3)
        self.failure: Exception | None = None
        self.order = np.array_split(np.arange(self.n_cells), _n_batches(recipe, self.n_cells))
        self.choice = np.zeros(self.n_cells, dtype=np.int64)
        if training:
            self.begin(0)

    def begin(self, epoch: int) -> None:
        self.order, self.choice = _draw(self.recipe, self.n_cells, 2 if self.recipe.flip else 1, epoch)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        rows = self.order[index]
        try:
            pixels = self.preprocess(np.stack(list(self.pool.map(self._pixels, rows))))
        except Exception as error:
            self.failure = error
            raise
        return (
            (pixels, self.targets[rows], self.weights[rows])
            if self.training
            else (pixels, self.targets[rows])
        )

    def _pixels(self, row: int) -> np.ndarray:
        pixels = self.kept.get(row)
        if pixels is None:
            pixels = read_cell(self.images[row], self.recipe, self.max_pixels)
            if len(self.kept) < self.may_keep:
                self.kept[row] = pixels
        return pixels[:, ::-1] if self.choice[row] else pixels


def _fit(
    network: keras.Model,
    recipe: Recipe,
    batches: Batches,
    validation: tuple[np.ndarray, np.ndarray] | ImageBatches,
    *,
    folder: Path,
    hooks: FitHooks,
) -> keras.Model:
    """Fit from the last complete epoch on; the network itself stays uncompiled, so it saves weights only."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer = compile_model(keras.Model(network.inputs, network.outputs), recipe)
    done = restore_backup(trainer, folder)
    if done < recipe.epochs:
        hooks.check()
        trainer.fit(
            batches,  # pyright: ignore[reportArgumentType]
            validation_data=validation,  # pyright: ignore[reportArgumentType]
            validation_batch_size=None if isinstance(validation, ImageBatches) else VALIDATION_BATCH,
            epochs=recipe.epochs,
            initial_epoch=done,
            shuffle=False,
            verbose=0,  # pyright: ignore[reportArgumentType]
            callbacks=[
                Reporter(trainer, recipe, batches, hooks),
                EpochKeeper(network, trainer, recipe, folder, hooks),
            ],
        )
    network.load_weights(folder / BEST_FILE)
    return network


def _draw(recipe: Recipe, n_cells: int, n_views: int, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
    """The epoch's batches, as rows, and the view of each cell; from the seed and the epoch alone.

    Batches differ by one cell at most: a last batch of a single cell would upset batch normalisation.
    """
    generator = np.random.default_rng([recipe.seed, epoch])
    order = np.array_split(generator.permutation(n_cells), _n_batches(recipe, n_cells))
    return order, generator.integers(n_views, size=n_cells)


def _n_batches(recipe: Recipe, n_cells: int) -> int:
    return math.ceil(n_cells / recipe.batch_size)


def _start_normalization(head: keras.Model, views: Sequence[np.ndarray]) -> None:
    """Start the head's moving statistics at those of the training features, where they would end.

    The features of a frozen backbone never change, so neither do their mean and variance. From Keras's start
    (0 and 1) with the paper's momentum of 0.99, hundreds of steps would pass before predictions can be trusted:
    more than a few hundred cells have in twenty epochs.
    """
    layer: Any = head.get_layer("head_normalization")
    layer.moving_mean.assign(np.mean([view.mean(axis=0) for view in views], axis=0))
    layer.moving_variance.assign(np.mean([view.var(axis=0) for view in views], axis=0))


def _seed(recipe: Recipe) -> None:
    keras.utils.set_random_seed(recipe.seed)


def _require_cells(labels: np.ndarray, validation_labels: np.ndarray) -> None:
    for name, found in (("training", labels), ("validation", validation_labels)):
        if len(found) == 0:
            raise UserError(f"There are no {name} cells: label more cells, or change the split.")


def _one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    return np.eye(n_classes, dtype=np.float32)[labels]


def _cell_weights(recipe: Recipe, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Each cell's weight in the loss, float32 [n]: n / (classes present * cells of its class), or 1."""
    if recipe.imbalance != "class_weights":
        return np.ones(len(labels), dtype=np.float32)
    counts = np.bincount(labels, minlength=n_classes)
    present = np.count_nonzero(counts)
    return (len(labels) / (present * counts[labels])).astype(np.float32)
