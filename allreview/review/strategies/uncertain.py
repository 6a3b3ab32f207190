"""The model wavers."""

from collections.abc import Sequence
from dataclasses import replace

from allreview.cells.naming import class_title
from allreview.review.strategies.base import Evidence, QueueEntry, Strategy, strategy
from allreview.wording import percent


@strategy
class Uncertain(Strategy):
    """All cells, the smallest margin between the two most probable classes first."""

    name = "uncertain"
    title = "The model wavers"
    description = (
        "All cells, those first between whose two most probable classes the model can hardly choose."
    )

    def score(self, cells: Sequence[QueueEntry], evidence: Evidence) -> list[QueueEntry]:
        return [_scored(cell) for cell in cells]

    def count(self, cells: Sequence[QueueEntry], evidence: Evidence) -> int:
        return len(cells)


def _scored(cell: QueueEntry) -> QueueEntry:
    first, second, *_ = [*sorted(cell.probabilities.items(), key=lambda item: -item[1]), ("", 0.0)]
    reason = f"The model wavers: {class_title(first[0])} {percent(first[1])}"
    reason += f", {class_title(second[0])} {percent(second[1])}." if second[0] else "."
    return replace(cell, score=first[1] - second[1], reason=reason)
