"""Reviewers contradict each other."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from allreview.cells.naming import class_title
from allreview.review.log.readings import by_cell, own_answers, readings
from allreview.review.strategies.base import Evidence, QueueEntry, Strategy, margin, strategy
from allreview.wording import listed


@strategy
class ReadersDisagree(Strategy):
    """Cells of which reviewers' standing answers differ. An adjudication settles it.

    The score is how far the most frequent answer is ahead of the second, as a share of all.
    """

    name = "readers-disagree"
    title = "Reviewers gave different answers"
    description = (
        "Cells that reviewers answered differently, the most evenly divided first, until one is adjudicated."
    )
    needs_run = False
    by_suspicion = False
    rereads = True

    def score(self, cells: Sequence[QueueEntry], evidence: Evidence) -> list[QueueEntry]:
        found = readings(evidence.session, dataset_id=evidence.dataset_id)
        settled = {reading.cell_id for reading in found if reading.adjudication}
        answers = by_cell(own_answers(found, with_dependent=True))
        return [
            replace(
                cell,
                score=margin(Counter(answers[cell.cell_id].values()).values()),
                reason=_reason(answers[cell.cell_id]),
            )
            for cell in cells
            if cell.cell_id not in settled and len(set(answers.get(cell.cell_id, {}).values())) > 1
        ]


def _reason(answers: Mapping[str, str]) -> str:
    names: dict[str, list[str]] = defaultdict(list)
    for reviewer, label in answers.items():
        names[label].append(reviewer)
    ordered = sorted(names.items(), key=lambda item: (-len(item[1]), item[0]))
    said = [
        f"{listed(sorted(who))} {'says' if len(who) == 1 else 'say'} {class_title(label)}"
        for label, who in ordered
    ]
    return f"{listed(said)}."
