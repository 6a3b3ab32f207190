"""ROC, precision-recall and reliability curves as plain numbers, for figures and downloads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allreview.evaluation.metrics import (
    CALIBRATION_BINS,
    calibration_bins,
    checked,
    positions,
    ranked_classes,
)


@dataclass(frozen=True)
class Curve:
    """One class against the rest, from the strictest threshold to the laxest.

    ROC: `x` is the false positive rate, `y` the true positive rate. Precision-recall: `x` is recall, `y`
    precision. `share` of the cells are of the class: the precision of guessing.
    """

    name: str
    x: list[float]
    y: list[float]
    share: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Cells whose most probable class has a probability in (low, high]: how sure, and how often right.

    `confidence` and `accuracy` are means over the bin's `cells`; None where it has none.
    """

    low: float
    high: float
    cells: int
    confidence: float | None
    accuracy: float | None


def roc(labels: Sequence[str], probabilities: ArrayLike, classes: Sequence[str]) -> list[Curve]:
    """The ROC curve of the positive class of two, or of each class that occurs; none unless two classes occur.

    Args:
        labels: n class names.
        probabilities: [n, k], one column for each of `classes`.
        classes: k class names.

    Raises:
        UserError: as `metrics.evaluate`.
    """
    from sklearn.metrics import roc_curve

    found = []
    for name, truth, scores in _one_against_rest(labels, probabilities, classes):
        false, true, _ = roc_curve(truth, scores)
        found.append(Curve(name, false.tolist(), true.tolist(), float(truth.mean())))
    return found


def precision_recall(labels: Sequence[str], probabilities: ArrayLike, classes: Sequence[str]) -> list[Curve]:
    """The precision-recall curve of the same classes as `roc`, by rising recall; it takes the same arguments."""
    from sklearn.metrics import precision_recall_curve

    found = []
    for name, truth, scores in _one_against_rest(labels, probabilities, classes):
        precision, recall, _ = precision_recall_curve(truth, scores)
        found.append(Curve(name, recall[::-1].tolist(), precision[::-1].tolist(), float(truth.mean())))
    return found


def reliability(
    labels: Sequence[str],
    probabilities: ArrayLike,
    classes: Sequence[str],
    predicted: Sequence[str] | None = None,
) -> list[ReliabilityBin]:
    """How often the verdict is right at each level of certainty, in the 15 bins of the calibration error.

    The expected calibration error is the mean gap between confidence and accuracy of these bins, by cells.
    Takes the arguments of `metrics.evaluate`. (scikit-learn's `calibration_curve` knows two classes only, and
    puts the upper edge of a bin into the next.)
    """
    table = checked(labels, probabilities, list(classes))
    index = {name: position for position, name in enumerate(classes)}
    best = table.argmax(axis=1) if predicted is None else positions(predicted, index)
    if not len(table):
        return _bins(np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool))
    return _bins(table.max(axis=1), calibration_bins(table), positions(labels, index) == best)


def _bins(
    confidence: NDArray[np.float64], bins: NDArray[np.int64], right: NDArray[np.bool_]
) -> list[ReliabilityBin]:
    found = []
    for number in range(CALIBRATION_BINS):
        here = bins == number
        cells = int(here.sum())
        found.append(
            ReliabilityBin(
                low=number / CALIBRATION_BINS,
                high=(number + 1) / CALIBRATION_BINS,
                cells=cells,
                confidence=float(confidence[here].mean()) if cells else None,
                accuracy=float(right[here].mean()) if cells else None,
            )
        )
    return found


def _one_against_rest(
    labels: Sequence[str], probabilities: ArrayLike, classes: Sequence[str]
) -> list[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    table = checked(labels, probabilities, list(classes))
    truth = positions(labels, {name: position for position, name in enumerate(classes)})
    return [(classes[k], truth == k, table[:, k]) for k in ranked_classes(truth, classes)]
