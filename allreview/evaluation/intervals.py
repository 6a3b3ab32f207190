"""How far a figure would move with other subjects: 95 % intervals from resampling subjects.

Cells of one subject resemble each other, so ten thousand cells of ten subjects say as much about the next patient
as ten subjects do. Resampled are therefore not cells but units: leak groups where they are known, because
subjects tied by identical cells are most likely one patient, else subjects. A cell without either is a unit of
its own. (Field and Welsh, Bootstrapping clustered data, J. R. Statist. Soc. B 2007.)

The intervals are percentile intervals, a little widened as Student's distribution is wider than the normal one
(the expanded percentile interval; Hesterberg, What teachers should know about the bootstrap, The American
Statistician 2015): with 10 units that is the middle 98.3 % of the resamples, with 50 the middle 95.8 %. In
simulations they hold the truth in about 95 % of cases with 50 units, and in about 90 % with 10: with few subjects
even these are too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allreview.evaluation.metrics import FIGURES, Interval, calibration
from allreview.evaluation.proportions import CONFIDENCE
from allreview.evaluation.resampling import Sample, figures, numbered, sample

RESAMPLES = 1000
FEWEST_UNITS = 5
"""Fewer subjects than this say nothing of how subjects differ."""
FEWEST_DEFINED = 0.8
"""An interval needs its figure in this share of the resamples."""
_ROUNDING = 1e-9

COMPARED = ("accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "auroc")
"""The figures of which differences are given."""


@dataclass(frozen=True)
class Difference:
    """By how much a figure is higher in the second of two than in the first, with its 95 % interval."""

    value: float
    low: float | None
    high: float | None


def subject_intervals(
    labels: Sequence[str],
    probabilities: ArrayLike,
    classes: Sequence[str],
    units: Sequence[str | None],
    predicted: Sequence[str] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """The 95 % interval, [low, high], of each figure of `metrics.evaluate` on the same cells.

    Resamples in which a figure is undefined are left out. An interval is None where the figure is undefined,
    with fewer than 5 units, where more than a fifth of the resamples lack the figure, and where all of them
    give the same (all cells right, say): that resampling finds no spread does not mean that there is none.

    Args:
        labels: n class names.
        probabilities: [n, k], one column for each of `classes`.
        classes: k class names.
        units: n names of what is resampled, None for a cell that stands alone.
        predicted: n class names; the most probable class when not given.
        resamples: how many.
        seed: the same seed gives the same intervals.

    Raises:
        UserError: as `metrics.evaluate`.
    """
    unit, count = numbered(units)
    of = sample(labels, probabilities, classes, unit, count, predicted)
    if count < FEWEST_UNITS:
        return dict.fromkeys(FIGURES, None)
    found = figures(of, draws(count, resamples, seed))
    intervals = {name: percentile_interval(found[name], count) for name in FIGURES}
    error = calibration(of.truth, of.table, of.classes, of.best)["ece"]
    return intervals | {"ece": _error_interval(error, intervals["ece"])}


def differences(
    first: Sample, second: Sample, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Difference]:
    """By how much each of `COMPARED` is higher in the second sample, from resampling the units they share.

    Both samples number their units alike, and each resample draws the same units for both: what two runs have
    in common by sharing subjects cancels out. The cells need not be the same.
    """
    assert first.units == second.units
    once = np.ones((1, first.units))
    values = _subtract(figures(first, once), figures(second, once))
    spread: Mapping[str, NDArray[np.float64]] = {}
    if first.units >= FEWEST_UNITS:
        weights = draws(first.units, resamples, seed)
        spread = _subtract(figures(first, weights), figures(second, weights))
    found = {}
    for name in COMPARED:
        if np.isfinite(values[name][0]):
            interval = percentile_interval(spread[name], first.units) if name in spread else None
            low, high = interval or (None, None)
            found[name] = Difference(float(values[name][0]), low, high)
    return found


def draws(units: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each unit is drawn in each resample, [resamples, units]: as many draws as units."""
    random = np.random.default_rng(seed)
    return random.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)


def percentile_interval(values: NDArray[np.float64], units: int) -> Interval:
    """The expanded percentile interval of what resamples gave; None where they cannot tell.

    Args:
        values: one for each resample; those that are NaN are left out.
        units: how many units were resampled.
    """
    known = values[np.isfinite(values)]
    if not len(known) or len(known) < FEWEST_DEFINED * len(values):
        return None
    tail = _tail(units)
    low, high = np.quantile(known, [tail, 1 - tail])
    return [float(low), float(high)] if high - low > _ROUNDING else None


def _tail(units: int) -> float:
    """The share of resamples outside either end."""
    from scipy.stats import norm, t

    return float(norm.cdf(t.ppf((1 - CONFIDENCE) / 2, units - 1) * np.sqrt(units / (units - 1))))


def _error_interval(value: float | None, interval: Interval) -> Interval:
    """The interval of the calibration error, which a sample overstates, and a resample once more.

    Gaps that are only chance add up instead of cancelling, so the percentile interval lies too high and seldom
    holds the truth of a well calibrated model. The percentiles' mirror image at the figure itself (the basic
    bootstrap interval) corrects for that; this one spans both.
    """
    if value is None or interval is None:
        return interval
    low, high = interval
    return [max(0.0, min(low, 2 * value - high)), min(1.0, max(high, 2 * value - low))]


def _subtract(
    first: Mapping[str, NDArray[np.float64]], second: Mapping[str, NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    return {name: second[name] - first[name] for name in COMPARED}
