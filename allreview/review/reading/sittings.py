"""A reviewer's place in a worklist.

The place is derived, not stored: the cell that is claimed for the sitting, else the first that was neither read
nor skipped. Coming back, on this machine or another, leads to the same cell.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cache

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.errors import UserError
from allreview.review.log import annotations
from allreview.review.log.annotations import require_reviewer
from allreview.review.reading import claims
from allreview.review.reading.desk_cells import DeskCell, desk_cells
from allreview.review.reading.worklists import answers, close_if_read, left_for, require_reader
from db.tables import (
    Annotation,
    Claim,
    Reviewer,
    ReviewSession,
    SessionSkip,
    Worklist,
)
from db.types import now


@dataclass(frozen=True)
class SittingInfo:
    """A sitting with its worklist's settings. `worklist` is the worklist's name."""

    id: int
    worklist_id: int
    worklist: str
    reviewer_id: int
    dataset_id: int
    run_id: int | None
    strategy: str
    parts: list[str]
    hidden: frozenset[str]
    overlap: int
    adjudicates: bool
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class Progress:
    """How far a reviewer is in a worklist, in cells. `by_others` need no reading by this reviewer any more."""

    decided: int
    skipped: int
    by_others: int
    total: int

    @property
    def left(self) -> int:
        return self.total - self.decided - self.skipped - self.by_others


def start(engine: sa.Engine, *, worklist_id: int, reviewer_id: int) -> int:
    """Start a sitting over a worklist, or return to the reviewer's open one over it.

    Raises:
        UserError: no such worklist, it is closed, or it is assigned to others.
    """
    with db.writing(engine) as session:
        require_reviewer(session, reviewer_id)
        worklist = session.get(Worklist, worklist_id)
        if worklist is None:
            raise UserError(f"There is no worklist {worklist_id}.")
        require_reader(session, worklist, reviewer_id)
        found = session.scalar(
            sa.select(ReviewSession.id)
            .where(
                ReviewSession.worklist_id == worklist_id,
                ReviewSession.reviewer_id == reviewer_id,
                ReviewSession.ended_at.is_(None),
            )
            .order_by(ReviewSession.id.desc())
            .limit(1)
        )
        if found is not None:
            return found
        sitting = ReviewSession(worklist_id=worklist_id, reviewer_id=reviewer_id)
        session.add(sitting)
        session.flush()
        return sitting.id


def info(session: Session, sitting_id: int) -> SittingInfo:
    """The sitting with its worklist's settings.

    Raises:
        UserError: there is no such sitting.
    """
    sitting, worklist = sitting_of(session, sitting_id)
    return SittingInfo(
        id=sitting.id,
        worklist_id=worklist.id,
        worklist=worklist.name,
        reviewer_id=sitting.reviewer_id,
        dataset_id=worklist.dataset_id,
        run_id=worklist.run_id,
        strategy=worklist.strategy,
        parts=worklist.parts,
        hidden=frozenset(worklist.hidden),
        overlap=worklist.overlap,
        adjudicates=worklist.adjudicates,
        started_at=sitting.started_at,
        ended_at=sitting.ended_at,
    )


def end(engine: sa.Engine, sitting_id: int) -> None:
    """Close the sitting, and the worklist when it is read; every answer stays."""
    with db.writing(engine) as session:
        sitting, worklist = sitting_of(session, sitting_id)
        sitting.ended_at = now()
        session.execute(sa.delete(Claim).where(Claim.session_id == sitting_id))
        session.flush()
        close_if_read(session, worklist)


def leave(engine: sa.Engine, sitting_id: int) -> None:
    """Give the cell on the desk back; place and draft are kept as long as nobody else reads the cell."""
    with db.writing(engine) as session:
        claims.release(session, sitting_id)


def progress(session: Session, sitting_id: int) -> Progress:
    """Cells this reviewer read and skipped in the worklist, cells others read, and all."""
    sitting, worklist = sitting_of(session, sitting_id)
    values = {"sitting": sitting_id, "worklist": worklist.id, "reviewer": sitting.reviewer_id}
    decided, skipped = session.execute(_progress(), values).one()
    total, left = left_for(session, worklist, sitting.reviewer_id)
    return Progress(decided, skipped, by_others=total - decided - left, total=total)


@cache
def _progress() -> sa.Select[int, int]:
    """How many cells a reviewer read in a worklist, and skipped in a sitting without reading them since."""
    read = answers().where(
        ReviewSession.worklist_id == sa.bindparam("worklist"),
        ReviewSession.reviewer_id == sa.bindparam("reviewer"),
    )
    mine = read.with_only_columns(Annotation.cell_id).distinct()
    skipped = sa.select(sa.func.count()).where(
        SessionSkip.session_id == sa.bindparam("sitting"),
        SessionSkip.taken_back_at.is_(None),
        SessionSkip.cell_id.not_in(mine),
    )
    return sa.select(
        sa.select(sa.func.count()).select_from(mine.subquery()).scalar_subquery(), skipped.scalar_subquery()
    )


def upcoming(engine: sa.Engine, sitting_id: int, count: int = 1) -> list[DeskCell]:
    """The cell on the desk, claimed for this sitting, and what probably comes after it; empty when all is read."""
    with db.reading(engine) as session:
        sitting, worklist = sitting_of(session, sitting_id)
        if session.scalar(sa.select(sa.exists().where(Claim.session_id == sitting_id))):
            places = claims.next_places(session, sitting, worklist, count)
            if places and claims.is_fresh(session, sitting, places[0]):
                return desk_cells(session, sitting, worklist, places)
    with db.writing(engine) as session:
        claims.take_turns(session, worklist.id)
        claims.prune(session, sitting)
        places = claims.next_places(session, sitting, worklist, count)
        if places:
            claims.claim(session, sitting, places[0])
            session.flush()
        return desk_cells(session, sitting, worklist, places)


def answer(
    engine: sa.Engine,
    sitting_id: int,
    cell: DeskCell,
    label: str,
    *,
    seen: int | None,
    reason: str | None = None,
    comment: str | None = None,
    duration_ms: int | None = None,
) -> int:
    """Record the reviewer's answer to the cell on the desk; returns its annotation id once it is committed.

    Args:
        seen: `cell.last_event_id`, or the event of a refused answer that the reviewer has seen since.

    Raises:
        StaleView: there is a newer answer the reviewer may see; nothing was written.
        UserError: unknown label, or a deactivated reviewer.
    """
    with db.reading(engine) as session:
        sitting, worklist = sitting_of(session, sitting_id)
    return annotations.decide(
        engine,
        cell_id=cell.cell_id,
        label=label,
        reviewer_id=sitting.reviewer_id,
        seen=seen,
        session_id=sitting_id,
        visible_run_id=worklist.run_id if "prediction" in cell.visible else None,
        visible=cell.visible,
        reason=reason,
        comment=comment,
        duration_ms=duration_ms,
        independent=not cell.shows("others"),
        repeat=cell.repeat,
        adjudicates=worklist.adjudicates,
    )


def save_draft(
    engine: sa.Engine, sitting_id: int, cell_id: int, *, reason: str | None = None, comment: str | None = None
) -> None:
    """Keep what was written beside the cell so far, until it is answered."""
    with db.writing(engine) as session:
        session.execute(
            sa.update(Claim)
            .where(Claim.session_id == sitting_id, Claim.cell_id == cell_id)
            .values(reason=reason or None, comment=comment or None)
        )


def shared_with(session: Session, sitting_id: int) -> list[str]:
    """Who else has a cell of this worklist on their desk now, by name."""
    sitting, worklist = sitting_of(session, sitting_id)
    query = (
        sa.select(Reviewer.name)
        .join(ReviewSession, ReviewSession.reviewer_id == Reviewer.id)
        .join(Claim, Claim.session_id == ReviewSession.id)
        .where(
            ReviewSession.worklist_id == worklist.id,
            Reviewer.id != sitting.reviewer_id,
            Claim.expires_at > now(),
        )
        .distinct()
        .order_by(Reviewer.name)
    )
    return list(session.scalars(query))


def skip(engine: sa.Engine, sitting_id: int, cell_id: int) -> None:
    """Put a cell aside without an answer."""
    with db.writing(engine) as session:
        found = session.get(SessionSkip, (sitting_id, cell_id))
        if found is None:
            session.add(SessionSkip(session_id=sitting_id, cell_id=cell_id))
        else:
            found.skipped_at, found.taken_back_at, found.redone = now(), None, False


def take_up_skipped(engine: sa.Engine, sitting_id: int) -> None:
    """Bring every skipped cell of the sitting back."""
    with db.writing(engine) as session:
        session.execute(sa.delete(SessionSkip).where(SessionSkip.session_id == sitting_id))


def sitting_of(session: Session, sitting_id: int) -> tuple[ReviewSession, Worklist]:
    """The sitting and its worklist.

    Raises:
        UserError: no such sitting.
    """
    found = session.execute(
        sa.select(ReviewSession, Worklist)
        .join(Worklist, Worklist.id == ReviewSession.worklist_id)
        .where(ReviewSession.id == sitting_id)
    ).one_or_none()
    if found is None:
        raise UserError("There is no such sitting.")
    sitting, worklist = found
    return sitting, worklist
