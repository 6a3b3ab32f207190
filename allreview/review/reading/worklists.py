"""Worklists: queues that were fixed, to be read by one reviewer or several."""

import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.errors import UserError
from allreview.labels import in_force
from allreview.review.queues import QueueEntry, queue_of
from allreview.review.reading.blinding import HIDEABLE
from allreview.settings import Settings
from allreview.wording import listed
from db.tables import (
    PARTS,
    Annotation,
    Claim,
    Dataset,
    Reviewer,
    ReviewSession,
    Run,
    SnapshotCell,
    Worklist,
    WorklistItem,
    WorklistReader,
)
from db.types import now

NOTHING_LEFT = "Nothing is left to read in this queue: every cell in it was decided."


@dataclass(frozen=True)
class WorklistRow:
    """A worklist as lists show it. `readers` are those it was assigned to, by id; empty when open to everybody.

    `readings_done` counts one answer of one reader to one cell, repeats apart; `cells` × `overlap` are wanted.
    """

    id: int
    dataset_id: int
    name: str
    strategy: str
    run_id: int | None
    parts: list[str]
    hidden: frozenset[str]
    overlap: int
    repeat_rate: float
    adjudicates: bool
    readers: dict[int, str]
    cells: int
    readings_done: int
    created_at: datetime
    closed_at: datetime | None

    @property
    def finished(self) -> bool:
        """Whether every cell was read as often as wanted."""
        return self.readings_done >= self.cells * self.overlap


def create(
    engine: sa.Engine,
    *,
    dataset_id: int,
    name: str,
    strategy: str,
    entries: Sequence[QueueEntry],
    reviewer_id: int | None = None,
    run_id: int | None = None,
    parts: Iterable[str] = (),
    hidden: Iterable[str] = (),
    overlap: int = 1,
    repeat_rate: float = 0.0,
    readers: Sequence[int] = (),
    adjudicates: bool = False,
    question: Mapping[str, object] | None = None,
) -> int:
    """Fix a queue as a worklist and return its id.

    In a worklist of no run, the newest finished run says which cells are test cells and so are read blind.

    Args:
        reviewer_id: who makes it.
        hidden: what its readers must not see, of `allreview.review.reading.blinding.HIDEABLE`.
        overlap: by how many reviewers each cell is read.
        repeat_rate: share of each reader's cells that come a second time, in [0, 0.5].
        readers: the reviewers it is assigned to; nobody means it is open to everybody.
        adjudicates: its answers outrank decisions.
        question: what was asked for; an open worklist that was made for the same is returned instead of a new one.

    Raises:
        UserError: no cells, or settings that cannot be; says which.
    """
    key = uuid.uuid4().hex if question is None else _key(**question)
    with db.writing(engine) as session:
        same = sa.select(Worklist.id).where(Worklist.key == key, Worklist.closed_at.is_(None))
        if (found := session.scalar(same.limit(1))) is not None:
            return found
        return _add(
            session,
            Worklist(
                dataset_id=dataset_id,
                run_id=run_id,
                name=name,
                strategy=strategy,
                parts=sorted(set(parts)),
                hidden=sorted(set(hidden)),
                overlap=overlap,
                repeat_rate=repeat_rate,
                adjudicates=adjudicates,
                key=key,
                created_by=reviewer_id,
            ),
            entries,
            readers,
        )


def join_or_create(
    engine: sa.Engine,
    settings: Settings,
    *,
    run_id: int,
    reviewer_id: int,
    by: str = "misclassified",
    parts: Iterable[str] = ("validation", "train"),
    hidden: Iterable[str] = (),
    control: float = 0.1,
    limit: int | None = 500,
    name: str | None = None,
) -> int:
    """The open worklist over this queue that still has cells for the reviewer, else a new one.

    Two reviewers who ask the same question share one worklist, and each cell is read by one of them.

    Raises:
        UserError: no such run or queue, no predictions, or nothing is left to read.
    """
    wanted, unseen = sorted(set(parts)), sorted(set(hidden))
    key = _key(run_id=run_id, by=by, parts=wanted, hidden=unseen, control=control)
    with db.writing(engine) as session:
        for found in session.scalars(
            sa.select(Worklist)
            .where(Worklist.key == key, Worklist.closed_at.is_(None))
            .order_by(Worklist.id.desc())
        ):
            if left_for(session, found, reviewer_id)[1]:
                return found.id
        run = session.get(Run, run_id)
        if run is None:
            raise UserError(f"There is no run {run_id}.")
        entries = queue_of(
            session, run_id, by=by, parts=wanted, limit=limit, control=control, seed=run_id, settings=settings
        )
        if not entries:
            raise UserError(NOTHING_LEFT)
        worklist = Worklist(
            dataset_id=run.dataset_id,
            run_id=run_id,
            name=name or f"{by.replace('-', ' ').capitalize()}, run {run_id}",
            strategy=by,
            parts=wanted,
            hidden=unseen,
            overlap=1,
            repeat_rate=0.0,
            key=key,
            created_by=reviewer_id,
        )
        return _add(session, worklist, entries, ())


def rows(
    session: Session, dataset_id: int, *, reviewer_id: int | None = None, open_only: bool = True
) -> list[WorklistRow]:
    """The dataset's worklists, newest first; with `reviewer_id` those this reviewer may read."""
    query = sa.select(Worklist).where(Worklist.dataset_id == dataset_id)
    if open_only:
        query = query.where(Worklist.closed_at.is_(None))
    found = session.scalars(query.order_by(Worklist.id.desc())).all()
    ids = [worklist.id for worklist in found]
    readers = _readers(session, ids)
    cells = _counted(
        session,
        sa.select(WorklistItem.worklist_id, sa.func.count()).group_by(WorklistItem.worklist_id),
        WorklistItem.worklist_id.in_(ids),
    )
    read = answers().where(ReviewSession.worklist_id.in_(ids)).distinct().subquery()
    done = _counted(session, sa.select(read.c.worklist_id, sa.func.count()).group_by(read.c.worklist_id))
    return [
        WorklistRow(
            id=worklist.id,
            dataset_id=worklist.dataset_id,
            name=worklist.name,
            strategy=worklist.strategy,
            run_id=worklist.run_id,
            parts=worklist.parts,
            hidden=frozenset(worklist.hidden),
            overlap=worklist.overlap,
            repeat_rate=worklist.repeat_rate,
            adjudicates=worklist.adjudicates,
            readers=readers.get(worklist.id, {}),
            cells=cells.get(worklist.id, 0),
            readings_done=done.get(worklist.id, 0),
            created_at=worklist.created_at,
            closed_at=worklist.closed_at,
        )
        for worklist in found
        if reviewer_id is None or not readers.get(worklist.id) or reviewer_id in readers[worklist.id]
    ]


def close(engine: sa.Engine, worklist_id: int) -> None:
    """End the worklist and its sittings; every answer stays."""
    with db.writing(engine) as session:
        over = now()
        session.execute(
            sa.update(Worklist)
            .where(Worklist.id == worklist_id, Worklist.closed_at.is_(None))
            .values(closed_at=over)
        )
        sittings = sa.select(ReviewSession.id).where(ReviewSession.worklist_id == worklist_id)
        session.execute(sa.delete(Claim).where(Claim.session_id.in_(sittings)))
        session.execute(
            sa.update(ReviewSession)
            .where(ReviewSession.worklist_id == worklist_id, ReviewSession.ended_at.is_(None))
            .values(ended_at=over)
        )


def answers() -> sa.Select[int, int, int]:
    """Answers in force that were given in worklists: `worklist_id`, `reader`, `cell_id`; repeats too."""
    return (
        sa.select(ReviewSession.worklist_id, ReviewSession.reviewer_id.label("reader"), Annotation.cell_id)
        .join(ReviewSession, ReviewSession.id == Annotation.session_id)
        .where(in_force())
    )


def close_if_read(session: Session, worklist: Worklist) -> None:
    """End the worklist when every cell was read as often as wanted and nobody sits over it any more."""
    read = answers().where(ReviewSession.worklist_id == worklist.id).distinct().subquery()
    done = session.scalar(sa.select(sa.func.count()).select_from(read)) or 0
    wanted = sa.select(sa.func.count()).where(WorklistItem.worklist_id == worklist.id)
    sitting = sa.exists().where(ReviewSession.worklist_id == worklist.id, ReviewSession.ended_at.is_(None))
    if done >= (session.scalar(wanted) or 0) * worklist.overlap and not session.scalar(sa.select(sitting)):
        worklist.closed_at = now()


def left_for(session: Session, worklist: Worklist, reviewer_id: int) -> tuple[int, int]:
    """The worklist's cells, and how many of them the reviewer could still read; repeats and claims apart."""
    values = {"worklist": worklist.id, "overlap": worklist.overlap, "reviewer": reviewer_id}
    total, over = session.execute(_cells_and_over(), values).one()
    return total, total - over


@cache
def _cells_and_over() -> sa.Select[int, int]:
    """How many cells a worklist has, and how many of them need no reading by a reviewer any more."""
    total = sa.select(sa.func.count()).where(WorklistItem.worklist_id == sa.bindparam("worklist"))
    read = answers().where(ReviewSession.worklist_id == sa.bindparam("worklist")).distinct().subquery()
    mine = sa.func.max(sa.case((read.c.reader == sa.bindparam("reviewer"), 1), else_=0))
    over = (
        sa.select(read.c.cell_id)
        .group_by(read.c.cell_id)
        .having(sa.or_(mine == 1, sa.func.count() >= sa.bindparam("overlap")))
    )
    return sa.select(
        total.scalar_subquery(), sa.select(sa.func.count()).select_from(over.subquery()).scalar_subquery()
    )


def _add(
    session: Session, worklist: Worklist, entries: Sequence[QueueEntry], readers: Collection[int]
) -> int:
    _check(session, worklist, entries, readers)
    tested = _test_cells(session, worklist)
    session.add(worklist)
    session.flush()
    session.add_all(
        WorklistItem(
            worklist_id=worklist.id,
            position=position,
            cell_id=entry.cell_id,
            score=entry.score,
            reason=entry.reason,
            part=entry.part or ("test" if entry.cell_id in tested else None),
            control=entry.control,
        )
        for position, entry in enumerate(entries, start=1)
    )
    session.add_all(
        WorklistReader(worklist_id=worklist.id, reviewer_id=reader) for reader in dict.fromkeys(readers)
    )
    session.flush()
    return worklist.id


def _test_cells(session: Session, worklist: Worklist) -> set[int]:
    """Of a worklist that belongs to no run: the dataset's test cells, as the newest finished run has them."""
    if worklist.run_id is not None:
        return set()
    newest = (
        sa.select(Run.snapshot_id)
        .where(Run.dataset_id == worklist.dataset_id, Run.state == "finished")
        .order_by(Run.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return set(
        session.scalars(
            sa.select(SnapshotCell.cell_id).where(
                SnapshotCell.snapshot_id == newest, SnapshotCell.part == "test"
            )
        )
    )


def _check(
    session: Session, worklist: Worklist, entries: Sequence[QueueEntry], readers: Collection[int]
) -> None:
    if not entries:
        raise UserError("A worklist needs at least one cell.")
    if not 1 <= len(worklist.name.strip()) <= 200:
        raise UserError("A worklist's name has 1 to 200 characters.")
    if session.get(Dataset, worklist.dataset_id) is None:
        raise UserError(f"There is no dataset {worklist.dataset_id}.")
    unknown = [name for name in worklist.hidden if name not in HIDEABLE]
    if unknown:
        raise UserError(f"{unknown[0]!r} cannot be hidden. What can be: {', '.join(HIDEABLE)}.")
    strange = [part for part in worklist.parts if part not in PARTS]
    if strange:
        raise UserError(f"There are no {strange[0]!r} cells. The parts are: {', '.join(PARTS)}.")
    if not 0 <= worklist.repeat_rate <= 0.5:
        raise UserError("Between 0 and 50 % of the cells can come a second time.")
    if worklist.overlap < 1:
        raise UserError("Each cell is read by at least one reviewer.")
    active = set(session.scalars(sa.select(Reviewer.id).where(Reviewer.id.in_(readers), Reviewer.active)))
    if set(readers) - active:
        raise UserError("A worklist can be assigned to active reviewers only.")
    if readers and worklist.overlap > len(set(readers)):
        raise UserError(
            f"Each cell cannot be read by {worklist.overlap} reviewers: "
            f"the worklist is assigned to {len(set(readers))}."
        )


def _readers(session: Session, ids: Sequence[int]) -> dict[int, dict[int, str]]:
    query = (
        sa.select(WorklistReader.worklist_id, Reviewer.id, Reviewer.name)
        .join(Reviewer, Reviewer.id == WorklistReader.reviewer_id)
        .where(WorklistReader.worklist_id.in_(ids))
        .order_by(Reviewer.name)
    )
    found: dict[int, dict[int, str]] = {}
    for worklist_id, reviewer_id, name in session.execute(query):
        found.setdefault(worklist_id, {})[reviewer_id] = name
    return found


def require_reader(session: Session, worklist: Worklist, reviewer_id: int) -> None:
    """Raises:
    UserError: the worklist is closed, or assigned to others.
    """
    if worklist.closed_at is not None:
        raise UserError(f"The worklist {worklist.name!r} is closed.")
    readers = _readers(session, [worklist.id]).get(worklist.id, {})
    if readers and reviewer_id not in readers:
        raise UserError(f"The worklist {worklist.name!r} is assigned to {listed(list(readers.values()))}.")


def _counted(
    session: Session, query: sa.Select[Any, int], where: sa.ColumnElement[bool] | None = None
) -> dict[int, int]:
    rows = session.execute(query if where is None else query.where(where))
    return {key: number for key, number in rows}  # noqa: C416 - a Result is no mapping


def _key(**question: object) -> str:
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
