"""No suspicion at all: what the others are compared with."""

from collections.abc import Sequence
from dataclasses import replace

from allreview.review.strategies.base import Evidence, QueueEntry, Strategy, lot, strategy


@strategy
class Random(Strategy):
    """All cells in an order that is drawn: the same for the same seed, whatever was decided meanwhile."""

    name = "random"
    title = "At random"
    description = "All cells in a random order: what shows how many labels are wrong altogether."
    needs_run = False
    by_suspicion = False

    def score(self, cells: Sequence[QueueEntry], evidence: Evidence) -> list[QueueEntry]:
        return [
            replace(cell, score=lot(evidence.seed, cell.sha256), reason="Drawn at random.") for cell in cells
        ]

    def count(self, cells: Sequence[QueueEntry], evidence: Evidence) -> int:
        return len(cells)
