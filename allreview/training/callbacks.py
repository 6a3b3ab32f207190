"""What a fit does between batches and epochs: report, stop, keep the best epoch, back up.

Keras's own `BackupAndRestore` writes the weights and the epoch number into two files in place; a kill
between or inside the writes leaves them apart, or unreadable. A weight file here carries its epoch within
itself and is renamed into place whole.
"""

import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import h5py
import keras
import numpy as np

from allreview.errors import UserError
from allreview.models.saving import put_in_place
from allreview.recipe import Recipe

BEST_FILE = "best.weights.h5"
BACKUP_FOLDER = "backup"
BACKUP_FILE = "latest.weights.h5"
SECONDS_BETWEEN_REPORTS = 0.25

MEASURED = ("loss", "accuracy", "val_loss", "val_accuracy", "val_cross_entropy")
"""What Keras logs of an epoch, by the names of `compile_model`'s metrics."""

BestBy = Literal["val_cross_entropy", "val_loss", "val_accuracy"]


class StopRequested(Exception):  # noqa: N818 - it is no error
    """Raised by `FitHooks.check` when somebody pressed Stop; ends a fit within one batch."""


@dataclass(frozen=True)
class EpochRow:
    """What one epoch measured. Epochs count from 1.

    Losses include the penalties of the head, `val_cross_entropy` does not. `learning_rate` is that of the last
    step.

    `loss` and `accuracy` are running means over the epoch's batches, with dropout; the `val_` figures are
    of the model at the epoch's end. `seconds` includes validation.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    val_cross_entropy: float
    learning_rate: float
    seconds: float


class FitHooks(Protocol):
    """Whoever started the fit, told how it goes."""

    def on_epoch(self, row: EpochRow) -> None:
        """An epoch is complete. After a kill the last epoch may come once more, with the same figures."""
        ...

    def on_batch(
        self, done_batches: int, total_batches: int, images_per_second: float, seconds_left: float
    ) -> None:
        """A batch is complete; called some four times a second. Counts are over all epochs."""
        ...

    def check(self) -> None:
        """Called after every batch, of validation too. May raise `StopRequested`."""
        ...


class Batches(Protocol):
    """Training batches whose order and views depend on the recipe's seed and the epoch, on nothing else."""

    n_cells: int

    def begin(self, epoch: int) -> None: ...

    def __len__(self) -> int: ...


class Reporter(keras.callbacks.Callback):
    """Prepares each epoch's batches, reports progress, looks for Stop and for a diverging loss."""

    def __init__(self, trainer: keras.Model, recipe: Recipe, batches: Batches, hooks: FitHooks) -> None:
        super().__init__()
        self.trainer, self.recipe, self.batches, self.hooks = trainer, recipe, batches, hooks
        self.epoch = self.measured = 0
        self.first_batch_at: float | None = None
        self.reported_at = -math.inf

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.batches.begin(epoch)
        seed_dropout(self.trainer, self.recipe.seed, epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.hooks.check()
        now = time.perf_counter()
        if self.first_batch_at is None:  # the first batch traces the graph and says nothing of the pace
            self.first_batch_at = now
            return
        self.measured += 1
        if now - self.reported_at < SECONDS_BETWEEN_REPORTS:
            return
        self.reported_at = now
        require_finite(self.recipe, self.epoch + 1, float((logs or {})["loss"]))
        steps = len(self.batches)
        done, total = self.epoch * steps + batch + 1, self.recipe.epochs * steps
        seconds_per_batch = (now - self.first_batch_at) / self.measured
        images_per_second = self.batches.n_cells / steps / max(seconds_per_batch, 1e-9)
        self.hooks.on_batch(done, total, images_per_second, (total - done) * seconds_per_batch)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.hooks.check()


class EpochKeeper(keras.callbacks.Callback):
    """At each epoch's end: keep it if it is the best, report it, back it up; in this order.

    `network` is the uncompiled model, `trainer` the compiled one on the same layers.

    So after a kill between any two of these the epoch is run again and nothing is lost: the best file knows
    its own figures, and the same epoch is no improvement on itself.
    """

    def __init__(
        self, network: keras.Model, trainer: keras.Model, recipe: Recipe, folder: Path, hooks: FitHooks
    ) -> None:
        super().__init__()
        self.network, self.trainer, self.recipe = network, trainer, recipe
        self.folder, self.hooks = folder, hooks
        self.best = kept_epoch(folder)
        self.began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        figures = {name: float((logs or {})[name]) for name in MEASURED}
        for value in figures.values():
            require_finite(self.recipe, epoch + 1, value)
        row = EpochRow(
            epoch=epoch + 1,
            learning_rate=float(self.trainer.optimizer.learning_rate),
            seconds=time.perf_counter() - self.began,
            **figures,
        )
        if self.best is None or is_better(row, self.best, self.recipe.best_by):
            write_weights(self.network, self.folder / BEST_FILE, asdict(row))
            self.best = row
        self.hooks.on_epoch(row)
        write_weights(self.trainer, self.folder / BACKUP_FOLDER / BACKUP_FILE, {"epoch": epoch + 1})


def seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Start the epoch's random numbers anew: weight files do not hold where the generators stood."""
    layers: Any = model.layers
    for position, layer in enumerate(layers):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            state = np.random.SeedSequence([seed, epoch, position]).generate_state(2)
            generator.state.assign(state.astype(generator.state.dtype))


def is_better(row: EpochRow, than: EpochRow, best_by: BestBy) -> bool:
    """Whether an epoch beats an earlier one. A tie keeps the earlier."""
    if best_by == "val_accuracy":
        return row.val_accuracy > than.val_accuracy
    return getattr(row, best_by) < getattr(than, best_by)


def best_epoch(rows: Sequence[EpochRow], best_by: BestBy) -> int | None:
    """The number of the best of these epochs, the earliest of equals; None of none."""
    best: EpochRow | None = None
    for row in sorted(rows, key=lambda row: row.epoch):
        if best is None or is_better(row, best, best_by):
            best = row
    return None if best is None else best.epoch


def require_finite(recipe: Recipe, epoch: int, value: float) -> None:
    """Raise `UserError` when a fit has diverged."""
    if not math.isfinite(value):
        raise UserError(
            f"The training diverged in epoch {epoch} (its loss is no longer a number): train again with a "
            f"learning_rate below {recipe.learning_rate:g}."
        )


def kept_epoch(folder: Path) -> EpochRow | None:
    """The epoch whose weights are kept in the folder; None before the first is complete."""
    path = folder / BEST_FILE
    if not path.is_file():
        return None
    with h5py.File(path, "r") as file:
        figures: Any = file.attrs
        return EpochRow(**{field.name: figures[field.name].item() for field in fields(EpochRow)})


def write_weights(model: keras.Model, path: Path, attributes: dict[str, int | float]) -> None:
    """Write a model's weights (with its optimiser's, if compiled) and say in the file what they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{uuid.uuid4().hex}.weights.h5")
    try:
        model.save_weights(temporary)
        with h5py.File(temporary, "r+") as file:
            file.attrs.update(attributes)
        put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def restore_backup(model: keras.Model, folder: Path) -> int:
    """Bring a compiled model back to its last complete epoch, optimiser included; returns how many it has."""
    path = folder / BACKUP_FOLDER / BACKUP_FILE
    if not path.is_file():
        return 0
    with h5py.File(path, "r") as file:
        attributes: Any = file.attrs
        epochs = int(attributes["epoch"])
    model.optimizer.build(model.trainable_variables)
    model.load_weights(path)
    return epochs
