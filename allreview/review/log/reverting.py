"""Taking answers back and bringing them back, always as new events.

Undo is for the reviewer's own answers, revert for anybody's. Both take back a given answer once: what is brought
back is a new event that names the answer as it was first given, and may be taken back again.
"""

import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.errors import UserError
from allreview.labels import in_force, keep_standing
from allreview.review.log.annotations import append, require_reviewer
from allreview.review.log.events import StaleView, event_of, last_events, slices
from db.tables import Annotation

TAKES_BACK = ("undo", "revert")


def undo(engine: sa.Engine, *, annotation_id: int, reviewer_id: int, session_id: int | None = None) -> int:
    """Take back one of the reviewer's own answers and return the new event's id.

    Raises:
        UserError: no such answer, somebody else's, or already taken back.
    """
    with db.writing(engine) as session:
        require_reviewer(session, reviewer_id)
        target = _answer(session, annotation_id)
        if not _is_own(session, target, reviewer_id):
            raise UserError("Only your own decisions can be undone here. Add a decision of your own instead.")
        return _take_back(session, [target], "undo", reviewer_id, session_id=session_id)[0].id


def undo_batch(engine: sa.Engine, *, batch: str, reviewer_id: int) -> str:
    """Take back all that still stands of the reviewer's own bulk decision; returns the batch of the new events.

    Raises:
        UserError: no such batch, somebody else's, or nothing of it stands.
    """
    with db.writing(engine) as session:
        require_reviewer(session, reviewer_id)
        targets = _standing_of(session, Annotation.batch == batch)
        if not all(_is_own(session, target, reviewer_id) for target in targets):
            raise UserError(
                "Only your own decisions can be undone here. Revert them on the Labels page instead."
            )
        return _as_batch(session, targets, "undo", reviewer_id)


def redo(
    engine: sa.Engine,
    *,
    annotation_id: int,
    reviewer_id: int,
    session_id: int | None = None,
    seen: int | None = None,
) -> int:
    """Let an answer of the reviewer's own that was taken back stand again; returns the new event's id.

    Args:
        annotation_id: the answer that was taken back.
        seen: the cell's last event the reviewer knows of; None where what others said is hidden from them.

    Raises:
        StaleView: there is a newer event than `seen`; nothing was written.
        UserError: no such answer, somebody else's, one that stands, or one that was brought back already.
    """
    with db.writing(engine) as session:
        require_reviewer(session, reviewer_id)
        target = _answer(session, annotation_id)
        if not _is_own(session, target, reviewer_id):
            raise UserError("Only your own decisions can be brought back here.")
        last = last_events(session, [target.cell_id], lock=True)[target.cell_id]
        if seen is not None and last.id != seen:
            raise StaleView(event_of(session, last), target.label or "")
        return _bring_back(session, [target], reviewer_id, session_id=session_id)[0].id


def revert(
    engine: sa.Engine, *, reviewer_id: int, annotation_ids: Sequence[int], reason: str | None = None
) -> str:
    """Take back answers, whoever gave them, as one batch; returns it.

    Raises:
        UserError: no answers, one that does not exist, or one that was taken back already.
    """
    with db.writing(engine) as session:
        require_reviewer(session, reviewer_id)
        targets = [_answer(session, number) for number in dict.fromkeys(annotation_ids)]
        return _as_batch(session, targets, "revert", reviewer_id, reason)


def revert_batch(engine: sa.Engine, *, batch: str, reviewer_id: int, reason: str | None = None) -> str:
    """Take back all that still stands of a bulk decision; returns the batch of the new events.

    Raises:
        UserError: no such batch, or nothing of it stands.
    """
    with db.writing(engine) as session:
        require_reviewer(session, reviewer_id)
        targets = _standing_of(session, Annotation.batch == batch)
        return _as_batch(session, targets, "revert", reviewer_id, reason)


def revert_session(engine: sa.Engine, *, session_id: int, reviewer_id: int, reason: str | None = None) -> str:
    """Take back all that still stands of a sitting; returns the batch of the new events.

    Raises:
        UserError: no such sitting, or nothing of it stands.
    """
    with db.writing(engine) as session:
        require_reviewer(session, reviewer_id)
        targets = _standing_of(session, Annotation.session_id == session_id)
        return _as_batch(session, targets, "revert", reviewer_id, reason)


def restore(engine: sa.Engine, *, batch: str, reviewer_id: int) -> str:
    """Bring back what a batch of undo or revert events took back, whoever did; returns the new events' batch.

    Cells that got another answer since keep it.

    Raises:
        UserError: no such batch, or nothing of it is left to bring back.
    """
    with db.writing(engine) as session:
        require_reviewer(session, reviewer_id)
        taken = sa.select(Annotation.undoes_id).where(
            Annotation.batch == batch, Annotation.kind.in_(TAKES_BACK)
        )
        targets = session.scalars(
            sa.select(Annotation).where(Annotation.id.in_(taken)).order_by(Annotation.id)
        )
        left = [target for target in targets if not _stands_again(session, target)]
        if not left:
            raise UserError("Nothing of this is left to bring back.")
        again = str(uuid.uuid4())
        _bring_back(session, left, reviewer_id, batch=again)
        return again


def origin_id(annotation: Annotation) -> int:
    """The answer as it was first given: of a redo the one it brings back, else the answer itself."""
    return annotation.redoes_id or annotation.id


def _answer(session: Session, annotation_id: int) -> Annotation:
    target = session.get(Annotation, annotation_id)
    if target is None or target.kind in TAKES_BACK:
        raise UserError("There is no such decision.")
    return target


def _is_own(session: Session, target: Annotation, reviewer_id: int) -> bool:
    """Whether the reviewer gave the answer: of one that somebody else brought back, whether they gave it first."""
    if target.reviewer_id == reviewer_id or target.redoes_id is None:
        return target.reviewer_id == reviewer_id
    return session.get_one(Annotation, target.redoes_id).reviewer_id == reviewer_id


def _standing_of(session: Session, which: sa.ColumnElement[bool]) -> list[Annotation]:
    targets = list(session.scalars(sa.select(Annotation).where(which, in_force()).order_by(Annotation.id)))
    if not targets:
        raise UserError("Nothing of this stands any more: it was taken back already.")
    return targets


def _as_batch(
    session: Session, targets: Sequence[Annotation], kind: str, reviewer_id: int, reason: str | None = None
) -> str:
    if not targets:
        raise UserError("No decision is selected.")
    batch = str(uuid.uuid4())
    _take_back(session, targets, kind, reviewer_id, batch=batch, reason=reason or None)
    return batch


def _take_back(
    session: Session,
    targets: Sequence[Annotation],
    kind: str,
    reviewer_id: int,
    *,
    session_id: int | None = None,
    batch: str | None = None,
    reason: str | None = None,
) -> list[Annotation]:
    last = last_events(session, [target.cell_id for target in targets], lock=True)
    ids = [target.id for target in targets]
    for some in slices(ids):  # after the lock: nobody takes them back meanwhile
        if session.scalar(sa.select(sa.exists().where(Annotation.undoes_id.in_(some)))):
            raise UserError("This decision is undone already.")
    return _append_each(
        session,
        last,
        [
            {
                "cell_id": target.cell_id,
                "kind": kind,
                "reviewer_id": reviewer_id,
                "session_id": session_id,
                "undoes_id": target.id,
                "batch": batch,
                "reason": reason,
            }
            for target in targets
        ],
    )


def _bring_back(
    session: Session,
    targets: Sequence[Annotation],
    reviewer_id: int,
    *,
    session_id: int | None = None,
    batch: str | None = None,
) -> list[Annotation]:
    last = last_events(session, [target.cell_id for target in targets], lock=True)
    if any(_stands_again(session, target) for target in targets):
        raise UserError("This decision stands already.")
    return _append_each(
        session,
        last,
        [
            {
                "cell_id": target.cell_id,
                "kind": "redo",
                "label": target.label,
                "reason": target.reason,
                "comment": target.comment,
                "reviewer_id": reviewer_id,
                "session_id": session_id if session_id is not None else target.session_id,
                "visible_run_id": target.visible_run_id,
                "visible": target.visible,
                "repeat": target.repeat,
                "redoes_id": origin_id(target),
                "batch": batch,
            }
            for target in targets
        ],
    )


def _append_each(
    session: Session, last: dict[int, Annotation], events: Sequence[dict[str, Any]]
) -> list[Annotation]:
    written: dict[int, Annotation] = {}
    for values in events:
        cell_id = values.pop("cell_id")
        if cell_id in written:
            session.flush()  # the next event of this cell names the one before
        written[cell_id] = append(
            session, cell_id, written.get(cell_id) or last[cell_id], flush=False, **values
        )
    keep_standing(session, written)
    return list(written.values())


def _stands_again(session: Session, target: Annotation) -> bool:
    """Whether the answer as first given is in force, in itself or in one of its redos."""
    origin = origin_id(target)
    same = sa.or_(Annotation.id == origin, Annotation.redoes_id == origin)
    return bool(session.scalar(sa.select(sa.exists().where(same, in_force()))))
