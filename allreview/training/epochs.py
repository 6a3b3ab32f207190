"""What one epoch measured, which epoch is best, and how a fit talks to whoever started it. Without Keras."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from allreview.errors import UserError
from allreview.recipe import Recipe

BestBy = Literal["val_cross_entropy", "val_loss", "val_accuracy"]


class StopRequested(Exception):  # noqa: N818 - it is no error
    """Raised by `FitHooks.check` when somebody pressed Stop; ends a fit within one batch."""


@dataclass(frozen=True)
class EpochRow:
    """What one epoch measured. Epochs count from 1.

    Losses include the penalties of the head and the smoothing of labels, `val_cross_entropy` does not.
    `learning_rate` is that of the last step.

    `loss` and `accuracy` are running means over the epoch's batches, with dropout and mixing; the `val_` figures
    are of the model at the epoch's end. `seconds` includes validation.
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
        """An epoch is complete. After a kill the last epochs may come once more, with the same figures."""
        ...

    def on_batch(
        self, done_batches: int, total_batches: int, images_per_second: float, seconds_left: float
    ) -> None:
        """A batch is complete; called some four times a second. Counts are over all epochs."""
        ...

    def check(self) -> None:
        """Called after every batch, of validation too. May raise `StopRequested`."""
        ...


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


def is_over(rows: Sequence[EpochRow], recipe: Recipe) -> bool:
    """Whether a fit with these epochs behind it has ended: all are done, or patience has run out."""
    best = best_epoch(rows, recipe.best_by)
    if best is None:
        return False
    last = max(row.epoch for row in rows)
    return last >= recipe.epochs or (recipe.patience is not None and last - best >= recipe.patience)


def require_finite(recipe: Recipe, epoch: int, value: float) -> None:
    """Raise `UserError` when a fit has diverged."""
    if not math.isfinite(value):
        raise UserError(
            f"The training diverged in epoch {epoch} (its loss is no longer a number): train again with a "
            f"learning_rate below {recipe.learning_rate:g}."
        )
