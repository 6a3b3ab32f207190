"""Appending to the log: decide and undo.

A write names the last event of that cell its reviewer saw. When there is a newer one, nothing is written
and `StaleView` carries both answers, so that the page can show them side by side.
"""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import db
from allreview.cells.naming import class_title
from allreview.errors import UserError
from allreview.labels import NOT_CLASSES, in_force
from db.tables import Annotation, Cell, Dataset, Reviewer


@dataclass(frozen=True)
class Event:
    """One annotation as people read it."""

    id: int
    cell_id: int
    kind: str
    label: str | None
    reviewer: str
    reviewer_id: int
    session_id: int | None
    created_at: datetime


class StaleView(UserError):  # noqa: N818 - it is a situation to show, not a fault
    """Somebody decided on this cell after the reviewer's view was drawn. Nothing was written."""

    def __init__(self, newer: Event, label: str) -> None:
        self.newer = newer
        self.label = label
        what = "said " + class_title(newer.label) if newer.label else "took back a decision"
        super().__init__(
            f"{newer.reviewer} {what} while you were looking. Your answer, {class_title(label)}, is not saved: "
            "look at the cell again and decide."
        )


def decide(
    engine: sa.Engine,
    *,
    cell_id: int,
    label: str,
    reviewer_id: int,
    seen: int | None,
    session_id: int | None = None,
    visible_run_id: int | None = None,
    reason: str | None = None,
    comment: str | None = None,
    duration_ms: int | None = None,
) -> int:
    """Record one decision and return its annotation id once it is committed.

    Args:
        label: a class of the cell's dataset, `unsure` or `unusable`.
        seen: id of the cell's last event (of any kind) when the reviewer's view was drawn; None if none.
        visible_run_id: the run whose prediction the reviewer could see, or None.
        duration_ms: time from drawing the cell to the decision, in milliseconds.

    Raises:
        StaleView: there is a newer event; nothing was written.
        UserError: unknown cell, label or reviewer.
    """
    try:
        with db.writing(engine) as session:
            _check(session, cell_id, label, reviewer_id)
            last = _last(session, cell_id, lock=True)
            if (last.id if last else None) != seen:
                raise StaleView(_event(session, last), label) if last else UserError("Unknown event.")
            annotation = Annotation(
                cell_id=cell_id,
                sequence=last.sequence + 1 if last else 1,
                kind="decision",
                label=label,
                reason=reason or None,
                comment=comment or None,
                reviewer_id=reviewer_id,
                session_id=session_id,
                visible_run_id=visible_run_id,
                supersedes_id=seen,
                duration_ms=duration_ms,
            )
            session.add(annotation)
            session.flush()
            return annotation.id
    except IntegrityError:
        # Two first events of one cell at the same instant: there was no row to lock, the store kept one.
        with db.reading(engine) as session:
            last = _last(session, cell_id)
            if last is None:
                raise
            raise StaleView(_event(session, last), label) from None


def undo(engine: sa.Engine, *, annotation_id: int, reviewer_id: int, session_id: int | None = None) -> int:
    """Take back one of the reviewer's own decisions, as a new event; returns the new event's id.

    Raises:
        UserError: no such decision, somebody else's, or already undone.
    """
    with db.writing(engine) as session:
        target = session.get(Annotation, annotation_id)
        if target is None or target.kind == "undo":
            raise UserError("There is no such decision to undo.")
        if target.reviewer_id != reviewer_id:
            raise UserError("Only your own decisions can be undone here. Add a decision of your own instead.")
        last = _last(session, target.cell_id, lock=True)
        if session.scalar(sa.select(Annotation.id).where(Annotation.undoes_id == annotation_id)):
            raise UserError("This decision is undone already.")
        assert last is not None
        event = Annotation(
            cell_id=target.cell_id,
            sequence=last.sequence + 1,
            kind="undo",
            reviewer_id=reviewer_id,
            session_id=session_id,
            supersedes_id=last.id,
            undoes_id=annotation_id,
        )
        session.add(event)
        session.flush()
        return event.id


def last_event_id(session: Session, cell_id: int) -> int | None:
    """The id of the cell's last event of any kind: what a view must remember to write later."""
    last = _last(session, cell_id)
    return last.id if last else None


def last_decision(session: Session, reviewer_id: int, cell_id: int | None = None) -> Annotation | None:
    """The reviewer's last decision that still stands, of one cell or of all."""
    query = sa.select(Annotation).where(in_force(), Annotation.reviewer_id == reviewer_id)
    if cell_id is not None:
        query = query.where(Annotation.cell_id == cell_id)
    return session.scalar(query.order_by(Annotation.id.desc()).limit(1))


def reviewer_named(engine: sa.Engine, name: str) -> int:
    """The id of the active reviewer of that name (any case); added when new.

    Raises:
        UserError: an empty or overlong name, or a reviewer who was deactivated.
    """
    name = " ".join(name.split())
    if not 1 <= len(name) <= 200:
        raise UserError("A reviewer's name has 1 to 200 characters.")
    with db.writing(engine) as session:
        found = session.scalar(sa.select(Reviewer).where(sa.func.lower(Reviewer.name) == name.lower()))
        if found is None:
            found = Reviewer(name=name)
            session.add(found)
            session.flush()
        if not found.active:
            raise UserError(f"Reviewer {found.name} was deactivated and cannot decide any more.")
        return found.id


def _check(session: Session, cell_id: int, label: str, reviewer_id: int) -> None:
    classes = session.scalar(
        sa.select(Dataset.classes).join(Cell, Cell.dataset_id == Dataset.id).where(Cell.id == cell_id)
    )
    if classes is None:
        raise UserError(f"There is no cell {cell_id}.")
    if label not in (*classes, *NOT_CLASSES):
        raise UserError(f"Unknown label {label!r}. Use one of: {', '.join((*classes, *NOT_CLASSES))}.")
    active = session.scalar(sa.select(Reviewer.active).where(Reviewer.id == reviewer_id))
    if not active:
        raise UserError("Say who you are first: choose an active reviewer.")


def _last(session: Session, cell_id: int, *, lock: bool = False) -> Annotation | None:
    """The cell's last event. `lock` makes other writers to this cell wait their turn on PostgreSQL."""
    if lock:
        session.execute(sa.select(Cell.id).where(Cell.id == cell_id).with_for_update())
    query = sa.select(Annotation).where(Annotation.cell_id == cell_id).order_by(Annotation.sequence.desc())
    return session.scalar(query.limit(1))


def _event(session: Session, annotation: Annotation) -> Event:
    name = session.scalar(sa.select(Reviewer.name).where(Reviewer.id == annotation.reviewer_id))
    return Event(
        id=annotation.id,
        cell_id=annotation.cell_id,
        kind=annotation.kind,
        label=annotation.label,
        reviewer=name or "",
        reviewer_id=annotation.reviewer_id,
        session_id=annotation.session_id,
        created_at=annotation.created_at,
    )
