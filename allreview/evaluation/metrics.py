"""Figures from labels and probabilities, ready for JSON: what is undefined is None, never NaN."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allreview.errors import UserError

CALIBRATION_BINS = 15
POSITIVE = "all"
"""The class whose detection the binary AUROC measures, where a dataset has it: the leukaemic blasts."""


class ClassScores(TypedDict):
    """One class. Precision is None when it was never predicted, recall when no cell has it, F1 when both."""

    precision: float | None
    recall: float | None
    f1: float | None
    support: int


class Confusion(TypedDict):
    """Counts of cells: `matrix[i][j]` have label `labels[i]` and were predicted as `labels[j]`."""

    labels: list[str]
    matrix: list[list[int]]


class Scores(TypedDict):
    """What `evaluate` found. All figures lie in [0, 1]."""

    n: int
    accuracy: float | None
    balanced_accuracy: float | None
    weighted_f1: float | None
    macro_f1: float | None
    auroc: float | None
    ece: float | None
    per_class: dict[str, ClassScores]
    confusion: Confusion


class SubjectScores(TypedDict):
    """One subject's cells: how many, the share predicted right, the share predicted as each class."""

    n: int
    accuracy: float
    share_by_predicted_class: dict[str, float]


def positive_class(classes: Sequence[str]) -> str:
    """The class that counts as positive of two: `all` where it is among them, else the first."""
    if not classes:
        raise UserError("There is no positive class without classes: name at least one.")
    return POSITIVE if POSITIVE in classes else classes[0]


def evaluate(
    labels: Sequence[str],
    probabilities: ArrayLike,
    classes: Sequence[str],
    predicted: Sequence[str] | None = None,
) -> Scores:
    """Compare labels with a model's probabilities.

    - Balanced accuracy is the mean recall of the classes that occur among the labels.
    - Macro F1 is the mean over classes that occur among labels or predictions; weighted F1 weighs by support.
    - AUROC is that of the positive class for two classes, and for more the mean of one class against the
      rest, over the classes that occur; None unless two classes occur.
    - ECE is the expected calibration error of the most probable class in 15 bins of equal width
      (Guo et al., On Calibration of Modern Neural Networks, ICML 2017).

    Args:
        labels: n class names.
        probabilities: [n, k], one column for each of `classes`, in their order.
        classes: k class names.
        predicted: n class names; the most probable class when not given.

    Raises:
        UserError: a label that is not among the classes, or probabilities of another shape or not in [0, 1].
    """
    classes = list(classes)
    table = _checked(labels, probabilities, classes)
    index = {name: position for position, name in enumerate(classes)}
    truth = _positions(labels, index)
    best = table.argmax(axis=1) if predicted is None else _positions(predicted, index)
    if len(best) != len(truth):
        raise UserError(f"There are {len(truth)} labels but {len(best)} predictions: give one for each cell.")
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(matrix, (truth, best), 1)
    per_class = {name: _class_scores(matrix, position) for name, position in index.items()}
    return Scores(
        n=len(truth),
        accuracy=_ratio(np.trace(matrix), len(truth)),
        balanced_accuracy=_mean([scores["recall"] for scores in per_class.values()]),
        weighted_f1=_weighted_f1(per_class),
        macro_f1=_mean([scores["f1"] for scores in per_class.values()]),
        auroc=_auroc(truth, table, classes),
        ece=_calibration_error(truth == best, table),
        per_class=per_class,
        confusion=Confusion(labels=classes, matrix=matrix.tolist()),
    )


def per_subject(
    subjects: Sequence[str | None], labels: Sequence[str], predicted: Sequence[str]
) -> dict[str, SubjectScores]:
    """The figures of each subject, sorted by name. Cells without a subject are left out."""
    cells: dict[str, list[tuple[str, str]]] = {}
    for subject, label, prediction in zip(subjects, labels, predicted, strict=True):
        if subject is not None:
            cells.setdefault(subject, []).append((label, prediction))
    names = sorted(set(predicted))
    return {subject: _subject_scores(cells[subject], names) for subject in sorted(cells)}


def _subject_scores(cells: list[tuple[str, str]], names: list[str]) -> SubjectScores:
    n = len(cells)
    predictions = [prediction for _, prediction in cells]
    return SubjectScores(
        n=n,
        accuracy=sum(label == prediction for label, prediction in cells) / n,
        share_by_predicted_class={name: predictions.count(name) / n for name in names},
    )


def _checked(labels: Sequence[str], probabilities: ArrayLike, classes: list[str]) -> NDArray[np.float64]:
    if len(set(classes)) != len(classes):
        raise UserError("A class is named twice: give each class name once.")
    table = np.asarray(probabilities, dtype=np.float64)
    if table.size == 0 and not len(labels):
        table = table.reshape(0, len(classes))
    if table.shape != (len(labels), len(classes)):
        raise UserError(
            f"The probabilities are {list(table.shape)} where {len(labels)} cells and {len(classes)} classes"
            " were expected: give one row for each cell and one column for each class."
        )
    if not bool(((table >= 0) & (table <= 1 + 1e-6)).all()):
        raise UserError("A probability is not a number between 0 and 1: score these cells again.")
    return table


def _positions(names: Sequence[str], index: dict[str, int]) -> NDArray[np.int64]:
    try:
        return np.array([index[name] for name in names], dtype=np.int64)
    except KeyError as error:
        raise UserError(
            f"The label {error.args[0]!r} is not one of the classes {', '.join(index) or '(none)'}:"
            " correct the label, or use a model that knows it."
        ) from None


def _class_scores(matrix: NDArray[np.int64], position: int) -> ClassScores:
    right = matrix[position, position]
    support, claimed = matrix[position].sum(), matrix[:, position].sum()
    return ClassScores(
        precision=_ratio(right, claimed),
        recall=_ratio(right, support),
        f1=_ratio(2 * right, support + claimed),
        support=int(support),
    )


def _ratio(part: int | np.integer, whole: int | np.integer) -> float | None:
    return float(part / whole) if whole else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _weighted_f1(per_class: dict[str, ClassScores]) -> float | None:
    weighed = [(s["f1"], s["support"]) for s in per_class.values() if s["f1"] is not None]
    n = sum(support for _, support in weighed)
    return sum(f1 * support for f1, support in weighed) / n if n else None


def _auroc(truth: NDArray[np.int64], table: NDArray[np.float64], classes: list[str]) -> float | None:
    present = np.unique(truth)
    if len(present) < 2:
        return None
    from sklearn.metrics import roc_auc_score

    if len(classes) == 2:
        present = [classes.index(positive_class(classes))]
    return float(np.mean([roc_auc_score(truth == k, table[:, k]) for k in present]))


def _calibration_error(right: NDArray[np.bool_], table: NDArray[np.float64]) -> float | None:
    if not len(right):
        return None
    confidence = table.max(axis=1)
    # Bin m holds confidences in ((m - 1) / 15, m / 15], as in the paper.
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(right))
