"""Every figure of `metrics.evaluate` for many resamples of the subjects at once.

A resample is a row of weights: how often each unit (a subject with its cells) was drawn. Sums over cells are
kept for each unit, so a thousand resamples are one matrix product; only rankings need the cells themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allreview.errors import UserError
from allreview.evaluation.metrics import (
    CALIBRATION_BINS,
    calibration_bins,
    checked,
    positions,
    ranked_classes,
    squared_errors,
)

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]

_NUMBERS_AT_ONCE = 2_000_000
"""Of the weights of cells in rankings: bounds the memory however many cells there are."""


@dataclass(frozen=True)
class Sample:
    """n cells of u units as a model judged them: what they are, what it said, and which unit each belongs to.

    `truth`, `best` (the predicted class) and `unit` are positions [n], `table` the probabilities [n, k].
    """

    truth: Positions
    best: Positions
    table: Floats
    classes: list[str]
    unit: Positions
    units: int


def sample(
    labels: Sequence[str],
    probabilities: ArrayLike,
    classes: Sequence[str],
    unit: Positions,
    units: int,
    predicted: Sequence[str] | None = None,
) -> Sample:
    """A sample from names; `unit` as `numbered` gives it.

    Raises:
        UserError: as `metrics.evaluate`, or the units are not one for each cell.
    """
    classes = list(classes)
    table = checked(labels, probabilities, classes)
    index = {name: position for position, name in enumerate(classes)}
    best = table.argmax(axis=1) if predicted is None else positions(predicted, index)
    if not len(labels) == len(unit) == len(best):
        raise UserError(
            f"There are {len(labels)} cells, {len(unit)} subjects and {len(best)} predictions:"
            " give one of each for each cell."
        )
    return Sample(positions(labels, index), best, table, classes, unit, units)


def numbered(units: Sequence[str | None]) -> tuple[Positions, int]:
    """The position of each cell's unit, and how many units there are. A cell without one stands alone."""
    names = {name: position for position, name in enumerate(sorted({u for u in units if u is not None}))}
    following = iter(range(len(names), len(names) + len(units)))
    found = [names[unit] if unit is not None else next(following) for unit in units]
    return np.array(found, dtype=np.int64), len(names) + sum(unit is None for unit in units)


def figures(of: Sample, weights: Floats) -> dict[str, Floats]:
    """Each figure of `metrics.FIGURES` in each resample, [b]; NaN where it is undefined.

    A figure that averages over classes is also undefined where a resample lacks a class that the sample has:
    it would be the mean of something else.

    Args:
        of: the cells.
        weights: [b, u], how often each unit was drawn.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        confusion = _confusion(of, weights)
        complete = (confusion.sum(axis=2) > 0)[:, np.unique(of.truth)].all(axis=1)
        found = (
            _rates(confusion) | _calibration(of, weights, confusion.sum(axis=(1, 2))) | _rankings(of, weights)
        )
    averaged = {
        "balanced_accuracy",
        "macro_precision",
        "macro_recall",
        "macro_f1",
        "auroc",
        "average_precision",
    }
    return {name: np.where(complete, row, np.nan) if name in averaged else row for name, row in found.items()}


def _summed(of: Sample, kind: Positions, kinds: int, values: Floats | None = None) -> Floats:
    """Sums of `values` (or counts) of each kind in each unit, [u, kinds]."""
    flat = np.bincount(of.unit * kinds + kind, weights=values, minlength=of.units * kinds)
    return flat.reshape(of.units, kinds).astype(np.float64)


def _confusion(of: Sample, weights: Floats) -> Floats:
    k = len(of.classes)
    return (weights @ _summed(of, of.truth * k + of.best, k * k)).reshape(len(weights), k, k)


def _rates(confusion: Floats) -> dict[str, Floats]:
    right = np.diagonal(confusion, axis1=1, axis2=2)
    support, claimed = confusion.sum(axis=2), confusion.sum(axis=1)
    n, occurs = support.sum(axis=1), (support + claimed) > 0
    rates = {
        "precision": np.where(claimed > 0, right / claimed, 0.0),
        "recall": np.where(support > 0, right / support, 0.0),
        "f1": np.where(occurs, 2 * right / (support + claimed), 0.0),
    }
    found = {
        "accuracy": right.sum(axis=1) / n,
        "balanced_accuracy": rates["recall"].sum(axis=1) / (support > 0).sum(axis=1),
    }
    for name, rate in rates.items():
        found[f"macro_{name}"] = rate.sum(axis=1) / occurs.sum(axis=1)
        found[f"weighted_{name}"] = (rate * support).sum(axis=1) / n
    return found


def _calibration(of: Sample, weights: Floats, n: Floats) -> dict[str, Floats]:
    gaps = (of.truth == of.best) - of.table.max(axis=1)
    squares = squared_errors(of.truth, of.table, of.classes)
    in_bins = weights @ _summed(of, calibration_bins(of.table), CALIBRATION_BINS, gaps)
    return {
        "brier": (weights @ _summed(of, np.zeros_like(of.unit), 1, squares))[:, 0] / n,
        "ece": np.abs(in_bins).sum(axis=1) / n,
    }


def _rankings(of: Sample, weights: Floats) -> dict[str, Floats]:
    ranked = ranked_classes(of.truth, of.classes)
    if not ranked:
        undefined = np.full(len(weights), np.nan)
        return {"auroc": undefined, "average_precision": undefined}
    areas, precisions = np.zeros(len(weights)), np.zeros(len(weights))
    rows = max(1, _NUMBERS_AT_ONCE // len(of.truth))
    for k in ranked:
        for start in range(0, len(weights), rows):
            here = slice(start, start + rows)
            area, precision = _ranking(of, k, weights[here])
            areas[here] += area
            precisions[here] += precision
    return {"auroc": areas / len(ranked), "average_precision": precisions / len(ranked)}


def _ranking(of: Sample, k: int, weights: Floats) -> tuple[Floats, Floats]:
    """Area under the ROC curve and average precision of one class against the rest, [b] each."""
    order = np.argsort(-of.table[:, k], kind="stable")
    scores = of.table[order, k]
    # Cells with one score count at once: no threshold can tell them apart.
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    each = weights[:, of.unit[order]]
    drawn = np.add.reduceat(each, starts, axis=1)
    hits = np.add.reduceat(each * (of.truth[order] == k), starts, axis=1)
    true, all_ = hits.cumsum(axis=1), drawn.cumsum(axis=1)
    misses, false = drawn - hits, all_ - true
    area = (misses * (true - hits / 2)).sum(axis=1) / (true[:, -1] * false[:, -1])
    precision = np.where(all_ > 0, true / all_, 0.0)
    return area, (hits * precision).sum(axis=1) / true[:, -1]
