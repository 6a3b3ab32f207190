"""The cell looks like no other."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from allreview.errors import UserError
from allreview.review.rankings import Neighbours
from allreview.review.strategies.base import Evidence, QueueEntry, Strategy, strategy


@strategy
class Outlier(Strategy):
    """All cells, those first that are unlike even the cells most like them: artefacts, debris, rare forms."""

    name = "outlier"
    title = "Unlike other cells"
    description = "All cells, those first that resemble no other: artefacts, debris, rare forms."

    def score(self, cells: Sequence[QueueEntry], evidence: Evidence) -> list[QueueEntry]:
        near = _required(evidence)
        rows = {sha256: row for row, sha256 in enumerate(near.sha256)}
        usual = float(np.median(near.similarities[:, 0]))
        return [
            replace(
                cell,
                score=float(near.typicality[rows[cell.sha256]]),
                reason=(
                    f"The cell most like it has a similarity of {near.similarities[rows[cell.sha256], 0]:.2f}; "
                    f"{usual:.2f} is usual."
                ),
            )
            for cell in cells
            if cell.sha256 in rows
        ]

    def count(self, cells: Sequence[QueueEntry], evidence: Evidence) -> int:
        known = set(_required(evidence).sha256)
        return sum(cell.sha256 in known for cell in cells)


def _required(evidence: Evidence) -> Neighbours:
    if evidence.neighbours is None:
        raise UserError(
            f"Run {evidence.run_id} does not know which cells are alike: retrain it, and the new run will."
        )
    return evidence.neighbours
