"""The label is doubtful, whatever the run's own model learned of it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import sqlalchemy as sa

from allreview.cells.naming import class_title
from allreview.errors import UserError
from allreview.review.rankings import OutOfFold
from allreview.review.strategies.base import Evidence, QueueEntry, Strategy, strategy
from allreview.wording import percent
from db.tables import Recipe, Run


@strategy
class LabelError(Strategy):
    """Cells whose label is doubted by classifiers that never saw their leak group (confident learning).

    A model has learned the wrong labels of its training cells too, and agrees with many; these classifiers have
    not. Northcutt, Jiang and Chuang, Confident Learning, JAIR 2021; the scores are those of cleanlab.

    `method` is the name of a label quality score in `cleanlab.rank`.
    """

    name = "label-error"
    title = "Doubtful labels"
    description = (
        "Cells whose label classifiers doubt that never saw their subject: wrong training labels too."
    )

    def __init__(self, *, method: str = "self_confidence") -> None:
        self.method = method

    def score(self, cells: Sequence[QueueEntry], evidence: Evidence) -> list[QueueEntry]:
        found = _required(evidence)
        doubtful, rows, labels = _doubtful(cells, found)
        if not doubtful:
            return []
        from cleanlab.rank import get_label_quality_scores

        probabilities = np.nan_to_num(found.probabilities[rows].astype(float))
        scores = get_label_quality_scores(labels, probabilities, method=self.method)
        return [
            replace(cell, score=float(score), reason=_reason(cell, found.classes, row))
            for cell, score, row in zip(doubtful, scores, probabilities, strict=True)
        ]

    def count(self, cells: Sequence[QueueEntry], evidence: Evidence) -> int:
        return len(_doubtful(cells, _required(evidence))[0])


def _required(evidence: Evidence) -> OutOfFold:
    if evidence.out_of_fold is not None:
        return evidence.out_of_fold
    body = evidence.session.scalar(
        sa.select(Recipe.body).join(Run, Run.recipe_id == Recipe.id).where(Run.id == evidence.run_id)
    )
    if body is not None and body.get("weights") == "none":
        raise UserError(
            f"Run {evidence.run_id} was trained from scratch, so nothing judges its labels independently: read the "
            "cells where prediction and label differ, or train with a pretrained backbone."
        )
    raise UserError(
        f"Run {evidence.run_id} has no second opinion on its labels: retrain it, and read the cells where "
        "prediction and label differ until then."
    )


def _doubtful(
    cells: Sequence[QueueEntry], found: OutOfFold
) -> tuple[list[QueueEntry], np.ndarray, np.ndarray]:
    """The cells for which another class than their label is more probable, their rows and labels by number."""
    row_of = {sha256: row for row, sha256 in enumerate(found.sha256)}
    column_of = {name: column for column, name in enumerate(found.classes)}
    known = [cell for cell in cells if cell.sha256 in row_of and cell.current_label in column_of]
    rows = np.array([row_of[cell.sha256] for cell in known], dtype=np.int64)
    labels = np.array([column_of[cell.current_label] for cell in known], dtype=np.int64)
    believed = found.probabilities[rows, labels]
    doubted = np.flatnonzero(believed < np.nan_to_num(found.probabilities[rows]).max(axis=1, initial=0))
    return [known[place] for place in doubted], rows[doubted], labels[doubted]


def _reason(cell: QueueEntry, classes: list[str], row: np.ndarray) -> str:
    likely = int(row.argmax())
    return (
        f"Classifiers that never saw its subject say {class_title(classes[likely])} with "
        f"{percent(float(row[likely]))}, the label says {class_title(cell.current_label)}."
    )
