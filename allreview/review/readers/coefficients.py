"""Coefficients of agreement for many resamples of the subjects at once.

A resample is a row of weights: how often each unit (a subject with its cells) was drawn, as in
`allreview.evaluation.resampling`. What a coefficient needs is summed for each unit first, so that a thousand resamples
are one matrix product. With one row of ones these are the coefficients of statsmodels, scikit-learn and krippendorff,
which give the values themselves (`allreview.review.readers.agreement`); those take one table at a time.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Positions = NDArray[np.int64]


def summed(values: Floats, unit: Positions, units: int) -> Floats:
    """Sums over the cells of each unit: [n, …] becomes [u, …]."""
    found = np.zeros((units, *values.shape[1:]))
    np.add.at(found, unit, values)
    return found


def pair_counts(first: Positions, second: Positions, categories: int) -> Floats:
    """For each cell a table with a 1 where the first's answer meets the second's, [n, k, k]."""
    found = np.zeros((len(first), categories, categories))
    found[np.arange(len(first)), first, second] = 1
    return found


def percent(weights: Floats, counts: Floats, unit: Positions, units: int) -> Floats:
    """The share of cells with the same two answers in each resample, [b].

    Args:
        weights: [b, u].
        counts: [n, k, k], as `pair_counts` gives them.
        unit: [n], the unit of each cell.
        units: how many there are.
    """
    return _equal(_drawn(weights, counts, unit, units))


def cohen(weights: Floats, counts: Floats, unit: Positions, units: int) -> Floats:
    """Cohen's kappa in each resample, [b]; arguments as `percent`. NaN where both gave one answer throughout."""
    tables = _drawn(weights, counts, unit, units)
    with np.errstate(divide="ignore", invalid="ignore"):
        n = tables.sum(axis=(1, 2))
        by_chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / n**2
        return _beyond_chance(_equal(tables), by_chance)


def fleiss(weights: Floats, votes: Floats, unit: Positions, units: int) -> Floats:
    """Fleiss' kappa in each resample, [b].

    Args:
        weights: [b, u].
        votes: [n, k], how many readers gave each answer; every row has the same sum.
        unit: [n], the unit of each cell.
        units: how many there are.
    """
    each = votes.sum(axis=1)[0]
    agreeing = (votes * (votes - 1)).sum(axis=1, keepdims=True) / (each * (each - 1))
    sums = weights @ summed(np.hstack([np.ones_like(agreeing), agreeing, votes]), unit, units)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = sums[:, 2:] / (each * sums[:, :1])
        return _beyond_chance(sums[:, 1] / sums[:, 0], (shares**2).sum(axis=1))


def krippendorff(weights: Floats, votes: Floats, unit: Positions, units: int) -> Floats:
    """Krippendorff's alpha for names in each resample, [b]; arguments as `fleiss`, with any sums of 2 or more."""
    sums = weights @ summed(np.hstack([_agreeing(votes), votes]), unit, units)
    answers = sums[:, 1:].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (answers**2 - (sums[:, 1:] ** 2).sum(axis=1)) / (answers - 1)
        return np.where(expected > 0, 1 - (answers - sums[:, 0]) / expected, np.nan)


def paired_percent(weights: Floats, votes: Floats, unit: Positions, units: int) -> Floats:
    """The share of pairs of answers to one cell that are the same, in each resample, [b]; arguments as `fleiss`."""
    each = votes.sum(axis=1, keepdims=True)
    same = (votes * (votes - 1)).sum(axis=1, keepdims=True)
    sums = weights @ summed(np.hstack([same, each * (each - 1)]), unit, units)
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[:, 0] / sums[:, 1]


def _drawn(weights: Floats, counts: Floats, unit: Positions, units: int) -> Floats:
    """The table of each resample, [b, k, k]."""
    flat = counts.reshape(len(counts), -1)
    return (weights @ summed(flat, unit, units)).reshape(len(weights), *counts.shape[1:])


def _equal(tables: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.trace(tables, axis1=1, axis2=2) / tables.sum(axis=(1, 2))


def _agreeing(votes: Floats) -> Floats:
    """The diagonal of each cell's coincidences, summed, [n, 1]."""
    return (votes * (votes - 1)).sum(axis=1, keepdims=True) / (votes.sum(axis=1, keepdims=True) - 1)


def _beyond_chance(observed: Floats, by_chance: Floats) -> Floats:
    """By how much agreement exceeds chance, as a share of what it could; NaN where chance explains all."""
    return np.where(by_chance < 1 - 1e-12, (observed - by_chance) / (1 - by_chance), np.nan)
