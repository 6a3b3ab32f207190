"""Freezing what a run sees: every cell of the dataset with its current label and its part.

The split is made from source labels and leak groups, so relabelling never moves a cell. A retrain inherits
its parent's parts by leak group, or by single cell where the split is by image. Cells that are now *unsure* or
*unusable* keep their place in the list under that label, so that a later change of mind cannot move them either;
fitting and metrics leave them out.
"""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.cells.splits import (
    SplitCell,
    dataset_fold_split,
    fold_split,
    image_split,
    ordered_folds,
    split_cells,
)
from allreview.errors import UserError
from allreview.labels import NOT_CLASSES, current_label, standing
from allreview.recipe import Recipe, make_recipe
from db.tables import PARTS, Cell, CellFile, Run, Snapshot, SnapshotCell, Subject
from db.tables import Recipe as RecipeRow


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
    fold: str | None


def freeze(session: Session, dataset_id: int, recipe: Recipe, parent_run_id: int | None = None) -> Snapshot:
    """The snapshot of the dataset as it is now; an identical one is reused.

    Raises:
        UserError: too few cells, classes, leak groups or folds to train, validate and test on, or a retrain by
            another split than its parent's.
    """
    cells = _candidates(session, dataset_id)
    parts = split_of(session, cells, recipe, parent_run_id)
    _check(cells, parts, recipe)
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
    _check(cells, parts, recipe)
    return Counter((parts[cell.cell_id], cell.label) for cell in cells)


def lines(session: Session, snapshot_id: int, between: tuple[str, str] | None = None) -> list[SnapshotLine]:
    """The snapshot's cells in the order of their SHA-256: the same on every machine. All of them, or those from one
    SHA-256 to another, both included."""
    chosen = Cell.sha256.between(*between) if between is not None else sa.true()
    first_file = (
        sa.select(CellFile.cell_id, sa.func.min(CellFile.path).label("path"))
        .join(SnapshotCell, SnapshotCell.cell_id == CellFile.cell_id)
        .join(Cell, Cell.id == CellFile.cell_id)
        .where(SnapshotCell.snapshot_id == snapshot_id, chosen)
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
        .where(SnapshotCell.snapshot_id == snapshot_id, chosen)
        .order_by(Cell.sha256)
    )
    return [
        SnapshotLine(*row[:-1], group=_group(row.leak_group_id, row.sha256)) for row in session.execute(query)
    ]


def fold_names(session: Session, dataset_id: int) -> list[str]:
    """The dataset's own folds, in the order in which `recipe.fold` counts them; empty when it has none."""
    query = sa.select(Cell.fold).where(Cell.dataset_id == dataset_id, Cell.fold.is_not(None)).distinct()
    return ordered_folds(name for name in session.scalars(query) if name is not None)


def split_of(
    session: Session, cells: list[_Candidate], recipe: Recipe, parent_run_id: int | None
) -> dict[int, str]:
    """The part of each cell, by cell id; whole leak groups only, unless the recipe splits by image."""
    if parent_run_id is None:
        return _fresh(cells, recipe)
    _refuse_another_split(session, recipe, parent_run_id)
    before = _parts_before(session, parent_run_id)
    inherited = before if recipe.shares_patients else _by_group(cells, before)
    new = [cell for cell in cells if cell.cell_id not in inherited]
    try:
        if recipe.split == "dataset_folds":
            now = _fresh(cells, _same_test_fold(cells, before, recipe))
        else:
            now = _fresh(new, recipe)
    except UserError:  # too few new cells to be split
        now = {cell.cell_id: "train" for cell in new}
    return {cell.cell_id: inherited.get(cell.cell_id) or now[cell.cell_id] for cell in cells}


def _same_test_fold(cells: list[_Candidate], before: dict[int, str], recipe: Recipe) -> Recipe:
    """The recipe with the number that its test fold has now: an import may have brought folds before it."""
    tested = next(cell.fold for cell in cells if before.get(cell.cell_id) == "test" and cell.fold is not None)
    names = ordered_folds(cell.fold for cell in cells if cell.fold is not None)
    return recipe.model_copy(update={"fold": names.index(tested)})


def _fresh(cells: list[_Candidate], recipe: Recipe) -> dict[int, str]:
    given = [SplitCell(cell.cell_id, cell.source_label, cell.group, cell.fold) for cell in cells]
    validation, test, seed = recipe.validation_fraction, recipe.test_fraction, recipe.seed
    folds, fold = recipe.folds, recipe.fold
    if recipe.split == "image":
        found = image_split(given, validation=validation, test=test, seed=seed, folds=folds, fold=fold)
    elif recipe.split == "dataset_folds":
        found = dataset_fold_split(given, fold=fold, validation=validation, seed=seed)
    elif folds is not None:
        found = fold_split(given, folds=folds, fold=fold, validation=validation, seed=seed)
    else:
        found = split_cells(given, validation=validation, test=test, seed=seed)
    return dict(found)


def _refuse_another_split(session: Session, recipe: Recipe, parent_run_id: int) -> None:
    """A retrain inherits its parent's parts: a recipe that says otherwise would not tell the truth."""
    body = session.scalar(
        sa.select(RecipeRow.body).join(Run, Run.recipe_id == RecipeRow.id).where(Run.id == parent_run_id)
    )
    if body is None:
        raise UserError(f"There is no run {parent_run_id}.")
    if _split_settings(make_recipe(body)) != _split_settings(recipe):
        raise UserError(
            f"A retrain keeps its parent's split: leave split, folds and fold as in run {parent_run_id}, or train "
            "anew without a parent."
        )


def _split_settings(recipe: Recipe) -> tuple[str, int | None, int]:
    has_folds = recipe.folds is not None or recipe.split == "dataset_folds"
    return recipe.split, recipe.folds, recipe.fold if has_folds else 0


def _parts_before(session: Session, parent_run_id: int) -> dict[int, str]:
    query = (
        sa.select(SnapshotCell.cell_id, SnapshotCell.part)
        .join(Run, Run.snapshot_id == SnapshotCell.snapshot_id)
        .where(Run.id == parent_run_id)
    )
    return {cell_id: part for cell_id, part in session.execute(query)}  # noqa: C416 - rows are not pairs to dict()


def _by_group(cells: list[_Candidate], before: dict[int, str]) -> dict[int, str]:
    """The parent's part of each cell of a leak group that it knew. A group that straddles parts, because an
    import tied subjects together since, goes to training: its test cells were seen there."""
    found: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        if cell.cell_id in before:
            found[cell.group].add(before[cell.cell_id])
    of_group = {group: parts.pop() if len(parts) == 1 else "train" for group, parts in found.items()}
    return {cell.cell_id: of_group[cell.group] for cell in cells if cell.group in of_group}


def _candidates(session: Session, dataset_id: int) -> list[_Candidate]:
    now = standing()
    query = (
        sa.select(
            Cell.id, Cell.sha256, Cell.source_label, current_label(now), Subject.leak_group_id, Cell.fold
        )
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(now, now.c.cell_id == Cell.id)
        .where(Cell.dataset_id == dataset_id)
        .order_by(Cell.id)
    )
    return [
        _Candidate(cell_id, sha, source, label, _group(group, sha), fold)
        for cell_id, sha, source, label, group, fold in session.execute(query)
    ]


def _group(leak_group_id: int | None, sha256: str) -> str:
    return f"group {leak_group_id}" if leak_group_id is not None else f"cell {sha256}"


def _check(cells: list[_Candidate], parts: dict[int, str], recipe: Recipe) -> None:
    used = Counter((parts[cell.cell_id], cell.label) for cell in cells if cell.label not in NOT_CLASSES)
    classes = {label for _, label in used}
    needed = "cells" if recipe.shares_patients else "subjects"
    more = "Import more cells" if recipe.shares_patients else "Import cells of more subjects"
    if len(classes) < 2:
        raise UserError("Training needs cells of at least two classes. Import more cells or correct labels.")
    for part in PARTS:
        if not any(used[part, label] for label in classes):
            raise UserError(f"No cells are left for {part}: there are too few {needed}. {more}.")
    missing = sorted(label for label in classes if not used["train", label])
    if missing:
        raise UserError(
            f"No training cells of class {missing[0]}: its cells come from too few {needed}. "
            f"{more}, or choose another seed."
        )
