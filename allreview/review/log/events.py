"""Events of the log as people read them, and what there is to say when a view was stale."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.cells.naming import class_title
from allreview.errors import UserError
from allreview.wording import listed
from db.tables import Annotation, Cell, Reviewer

AT_ONCE = 500
"""Ids in one query: stores limit how many values a statement may name."""


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
    reason: str | None = None
    comment: str | None = None
    batch: str | None = None


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


class StaleSelection(UserError):  # noqa: N818 - as above
    """Somebody decided on some of these cells after they were selected. Nothing was written.

    `newer` holds the last event of each such cell.
    """

    def __init__(self, newer: Sequence[Event]) -> None:
        self.newer = list(newer)
        who = listed(sorted({event.reviewer for event in newer}))
        super().__init__(
            f"{who} decided on {len(newer):,} of these cells while you were looking. "
            "Nothing is saved: look at them again and decide."
        )


def event_of(session: Session, annotation: Annotation) -> Event:
    """The annotation with its reviewer's name."""
    return events_of(session, [annotation])[0]


def events_of(session: Session, annotations: Sequence[Annotation]) -> list[Event]:
    """The annotations with their reviewers' names, in the same order."""
    wanted = {annotation.reviewer_id for annotation in annotations}
    found = session.execute(sa.select(Reviewer.id, Reviewer.name).where(Reviewer.id.in_(wanted)))
    names = {number: name for number, name in found}  # noqa: C416 - a Result is no mapping
    return [
        Event(
            id=annotation.id,
            cell_id=annotation.cell_id,
            kind=annotation.kind,
            label=annotation.label,
            reviewer=names.get(annotation.reviewer_id, ""),
            reviewer_id=annotation.reviewer_id,
            session_id=annotation.session_id,
            created_at=annotation.created_at,
            reason=annotation.reason,
            comment=annotation.comment,
            batch=annotation.batch,
        )
        for annotation in annotations
    ]


def last_event_id(session: Session, cell_id: int) -> int | None:
    """The id of the cell's last event of any kind: what a view must remember to write later."""
    return last_event_ids(session, [cell_id]).get(cell_id)


def last_event_ids(session: Session, cell_ids: Iterable[int]) -> dict[int, int]:
    """The id of each cell's last event; cells without events are absent."""
    found: dict[int, int] = {}
    for some in slices(sorted(set(cell_ids))):
        query = sa.select(Annotation.cell_id, sa.func.max(Annotation.id)).group_by(Annotation.cell_id)
        found.update(
            (cell, event) for cell, event in session.execute(query.where(Annotation.cell_id.in_(some)))
        )
    return found


def last_events(session: Session, cell_ids: Iterable[int], *, lock: bool = False) -> dict[int, Annotation]:
    """Each cell's last event. `lock` makes other writers to these cells wait their turn on PostgreSQL.

    Raises:
        UserError: there is no such cell.
    """
    ids = sorted(set(cell_ids))
    if lock:
        for some in slices(ids):  # always in the same order, so that two bulk changes cannot block each other
            query = sa.select(Cell.id).where(Cell.id.in_(some)).order_by(Cell.id).with_for_update()
            missing = set(some) - set(session.scalars(query))
            if missing:
                raise UserError(f"There is no cell {min(missing)}.")
    found: dict[int, Annotation] = {}
    for some in slices(sorted(last_event_ids(session, ids).values())):
        for annotation in session.scalars(sa.select(Annotation).where(Annotation.id.in_(some))):
            found[annotation.cell_id] = annotation
    return found


def slices(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """The ids in pieces that fit into one query."""
    return (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))
