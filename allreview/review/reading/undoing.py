"""Undo and redo across a sitting: decisions and skips, the last first."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.labels import in_force
from allreview.review.log import reverting
from allreview.review.reading import claims
from allreview.review.reading.blinding import hidden_of
from allreview.review.reading.sittings import sitting_of
from db.tables import (
    Annotation,
    Claim,
    SessionSkip,
    Worklist,
    WorklistItem,
)
from db.types import now


def undo_last(engine: sa.Engine, sitting_id: int) -> str | None:
    """Take back the last thing done in this sitting and put its cell on the desk.

    Says what it was, `decision` or `skip`; None if there is nothing to undo.
    """
    with db.reading(engine) as session:
        sitting, _ = sitting_of(session, sitting_id)
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
        sitting, worklist = sitting_of(session, sitting_id)
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
