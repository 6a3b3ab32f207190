"""The model contradicts the label."""

from collections.abc import Sequence
from dataclasses import replace

from allreview.cells.naming import class_title
from allreview.review.strategies.base import Evidence, QueueEntry, Strategy, strategy
from allreview.wording import percent


@strategy
class Misclassified(Strategy):
    """Cells whose prediction differs from their label; the less the model believes the label, the earlier."""

    name = "misclassified"
    title = "Prediction and label differ"
    description = "Cells the model takes for another class than their label, the most certain first."

    def score(self, cells: Sequence[QueueEntry], evidence: Evidence) -> list[QueueEntry]:
        return [
            replace(cell, score=cell.probabilities.get(cell.current_label, 0.0), reason=_reason(cell))
            for cell in cells
            if cell.predicted != cell.current_label
        ]


def _reason(cell: QueueEntry) -> str:
    return (
        f"The model says {class_title(cell.predicted)} with {percent(cell.probability)}, "
        f"the label says {class_title(cell.current_label)}."
    )
