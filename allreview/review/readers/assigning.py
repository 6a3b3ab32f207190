"""Giving cells to several readers, and how far they are."""

from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.errors import UserError
from allreview.review.chosen import LONGEST_NAME, entries_of_cells
from allreview.review.log.annotations import reviewer_named
from allreview.review.queues import STRATEGIES, QueueEntry, queue_of
from allreview.review.reading import worklists
from allreview.settings import Settings
from db.tables import PARTS, Annotation, Reviewer, ReviewSession, Worklist, WorklistItem, WorklistReader

REPEATS = 0.05
"""Share of each reader's cells that come a second time, unless said otherwise."""
CONTROLS = 0.1
"""Share of control cells in a queue that looks for mistakes, unless said otherwise."""


@dataclass(frozen=True)
class Assignment:
    """Which cells are read by whom, and what is hidden meanwhile.

    The cells are those of a queue (`by`, of `run_id`) or of another worklist (`worklist_id`). Nobody in `readers`
    means that the worklist is open to everybody. `reader_names` are readers too; a new name is added once there are
    cells to read.
    """

    dataset_id: int
    by: str = "misclassified"
    run_id: int | None = None
    worklist_id: int | None = None
    parts: tuple[str, ...] = ("train", "validation")
    limit: int | None = None
    include_decided: bool = False
    control: float = CONTROLS
    readers: tuple[int, ...] = ()
    reader_names: tuple[str, ...] = ()
    overlap: int = 1
    hidden: frozenset[str] = frozenset()
    repeat_rate: float = REPEATS
    adjudicates: bool = False
    name: str = ""


@dataclass(frozen=True)
class ReaderProgress:
    """How far one reader of a worklist is, in cells. `left` could still be read, as long as nobody else does."""

    reviewer_id: int
    reviewer: str
    read: int
    repeated: int
    left: int


def assign(
    engine: sa.Engine, settings: Settings, wanted: Assignment, *, reviewer_id: int | None = None
) -> int:
    """Fix the cells and make a worklist of them; returns its id.

    Raises:
        UserError: no cells are left in the queue, or settings that cannot be; says which.
    """
    with db.reading(engine) as session:
        entries = _entries(session, settings, wanted)
        of = session.get(Worklist, wanted.worklist_id) if wanted.worklist_id is not None else None
        strategy = of.strategy if of else wanted.by
        run_id = of.run_id if of else wanted.run_id
    named = [reviewer_named(engine, name) for name in wanted.reader_names]
    return worklists.create(
        engine,
        dataset_id=wanted.dataset_id,
        name=wanted.name.strip() or suggested_name(wanted, of.name if of else None),
        strategy=strategy,
        entries=entries,
        reviewer_id=reviewer_id,
        run_id=run_id,
        parts=sorted({entry.part for entry in entries if entry.part in PARTS}),
        hidden=wanted.hidden,
        overlap=wanted.overlap,
        repeat_rate=wanted.repeat_rate,
        readers=tuple(dict.fromkeys([*wanted.readers, *named])),
        adjudicates=wanted.adjudicates,
    )


def suggested_name(wanted: Assignment, of: str | None = None) -> str:
    """What a worklist is called when nobody says: its queue, or the worklist its cells came from."""
    if of is not None:
        return f"{of}, again"[:LONGEST_NAME]
    title = STRATEGIES[wanted.by].title if wanted.by in STRATEGIES else wanted.by
    return title if wanted.run_id is None else f"{title}, run {wanted.run_id}"


def progress_of_readers(session: Session, worklist_id: int) -> list[ReaderProgress]:
    """Everybody the worklist was assigned to, and who else has read in it, by name."""
    worklist = session.get(Worklist, worklist_id)
    if worklist is None:
        raise UserError(f"There is no worklist {worklist_id}.")
    read = (
        worklists.answers()
        .add_columns(Annotation.repeat)
        .where(ReviewSession.worklist_id == worklist_id)
        .distinct()
        .subquery()
    )
    counted = {
        (reader, repeat): number
        for reader, repeat, number in session.execute(
            sa.select(read.c.reader, read.c.repeat, sa.func.count()).group_by(read.c.reader, read.c.repeat)
        )
    }
    assigned = set(
        session.scalars(
            sa.select(WorklistReader.reviewer_id).where(WorklistReader.worklist_id == worklist_id)
        )
    )
    involved = assigned | {reader for reader, _ in counted}
    people = session.execute(sa.select(Reviewer.id, Reviewer.name).where(Reviewer.id.in_(involved)))
    found = [
        ReaderProgress(
            reviewer_id=reader,
            reviewer=name,
            read=counted.get((reader, False), 0),
            repeated=counted.get((reader, True), 0),
            left=worklists.left_for(session, worklist, reader)[1] if worklist.closed_at is None else 0,
        )
        for reader, name in people
    ]
    return sorted(found, key=lambda one: one.reviewer.casefold())


def _entries(session: Session, settings: Settings, wanted: Assignment) -> list[QueueEntry]:
    if wanted.worklist_id is not None:
        return _of_worklist(session, wanted.worklist_id, wanted.limit)
    found = queue_of(
        session,
        wanted.run_id,
        by=wanted.by,
        parts=wanted.parts,
        limit=wanted.limit,
        include_decided=wanted.include_decided,
        control=wanted.control if wanted.by in STRATEGIES and STRATEGIES[wanted.by].by_suspicion else 0.0,
        seed=wanted.run_id or 0,
        settings=settings,
        dataset_id=wanted.dataset_id,
    )
    if not found:
        raise UserError(
            "Nothing is left to read in this queue: choose another, or allow cells decided before."
        )
    return found


def _of_worklist(session: Session, worklist_id: int, limit: int | None) -> list[QueueEntry]:
    worklist = session.get(Worklist, worklist_id)
    if worklist is None:
        raise UserError(f"There is no worklist {worklist_id}.")
    items = {
        item.cell_id: item
        for item in session.scalars(
            sa.select(WorklistItem)
            .where(WorklistItem.worklist_id == worklist_id)
            .order_by(WorklistItem.position)
            .limit(limit)
        )
    }
    return [
        replace(
            entry,
            part=items[entry.cell_id].part,
            score=items[entry.cell_id].score,
            reason=items[entry.cell_id].reason,
            control=items[entry.cell_id].control,
        )
        for entry in entries_of_cells(session, list(items), run_id=worklist.run_id)
    ]
