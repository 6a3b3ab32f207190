"""Freezing what a run sees: every cell of the dataset with its current label and its part.

The split is made from source labels and leak groups, so relabelling never moves a cell. A retrain inherits
its parent's parts by leak group. Cells that are now *unsure* or *unusable* keep their place in the list
under that label, so that a later change of mind cannot move them either; fitting and metrics leave them out.
"""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.cells.splits import SplitCell, split_cells
from allreview.errors import UserError
from allreview.labels import NOT_CLASSES, current_label, standing
from allreview.recipe import Recipe
from db.tables import PARTS, Cell, CellFile, Run, Snapshot, SnapshotCell, Subject

_MINIMUM_NEW_GROUPS = 3  # fewer than this cannot be split three ways


@dataclass(frozen=True)
class SnapshotLine:
    """One cell of a snapshot as training reads it. Cells of one `group` are of one leak group; a cell without a
    subject is a group of its own."""

    cell_id: int
    sha256: str
    path: str
    label: str
    part: str
    source_label: str
    subject: str | None
    group: str


@dataclass(frozen=True)
class _Candidate:
    cell_id: int
    sha256: str
    source_label: str
    label: str
    group: str


def freeze(session: Session, dataset_id: int, recipe: Recipe, parent_run_id: int | None = None) -> Snapshot:
    """The snapshot of the dataset as it is now; an identical one is reused.

    Raises:
        UserError: too few cells, classes or leak groups to train, validate and test on.
    """
    cells = _candidates(session, dataset_id)
    parts = split_of(session, cells, recipe, parent_run_id)
    _check(cells, parts)
    digest = hashlib.sha256(f"dataset {dataset_id}\n".encode())
    for cell in sorted(cells, key=lambda cell: cell.sha256):
        digest.update(f"{cell.sha256}\t{cell.label}\t{parts[cell.cell_id]}\n".encode())
    known = session.scalar(sa.select(Snapshot).where(Snapshot.hash == digest.hexdigest()))
    if known is not None:
        return known
    snapshot = Snapshot(dataset_id=dataset_id, hash=digest.hexdigest())
    session.add(snapshot)
    session.flush()
    session.execute(
        sa.insert(SnapshotCell),
        [
            {
                "snapshot_id": snapshot.id,
                "cell_id": cell.cell_id,
                "label": cell.label,
                "part": parts[cell.cell_id],
            }
            for cell in cells
        ],
    )
    return snapshot


def preview(
    session: Session, dataset_id: int, recipe: Recipe, parent_run_id: int | None = None
) -> Counter[tuple[str, str]]:
    """How many cells of each (part, current label) a run by this recipe would use.

    Raises:
        UserError: as `freeze`.
    """
    cells = _candidates(session, dataset_id)
    parts = split_of(session, cells, recipe, parent_run_id)
    _check(cells, parts)
    return Counter((parts[cell.cell_id], cell.label) for cell in cells)


def lines(session: Session, snapshot_id: int) -> list[SnapshotLine]:
    """The snapshot's cells in the order of their SHA-256: the same on every machine."""
    first_file = (
        sa.select(CellFile.cell_id, sa.func.min(CellFile.path).label("path"))
        .join(SnapshotCell, SnapshotCell.cell_id == CellFile.cell_id)
        .where(SnapshotCell.snapshot_id == snapshot_id)
        .group_by(CellFile.cell_id)
        .subquery()
    )
    query = (
        sa.select(
            Cell.id,
            Cell.sha256,
            first_file.c.path,
            SnapshotCell.label,
            SnapshotCell.part,
            Cell.source_label,
            Subject.name,
            Subject.leak_group_id,
        )
        .join(SnapshotCell, SnapshotCell.cell_id == Cell.id)
        .join(first_file, first_file.c.cell_id == Cell.id)
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .where(SnapshotCell.snapshot_id == snapshot_id)
        .order_by(Cell.sha256)
    )
    return [
        SnapshotLine(*row[:-1], group=_group(row.leak_group_id, row.sha256)) for row in session.execute(query)
    ]


def split_of(
    session: Session, cells: list[_Candidate], recipe: Recipe, parent_run_id: int | None
) -> dict[int, str]:
    """The part of each cell, by cell id; whole leak groups only."""
    if parent_run_id is None:
        return _fresh(cells, recipe)
    inherited = _parts_of_groups(session, cells, parent_run_id)
    parts = {cell.cell_id: inherited[cell.group] for cell in cells if cell.group in inherited}
    new = [cell for cell in cells if cell.group not in inherited]
    if len({cell.group for cell in new}) < _MINIMUM_NEW_GROUPS:
        parts.update((cell.cell_id, "train") for cell in new)
    else:
        parts.update(_fresh(new, recipe))
    return parts


def _fresh(cells: list[_Candidate], recipe: Recipe) -> dict[int, str]:
    return dict(
        split_cells(
            [SplitCell(cell.cell_id, cell.source_label, cell.group) for cell in cells],
            validation=recipe.validation_fraction,
            test=recipe.test_fraction,
            seed=recipe.seed,
        )
    )


def _parts_of_groups(session: Session, cells: list[_Candidate], parent_run_id: int) -> dict[str, str]:
    """The parent's part of each leak group. A group that straddles parts, because an import tied subjects
    together since, goes to training: its test cells were seen there."""
    query = (
        sa.select(SnapshotCell.cell_id, SnapshotCell.part)
        .join(Run, Run.snapshot_id == SnapshotCell.snapshot_id)
        .where(Run.id == parent_run_id)
    )
    before = {cell_id: part for cell_id, part in session.execute(query)}  # noqa: C416 - rows are not pairs to dict()
    found: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        if cell.cell_id in before:
            found[cell.group].add(before[cell.cell_id])
    return {group: parts.pop() if len(parts) == 1 else "train" for group, parts in found.items()}


def _candidates(session: Session, dataset_id: int) -> list[_Candidate]:
    now = standing()
    query = (
        sa.select(Cell.id, Cell.sha256, Cell.source_label, current_label(now), Subject.leak_group_id)
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(now, now.c.cell_id == Cell.id)
        .where(Cell.dataset_id == dataset_id)
        .order_by(Cell.id)
    )
    return [
        _Candidate(cell_id, sha, source, label, _group(group, sha))
        for cell_id, sha, source, label, group in session.execute(query)
    ]


def _group(leak_group_id: int | None, sha256: str) -> str:
    return f"group {leak_group_id}" if leak_group_id is not None else f"cell {sha256}"


def _check(cells: list[_Candidate], parts: dict[int, str]) -> None:
    used = Counter((parts[cell.cell_id], cell.label) for cell in cells if cell.label not in NOT_CLASSES)
    classes = {label for _, label in used}
    if len(classes) < 2:
        raise UserError("Training needs cells of at least two classes. Import more cells or correct labels.")
    for part in PARTS:
        if not any(used[part, label] for label in classes):
            raise UserError(
                f"No cells are left for {part}: there are too few subjects. Import cells of more subjects."
            )
    missing = sorted(label for label in classes if not used["train", label])
    if missing:
        raise UserError(
            f"No training cells of class {missing[0]}: its cells come from too few subjects. "
            "Import cells of more subjects, or choose another seed."
        )
