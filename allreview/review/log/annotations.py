"""Appending answers to the log, one at a time or many at once.

A write names the last event of each cell its reviewer saw. When there is a newer one, nothing is written
and `StaleView` carries both answers, so that the page can show them side by side.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.errors import UserError
from allreview.labels import NOT_CLASSES, in_force, keep_standing
from allreview.review.log.events import (
    StaleSelection,
    StaleView,
    event_of,
    events_of,
    last_events,
    slices,
)
from db.tables import Annotation, Cell, Dataset, Reviewer


def decide(
    engine: sa.Engine,
    *,
    cell_id: int,
    label: str,
    reviewer_id: int,
    seen: int | None,
    session_id: int | None = None,
    visible_run_id: int | None = None,
    visible: Collection[str] | None = None,
    reason: str | None = None,
    comment: str | None = None,
    duration_ms: int | None = None,
    independent: bool = False,
    repeat: bool = False,
    adjudicates: bool = False,
) -> int:
    """Record one answer and return its annotation id once it is committed.

    Args:
        label: a class of the cell's dataset, `unsure` or `unusable`.
        seen: id of the cell's last event (of any kind) when the reviewer's view was drawn; None if none.
        visible_run_id: the run whose prediction the reviewer could see, or None.
        visible: what the reviewer could see, of `allreview.review.reading.blinding.HIDEABLE`; None if not known.
        duration_ms: time from drawing the cell to the decision, in milliseconds.
        independent: others' answers were hidden: then `seen` is the reviewer's own last event, and only newer ones
            of their own make the view stale.
        repeat: the reviewer was given this cell again to be compared with themselves.
        adjudicates: the answer outranks decisions.

    Raises:
        StaleView: there is a newer event; nothing was written.
        UserError: unknown cell, label or reviewer.
    """
    with db.writing(engine) as session:
        require_reviewer(session, reviewer_id)
        _require_labels(session, {cell_id: label})
        last = last_events(session, [cell_id], lock=True).get(cell_id)
        known = _own_last(session, cell_id, reviewer_id) if independent else last
        if (known.id if known else None) != seen:
            raise StaleView(event_of(session, known), label) if known else UserError("Unknown event.")
        return append(
            session,
            cell_id,
            last,
            kind="adjudication" if adjudicates else "decision",
            label=label,
            reason=reason or None,
            comment=comment or None,
            reviewer_id=reviewer_id,
            session_id=session_id,
            visible_run_id=visible_run_id,
            visible=None if visible is None else sorted(visible),
            repeat=repeat,
            duration_ms=duration_ms,
        ).id


def decide_many(
    engine: sa.Engine,
    *,
    cells: Mapping[int, int | None],
    label: str | Mapping[int, str],
    reviewer_id: int,
    session_id: int | None = None,
    visible_run_id: int | None = None,
    visible: Collection[str] | Mapping[int, Collection[str]] | None = None,
    reason: str | None = None,
    comment: str | None = None,
    adjudicates: bool = False,
) -> str:
    """Record answers to many cells together, all or none, and return their batch once it is committed.

    Args:
        cells: each cell's last event when the reviewer's view was drawn; None if none.
        label: one for all, or one for each cell.
        visible: as in `decide`, for all or for each cell.
        visible_run_id: as in `decide`; recorded for the cells whose prediction was visible, where `visible` says.

    Raises:
        StaleSelection: there are newer events of some; nothing was written.
        UserError: no cells, or an unknown cell, label or reviewer.
    """
    if not cells:
        raise UserError("No cell is selected.")
    labels = {cell: label if isinstance(label, str) else label[cell] for cell in cells}
    per_cell = cast("Mapping[int, Collection[str]]", visible) if isinstance(visible, Mapping) else None
    batch = str(uuid.uuid4())
    with db.writing(engine) as session:
        require_reviewer(session, reviewer_id)
        _require_labels(session, labels)
        last = last_events(session, cells, lock=True)
        newer = [last[cell] for cell, seen in cells.items() if cell in last and last[cell].id != seen]
        if newer:
            raise StaleSelection(events_of(session, newer))
        if any(seen is not None and cell not in last for cell, seen in cells.items()):
            raise UserError("Unknown event.")
        for cell in sorted(cells):
            seen_of_cell = per_cell.get(cell) if per_cell is not None else visible
            append(
                session,
                cell,
                last.get(cell),
                kind="adjudication" if adjudicates else "decision",
                label=labels[cell],
                reason=reason or None,
                comment=comment or None,
                reviewer_id=reviewer_id,
                session_id=session_id,
                visible_run_id=None
                if seen_of_cell is not None and "prediction" not in seen_of_cell
                else visible_run_id,
                visible=None if seen_of_cell is None else sorted(seen_of_cell),
                batch=batch,
                flush=False,
            )
        keep_standing(session, cells)
    return batch


def append(
    session: Session, cell_id: int, last: Annotation | None, *, flush: bool = True, **values: Any
) -> Annotation:
    """Add the event that comes after `last`, the cell's last event, which is locked by the caller.

    Who passes `flush=False` calls `keep_standing` after the last of its events.
    """
    annotation = Annotation(
        cell_id=cell_id,
        sequence=last.sequence + 1 if last else 1,
        supersedes_id=last.id if last else None,
        **values,
    )
    session.add(annotation)
    if flush:
        keep_standing(session, [cell_id])
    return annotation


def last_decision(session: Session, reviewer_id: int, cell_id: int | None = None) -> Annotation | None:
    """The reviewer's last answer that still stands, of one cell or of all."""
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
        found = find_reviewer(session, name)
        if found is None:
            found = Reviewer(name=name)
            session.add(found)
            session.flush()
        if not found.active:
            raise UserError(f"Reviewer {found.name} was deactivated and cannot decide any more.")
        return found.id


def find_reviewer(session: Session, name: str) -> Reviewer | None:
    """The reviewer of that name, in any case, active or not."""
    # Compared here: SQLite's lower() knows no letters but ASCII, and would take 'łukasz' for another than 'Łukasz'.
    wanted = " ".join(name.split()).casefold()
    found = session.scalars(sa.select(Reviewer).order_by(Reviewer.id))
    return next((reviewer for reviewer in found if reviewer.name.casefold() == wanted), None)


def require_reviewer(session: Session, reviewer_id: int) -> None:
    """Raises:
    UserError: there is no such reviewer, or they were deactivated.
    """
    if not session.scalar(sa.select(Reviewer.active).where(Reviewer.id == reviewer_id)):
        raise UserError("Say who you are first: choose an active reviewer.")


def _require_labels(session: Session, labels: Mapping[int, str]) -> None:
    datasets = _datasets_of(session, labels)
    classes = {number: session.get_one(Dataset, number).classes for number in set(datasets.values())}
    for cell, label in labels.items():
        if cell not in datasets:
            raise UserError(f"There is no cell {cell}.")
        allowed = (*classes[datasets[cell]], *NOT_CLASSES)
        if label not in allowed:
            raise UserError(f"Unknown label {label!r}. Use one of: {', '.join(allowed)}.")


def _datasets_of(session: Session, cells: Iterable[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for some in slices(sorted(cells)):
        query = sa.select(Cell.id, Cell.dataset_id).where(Cell.id.in_(some))
        found.update((cell, dataset) for cell, dataset in session.execute(query))
    return found


def _own_last(session: Session, cell_id: int, reviewer_id: int) -> Annotation | None:
    query = sa.select(Annotation).where(Annotation.cell_id == cell_id, Annotation.reviewer_id == reviewer_id)
    return session.scalar(query.order_by(Annotation.sequence.desc()).limit(1))
