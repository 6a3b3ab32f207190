"""What a fit does between batches and epochs: report, stop, keep the best epoch, back up, stop early."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from allreview.recipe import Recipe
from allreview.training.checkpoints import back_up, keep_best, kept_epoch
from allreview.training.compiling import rate_at
from allreview.training.epochs import EpochRow, FitHooks, is_better, is_over, require_finite
from allreview.training.tensorboard import EventLog

SECONDS_BETWEEN_REPORTS = 0.25
SECONDS_BETWEEN_BACKUPS = 1.0
"""What a kill costs at most, besides the epoch it fell into: a head's epochs are shorter than their backups take."""

MEASURED = ("loss", "accuracy", "val_loss", "val_accuracy", "val_cross_entropy")
"""What Keras logs of an epoch, by the names of `compile_model`'s metrics."""


class Batches(Protocol):
    """Training batches whose content depends on the recipe's seed and the epoch, on nothing else.

    `n_cells` counts the cells of an epoch, each as often as it is shown.
    """

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
        figures = logs or self.trainer.get_metrics_result()
        require_finite(self.recipe, self.epoch + 1, float(figures["loss"]))
        steps = len(self.batches)
        done, total = self.epoch * steps + batch + 1, self.recipe.epochs * steps
        seconds_per_batch = (now - self.first_batch_at) / self.measured
        images_per_second = self.batches.n_cells / steps / max(seconds_per_batch, 1e-9)
        self.hooks.on_batch(done, total, images_per_second, (total - done) * seconds_per_batch)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self.hooks.check()


class EpochKeeper(keras.callbacks.Callback):
    """At each epoch's end: keep it if it is the best, report it, back it up, log it; in this order.

    So after a kill between any two of these the epoch is run again and nothing is lost: the best file knows
    its own figures, and the same epoch is no improvement on itself. The same holds for the few epochs that were over
    too soon after the last backup to have one of their own. `network` is the uncompiled model, `trainer`
    the compiled one on the same layers, `rows` the epochs done before; `events` has them already. With `averages` it is
    the moving average of the weights that is kept, and the weights themselves are backed up beside it.
    """

    def __init__(
        self,
        network: keras.Model,
        trainer: keras.Model,
        recipe: Recipe,
        batches: Batches,
        folder: Path,
        rows: list[EpochRow],
        events: EventLog,
        hooks: FitHooks,
        averages: keras.callbacks.SwapEMAWeights | None = None,
    ) -> None:
        super().__init__()
        self.averages = averages
        self.network, self.trainer, self.recipe, self.batches = network, trainer, recipe, batches
        self.folder, self.rows, self.events, self.hooks = folder, rows, events, hooks
        self.best = kept_epoch(folder)
        self.began = 0.0
        self.backed_up_at = -math.inf

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        row = self._row(epoch + 1, {name: float((logs or {})[name]) for name in MEASURED})
        if self.best is None or is_better(row, self.best, self.recipe.best_by):
            with averaged(self.averages):
                keep_best(self.network, self.folder, row)
            self.best = row
        self.hooks.on_epoch(row)
        self.rows.append(row)
        over = is_over(self.rows, self.recipe)
        if over or time.perf_counter() - self.backed_up_at >= SECONDS_BETWEEN_BACKUPS:
            back_up(self.trainer, self.folder, self.rows)
            self.backed_up_at = time.perf_counter()
        self.events.write(row)
        if over:
            self.trainer.stop_training = True

    def _row(self, epoch: int, figures: dict[str, float]) -> EpochRow:
        for value in figures.values():
            require_finite(self.recipe, epoch, value)
        last_step = int(self.trainer.optimizer.iterations.numpy()) - 1
        return EpochRow(
            epoch=epoch,
            learning_rate=rate_at(self.recipe, len(self.batches), last_step),
            seconds=time.perf_counter() - self.began,
            **figures,
        )


@contextmanager
def averaged(averages: keras.callbacks.SwapEMAWeights | None) -> Iterator[None]:
    """Have the network its averaged weights, as in validation, if they are averaged."""
    if averages is None:
        yield
        return
    averages.on_test_begin()
    try:
        yield
    finally:
        averages.on_test_end()


def seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Start the epoch's random numbers anew: weight files do not hold where the generators stood."""
    layers: Any = model.layers
    for position, layer in enumerate(layers):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            state = np.random.SeedSequence([seed, epoch, position]).generate_state(2)
            generator.state.assign(state.astype(generator.state.dtype))
