"""A dataset in numbers and lists: counts, subjects, labels in use, runs to choose from."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.recipe import Recipe, make_recipe
from db.tables import Cell, Dataset, LeakGroup, Prediction, Run, SnapshotCell, Subject
from db.tables import Recipe as RecipeRow


@dataclass(frozen=True)
class Counts:
    """How many cells of each current label: in all, by subject, and by part of a run."""

    by_class: list[tuple[str, int]]
    by_subject: list[tuple[str | None, str, int]]
    by_part: list[tuple[str, str, int]]


@dataclass(frozen=True)
class DatasetSummary:
    """A dataset in numbers. `leak_groups` counts those of more than one subject."""

    dataset_id: int
    name: str
    synthetic: bool
    classes: list[str]
    cells: int
    subjects: int
    leak_groups: int


@dataclass(frozen=True)
class RunChoice:
    """A run that can be chosen to see parts and predictions by."""

    run_id: int
    recipe: Recipe
    state: str
    created_at: datetime


def counts(session: Session, dataset_id: int, run_id: int | None = None) -> Counts:
    """Cells of each current label: in all, by subject, and by the run's parts, in one query."""
    part: Any = sa.null()
    source: Any = Cell
    if run_id is not None:
        snapshot = sa.select(Run.snapshot_id).where(Run.id == run_id).scalar_subquery()
        here = sa.and_(SnapshotCell.cell_id == Cell.id, SnapshotCell.snapshot_id == snapshot)
        source, part = sa.join(Cell, SnapshotCell, here, isouter=True), SnapshotCell.part
    keys = [Cell.subject_id, Cell.current_label, *([] if run_id is None else [part])]
    counted = session.execute(
        sa.select(Cell.subject_id, Cell.current_label, part, sa.func.count())
        .select_from(source)
        .where(Cell.dataset_id == dataset_id)
        .group_by(*keys)
    ).all()
    named = session.execute(sa.select(Subject.id, Subject.name).where(Subject.dataset_id == dataset_id))
    names: dict[int | None, str] = {number: name for number, name in named}  # noqa: C416 - a Result is no mapping
    rows = [(names.get(subject), label, in_part, number) for subject, label, in_part, number in counted]
    by_class: dict[str, int] = {}
    by_subject: dict[tuple[str | None, str], int] = {}
    by_part: dict[tuple[str, str], int] = {}
    for subject, name, in_part, number in rows:
        by_class[name] = by_class.get(name, 0) + number
        by_subject[subject, name] = by_subject.get((subject, name), 0) + number
        if in_part is not None:
            by_part[in_part, name] = by_part.get((in_part, name), 0) + number
    return Counts(
        by_class=sorted(by_class.items()),
        by_subject=[(*key, by_subject[key]) for key in sorted(by_subject, key=lambda k: (k[0] or "~", k[1]))],
        by_part=[(*key, by_part[key]) for key in sorted(by_part)],
    )


def dataset_summaries(session: Session) -> list[DatasetSummary]:
    """Every dataset in numbers, in the order they were first imported."""
    cells = sa.select(sa.func.count()).where(Cell.dataset_id == Dataset.id).scalar_subquery()
    subjects = sa.select(sa.func.count()).where(Subject.dataset_id == Dataset.id).scalar_subquery()
    tied = (
        sa.select(Subject.leak_group_id)
        .join(LeakGroup, LeakGroup.id == Subject.leak_group_id)
        .where(LeakGroup.dataset_id == Dataset.id)
        .group_by(Subject.leak_group_id)
        .having(sa.func.count() > 1)
        .correlate(Dataset)
        .subquery()
    )
    groups = sa.select(sa.func.count()).select_from(tied).scalar_subquery()
    columns = (Dataset.id, Dataset.name, Dataset.synthetic, Dataset.classes, cells, subjects, groups)
    return [DatasetSummary(*row) for row in session.execute(sa.select(*columns).order_by(Dataset.id))]


def subject_names(session: Session, dataset_id: int) -> list[str]:
    """The dataset's subjects, sorted."""
    return list(
        session.scalars(
            sa.select(Subject.name).where(Subject.dataset_id == dataset_id).order_by(Subject.name)
        )
    )


def labels_in_use(session: Session, dataset_id: int) -> list[str]:
    """The current labels that cells of the dataset have now, sorted: classes, and *unsure*, *unusable*."""
    # From one label to the next through the index: a question for all labels reads every cell.
    found: list[str] = []
    while True:
        after = Cell.current_label > found[-1] if found else sa.true()
        least = sa.select(sa.func.min(Cell.current_label)).where(Cell.dataset_id == dataset_id, after)
        label = session.scalar(least)
        if label is None:
            return sorted(found)
        found.append(label)


def runs_with_predictions(session: Session, dataset_id: int) -> list[RunChoice]:
    """The dataset's runs that have predicted something, newest first."""
    predicted = sa.exists().where(Prediction.run_id == Run.id)
    select = (
        sa.select(Run.id, RecipeRow.body, Run.state, Run.created_at)
        .join(RecipeRow, RecipeRow.id == Run.recipe_id)
        .where(Run.dataset_id == dataset_id, predicted)
        .order_by(Run.id.desc())
    )
    return [RunChoice(i, make_recipe(body), state, at) for i, body, state, at in session.execute(select)]


def tied_subjects(session: Session, dataset_id: int) -> list[list[str]]:
    """The subjects of each leak group of more than one, sorted."""
    select = (
        sa.select(Subject.leak_group_id, Subject.name)
        .where(Subject.dataset_id == dataset_id)
        .order_by(Subject.leak_group_id, Subject.name)
    )
    groups: dict[int, list[str]] = {}
    for group, name in session.execute(select):
        groups.setdefault(group, []).append(name)
    return sorted(names for names in groups.values() if len(names) > 1)
