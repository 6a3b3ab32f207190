"""Small stores made by hand, for tests about what is in a store rather than how it got there."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.recipe import Recipe
from allreview.review.queues import QueueEntry
from db.tables import (
    Cell,
    CellFile,
    Dataset,
    LeakGroup,
    Prediction,
    Reviewer,
    Run,
    Snapshot,
    SnapshotCell,
    Subject,
)
from db.tables import Recipe as RecipeRow


@dataclass(frozen=True)
class Store:
    """What `small_store` made. `cells[subject]` are cell ids; `ann` and `ben` are reviewers."""

    dataset: int
    cells: dict[str, list[int]]
    ann: int
    ben: int


def small_store(
    engine: sa.Engine,
    subjects: dict[str, tuple[str, int]] | None = None,
    *,
    tied: tuple[tuple[str, str], ...] = (),
    name: str = "cells",
) -> Store:
    """A dataset of `{subject: (class, number of cells)}`; subjects in `tied` share a leak group."""
    subjects = subjects or {f"{n}": ("all", 4) for n in range(1, 7)} | {
        f"H{n}": ("hem", 4) for n in range(1, 5)
    }
    with db.writing(engine) as session:
        dataset = Dataset(name=name, classes=sorted({label for label, _ in subjects.values()}))
        reviewers = [Reviewer(name="Ann"), Reviewer(name="Ben")]
        session.add_all([dataset, *reviewers])
        session.flush()
        groups = {subject: LeakGroup(dataset_id=dataset.id) for subject in subjects}
        for first, second in tied:
            groups[second] = groups[first]
        session.add_all(set(groups.values()))
        session.flush()
        cells: dict[str, list[int]] = {}
        for subject, (label, number) in subjects.items():
            row = Subject(dataset_id=dataset.id, name=subject, leak_group_id=groups[subject].id)
            session.add(row)
            session.flush()
            cells[subject] = [
                add_cell(session, dataset.id, row.id, label, f"{name}/{subject}/{index}")
                for index in range(number)
            ]
        return Store(dataset.id, cells, reviewers[0].id, reviewers[1].id)


def add_cell(session, dataset_id: int, subject_id: int | None, label: str, path: str) -> int:
    """One cell with one file; its SHA-256 is that of its path."""
    cell = Cell(
        dataset_id=dataset_id,
        sha256=hashlib.sha256(path.encode()).hexdigest(),
        subject_id=subject_id,
        source_label=label,
        width=450,
        height=450,
        size_bytes=607_554,
    )
    session.add(cell)
    session.flush()
    session.add(
        CellFile(dataset_id=dataset_id, cell_id=cell.id, subject_id=subject_id, path=f"/nowhere/{path}.bmp")
    )
    return cell.id


def entries_of(session: Session, cells: Sequence[int], *, part: str = "train") -> list[QueueEntry]:
    """Queue entries of these cells, in this order, as a worklist is made of them."""
    found = {
        cell.id: (cell, subject)
        for cell, subject in session.execute(
            sa.select(Cell, Subject.name)
            .outerjoin(Subject, Subject.id == Cell.subject_id)
            .where(Cell.id.in_(cells))
        )
    }
    return [
        QueueEntry(
            cell_id=number,
            sha256=found[number][0].sha256,
            subject=found[number][1],
            part=part,
            source_label=found[number][0].source_label,
            current_label=found[number][0].source_label,
            predicted="",
            probability=0.0,
            probabilities={},
            score=0.5,
            reason="chosen by hand",
        )
        for number in cells
    ]


def add_run(session: Session, snapshot_id: int, recipe: Recipe, **values: Any) -> Run:
    """A run by this recipe on a snapshot, with the classes of its dataset."""
    row = session.scalar(sa.select(RecipeRow).where(RecipeRow.hash == recipe.hash))
    row = row or RecipeRow(hash=recipe.hash, body=recipe.model_dump())
    session.add(row)
    session.flush()
    dataset = session.get_one(Dataset, session.get_one(Snapshot, snapshot_id).dataset_id)
    run = Run(
        dataset_id=dataset.id,
        recipe_id=row.id,
        snapshot_id=snapshot_id,
        classes=dataset.classes,
        **values,
    )
    session.add(run)
    session.flush()
    return run


def finished_run(
    engine: sa.Engine,
    store: Store,
    predictions: dict[int, tuple[str, float]],
    *,
    parts: dict[int, str] | None = None,
    recipe: Recipe | None = None,
    series: str | None = None,
    temperature: float | None = None,
) -> int:
    """A finished run that predicted `{cell: (label, probability)}`, of two classes; parts default to train."""
    recipe = recipe or Recipe()
    parts = parts or {}
    with db.writing(engine) as session:
        dataset = session.get_one(Dataset, store.dataset)
        number = session.scalar(sa.select(sa.func.count(Snapshot.id))) or 0
        snapshot = Snapshot(dataset_id=dataset.id, hash=hashlib.sha256(str(number).encode()).hexdigest())
        session.add(snapshot)
        session.flush()
        run = add_run(session, snapshot.id, recipe, state="finished", series=series, temperature=temperature)
        for cell_id, (label, probability) in predictions.items():
            other = next(name for name in dataset.classes if name != label)
            session.add(
                SnapshotCell(
                    snapshot_id=snapshot.id,
                    cell_id=cell_id,
                    label=session.get_one(Cell, cell_id).source_label,
                    part=parts.get(cell_id, "train"),
                )
            )
            session.add(
                Prediction(
                    run_id=run.id,
                    cell_id=cell_id,
                    label=label,
                    probability=probability,
                    probabilities={label: probability, other: 1 - probability},
                )
            )
        return run.id
