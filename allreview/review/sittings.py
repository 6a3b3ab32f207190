"""A reviewer's place in a worklist.

The place is derived, not stored: the cell that is claimed for the sitting, else the first that was neither read
nor skipped. Coming back, on this machine or another, leads to the same cell.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.errors import UserError
from allreview.labels import in_force
from allreview.review import annotations, claims, reverting
from allreview.review.annotations import require_reviewer
from allreview.review.blinding import HIDEABLE, hidden_of, shows_reason
from allreview.review.events import Event, events_of
from allreview.review.worklists import answers, close_if_read, left_for, require_reader
from db.tables import (
    Annotation,
    Cell,
    CellFile,
    Claim,
    Prediction,
    Reviewer,
    ReviewSession,
    SessionSkip,
    Subject,
    Worklist,
    WorklistItem,
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


@dataclass(frozen=True)
class DeskCell:
    """The cell on the desk with all that may be shown beside it: what is `hidden` is empty here.

    `last_event_id` is the last event the reviewer may know of: of their own only, where others' answers are
    hidden. `repeat` must not be shown. `draft_reason` and `draft_comment` were written beside the cell before.
    """

    cell_id: int
    position: int
    sha256: str
    path: str
    subject_id: int | None
    subject: str | None
    part: str | None
    source_label: str | None
    predicted: str | None
    probability: float | None
    reason: str
    last_event_id: int | None
    control: bool = False
    repeat: bool = False
    hidden: frozenset[str] = frozenset()
    draft_reason: str | None = None
    draft_comment: str | None = None
    visible: tuple[str, ...] = field(default=())

    @property
    def blind(self) -> bool:
        """Whether the model's opinion is hidden."""
        return "prediction" in self.hidden

    def shows(self, what: str) -> bool:
        """Whether this may be shown, of `allreview.review.blinding.HIDEABLE`."""
        return what not in self.hidden


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
    sitting, worklist = _sitting(session, sitting_id)
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
        sitting, worklist = _sitting(session, sitting_id)
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
    sitting, worklist = _sitting(session, sitting_id)
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
        sitting, worklist = _sitting(session, sitting_id)
        if session.scalar(sa.select(sa.exists().where(Claim.session_id == sitting_id))):
            places = claims.next_places(session, sitting, worklist, count)
            if places and claims.is_fresh(session, sitting, places[0]):
                return _desk_cells(session, sitting, worklist, places)
    with db.writing(engine) as session:
        claims.take_turns(session, worklist.id)
        claims.prune(session, sitting)
        places = claims.next_places(session, sitting, worklist, count)
        if places:
            claims.claim(session, sitting, places[0])
            session.flush()
        return _desk_cells(session, sitting, worklist, places)


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
        sitting, worklist = _sitting(session, sitting_id)
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


def answers_of_others(session: Session, cell: DeskCell, reviewer_id: int) -> list[Event]:
    """What other reviewers said of the cell and still say, oldest first; empty where that is hidden."""
    if not cell.shows("others"):
        return []
    query = sa.select(Annotation).where(
        Annotation.cell_id == cell.cell_id, Annotation.reviewer_id != reviewer_id, in_force()
    )
    return events_of(session, session.scalars(query.order_by(Annotation.id)).all())


def shared_with(session: Session, sitting_id: int) -> list[str]:
    """Who else has a cell of this worklist on their desk now, by name."""
    sitting, worklist = _sitting(session, sitting_id)
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


def subject_strip(session: Session, cell: DeskCell, count: int = 10) -> list[tuple[str, str]]:
    """(SHA-256, path) of up to `count` other cells of the subject, nearest in import order first."""
    if cell.subject_id is None:
        return []
    distance = sa.func.abs(Cell.id - cell.cell_id)
    query = (
        sa.select(Cell.sha256, sa.func.min(CellFile.path))
        .join(CellFile, CellFile.cell_id == Cell.id)
        .where(Cell.subject_id == cell.subject_id, Cell.id != cell.cell_id)
        .group_by(Cell.id, Cell.sha256)
        .order_by(distance, Cell.id)
        .limit(count)
    )
    return [(sha, path) for sha, path in session.execute(query)]


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


def undo_last(engine: sa.Engine, sitting_id: int) -> str | None:
    """Take back the last thing done in this sitting and put its cell on the desk.

    Says what it was, `decision` or `skip`; None if there is nothing to undo.
    """
    with db.reading(engine) as session:
        sitting, _ = _sitting(session, sitting_id)
        decision = session.scalar(
            sa.select(Annotation)
            .where(Annotation.session_id == sitting_id, in_force())
            .order_by(Annotation.id.desc())
            .limit(1)
        )
        skipped = session.scalar(
            sa.select(SessionSkip)
            .where(SessionSkip.session_id == sitting_id, SessionSkip.taken_back_at.is_(None))
            .order_by(SessionSkip.skipped_at.desc())
            .limit(1)
        )
    if skipped and (decision is None or skipped.skipped_at > decision.created_at):
        with db.writing(engine) as session:
            session.get_one(SessionSkip, (sitting_id, skipped.cell_id)).taken_back_at = now()
            claims.claim(session, sitting, claims.Place(skipped.cell_id))
        return "skip"
    if decision is None:
        return None
    reverting.undo(engine, annotation_id=decision.id, reviewer_id=sitting.reviewer_id, session_id=sitting_id)
    with db.writing(engine) as session:
        claims.claim(session, sitting, claims.Place(decision.cell_id, decision.repeat))
        found = session.get_one(Claim, (sitting_id, decision.cell_id))
        found.reason, found.comment = decision.reason, decision.comment
    return "decision"


def redo_last(engine: sa.Engine, sitting_id: int) -> str | None:
    """Let what was undone last in this sitting stand again, unless something new was done since.

    Says what it was, `decision` or `skip`; None if there is nothing to redo.

    Raises:
        StaleView: somebody else answered the cell since it was undone; nothing was written.
    """
    with db.reading(engine) as session:
        sitting, worklist = _sitting(session, sitting_id)
        undone = _undone(session, sitting_id)
        if undone is None:
            return None
        others_hidden = "others" in _hidden(session, worklist, undone.cell_id)
    if isinstance(undone, SessionSkip):
        with db.writing(engine) as session:
            found = session.get_one(SessionSkip, (sitting_id, undone.cell_id))
            found.skipped_at, found.taken_back_at, found.redone = now(), None, True
        return "skip"
    assert undone.undoes_id is not None
    reverting.redo(
        engine,
        annotation_id=undone.undoes_id,
        reviewer_id=sitting.reviewer_id,
        session_id=sitting_id,
        seen=None if others_hidden else undone.id,
    )
    return "decision"


def _origin(undone: Annotation | SessionSkip, answers_given: dict[int, Annotation]) -> int | None:
    """The answer, as first given, that an undo took back."""
    if isinstance(undone, SessionSkip) or undone.undoes_id not in answers_given:
        return None
    return reverting.origin_id(answers_given[undone.undoes_id])


def _hidden(session: Session, worklist: Worklist, cell_id: int) -> frozenset[str]:
    """What is hidden of one cell of the worklist."""
    part = session.scalar(
        sa.select(WorklistItem.part).where(
            WorklistItem.worklist_id == worklist.id, WorklistItem.cell_id == cell_id
        )
    )
    return hidden_of(worklist.hidden, part, adjudicates=worklist.adjudicates)


def _undone(session: Session, sitting_id: int) -> Annotation | SessionSkip | None:
    """The undo event, or the skip, that a redo would turn back."""
    log = session.scalars(sa.select(Annotation).where(Annotation.session_id == sitting_id)).all()
    skips = session.scalars(sa.select(SessionSkip).where(SessionSkip.session_id == sitting_id)).all()
    answers_given = {event.id: event for event in log if event.label is not None}
    moments: list[tuple[datetime, Annotation | SessionSkip]] = [
        (event.created_at, event) for event in log if event.kind != "revert"
    ]
    moments += [(skip.skipped_at, skip) for skip in skips if not skip.taken_back_at and not skip.redone]
    moments += [(skip.taken_back_at, skip) for skip in skips if skip.taken_back_at]
    undone: list[Annotation | SessionSkip] = []
    for _, what in sorted(moments, key=lambda moment: moment[0]):
        if isinstance(what, SessionSkip):
            undone = [*undone, what] if what.taken_back_at else []
        elif what.kind == "undo":
            undone.append(what)
        elif what.kind == "redo":
            undone = [one for one in undone if _origin(one, answers_given) != what.redoes_id]
        else:
            undone = []
    return undone[-1] if undone else None


def _desk_cells(
    session: Session, sitting: ReviewSession, worklist: Worklist, places: Iterable[claims.Place]
) -> list[DeskCell]:
    wanted = list(places)
    ids = [place.cell_id for place in wanted]
    values = {
        "cells": ids,
        "worklist": worklist.id,
        "run": worklist.run_id,
        "sitting": sitting.id,
        "reviewer": sitting.reviewer_id,
    }
    repeats = {place.cell_id: place.repeat for place in wanted}
    found = {
        row[0].id: _shown(row, worklist, repeat=repeats[row[0].id])
        for row in session.execute(_desk_query(), values)
    }
    return [found[cell_id] for cell_id in ids]


@cache
def _desk_query() -> sa.Select[*tuple[Any, ...]]:
    """Cells with all that may be shown of them, put together once."""
    first_file = sa.select(sa.func.min(CellFile.path)).where(CellFile.cell_id == Cell.id)
    last = sa.select(sa.func.max(Annotation.id)).where(Annotation.cell_id == Cell.id)
    own_last = last.where(Annotation.reviewer_id == sa.bindparam("reviewer"))
    return (
        sa.select(
            Cell,
            first_file.correlate(Cell).scalar_subquery(),
            Subject.name,
            WorklistItem,
            Prediction,
            Claim,
            last.correlate(Cell).scalar_subquery(),
            own_last.correlate(Cell).scalar_subquery(),
        )
        .select_from(Cell)
        .join(
            WorklistItem,
            sa.and_(WorklistItem.cell_id == Cell.id, WorklistItem.worklist_id == sa.bindparam("worklist")),
        )
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(
            Prediction, sa.and_(Prediction.cell_id == Cell.id, Prediction.run_id == sa.bindparam("run"))
        )
        .outerjoin(Claim, sa.and_(Claim.cell_id == Cell.id, Claim.session_id == sa.bindparam("sitting")))
        .where(Cell.id.in_(sa.bindparam("cells", expanding=True)))
    )


def _shown(row: sa.Row[*tuple[Any, ...]], worklist: Worklist, *, repeat: bool) -> DeskCell:
    """The cell as the reader may see it: what is hidden never leaves this module."""
    cell, path, subject, item, prediction, claim, last, own_last = row
    hidden = hidden_of(worklist.hidden, item.part, adjudicates=worklist.adjudicates)
    opinion = prediction if "prediction" not in hidden else None
    absent = set() if prediction else {"prediction"}
    return DeskCell(
        cell_id=cell.id,
        position=item.position,
        sha256=cell.sha256,
        path=path or "",
        subject_id=cell.subject_id if "subject" not in hidden else None,
        subject=subject if "subject" not in hidden else None,
        part=item.part,
        source_label=cell.source_label if "source_label" not in hidden else None,
        predicted=opinion.label if opinion else None,
        probability=opinion.probability if opinion else None,
        reason=item.reason if shows_reason(hidden) else "",
        last_event_id=own_last if "others" in hidden else last,
        control=item.control,
        repeat=repeat,
        hidden=hidden,
        draft_reason=claim.reason if claim else None,
        draft_comment=claim.comment if claim else None,
        visible=tuple(what for what in HIDEABLE if what not in hidden and what not in absent),
    )


def _sitting(session: Session, sitting_id: int) -> tuple[ReviewSession, Worklist]:
    found = session.execute(
        sa.select(ReviewSession, Worklist)
        .join(Worklist, Worklist.id == ReviewSession.worklist_id)
        .where(ReviewSession.id == sitting_id)
    ).one_or_none()
    if found is None:
        raise UserError("There is no such sitting.")
    sitting, worklist = found
    return sitting, worklist
