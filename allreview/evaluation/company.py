"""Cells read in their company: what a model says of a cell, together with what it says of the subject's other cells.

A haematologist who sees forty cells of one smear does not judge each as if it were alone. The winner of the C-NMC 2019
challenge corrected a network's verdicts by neighbouring cells (Pan et al. 2019, "Neighborhood-correction algorithm for
classification of normal and malignant cells"). Here a cell's log-probabilities and the mean of those of its subject's
others are weighed and added; the two weights are fitted on validation subjects.

Such a figure rests on more than the cell, so it stands apart from that of single cells and is never mixed with it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allreview.evaluation.intervals import FEWEST_UNITS
from allreview.evaluation.stored import JudgedCell

_MOST = 10.0
"""The largest weight: validation subjects whose cells are all called right would have it grow without end."""
_ROUNDED_AWAY = float(np.finfo(np.float32).smallest_subnormal)
"""Stands for a probability that 32 bits rounded to 0."""


@dataclass(frozen=True)
class Company:
    """How much a cell's own log-probabilities count, and the mean of its company's."""

    own: float
    others: float


def fit_company(labels: Sequence[int], table: NDArray[Any], subjects: Sequence[str]) -> Company | None:
    """The weights that make the labels most probable, each subject counting the same.

    None with fewer than 5 subjects, or of one class only: they could not tell.

    Args:
        labels: n positions of classes, from 0.
        table: probabilities [n, k], each row summing to 1.
        subjects: n names.
    """
    truth = np.asarray(labels)
    names, subject = np.unique(np.asarray(subjects), return_inverse=True)
    if len(names) < FEWEST_UNITS or len(np.unique(truth)) < 2:
        return None
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    own, others = _parts(np.asarray(table), subject)
    weight = 1 / np.bincount(subject)[subject] / len(names)

    def cross_entropy(weights: NDArray[Any]) -> float:
        said = log_softmax(weights[0] * own + weights[1] * others, axis=1)
        return float(-(weight * said[np.arange(len(truth)), truth]).sum())

    found: Any = minimize(cross_entropy, (1.0, 0.0), method="L-BFGS-B", bounds=[(0.0, _MOST)] * 2)
    return Company(*map(float, found.x))


def in_company(table: NDArray[Any], subjects: Sequence[str], company: Company) -> NDArray[np.float64]:
    """Probabilities [n, k] of cells read together with the others of their subject; a lone cell has only its own."""
    from scipy.special import softmax

    own, others = _parts(np.asarray(table), np.unique(np.asarray(subjects), return_inverse=True)[1])
    return softmax(company.own * own + company.others * others, axis=1)


def judged_in_company(
    validation: Sequence[JudgedCell], test: Sequence[JudgedCell]
) -> list[JudgedCell] | None:
    """The test cells of some runs as each run judges them in their company, the weights fitted on its validation cells.

    None where it cannot be done: a cell has no subject, or a run has too few validation subjects.
    """
    if not test or any(cell.subject is None for cell in (*validation, *test)):
        return None
    fitted: dict[int, Company] = {}
    for run_id, cells in _by_run(validation).items():
        classes = sorted(cells[0].probabilities)
        known = [cell for cell in cells if cell.source_label in classes]
        labels = [classes.index(cell.source_label) for cell in known]
        company = fit_company(labels, _table(known, classes), [cell.subject or "" for cell in known])
        if company is not None:
            fitted[run_id] = company
    found: dict[tuple[int, int], JudgedCell] = {}
    for run_id, cells in _by_run(test).items():
        if run_id not in fitted:
            return None
        classes = sorted(cells[0].probabilities)
        table = in_company(_table(cells, classes), [cell.subject or "" for cell in cells], fitted[run_id])
        for cell, row in zip(cells, table, strict=True):
            said = dict(zip(classes, map(float, row), strict=True))
            verdict = classes[int(row.argmax())]
            found[cell.run_id, cell.cell_id] = replace(cell, predicted=verdict, probabilities=said)
    return [found[cell.run_id, cell.cell_id] for cell in test]


def _parts(table: NDArray[Any], subject: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each cell's own log-probabilities [n, k], and the mean of its company's.

    The sum of the others is divided by one more than there are: few others say less than many, none nothing.
    """
    own = np.log(np.maximum(table, _ROUNDED_AWAY))
    size = np.bincount(subject)
    together = np.stack([np.bincount(subject, weights=column) for column in own.T], axis=1)
    return own, (together[subject] - own) / size[subject][:, None]


def _by_run(cells: Sequence[JudgedCell]) -> dict[int, list[JudgedCell]]:
    found: dict[int, list[JudgedCell]] = defaultdict(list)
    for cell in cells:
        found[cell.run_id].append(cell)
    return found


def _table(cells: Sequence[JudgedCell], classes: Sequence[str]) -> NDArray[np.float64]:
    rows = [[cell.probabilities[name] for name in classes] for cell in cells]
    return np.array(rows, dtype=np.float64).reshape(len(cells), len(classes))
