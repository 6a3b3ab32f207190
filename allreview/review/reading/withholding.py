"""Which cells a reviewer has still to read without knowing what others said of them."""

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from allreview.labels import in_force
from allreview.review.reading import claims
from allreview.review.reading.blinding import hidden_of
from allreview.review.reading.worklists import left_for
from db.tables import PARTS, Annotation, ReviewSession, Worklist, WorklistItem, WorklistReader


def withheld_cells(session: Session, reviewer_id: int) -> set[int]:
    """Cells of open worklists that hide others' answers and that the reviewer may still be given to read.

    Test cells always hide them. A cell that the reviewer has read, or that has all its readings, is not withheld.
    """
    found: set[int] = set()
    for worklist in session.scalars(_open_to(reviewer_id)):
        hiding = [
            part
            for part in (*PARTS, None)
            if "others" in hidden_of(worklist.hidden, part, adjudicates=worklist.adjudicates)
        ]
        if hiding:
            found.update(session.scalars(_unread(worklist, reviewer_id, hiding)))
    return found


def _open_to(reviewer_id: int) -> sa.Select[Worklist]:
    readers = sa.exists().where(WorklistReader.worklist_id == Worklist.id)
    own = readers.where(WorklistReader.reviewer_id == reviewer_id)
    return sa.select(Worklist).where(Worklist.closed_at.is_(None), sa.or_(own, ~readers))


def _unread(worklist: Worklist, reviewer_id: int, parts: list[str | None]) -> sa.Select[int]:
    of_part = WorklistItem.part.in_([part for part in parts if part is not None])
    if None in parts:
        of_part = sa.or_(of_part, WorklistItem.part.is_(None))
    reading, sitting = aliased(Annotation), aliased(ReviewSession)
    readings = (
        sa.select(reading.id)
        .join(sitting, sitting.id == reading.session_id)
        .where(reading.cell_id == WorklistItem.cell_id, sitting.worklist_id == worklist.id, in_force(reading))
    )
    readers = readings.with_only_columns(sa.func.count(sa.distinct(sitting.reviewer_id)))
    return sa.select(WorklistItem.cell_id).where(
        WorklistItem.worklist_id == worklist.id,
        of_part,
        ~readings.where(sitting.reviewer_id == reviewer_id).exists(),
        readers.scalar_subquery() < worklist.overlap,
    )


def withheld_worklists(session: Session, reviewer_id: int) -> set[int]:
    """Open worklists that the reviewer is reading without seeing others' answers, until all their cells are read.

    Read is what was assigned to the reviewer, or what they have an open sitting in, repeats too. Until then nothing
    is told of single cells of such a worklist, not even of those that the reviewer has read: how others read would
    colour the rest.
    """
    reading = sa.or_(
        sa.exists().where(
            WorklistReader.worklist_id == Worklist.id, WorklistReader.reviewer_id == reviewer_id
        ),
        sa.exists().where(
            ReviewSession.worklist_id == Worklist.id,
            ReviewSession.reviewer_id == reviewer_id,
            ReviewSession.ended_at.is_(None),
        ),
    )
    found = session.scalars(sa.select(Worklist).where(Worklist.closed_at.is_(None), reading)).all()
    return {
        worklist.id
        for worklist in found
        if _hides_others(session, worklist) and _has_work(session, worklist, reviewer_id)
    }


def _hides_others(session: Session, worklist: Worklist) -> bool:
    parts = sa.select(WorklistItem.part).where(WorklistItem.worklist_id == worklist.id).distinct()
    return any(
        "others" in hidden_of(worklist.hidden, part, adjudicates=worklist.adjudicates)
        for part in session.scalars(parts)
    )


def _has_work(session: Session, worklist: Worklist, reviewer_id: int) -> bool:
    """Whether cells are left for the reviewer, those that were skipped or lie on others' desks among them."""
    nowhere = ReviewSession(id=0, worklist_id=worklist.id, reviewer_id=reviewer_id)
    return left_for(session, worklist, reviewer_id)[1] > 0 or bool(
        claims.next_places(session, nowhere, worklist, 1)
    )
