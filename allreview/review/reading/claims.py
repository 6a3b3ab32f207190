"""Which cell lies on whose desk.

A worklist may be shared. Whoever asks for the next cell claims it; until the answer, a skip, or the end of the
claim nobody else on the worklist is given it, unless more than one reader is wanted for each cell. Claims end by
themselves: a browser that died does not hold its cell forever.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from allreview.labels import in_force
from db.tables import Annotation, Claim, ReviewSession, SessionSkip, Worklist, WorklistItem
from db.types import now

LASTS = timedelta(minutes=10)
REPEAT_AFTER = 25
"""So many other cells lie between the first reading of a cell and its repeat, as long as there are any."""


@dataclass(frozen=True)
class Place:
    """A cell that may come next. `repeat`: the reviewer has read it before."""

    cell_id: int
    repeat: bool = False


def next_places(session: Session, sitting: ReviewSession, worklist: Worklist, count: int) -> list[Place]:
    """The cell on the desk and those that come after it, at most `count`; nothing is written.

    First what is claimed already, the latest first: a cell that an undo brought back. Then a repeat that is due,
    then the queue.
    """
    held = [place for place in _held(session, sitting) if _fits(session, sitting, worklist, place)]
    queue = _queued(session, sitting, worklist, count + len(held))
    due = _due(session, sitting, worklist, nothing_else=not queue and not held)
    first = {place.cell_id: place for place in (*held, *due)}
    found = [*first.values(), *(Place(cell) for cell in queue if cell not in first)]
    return found[:count]


def claim(session: Session, sitting: ReviewSession, place: Place, *, renew: bool = True) -> None:
    """Put the cell on this sitting's desk. What was written beside it before is kept."""
    found = session.get(Claim, (sitting.id, place.cell_id))
    if found is None:
        session.add(
            Claim(session_id=sitting.id, cell_id=place.cell_id, expires_at=now() + LASTS, repeat=place.repeat)
        )
    elif renew:
        found.expires_at, found.repeat = now() + LASTS, place.repeat


def is_fresh(session: Session, sitting: ReviewSession, place: Place) -> bool:
    """Whether the cell is claimed for this sitting and will be for a while."""
    found = session.get(Claim, (sitting.id, place.cell_id))
    return found is not None and found.repeat == place.repeat and found.expires_at > now() + LASTS / 2


def prune(session: Session, sitting: ReviewSession) -> None:
    """Forget the sitting's claims on cells that were read or skipped meanwhile."""
    session.execute(_prune(), {"sitting": sitting.id})


@cache
def _prune() -> sa.Delete:
    answer = aliased(Annotation)
    answered = sa.exists().where(
        answer.cell_id == Claim.cell_id,
        answer.session_id == Claim.session_id,
        answer.repeat == Claim.repeat,
        in_force(answer),
    )
    return sa.delete(Claim).where(
        Claim.session_id == sa.bindparam("sitting"), sa.or_(answered, _skipped(Claim.cell_id))
    )


def release(session: Session, sitting_id: int, cell_id: int | None = None) -> None:
    """Give up one claim of the sitting, or let all of them end now; drafts stay with those."""
    if cell_id is not None:
        session.execute(sa.delete(Claim).where(Claim.session_id == sitting_id, Claim.cell_id == cell_id))
    else:
        session.execute(sa.update(Claim).where(Claim.session_id == sitting_id).values(expires_at=now()))


def take_turns(session: Session, worklist_id: int) -> None:
    """Wait until nobody else is choosing a cell of the worklist. SQLite has one writer at a time anyway."""
    session.execute(sa.select(Worklist.id).where(Worklist.id == worklist_id).with_for_update())


def _held(session: Session, sitting: ReviewSession) -> list[Place]:
    query = (
        sa.select(Claim.cell_id, Claim.repeat)
        .where(Claim.session_id == sitting.id)
        .order_by(Claim.expires_at.desc(), Claim.cell_id)
    )
    return [Place(cell, repeat) for cell, repeat in session.execute(query)]


def _fits(session: Session, sitting: ReviewSession, worklist: Worklist, place: Place) -> bool:
    """Whether a cell that was claimed is still this reviewer's to read."""
    values = {"cell": place.cell_id, **_values(sitting, worklist)}
    if not place.repeat:
        return session.scalar(_open_cell(), values) is not None
    read = set(session.scalars(_read_before(), values))
    return read == {False}


def _queued(session: Session, sitting: ReviewSession, worklist: Worklist, count: int) -> Sequence[int]:
    return session.scalars(_queue(), {"count": count, **_values(sitting, worklist)}).all()


def _values(sitting: ReviewSession, worklist: Worklist) -> dict[str, Any]:
    return {
        "worklist": worklist.id,
        "overlap": worklist.overlap,
        "sitting": sitting.id,
        "reviewer": sitting.reviewer_id,
        "moment": now(),
    }


# These statements are asked for at every key. They are put together once: that takes longer than running them.


@cache
def _queue() -> sa.Select[int]:
    """The cells of a worklist that a reviewer may read now, in their order."""
    return (
        sa.select(WorklistItem.cell_id)
        .where(WorklistItem.worklist_id == sa.bindparam("worklist"), _open())
        .order_by(WorklistItem.position)
        .limit(sa.bindparam("count"))
    )


@cache
def _open_cell() -> sa.Select[int]:
    """The cell, if the reviewer may read it now."""
    return sa.select(WorklistItem.cell_id).where(
        WorklistItem.worklist_id == sa.bindparam("worklist"),
        WorklistItem.cell_id == sa.bindparam("cell"),
        _open(),
    )


@cache
def _read_before() -> sa.Select[bool]:
    """How the reviewer has read a cell: for the first time, as a repeat; nothing when it is skipped."""
    skipped = _skipped(sa.bindparam("cell", type_=sa.Integer()))
    return _answers(Annotation.repeat).where(Annotation.cell_id == sa.bindparam("cell"), ~skipped).distinct()


@cache
def _open() -> sa.ColumnElement[bool]:
    """True for items of the worklist that the reviewer may read now."""
    cell = WorklistItem.cell_id
    me, here = sa.bindparam("reviewer"), sa.bindparam("worklist")
    answer, reader = aliased(Annotation), aliased(ReviewSession)
    readings = (
        sa.select(reader.reviewer_id)
        .select_from(answer)
        .join(reader, reader.id == answer.session_id)
        .where(answer.cell_id == cell, reader.worklist_id == here, in_force(answer))
        .correlate(WorklistItem)
    )
    mine = readings.where(reader.reviewer_id == me).exists()
    others = (
        readings.where(reader.reviewer_id != me)
        .with_only_columns(sa.func.count(reader.reviewer_id.distinct()))
        .scalar_subquery()
    )
    claimed = (
        sa.select(sa.func.count(ReviewSession.reviewer_id.distinct()))
        .select_from(Claim)
        .join(ReviewSession, ReviewSession.id == Claim.session_id)
        .where(
            Claim.cell_id == cell,
            Claim.expires_at > sa.bindparam("moment"),
            ~Claim.repeat,
            ReviewSession.worklist_id == here,
            ReviewSession.reviewer_id != me,
        )
        .correlate(WorklistItem)
        .scalar_subquery()
    )
    return sa.and_(~mine, ~_skipped(cell), others + claimed < sa.bindparam("overlap"))


def _skipped(cell: sa.SQLColumnExpression[int]) -> sa.ColumnElement[bool]:
    return sa.exists().where(
        SessionSkip.session_id == sa.bindparam("sitting"),
        SessionSkip.cell_id == cell,
        SessionSkip.taken_back_at.is_(None),
    )


def _due(session: Session, sitting: ReviewSession, worklist: Worklist, *, nothing_else: bool) -> list[Place]:
    """The repeat that is due, if any: which cells come again follows from worklist, reviewer and cell alone."""
    if worklist.repeat_rate <= 0:
        return []
    read: list[int] = []
    repeated: set[int] = set()
    for cell, repeat in session.execute(_all_read(), _values(sitting, worklist)):
        if repeat:
            repeated.add(cell)
        elif cell not in read[-1:]:
            read.append(cell)
    put_aside = set(
        session.scalars(
            sa.select(SessionSkip.cell_id).where(
                SessionSkip.session_id == sitting.id, SessionSkip.taken_back_at.is_(None)
            )
        )
    )
    ripe = read if nothing_else else read[: -REPEAT_AFTER or None]
    for cell in ripe:
        if cell in repeated or cell in put_aside or not _comes_again(worklist, sitting.reviewer_id, cell):
            continue
        return [Place(cell, repeat=True)]
    return []


def _answers(*columns: Any) -> sa.Select[*tuple[Any, ...]]:
    """Columns of the reviewer's answers in force in the worklist."""
    return (
        sa.select(*columns)
        .join(ReviewSession, ReviewSession.id == Annotation.session_id)
        .where(
            ReviewSession.worklist_id == sa.bindparam("worklist"),
            ReviewSession.reviewer_id == sa.bindparam("reviewer"),
            in_force(),
        )
    )


@cache
def _all_read() -> sa.Select[int, bool]:
    return _answers(Annotation.cell_id, Annotation.repeat).order_by(Annotation.id)


def _comes_again(worklist: Worklist, reviewer_id: int, cell_id: int) -> bool:
    drawn = hashlib.sha256(f"{worklist.key}/{reviewer_id}/{cell_id}".encode()).digest()
    return int.from_bytes(drawn[:4]) < worklist.repeat_rate * 2**32
