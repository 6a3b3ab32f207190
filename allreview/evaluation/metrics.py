"""Figures from labels and probabilities, ready for JSON: what is undefined is None, never NaN."""

from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allreview.errors import UserError
from allreview.evaluation.proportions import wilson

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


class Calibration(TypedDict):
    """How far probabilities are from what happens: both are 0 at best."""

    ece: float | None
    brier: float | None


Interval = list[float] | None
"""Lower and upper end of a 95 % interval; None where the cells cannot tell."""


class Scores(TypedDict):
    """What `evaluate` found. All figures lie in [0, 1], except the Brier score of more than two classes, in [0, 2].

    `intervals` holds the 95 % interval of each figure in `FIGURES`, where `intervals.subject_intervals` was
    asked for them; `uncalibrated` what the model's probabilities were before temperature scaling.
    """

    n: int
    accuracy: float | None
    balanced_accuracy: float | None
    macro_precision: float | None
    macro_recall: float | None
    macro_f1: float | None
    weighted_precision: float | None
    weighted_recall: float | None
    weighted_f1: float | None
    auroc: float | None
    average_precision: float | None
    brier: float | None
    ece: float | None
    per_class: dict[str, ClassScores]
    confusion: Confusion
    intervals: NotRequired[dict[str, Interval]]
    uncalibrated: NotRequired[Calibration]


FIGURES = (
    "accuracy",
    "balanced_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "weighted_precision",
    "weighted_recall",
    "weighted_f1",
    "auroc",
    "average_precision",
    "brier",
    "ece",
)
"""The figures of `Scores`, in the order they are shown."""


class SubjectScores(TypedDict):
    """One subject's cells: how many, the share predicted right, the share predicted as each class.

    The intervals are Wilson's at 95 %, which take the subject's cells as drawn one by one from many.
    """

    n: int
    accuracy: float
    accuracy_interval: list[float]
    share_by_predicted_class: dict[str, float]
    share_interval_by_predicted_class: dict[str, list[float]]


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
    - Macro figures are means over the classes that occur among labels or predictions, weighted ones weigh by
      support. As in scikit-learn a class that was never predicted has precision 0 in them, and one without
      cells recall 0. (Weighted recall is the accuracy, by definition.)
    - AUROC and average precision are those of the positive class for two classes, and for more the mean of
      one class against the rest, over the classes that occur; None unless two classes occur.
    - The Brier score is the mean squared error of the positive class's probability for two classes, and for
      more the squared errors of all classes' probabilities summed, in the mean over cells (Brier 1950).
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
    table = checked(labels, probabilities, classes)
    index = {name: position for position, name in enumerate(classes)}
    truth = positions(labels, index)
    best = table.argmax(axis=1) if predicted is None else positions(predicted, index)
    if len(best) != len(truth):
        raise UserError(f"There are {len(truth)} labels but {len(best)} predictions: give one for each cell.")
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(matrix, (truth, best), 1)
    per_class = {name: _class_scores(matrix, position) for name, position in index.items()}
    auroc, average_precision = _ranking(truth, table, classes)
    return Scores(
        n=len(truth),
        accuracy=_ratio(np.trace(matrix), len(truth)),
        balanced_accuracy=_mean([scores["recall"] for scores in per_class.values()]),
        macro_precision=_macro(per_class, "precision"),
        macro_recall=_macro(per_class, "recall"),
        macro_f1=_macro(per_class, "f1"),
        weighted_precision=_weighted(per_class, "precision"),
        weighted_recall=_weighted(per_class, "recall"),
        weighted_f1=_weighted(per_class, "f1"),
        auroc=auroc,
        average_precision=average_precision,
        **calibration(truth, table, classes, best),
        per_class=per_class,
        confusion=Confusion(labels=classes, matrix=matrix.tolist()),
    )


def calibration(
    truth: NDArray[np.int64], table: NDArray[np.float64], classes: Sequence[str], best: NDArray[np.int64]
) -> Calibration:
    """Brier score and expected calibration error, as `evaluate` defines them.

    Args:
        truth: n positions of classes.
        table: probabilities [n, k].
        classes: k class names.
        best: n positions of the predicted classes.
    """
    if not len(truth):
        return Calibration(ece=None, brier=None)
    gap = np.bincount(
        calibration_bins(table), weights=(truth == best) - table.max(axis=1), minlength=CALIBRATION_BINS
    )
    squares = squared_errors(truth, table, classes)
    return Calibration(ece=float(np.abs(gap).sum() / len(truth)), brier=float(squares.mean()))


def calibration_bins(table: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each cell, from 0: bin m holds confidences in (m / 15, (m + 1) / 15], as in the paper."""
    edges = np.ceil(table.max(axis=1) * CALIBRATION_BINS).astype(np.int64) - 1
    return np.clip(edges, 0, CALIBRATION_BINS - 1)


def squared_errors(
    truth: NDArray[np.int64], table: NDArray[np.float64], classes: Sequence[str]
) -> NDArray[np.float64]:
    """Each cell's part of the Brier score, [n]."""
    squares = (table - np.eye(len(classes))[truth]) ** 2
    if len(classes) == 2:
        return squares[:, list(classes).index(positive_class(classes))]
    return squares.sum(axis=1)


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
    right = sum(label == prediction for label, prediction in cells)
    return SubjectScores(
        n=n,
        accuracy=right / n,
        accuracy_interval=wilson(right, n),
        share_by_predicted_class={name: predictions.count(name) / n for name in names},
        share_interval_by_predicted_class={name: wilson(predictions.count(name), n) for name in names},
    )


def checked(labels: Sequence[str], probabilities: ArrayLike, classes: list[str]) -> NDArray[np.float64]:
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


def positions(names: Sequence[str], index: dict[str, int]) -> NDArray[np.int64]:
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


def _macro(per_class: dict[str, ClassScores], figure: Literal["precision", "recall", "f1"]) -> float | None:
    # F1 is undefined only where a class is neither among labels nor among predictions.
    return _mean([scores[figure] or 0.0 for scores in per_class.values() if scores["f1"] is not None])


def _weighted(
    per_class: dict[str, ClassScores], figure: Literal["precision", "recall", "f1"]
) -> float | None:
    n = sum(scores["support"] for scores in per_class.values())
    return (
        sum((scores[figure] or 0.0) * scores["support"] for scores in per_class.values()) / n if n else None
    )


def ranked_classes(truth: NDArray[np.int64], classes: Sequence[str]) -> list[int]:
    """The positions of the classes whose ranking AUROC and average precision measure; none unless two occur."""
    present = np.unique(truth)
    if len(present) < 2:
        return []
    return [list(classes).index(positive_class(classes))] if len(classes) == 2 else present.tolist()


def _ranking(
    truth: NDArray[np.int64], table: NDArray[np.float64], classes: Sequence[str]
) -> tuple[float | None, float | None]:
    """AUROC and average precision."""
    ranked = ranked_classes(truth, classes)
    if not ranked:
        return None, None
    from sklearn.metrics import average_precision_score, roc_auc_score

    return (
        float(np.mean([roc_auc_score(truth == k, table[:, k]) for k in ranked])),
        float(np.mean([average_precision_score(truth == k, table[:, k]) for k in ranked])),
    )
