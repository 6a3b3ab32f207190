"""What the store holds of runs' judgements: cells with both labels, subject, leak group and probabilities.

A handful of queries, however many runs and cells are read.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.errors import UserError
from allreview.labels import current_label, standing
from allreview.recipe import Recipe, make_recipe
from db.tables import Cell, Prediction, Run, SnapshotCell, Subject
from db.tables import Recipe as RecipeRow


@dataclass(frozen=True)
class StoredRun:
    """A run as its figures need it. `shared_cells` test cells are of patients that it was also trained on."""

    id: int
    dataset_id: int
    recipe: Recipe
    classes: list[str]
    state: str
    series: str | None
    temperature: float | None
    shared_cells: int

    @property
    def shares_patients(self) -> bool:
        """Whether training and test share patients: by the split that was asked for, or in fact."""
        return self.recipe.shares_patients or self.shared_cells > 0


@dataclass(frozen=True)
class JudgedCell:
    """One cell with what it is labelled and what a run said of it. `unit` is what intervals resample."""

    run_id: int
    cell_id: int
    subject: str | None
    unit: str
    source_label: str
    current_label: str
    predicted: str
    probabilities: dict[str, float]


def runs_of(
    session: Session, run_ids: Sequence[int] | None = None, *, series: str | None = None
) -> list[StoredRun]:
    """The runs by their numbers, in that order, or all of one series, in order of their numbers.

    Raises:
        UserError: one of them does not exist.
    """
    chosen = Run.series == series if run_ids is None else Run.id.in_(run_ids)
    query = sa.select(Run, RecipeRow.body).join(RecipeRow, RecipeRow.id == Run.recipe_id).where(chosen)
    rows = {run.id: (run, body) for run, body in session.execute(query)}
    ids = sorted(rows) if run_ids is None else list(run_ids)
    for number in ids:
        if number not in rows:
            raise UserError(f"There is no run {number}: choose one from the list of runs.")
    shared = _shared_cells(session, ids)
    return [_stored(*rows[number], shared[number]) for number in ids]


def judged_cells(session: Session, run_ids: Sequence[int], part: str) -> list[JudgedCell]:
    """The cells of one part of each run's snapshot that the run has predicted, by run and cell."""
    now = standing()
    query = (
        sa.select(
            Run.id,
            Cell.id,
            Subject.name,
            Subject.leak_group_id,
            Cell.source_label,
            current_label(now),
            Prediction.label,
            Prediction.probabilities,
        )
        .join(SnapshotCell, SnapshotCell.snapshot_id == Run.snapshot_id)
        .join(Cell, Cell.id == SnapshotCell.cell_id)
        .join(Prediction, sa.and_(Prediction.run_id == Run.id, Prediction.cell_id == Cell.id))
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(now, now.c.cell_id == Cell.id)
        .where(Run.id.in_(run_ids), SnapshotCell.part == part)
        .order_by(Run.id, Cell.id)
    )
    return [
        JudgedCell(
            run_id=run,
            cell_id=cell,
            subject=subject,
            unit=unit_name(group, cell),
            source_label=source,
            current_label=current,
            predicted=predicted,
            probabilities=probabilities,
        )
        for run, cell, subject, group, source, current, predicted, probabilities in session.execute(query)
    ]


def unit_name(leak_group_id: int | None, cell_id: int) -> str:
    """What intervals resample: the leak group, because subjects tied by identical cells are most likely one
    patient; a cell without a subject alone."""
    return f"cell {cell_id}" if leak_group_id is None else f"group {leak_group_id}"


def _shared_cells(session: Session, run_ids: Sequence[int]) -> Counter[int]:
    """For each run, its test cells whose leak group also has training cells, by the groups as they are now."""
    trained = (
        sa.select(Run.id.label("run_id"), Subject.leak_group_id)
        .join(SnapshotCell, SnapshotCell.snapshot_id == Run.snapshot_id)
        .join(Cell, Cell.id == SnapshotCell.cell_id)
        .join(Subject, Subject.id == Cell.subject_id)
        .where(Run.id.in_(run_ids), SnapshotCell.part == "train")
        .distinct()
        .subquery("trained")
    )
    query = (
        sa.select(trained.c.run_id, sa.func.count())
        .join(Subject, Subject.leak_group_id == trained.c.leak_group_id)
        .join(Cell, Cell.subject_id == Subject.id)
        .join(Run, Run.id == trained.c.run_id)
        .join(
            SnapshotCell,
            sa.and_(SnapshotCell.snapshot_id == Run.snapshot_id, SnapshotCell.cell_id == Cell.id),
        )
        .where(SnapshotCell.part == "test")
        .group_by(trained.c.run_id)
    )
    return Counter({run_id: cells for run_id, cells in session.execute(query)})  # noqa: C416 - rows are no pairs


def _stored(run: Run, recipe: dict[str, Any], shared_cells: int) -> StoredRun:
    return StoredRun(
        id=run.id,
        dataset_id=run.dataset_id,
        recipe=make_recipe(recipe),
        classes=run.classes,
        state=run.state,
        series=run.series,
        temperature=run.temperature,
        shared_cells=shared_cells,
    )
