"""The part of an import that writes: readings of files become cells, files, subjects and leak groups.

All of it runs inside one writing transaction, on what the store holds at that moment, so two imports into one
dataset come out as if one had followed the other.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from allreview.cells.contradictions import Reading, Stored, without_contradictions
from allreview.cells.leak_groups import add_subjects, join_subjects
from allreview.cells.naming import class_key, class_problem, name_problem, shown
from allreview.cells.scanning import Rejected
from db.tables import Cell, CellFile, Dataset, Subject
from db.types import now

_CHUNK = 5000
_Subjects = dict[str, int | None]  # a file's path to its subject's id


def record(
    session: Session, name: str, synthetic: bool, readings: Iterable[Reading], rejected: list[Rejected]
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
    added = _write(session, dataset, stored, kept)
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
        sa.select(CellFile.path, CellFile.id, CellFile.cell_id, CellFile.subject_id, Cell.sha256)
        .join(Cell, Cell.id == CellFile.cell_id)
        .where(CellFile.dataset_id == dataset_id)
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
    kept = []
    for reading in readings:
        name = reading.candidate.name
        problem = (
            "nothing names its class: put it in a folder named after the class, or name it in a CSV"
            if name.label is None
            else class_problem(name.label)
        )
        if problem is None and name.subject is not None:
            problem = name_problem(name.subject, "subject")
        if problem is not None or name.label is None:
            rejected.append(Rejected(reading.candidate.shown, shown(problem or "")))
            continue
        label = spelling.setdefault(class_key(name.label), name.label)
        kept.append(replace(reading, candidate=replace(reading.candidate, name=replace(name, label=label))))
    return kept


def _write(session: Session, dataset: Dataset, stored: Stored, kept: list[Reading]) -> int:
    """Insert what is new; gives the number of new cells."""
    named = {name for name in (reading.candidate.name.subject for reading in kept) if name}
    subjects = stored.subjects | add_subjects(session, dataset.id, named - stored.subjects.keys())
    subject_of = {reading.path: subjects.get(reading.candidate.name.subject or "") for reading in kept}
    by_hash: dict[str, list[Reading]] = defaultdict(list)
    for reading in kept:
        by_hash[reading.sha256].append(reading)
    new = [same for sha256, same in by_hash.items() if sha256 not in stored.cells]
    cell_ids = {sha256: row.id for sha256, row in stored.cells.items()}
    cell_ids |= _insert_cells(session, dataset.id, new, subject_of)
    _insert_files(session, dataset.id, stored, kept, cell_ids, subject_of)
    _fill_subjects(session, stored, kept, subject_of)
    join_subjects(session, dataset.id, _ties(stored, kept, subject_of))
    dataset.classes = sorted({*dataset.classes, *(reading.label for reading in kept)})
    return len(new)


def _ties(stored: Stored, kept: list[Reading], subject_of: _Subjects) -> list[set[int]]:
    """The subjects of each cell that has several."""
    subjects_of_cell: dict[str, set[int]] = defaultdict(set)
    for row in stored.files.values():
        if row.subject_id is not None:
            subjects_of_cell[row.sha256].add(row.subject_id)
    for reading in kept:
        subject = subject_of[reading.path]
        if subject is not None:
            subjects_of_cell[reading.sha256].add(subject)
    return [subjects for subjects in subjects_of_cell.values() if len(subjects) > 1]


def _insert_cells(
    session: Session, dataset_id: int, new: list[list[Reading]], subject_of: _Subjects
) -> dict[str, int]:
    """Insert one cell for each list of identical readings; gives their ids by SHA-256."""
    rows = [
        {
            "dataset_id": dataset_id,
            "sha256": same[0].sha256,
            "subject_id": next((subject_of[r.path] for r in same if subject_of[r.path] is not None), None),
            "source_label": same[0].label,
            "fold": same[0].candidate.name.fold,
            "width": same[0].width,
            "height": same[0].height,
            "size_bytes": same[0].size_bytes,
            "created_at": now(),
        }
        for same in new
    ]
    ids: dict[str, int] = {}
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        found = session.scalars(sa.insert(Cell).returning(Cell.id, sort_by_parameter_order=True), chunk)
        ids |= dict(zip((row["sha256"] for row in chunk), found, strict=True))
    return ids


def _insert_files(
    session: Session,
    dataset_id: int,
    stored: Stored,
    kept: list[Reading],
    cell_ids: dict[str, int],
    subject_of: _Subjects,
) -> None:
    rows = {
        reading.path: {
            "dataset_id": dataset_id,
            "cell_id": cell_ids[reading.sha256],
            "subject_id": subject_of[reading.path],
            "path": reading.path,
        }
        for reading in kept
        if reading.path not in stored.files
    }
    ordered = [rows[path] for path in sorted(rows)]
    for start in range(0, len(ordered), _CHUNK):
        session.execute(sa.insert(CellFile), ordered[start : start + _CHUNK])


def _fill_subjects(session: Session, stored: Stored, kept: list[Reading], subject_of: _Subjects) -> None:
    """Cells and files that had no subject get the one a repeated import names."""
    for reading in kept:
        subject = subject_of[reading.path]
        if subject is None:
            continue
        file, cell = stored.files.get(reading.path), stored.cells.get(reading.sha256)
        if file is not None and file.subject_id is None:
            session.execute(sa.update(CellFile).where(CellFile.id == file.id).values(subject_id=subject))
        if cell is not None and cell.subject_id is None:
            session.execute(
                sa.update(Cell)
                .where(Cell.id == cell.id, Cell.subject_id.is_(None))
                .values(subject_id=subject)
            )
