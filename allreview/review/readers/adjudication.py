"""Cells on which readers disagree, and settling them.

An adjudication outranks decisions. It is made cell by cell on the reading desk, from a worklist of the disputed cells,
or by recording what most readers said, for all cells with a majority at once.

Who adjudicates sees what the readers said, because that is the question. The model's opinion and the source label stay
hidden: the readers judged the cell by what it looks like, and so should the one who decides between them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.cells.browsing import CellRow, rows_of_cells
from allreview.errors import UserError
from allreview.review.chosen import LONGEST_NAME, entries_of_cells
from allreview.review.log.annotations import decide_many
from allreview.review.log.events import last_event_ids
from allreview.review.log.readings import by_cell, own_answers, readings
from allreview.review.queues import QueueEntry
from allreview.review.readers.consensus import majority
from allreview.review.reading import worklists
from allreview.review.reading.withholding import withheld_cells, withheld_worklists
from allreview.review.strategies.base import margin
from db.tables import Worklist, WorklistItem

HIDDEN = frozenset({"prediction", "source_label"})
"""What is hidden of who adjudicates."""
STRATEGY = "readers-disagree"
MAJORITY = "The majority of the readers."
_SEEN = frozenset({"source_label", "subject", "others"})


@dataclass(frozen=True)
class Dispute:
    """A cell whose readers' answers in force differ. `seen` is the cell's last event when this was read."""

    cell: CellRow
    answers: dict[str, str]
    seen: int | None

    @property
    def majority(self) -> str | None:
        """The answer of more than half of the readers; None without one."""
        return majority(list(self.answers.values()))

    @property
    def lead(self) -> float:
        """How far the most frequent answer is ahead, as a share of all; 0 for a tie."""
        return margin(Counter(self.answers.values()).values())


@dataclass(frozen=True)
class Disputes:
    """Disputed cells without an adjudication in force, the most evenly divided first.

    `waiting` more are not read by as many readers yet as their worklist wants. `withheld` more must not be shown to
    the viewer, who has still to read.
    """

    cells: list[Dispute]
    waiting: int = 0
    withheld: int = 0

    @property
    def with_majority(self) -> list[Dispute]:
        """Those of which more than half of the readers say the same."""
        return [dispute for dispute in self.cells if dispute.majority is not None]


def disputes(
    session: Session, *, dataset_id: int, worklist_id: int | None = None, viewer_id: int | None = None
) -> Disputes:
    """The disputed cells of a dataset, or of one worklist's readings.

    Args:
        viewer_id: who will see them; cells this reviewer is still reading blind are withheld.
    """
    found = readings(session, dataset_id=dataset_id, worklist_id=worklist_id)
    settled = {reading.cell_id for reading in found if reading.adjudication}
    disputed = {
        cell: answers
        for cell, answers in by_cell(own_answers(found, with_dependent=True)).items()
        if cell not in settled and len(set(answers.values())) > 1
    }
    hidden = _hidden_from(session, viewer_id) & set(disputed)
    wanted = _readers_wanted(session, worklist_id)
    ready = [cell for cell, answers in disputed.items() if cell not in hidden and len(answers) >= wanted]
    last = last_event_ids(session, ready)
    cells = [
        Dispute(row, disputed[row.cell_id], last.get(row.cell_id)) for row in rows_of_cells(session, ready)
    ]
    cells.sort(key=lambda dispute: (dispute.lead, dispute.cell.cell_id))
    return Disputes(cells, waiting=len(disputed) - len(hidden) - len(ready), withheld=len(hidden))


def make_worklist(
    engine: sa.Engine,
    disputed: Sequence[Dispute],
    *,
    dataset_id: int,
    worklist_id: int | None = None,
    reviewer_id: int | None = None,
    readers: Sequence[int] = (),
) -> int:
    """A worklist of disputed cells whose answers are adjudications; returns its id.

    The same cells asked for again are the same worklist, as long as it is open.

    Args:
        worklist_id: the worklist whose readings are disputed, for its name and its run.
        reviewer_id: who makes it.
        readers: who may adjudicate; nobody means everybody.

    Raises:
        UserError: there is no disputed cell.
    """
    if not disputed:
        raise UserError("The readers disagree on no cell: there is nothing to adjudicate.")
    ids = [dispute.cell.cell_id for dispute in disputed]
    with db.reading(engine) as session:
        of = session.get(Worklist, worklist_id) if worklist_id is not None else None
        run_id = of.run_id if of else None
        name = f"Adjudication of {of.name}" if of else "Adjudication"
        entries = entries_of_cells(session, ids, run_id=run_id)
    by_id = {dispute.cell.cell_id: dispute for dispute in disputed}
    return worklists.create(
        engine,
        dataset_id=dataset_id,
        name=name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…",
        strategy=STRATEGY,
        entries=[_entry(entry, by_id[entry.cell_id]) for entry in entries],
        reviewer_id=reviewer_id,
        run_id=run_id,
        parts=sorted({entry.part for entry in entries if entry.part}),
        hidden=HIDDEN,
        readers=readers,
        adjudicates=True,
        question={"adjudicate": sorted(ids), "of": worklist_id, "readers": sorted(readers)},
    )


def record_majorities(engine: sa.Engine, disputed: Sequence[Dispute], *, reviewer_id: int) -> str:
    """Record what most readers say as the label of each cell that has a majority, as one batch; returns it.

    Cells without a majority are left alone.

    Raises:
        StaleSelection: somebody decided on some of the cells since they were read; nothing was written.
        UserError: none of them has a majority.
    """
    chosen = {dispute.cell.cell_id: label for dispute in disputed if (label := dispute.majority) is not None}
    if not chosen:
        raise UserError("None of these cells has a majority: adjudicate them one by one.")
    return decide_many(
        engine,
        cells={dispute.cell.cell_id: dispute.seen for dispute in disputed if dispute.cell.cell_id in chosen},
        label=chosen,
        reviewer_id=reviewer_id,
        visible=_SEEN,
        comment=MAJORITY,
        adjudicates=True,
    )


def _entry(entry: QueueEntry, dispute: Dispute) -> QueueEntry:
    votes = sorted(Counter(dispute.answers.values()).values(), reverse=True)
    return replace(
        entry, score=dispute.lead, reason=f"Its readers are divided {' to '.join(map(str, votes))}."
    )


def _hidden_from(session: Session, viewer_id: int | None) -> set[int]:
    """Cells of which the viewer must not see what others said."""
    if viewer_id is None:
        return set()
    blind = withheld_worklists(session, viewer_id)
    cells = set(session.scalars(sa.select(WorklistItem.cell_id).where(WorklistItem.worklist_id.in_(blind))))
    return cells | withheld_cells(session, viewer_id)


def _readers_wanted(session: Session, worklist_id: int | None) -> int:
    """How many readers a cell of the worklist must have before its answers are compared."""
    worklist = session.get(Worklist, worklist_id) if worklist_id is not None else None
    return worklist.overlap if worklist is not None and worklist.closed_at is None else 1
