"""What changed since a run was trained: cells whose current label differs from the label it was trained on.

Labels of cells that are withheld from who asks, because they have still to read them without knowing what others
said, are left out.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.errors import UserError
from allreview.labels import NOT_CLASSES, current_label, standing
from allreview.review.log.events import slices
from allreview.review.record.entries import first_paths
from db.tables import PARTS, Annotation, Cell, Reviewer, Run, SnapshotCell, Subject


@dataclass(frozen=True)
class ChangedCell:
    """A cell that has another label now than in the run's snapshot, and whose event made it so."""

    cell_id: int
    sha256: str
    path: str
    subject: str | None
    part: str
    before: str
    after: str
    reviewer: str | None
    changed_at: datetime | None


@dataclass(frozen=True)
class Changes:
    """What a retrain would see differently. `moves` counts cells by (from, to) and part.

    `left_out` cells had a class and are unsure or unusable now, `taken_in` the other way round; `new` cells came
    after the run. `withheld` cells are in none of these numbers.
    """

    run_id: int
    moves: dict[tuple[str, str], dict[str, int]]
    relabelled: int
    left_out: int
    taken_in: int
    new: int
    withheld: int

    @property
    def cells(self) -> int:
        """How many cells have another label now."""
        return self.relabelled + self.left_out + self.taken_in

    @property
    def nothing(self) -> bool:
        """Whether a retrain would see exactly what the run saw."""
        return not self.cells and not self.new


def changes_since(session: Session, run_id: int, withheld: Collection[int] = ()) -> Changes:
    """Counts of what changed since the run.

    Raises:
        UserError: there is no such run.
    """
    run = _run(session, run_id)
    now = standing()
    label = current_label(now)
    moves: dict[tuple[str, str], dict[str, int]] = {}
    kinds: Counter[str] = Counter()
    hidden = set(withheld)
    for row in session.execute(_changed(run, now, label).order_by(Cell.id)):
        if row.cell_id in hidden:
            continue
        by_part = moves.setdefault((row.before, row.after), dict.fromkeys(PARTS, 0))
        by_part[row.part] += 1
        kinds[_kind(row.before, row.after)] += 1
    known = sa.exists().where(SnapshotCell.snapshot_id == run.snapshot_id, SnapshotCell.cell_id == Cell.id)
    new = (
        sa.select(Cell.id)
        .outerjoin(now, now.c.cell_id == Cell.id)
        .where(Cell.dataset_id == run.dataset_id, ~known, label.not_in(NOT_CLASSES))
    )
    return Changes(
        run_id=run_id,
        moves=dict(sorted(moves.items(), key=lambda move: -sum(move[1].values()))),
        relabelled=kinds["relabelled"],
        left_out=kinds["left out"],
        taken_in=kinds["taken in"],
        new=sum(cell not in hidden for cell in session.scalars(new)),
        withheld=len(hidden & _cells_of(session, run)) if hidden else 0,
    )


def changed_cells(
    session: Session,
    run_id: int,
    *,
    part: str | None = None,
    after: int = 0,
    limit: int | None = 25,
    withheld: Collection[int] = (),
) -> list[ChangedCell]:
    """The cells that changed since the run, by id, from the one after the cell `after` on.

    Raises:
        UserError: there is no such run.
    """
    run = _run(session, run_id)
    now = standing()
    query = _changed(run, now, current_label(now)).where(Cell.id > after).order_by(Cell.id)
    if part is not None:
        query = query.where(SnapshotCell.part == part)
    hidden = set(withheld)
    rows: list[Any] = []
    for row in session.execute(query):
        if row.cell_id not in hidden:
            rows.append(row)
        if len(rows) == limit:
            break
    return list(_with_authors(session, run, rows))


def _run(session: Session, run_id: int) -> Run:
    run = session.get(Run, run_id)
    if run is None:
        raise UserError(f"There is no run {run_id}.")
    return run


def _changed(run: Run, now: sa.Subquery, label: sa.ColumnElement[str]) -> sa.Select[*tuple[Any, ...]]:
    return (
        sa.select(
            Cell.id.label("cell_id"),
            Cell.sha256,
            Subject.name.label("subject"),
            SnapshotCell.part.label("part"),
            SnapshotCell.label.label("before"),
            label.label("after"),
            now.c.annotation_id.label("annotation_id"),
        )
        .select_from(SnapshotCell)
        .join(Cell, Cell.id == SnapshotCell.cell_id)
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(now, now.c.cell_id == Cell.id)
        .where(SnapshotCell.snapshot_id == run.snapshot_id, SnapshotCell.label != label)
    )


def _cells_of(session: Session, run: Run) -> set[int]:
    return set(
        session.scalars(sa.select(SnapshotCell.cell_id).where(SnapshotCell.snapshot_id == run.snapshot_id))
    )


def _kind(before: str, after: str) -> str:
    if after in NOT_CLASSES and before not in NOT_CLASSES:
        return "left out"
    return "taken in" if before in NOT_CLASSES and after not in NOT_CLASSES else "relabelled"


def _with_authors(session: Session, run: Run, rows: list[Any]) -> Iterator[ChangedCell]:
    """The cells with who changed them: the answer that speaks for the cell now, or, where that is older than
    the run or there is none, who last took one back."""
    speaking = [row.annotation_id for row in rows if row.annotation_id is not None]
    cells = [row.cell_id for row in rows]
    answers = {event.cell_id: event for event in _events(session, speaking)}
    last_ids: list[int] = []
    for some in slices(cells):
        last = sa.select(sa.func.max(Annotation.id)).where(Annotation.cell_id.in_(some))
        last_ids += session.scalars(last.group_by(Annotation.cell_id))
    lasts = {event.cell_id: event for event in _events(session, last_ids)}
    paths = first_paths(session, cells)
    for row in rows:
        event = answers.get(row.cell_id)
        if event is None or event.created_at < run.created_at:
            event = lasts.get(row.cell_id)
        yield ChangedCell(
            row.cell_id,
            row.sha256,
            paths.get(row.cell_id, ""),
            row.subject,
            row.part,
            row.before,
            row.after,
            event.reviewer if event else None,
            event.created_at if event else None,
        )


def _events(session: Session, ids: list[int]) -> Iterator[Any]:
    for some in slices(ids):
        query = sa.select(Annotation.cell_id, Annotation.created_at, Reviewer.name.label("reviewer")).join(
            Reviewer, Reviewer.id == Annotation.reviewer_id
        )
        yield from session.execute(query.where(Annotation.id.in_(some)))
