"""The label is doubtful, whatever the run's own model learned of it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from allreview.cells.naming import class_title
from allreview.errors import UserError
from allreview.review.rankings import OutOfFold, believed
from allreview.review.strategies.base import Evidence, QueueEntry, Strategy, strategy
from allreview.wording import percent
from db.tables import Recipe, Run


@strategy
class LabelError(Strategy):
    """Cells whose label is doubted by classifiers that never saw their leak group (confident learning).

    A model may have learned the wrong labels of its training cells by heart, and then agrees with them; these
    classifiers cannot have. The score is cleanlab's label quality by self-confidence, the probability they give the
    label. It is read here rather than asked of cleanlab, which takes seconds to load.

    Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 2021.
    """

    name = "label-error"
    title = "Doubtful labels"
    description = (
        "Cells whose label classifiers doubt that never saw their subject: wrong training labels too."
    )

    def score(self, cells: Sequence[QueueEntry], evidence: Evidence) -> list[QueueEntry]:
        found = _required(evidence)
        return [
            replace(cell, score=score, reason=_reason(cell, found.classes, row))
            for cell, score, row in _doubtful(cells, found)
        ]

    def count(self, cells: Sequence[QueueEntry], evidence: Evidence) -> int:
        return len(_doubtful(cells, _required(evidence)))


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
) -> list[tuple[QueueEntry, float, NDArray[np.float32]]]:
    """The cells for which another class is more probable than their label, with the probability of the label and
    those of all classes."""
    quality = believed(found, [cell.sha256 for cell in cells], [cell.current_label for cell in cells])
    rows = {sha256: row for row, sha256 in enumerate(found.sha256)}
    table = np.nan_to_num(found.probabilities)
    known = [
        (cell, float(score), table[rows[cell.sha256]])
        for cell, score in zip(cells, quality, strict=True)
        if not np.isnan(score)
    ]
    return [(cell, score, row) for cell, score, row in known if score < row.max()]


def _reason(cell: QueueEntry, classes: list[str], row: NDArray[np.float32]) -> str:
    likely = int(row.argmax())
    return (
        f"Classifiers that never saw its subject say {class_title(classes[likely])} with "
        f"{percent(float(row[likely]))}, the label says {class_title(cell.current_label)}."
    )
