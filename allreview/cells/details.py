"""Everything known about one cell, in a fixed number of queries."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from allreview.cells.cell_query import CellQuery, CellRow, with_paths
from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe
from db.tables import (
    Annotation,
    Cell,
    CellFile,
    Dataset,
    Prediction,
    Reviewer,
    Run,
    SnapshotCell,
    Subject,
)
from db.tables import Recipe as RecipeRow


@dataclass(frozen=True)
class LogEntry:
    """One event of the cell's log. `undone` says that a later event took it back."""

    sequence: int
    kind: str
    label: str | None
    reviewer: str
    created_at: datetime
    reason: str | None
    comment: str | None
    visible_run_id: int | None
    undone: bool
    about: int | None
    """For an undo, revert or redo, the `sequence` of the answer it takes back or brings back."""
    visible: list[str] | None = None
    repeat: bool = False
    batch: str | None = None


@dataclass(frozen=True)
class RunPrediction:
    """What one run says of the cell. `hidden`: a test cell of that run, whose prediction is withheld."""

    run_id: int
    recipe: Recipe
    created_at: datetime
    part: str | None
    label: str | None
    probability: float | None
    hidden: bool


@dataclass(frozen=True)
class CellDetail:
    """Everything known about one cell. `group` names the other subjects of its leak group."""

    cell: CellRow
    dataset_id: int
    dataset: str
    synthetic: bool
    width: int
    height: int
    size_bytes: int
    fold: str | None
    imported_at: datetime
    files: list[tuple[str, str | None]]
    group: list[str]
    log: list[LogEntry]
    predictions: list[RunPrediction]
    others: list[CellRow]
    others_total: int


def cell_detail(
    session: Session,
    cell_id: int,
    *,
    run_id: int | None = None,
    test_predictions: bool = False,
    others: int = 12,
) -> CellDetail:
    """All about one cell; `others` is how many of the subject's other cells to give.

    `run_id` chooses the run behind `cell.part`, `cell.predicted` and those of the other cells.
    What a run predicts of its own test cells is withheld unless `test_predictions` is set.

    Raises:
        UserError: there is no cell with this id.
    """
    found = session.get(Cell, cell_id)
    if found is None:
        raise UserError(f"There is no cell {cell_id}; it may be in another store.")
    dataset = session.get_one(Dataset, found.dataset_id)
    query = CellQuery(run_id, test_predictions=test_predictions)
    row = with_paths(session, session.execute(query.rows().where(Cell.id == cell_id)).all())[0]
    same_subject = sa.and_(Cell.subject_id == found.subject_id, Cell.id != cell_id)
    neighbours, total = [], 0
    if found.subject_id is not None:
        select = query.rows().where(same_subject).order_by(Cell.id).limit(others)
        neighbours = with_paths(session, session.execute(select).all())
        total = session.scalar(sa.select(sa.func.count()).select_from(Cell).where(same_subject)) or 0
    return CellDetail(
        cell=row,
        dataset_id=dataset.id,
        dataset=dataset.name,
        synthetic=dataset.synthetic,
        width=found.width,
        height=found.height,
        size_bytes=found.size_bytes,
        fold=found.fold,
        imported_at=found.created_at,
        files=_files(session, cell_id),
        group=_group(session, found.subject_id),
        log=_log(session, cell_id),
        predictions=_predictions(session, cell_id, test_predictions),
        others=neighbours,
        others_total=total,
    )


def _files(session: Session, cell_id: int) -> list[tuple[str, str | None]]:
    select = (
        sa.select(CellFile.path, Subject.name)
        .join(Subject, Subject.id == CellFile.subject_id, isouter=True)
        .where(CellFile.cell_id == cell_id)
        .order_by(CellFile.id)
    )
    return [(path, subject) for path, subject in session.execute(select)]


def _group(session: Session, subject_id: int | None) -> list[str]:
    if subject_id is None:
        return []
    own = sa.select(Subject.leak_group_id).where(Subject.id == subject_id).scalar_subquery()
    select = sa.select(Subject.name).where(Subject.leak_group_id == own, Subject.id != subject_id)
    return list(session.scalars(select.order_by(Subject.name)))


def _log(session: Session, cell_id: int) -> list[LogEntry]:
    undo, answer = aliased(Annotation), aliased(Annotation)
    select = (
        sa.select(Annotation, Reviewer.name, undo.id, answer.sequence)
        .join(Reviewer, Reviewer.id == Annotation.reviewer_id)
        .join(undo, undo.undoes_id == Annotation.id, isouter=True)
        .join(answer, answer.id == sa.func.coalesce(Annotation.undoes_id, Annotation.redoes_id), isouter=True)
        .where(Annotation.cell_id == cell_id)
        .order_by(Annotation.sequence)
    )
    return [
        LogEntry(
            sequence=event.sequence,
            kind=event.kind,
            label=event.label,
            reviewer=reviewer,
            created_at=event.created_at,
            reason=event.reason,
            comment=event.comment,
            visible_run_id=event.visible_run_id,
            undone=taken_back is not None,
            about=about,
            visible=event.visible,
            repeat=event.repeat,
            batch=event.batch,
        )
        for event, reviewer, taken_back, about in session.execute(select)
    ]


def _predictions(session: Session, cell_id: int, test_predictions: bool) -> list[RunPrediction]:
    in_snapshot = sa.and_(SnapshotCell.snapshot_id == Run.snapshot_id, SnapshotCell.cell_id == cell_id)
    select = (
        sa.select(
            Run.id,
            RecipeRow.body,
            Run.created_at,
            SnapshotCell.part,
            Prediction.label,
            Prediction.probability,
        )
        .select_from(Prediction)
        .join(Run, Run.id == Prediction.run_id)
        .join(RecipeRow, RecipeRow.id == Run.recipe_id)
        .join(SnapshotCell, in_snapshot, isouter=True)
        .where(Prediction.cell_id == cell_id)
        .order_by(Run.id)
    )
    found = []
    for run_id, body, created_at, part, label, probability in session.execute(select):
        hidden = part == "test" and not test_predictions
        said = (None, None) if hidden else (label, probability)
        found.append(RunPrediction(run_id, make_recipe(body), created_at, part, *said, hidden))
    return found
