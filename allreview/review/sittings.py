"""A reviewer's place in a queue.

A sitting fixes its queue when it starts, so the order never changes under the reviewer's hands. The place
is derived, not stored: the first cell that was neither decided nor skipped in this sitting. Coming back, on
this machine or another, leads to the same cell.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.errors import UserError
from allreview.labels import in_force
from allreview.review import annotations
from allreview.review.queues import queue_of
from db.tables import Annotation, Cell, CellFile, Prediction, QueueItem, ReviewSession, Run, Subject
from db.types import now


@dataclass(frozen=True)
class Progress:
    """How far a sitting is, in cells."""

    decided: int
    skipped: int
    total: int

    @property
    def left(self) -> int:
        return self.total - self.decided - self.skipped


@dataclass(frozen=True)
class DeskCell:
    """The cell on the desk with all that may be shown beside it.

    `blind` is true for test cells: prediction, saliency, reason and source label stay hidden then, so that
    the answer, and the test figures that depend on it, are the reviewer's own.
    """

    cell_id: int
    position: int
    sha256: str
    path: str
    subject_id: int | None
    subject: str | None
    part: str | None
    source_label: str
    predicted: str | None
    probability: float | None
    reason: str
    last_event_id: int | None

    @property
    def blind(self) -> bool:
        return self.part == "test"


def start(
    engine: sa.Engine,
    *,
    reviewer_id: int,
    run_id: int,
    by: str = "misclassified",
    parts: Iterable[str] = ("validation", "train"),
    limit: int | None = 500,
) -> int:
    """Start a sitting over a run's queue, or return to the reviewer's open one over the same queue.

    Raises:
        UserError: the run has no predictions, or nothing is left to read.
    """
    wanted = sorted(set(parts))
    with db.writing(engine) as session:
        run = session.get(Run, run_id)
        if run is None:
            raise UserError(f"There is no run {run_id}.")
        open_sittings = session.scalars(
            sa.select(ReviewSession)
            .where(
                ReviewSession.reviewer_id == reviewer_id,
                ReviewSession.run_id == run_id,
                ReviewSession.strategy == by,
                ReviewSession.ended_at.is_(None),
            )
            .order_by(ReviewSession.id.desc())
        )
        for sitting in open_sittings:
            if sitting.parts == wanted:
                return sitting.id
        entries = queue_of(session, run_id, by=by, parts=wanted, limit=limit)
        if not entries:
            raise UserError("Nothing is left to read in this queue: every cell in it was decided.")
        sitting = ReviewSession(
            reviewer_id=reviewer_id, dataset_id=run.dataset_id, run_id=run_id, strategy=by, parts=wanted
        )
        session.add(sitting)
        session.flush()
        session.add_all(
            QueueItem(
                session_id=sitting.id,
                position=position,
                cell_id=entry.cell_id,
                score=entry.score,
                reason=entry.reason,
                part=entry.part,
            )
            for position, entry in enumerate(entries, start=1)
        )
        return sitting.id


def end(engine: sa.Engine, sitting_id: int) -> None:
    """Close the sitting; its decisions stay."""
    with db.writing(engine) as session:
        session.execute(sa.update(ReviewSession).where(ReviewSession.id == sitting_id).values(ended_at=now()))


def progress(session: Session, sitting_id: int) -> Progress:
    """Cells decided, skipped and in all."""
    total, skipped = session.execute(
        sa.select(sa.func.count(), sa.func.count(QueueItem.skipped_at)).where(
            QueueItem.session_id == sitting_id
        )
    ).one()
    decided = session.scalar(
        sa.select(sa.func.count()).where(QueueItem.session_id == sitting_id, _decided(QueueItem))
    )
    return Progress(decided or 0, skipped, total)


def upcoming(session: Session, sitting_id: int, count: int) -> list[DeskCell]:
    """The cell on the desk and those after it: at most `count`, in queue order; empty when all are read."""
    first_file = (
        sa.select(sa.func.min(CellFile.path))
        .where(CellFile.cell_id == Cell.id)
        .correlate(Cell)
        .scalar_subquery()
    )
    last_event = (
        sa.select(sa.func.max(Annotation.id))
        .where(Annotation.cell_id == Cell.id)
        .correlate(Cell)
        .scalar_subquery()
    )
    query = (
        sa.select(
            Cell.id,
            QueueItem.position,
            Cell.sha256,
            first_file,
            Cell.subject_id,
            Subject.name,
            QueueItem.part,
            Cell.source_label,
            Prediction.label,
            Prediction.probability,
            QueueItem.reason,
            last_event,
        )
        .select_from(QueueItem)
        .join(ReviewSession, ReviewSession.id == QueueItem.session_id)
        .join(Cell, Cell.id == QueueItem.cell_id)
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(
            Prediction, sa.and_(Prediction.cell_id == Cell.id, Prediction.run_id == ReviewSession.run_id)
        )
        .where(QueueItem.session_id == sitting_id, QueueItem.skipped_at.is_(None), ~_decided(QueueItem))
        .order_by(QueueItem.position)
        .limit(count)
    )
    return [DeskCell(*row) for row in session.execute(query)]


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
    """Put a cell aside without a decision."""
    with db.writing(engine) as session:
        session.execute(
            sa.update(QueueItem)
            .where(QueueItem.session_id == sitting_id, QueueItem.cell_id == cell_id)
            .values(skipped_at=now())
        )


def take_up_skipped(engine: sa.Engine, sitting_id: int) -> None:
    """Bring every skipped cell of the sitting back."""
    with db.writing(engine) as session:
        session.execute(
            sa.update(QueueItem).where(QueueItem.session_id == sitting_id).values(skipped_at=None)
        )


def undo_last(engine: sa.Engine, sitting_id: int, reviewer_id: int) -> str | None:
    """Take back the last thing done in this sitting, a decision or a skip; says which, or None if nothing."""
    with db.reading(engine) as session:
        decision = session.scalar(
            sa.select(Annotation)
            .where(
                Annotation.session_id == sitting_id,
                Annotation.reviewer_id == reviewer_id,
                in_force(),
            )
            .order_by(Annotation.id.desc())
            .limit(1)
        )
        skipped = session.scalar(
            sa.select(QueueItem)
            .where(QueueItem.session_id == sitting_id, QueueItem.skipped_at.is_not(None))
            .order_by(QueueItem.skipped_at.desc())
            .limit(1)
        )
    if skipped and skipped.skipped_at and (decision is None or skipped.skipped_at > decision.created_at):
        with db.writing(engine) as session:
            session.execute(
                sa.update(QueueItem)
                .where(QueueItem.session_id == sitting_id, QueueItem.cell_id == skipped.cell_id)
                .values(skipped_at=None)
            )
        return "skip"
    if decision is None:
        return None
    annotations.undo(engine, annotation_id=decision.id, reviewer_id=reviewer_id, session_id=sitting_id)
    return "decision"


def _decided(item: type[QueueItem]) -> sa.ColumnElement[bool]:
    return (
        sa.exists()
        .where(Annotation.cell_id == item.cell_id, Annotation.session_id == item.session_id, in_force())
        .correlate(item)
    )
