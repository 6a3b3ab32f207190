"""How right a model is about a patient it has never seen: every patient counts the same, however many cells it has.

Accuracy over all cells is that of the patients with many cells. Who opens the cells of one new patient asks another
thing: of this patient's cells, how many will be right? That is the mean of the patients' own accuracies, and it differs
from patient to patient far more than its mean is uncertain.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from allreview.evaluation.intervals import FEWEST_UNITS, RESAMPLES, draws, percentile_interval
from allreview.evaluation.metrics import Interval

MOST = (0.1, 0.9)
"""Between these quantiles lie eight in ten patients."""


class NewPatient(TypedDict):
    """`accuracy` is the share of a new patient's cells expected to be right, `interval` its 95 % interval from
    resampling patients, `most` the range that eight in ten of the `patients` fell into."""

    patients: int
    accuracy: float
    interval: Interval
    most: list[float]


def new_patient(
    right: Sequence[bool], units: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> NewPatient | None:
    """What to expect of a new patient, from patients the model was not trained on; None with fewer than 5.

    Args:
        right: n, whether each cell was called what it is labelled.
        units: n names of patients; leak groups, as subjects tied by identical cells are most likely one patient.
        resamples: how many, for the interval.
        seed: the same seed gives the same interval.
    """
    names, unit = np.unique(np.asarray(units), return_inverse=True)
    if len(names) < FEWEST_UNITS:
        return None
    own = np.bincount(unit, weights=np.asarray(right, dtype=float)) / np.bincount(unit)
    means = draws(len(names), resamples, seed) @ own / len(names)
    return NewPatient(
        patients=len(names),
        accuracy=float(own.mean()),
        interval=percentile_interval(means, len(names)),
        most=[float(end) for end in np.quantile(own, MOST)],
    )
