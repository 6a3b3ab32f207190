"""The part of an import that writes: readings of files become cells, files, subjects and leak groups.

All of it runs inside one writing transaction, on what the store holds at that moment, so two imports into one
dataset come out as if one had followed the other.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from allreview.cells.contradictions import Reading, Stored, without_contradictions
from allreview.cells.leak_groups import add_subjects, join_subjects
from allreview.cells.naming import CellName, class_key, class_problem, name_problem, shown
from allreview.cells.scanning import Rejected
from db.tables import Cell, CellFile, Dataset, Subject
from db.types import now

_CHUNK = 5000

Written = Callable[[int, int], None]
"""Told how many rows are written, of how many."""


def record(
    session: Session,
    name: str,
    synthetic: bool,
    readings: Iterable[Reading],
    rejected: list[Rejected],
    written: Written = lambda done, total: None,
) -> tuple[int | None, int]:
    """Write the readings into the dataset `name`; gives its id and how many cells were new.

    Readings that contradict each other or the store go to `rejected`. The id is None, and nothing is written,
    when the dataset does not exist and no reading can be kept.
    """
    dataset = _locked(session, name)
    stored = _load(session, dataset.id) if dataset else Stored({}, {}, {})
    usable = _with_labels(readings, dataset.classes if dataset else [], rejected)
    kept = without_contradictions(usable, stored, rejected)
    if dataset is None:
        if not kept:
            return None, 0
        dataset = _create(session, name, synthetic)
        # Another import may have made it in this moment; then what it wrote counts.
        stored = _load(session, dataset.id)
        kept = without_contradictions(kept, stored, rejected)
    added = _write(session, dataset, stored, kept, written)
    return dataset.id, added


def _locked(session: Session, name: str) -> Dataset | None:
    return session.scalar(sa.select(Dataset).where(Dataset.name == name).with_for_update())


def _create(session: Session, name: str, synthetic: bool) -> Dataset:
    dialect = session.get_bind().dialect.name
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    values = {"name": name, "classes": [], "synthetic": synthetic, "created_at": now()}
    session.execute(insert(Dataset).values(**values).on_conflict_do_nothing())
    dataset = _locked(session, name)
    assert dataset is not None
    return dataset


def _load(session: Session, dataset_id: int) -> Stored:
    cells = session.execute(
        sa.select(Cell.sha256, Cell.id, Cell.source_label, Cell.subject_id).where(
            Cell.dataset_id == dataset_id
        )
    )
    files = session.execute(
        sa.select(CellFile.path, CellFile.id, CellFile.cell_id, CellFile.subject_id).where(
            CellFile.dataset_id == dataset_id
        )
    )
    subjects = session.execute(sa.select(Subject.name, Subject.id).where(Subject.dataset_id == dataset_id))
    return Stored(
        {row.sha256: row for row in cells},
        {row.path: row for row in files},
        {row.name: row.id for row in subjects},
    )


def _with_labels(
    readings: Iterable[Reading], classes: Iterable[str], rejected: list[Rejected]
) -> list[Reading]:
    """The readings that name a class the store can hold, each class spelled in one way."""
    spelling = {class_key(name): name for name in classes}
    judged: dict[CellName, tuple[CellName, str | None]] = {}
    kept = []
    for reading in readings:
        said = reading.candidate.name
        if said not in judged:
            judged[said] = _judged(said, spelling)
        name, problem = judged[said]
        if problem is not None:
            rejected.append(Rejected(reading.candidate.shown, shown(problem)))
        elif name == said:
            kept.append(reading)
        else:
            kept.append(replace(reading, candidate=replace(reading.candidate, name=name)))
    return kept


def _judged(name: CellName, spelling: dict[str, str]) -> tuple[CellName, str | None]:
    """The name with its class as it is spelled elsewhere, and why the store cannot hold it, or None."""
    if name.label is None:
        return name, "nothing names its class: put it in a folder named after the class, or name it in a CSV"
    problem = class_problem(name.label)
    if problem is None and name.subject is not None:
        problem = name_problem(name.subject, "subject")
    if problem is not None:
        return name, problem
    return replace(name, label=spelling.setdefault(class_key(name.label), name.label)), None


def _write(session: Session, dataset: Dataset, stored: Stored, kept: list[Reading], written: Written) -> int:
    """Insert what is new; gives the number of new cells."""
    named = {name for name in (reading.candidate.name.subject for reading in kept) if name}
    subjects = stored.subjects | add_subjects(session, dataset.id, named - stored.subjects.keys())
    new: dict[str, Reading] = {}
    subject_of: dict[str, int] = {}
    for reading in kept:
        if reading.sha256 in stored.cells:
            continue
        new.setdefault(reading.sha256, reading)
        if reading.candidate.name.subject:
            subject_of.setdefault(reading.sha256, subjects[reading.candidate.name.subject])
    new_files = [reading for reading in kept if reading.path not in stored.files]
    total = len(new) + len(new_files)
    _insert_cells(session, dataset.id, new, subject_of, lambda done: written(done, total))
    cell_ids = {sha256: row.id for sha256, row in stored.cells.items()}
    cell_ids |= _ids_of_new(session, dataset.id, max(cell_ids.values(), default=0))
    _insert_files(
        session, dataset.id, new_files, cell_ids, subjects, lambda done: written(len(new) + done, total)
    )
    _fill_subjects(session, stored, kept, subjects)
    join_subjects(session, dataset.id, _ties(stored, kept, cell_ids, subjects))
    dataset.classes = sorted({*dataset.classes, *(reading.label for reading in kept)})
    return len(new)


def _ties(
    stored: Stored, kept: list[Reading], cell_ids: dict[str, int], subjects: dict[str, int]
) -> set[tuple[int, int]]:
    """Pairs of subjects that have a cell in common; one chain of pairs ties all subjects of a cell."""
    first: dict[int, int] = {}
    ties: set[tuple[int, int]] = set()

    def saw(cell: int, subject: int) -> None:
        earlier = first.setdefault(cell, subject)
        if earlier != subject:
            ties.add((earlier, subject))

    for row in stored.files.values():
        if row.subject_id is not None:
            saw(row.cell_id, row.subject_id)
    for reading in kept:
        if reading.candidate.name.subject:
            saw(cell_ids[reading.sha256], subjects[reading.candidate.name.subject])
    return ties


def _insert_cells(
    session: Session,
    dataset_id: int,
    new: dict[str, Reading],
    subject_of: dict[str, int],
    inserted: Callable[[int], None],
) -> None:
    moment = now()
    rows = (
        {
            "dataset_id": dataset_id,
            "sha256": sha256,
            "subject_id": subject_of.get(sha256),
            "source_label": reading.label,
            "fold": reading.candidate.name.fold,
            "width": reading.width,
            "height": reading.height,
            "size_bytes": reading.size_bytes,
            "created_at": moment,
        }
        for sha256, reading in new.items()
    )
    _insert(session, Cell, rows, inserted)


def _ids_of_new(session: Session, dataset_id: int, last: int) -> dict[str, int]:
    """The ids of a dataset's cells by SHA-256, from behind the id `last`. Ids only grow.

    Asking for them afterwards is quicker than having every insert return its own.
    """
    found = session.execute(
        sa.select(Cell.sha256, Cell.id).where(Cell.dataset_id == dataset_id, Cell.id > last)
    )
    return {row.sha256: row.id for row in found}


def _insert_files(
    session: Session,
    dataset_id: int,
    new: list[Reading],
    cell_ids: dict[str, int],
    subjects: dict[str, int],
    inserted: Callable[[int], None],
) -> None:
    rows = (
        {
            "dataset_id": dataset_id,
            "cell_id": cell_ids[reading.sha256],
            "subject_id": subjects.get(reading.candidate.name.subject or ""),
            "path": reading.path,
        }
        for reading in sorted(new, key=lambda reading: reading.path)
    )
    _insert(session, CellFile, rows, inserted)


def _insert(
    session: Session,
    table: type[Cell] | type[CellFile],
    rows: Iterator[dict[str, Any]],
    inserted: Callable[[int], None],
) -> None:
    """Insert rows in chunks, so that only one chunk is ever held; `inserted` is told how many went in."""
    # On the connection, not the session: nothing has to become an object.
    connection, statement, done = session.connection(), sa.insert(table), 0
    while chunk := list(islice(rows, _CHUNK)):
        connection.execute(statement, chunk)
        done += len(chunk)
        inserted(done)


def _fill_subjects(session: Session, stored: Stored, kept: list[Reading], subjects: dict[str, int]) -> None:
    """Cells and files that had no subject get the one a repeated import names."""
    files, cells = [], []
    for reading in kept:
        subject = subjects.get(reading.candidate.name.subject or "")
        if subject is None:
            continue
        file, cell = stored.files.get(reading.path), stored.cells.get(reading.sha256)
        if file is not None and file.subject_id is None:
            files.append({"known": file.id, "subject": subject})
        if cell is not None and cell.subject_id is None:
            cells.append({"known": cell.id, "subject": subject})
    for table, rows in ((CellFile, files), (Cell, cells)):
        if rows:
            update = (
                sa.update(table)
                .where(table.id == sa.bindparam("known"), table.subject_id.is_(None))
                .values(subject_id=sa.bindparam("subject"))
            )
            session.connection().execute(update, rows)
