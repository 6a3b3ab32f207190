"""Runs contradict each other."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa

from allreview.cells.naming import class_title
from allreview.review.strategies.base import Evidence, QueueEntry, Strategy, margin, strategy
from allreview.wording import listed, plural
from db.tables import Prediction, Run


@strategy
class RunsDisagree(Strategy):
    """Cells of which the finished runs of the dataset do not all say the same.

    Each run's vote weighs what it gives its class, and the score is how far the first class is ahead of the second
    as a share of all votes: a tie between runs that are sure comes first.
    """

    name = "runs-disagree"
    title = "Runs contradict each other"
    description = "Cells of which the finished runs do not all say the same, the most evenly divided first."

    def score(self, cells: Sequence[QueueEntry], evidence: Evidence) -> list[QueueEntry]:
        found = []
        others = _votes(evidence)
        for cell in cells:
            votes = others.get(cell.cell_id, {})
            if votes and set(votes) != {cell.predicted}:
                weights = {label: weight for label, (_, weight) in votes.items()}
                weights[cell.predicted] = weights.get(cell.predicted, 0.0) + cell.probability
                counts = {label: count for label, (count, _) in votes.items()}
                found.append(replace(cell, score=margin(weights.values()), reason=_reason(cell, counts)))
        return found


def _votes(evidence: Evidence) -> dict[int, dict[str, tuple[int, float]]]:
    """What the other finished runs say of each cell: by class, how many and how sure they are together."""
    query = (
        sa.select(Prediction.cell_id, Prediction.label, sa.func.count(), sa.func.sum(Prediction.probability))
        .join(Run, Run.id == Prediction.run_id)
        .where(Run.dataset_id == evidence.dataset_id, Run.state == "finished", Run.id != evidence.run_id)
        .group_by(Prediction.cell_id, Prediction.label)
    )
    votes: dict[int, dict[str, tuple[int, float]]] = defaultdict(dict)
    for cell_id, label, count, weight in evidence.session.execute(query):
        votes[cell_id][label] = (count, weight)
    return votes


def _reason(cell: QueueEntry, counts: Mapping[str, int]) -> str:
    own = f"This run says {class_title(cell.predicted)}"
    total = sum(counts.values())
    if total == 1:
        return f"{own}, the other run says {class_title(next(iter(counts)))}."
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) == 1:
        return f"{own}, all {plural(total, 'other run')} say {class_title(ordered[0][0])}."
    return (
        f"{own}; of {plural(total, 'other run')} {listed([f'{n} say {class_title(c)}' for c, n in ordered])}."
    )
