"""Temperature scaling: making a model's probabilities mean what they say.

Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017: the logits are divided by
one number, fitted on validation cells. No verdict changes, only how sure the model says it is.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allreview.errors import UserError

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.2, 10.0
FEWEST_CELLS = 10
"""With fewer cells a temperature would say more about them than about the model."""

_ROUNDED_AWAY = float(np.finfo(np.float32).smallest_subnormal)
"""Stands for a probability that 32 bits rounded to 0."""


def fit_temperature(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """The temperature that makes the labels most probable, between 0.2 and 10.

    It is 1.0, which changes nothing, where the cells cannot tell: fewer than ten, only one class among them,
    or every cell right, when ever more certainty would always fit better.

    Args:
        labels: n positions of classes, from 0.
        probabilities: [n, k], each row summing to 1.

    Raises:
        UserError: the two do not belong together, or a probability is not a number between 0 and 1.
    """
    table = _checked(probabilities)
    truth = np.asarray(labels)
    if truth.shape != (len(table),):
        raise UserError(f"There are {truth.size} labels for {len(table)} cells: give one for each cell.")
    if len(truth) < FEWEST_CELLS or len(np.unique(truth)) < 2:
        return 1.0
    if not np.issubdtype(truth.dtype, np.integer) or truth.min() < 0 or truth.max() >= table.shape[1]:
        raise UserError(
            f"A label is not a position from 0 to {table.shape[1] - 1}: number the classes from 0."
        )
    if bool((table.argmax(axis=1) == truth).all()):
        return 1.0
    from scipy.optimize import minimize_scalar

    logits = np.log(np.maximum(table, _ROUNDED_AWAY))
    bounds = (np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE))
    # The loss is convex in 1 / T, so along log T it has one minimum and no other dip.
    found: Any = minimize_scalar(
        lambda log_t: _cross_entropy(truth, logits / np.exp(log_t)),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-6},
    )
    if found.fun >= _cross_entropy(truth, logits):
        return 1.0
    return float(np.exp(found.x))


def tempered(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """The probabilities of logits divided by `temperature`: softmax(log p / T).

    `tempered(p, 1 / t)` takes back what `tempered(p, t)` did.

    Args:
        probabilities: [n, k], each row summing to 1.
        temperature: above 1 makes the model less sure, below 1 surer.

    Raises:
        UserError: the temperature is not a positive number, or a probability not one between 0 and 1.
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise UserError(f"The temperature {temperature} is not a positive number: use 1 to change nothing.")
    table = _checked(probabilities)
    if temperature == 1:
        return table
    from scipy.special import softmax

    logits = np.log(np.maximum(table, np.finfo(np.float64).tiny))
    return softmax(logits / temperature, axis=1) if len(table) else table


def _checked(probabilities: ArrayLike) -> NDArray[np.float64]:
    table = np.asarray(probabilities, dtype=np.float64)
    if table.ndim != 2:
        raise UserError("Probabilities are a table with one row for each cell and one column for each class.")
    if not bool(((table >= 0) & (table <= 1 + 1e-6)).all()):
        raise UserError("A probability is not a number between 0 and 1: score these cells again.")
    return table


def _cross_entropy(truth: NDArray[Any], logits: NDArray[np.float64]) -> float:
    from scipy.special import log_softmax

    return float(-log_softmax(logits, axis=1)[np.arange(len(truth)), truth].mean())
