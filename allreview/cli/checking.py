"""What `check` looks at. Each check is a small function that adds what it finds to the findings."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import aliased

import db
from allreview.artefacts import available
from allreview.cells.decoding import read_bytes
from allreview.cells.thumbnails import thumbnail_path
from allreview.errors import UserError
from allreview.labels import wrongly_kept
from allreview.models.pretrained import file_hash
from allreview.places import AT_ONCE, cell_file, kind
from allreview.settings import Settings
from allreview.store import open_store
from allreview.training.slots import living
from db.tables import (
    Annotation,
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

MODEL_FILES = ("model.keras", "model.json")
Progress = Callable[[int, int], None]

LITTLE_DISK = 2 * 10**9
"""Bytes. Below this a warning is given: features and models of some runs may not fit."""
NO_DISK = 10**8
_BATCH = 256


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, and what to do about it."""

    what: str
    where: str
    advice: str


@dataclass
class Findings:
    """`problems` need mending; `warnings` are worth knowing."""

    problems: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"ok": self.ok, **asdict(self)}

    def problem(self, what: str, where: str, advice: str) -> None:
        self.problems.append(Finding(what, where, advice))

    def warn(self, what: str, where: str, advice: str) -> None:
        self.warnings.append(Finding(what, where, advice))


def examine(settings: Settings, *, deep: bool, progress: Progress) -> Findings:
    """Look at everything; with `deep`, read every image again. Nothing is changed."""
    findings = Findings()
    file = settings.root / "allreview.sqlite"
    if settings.database_url is None and not file.is_file():
        findings.warn("there is no store yet", str(settings.root), "Import cells, or set ALLREVIEW_HOME.")
        return findings
    try:
        engine = open_store(settings)
        if engine.dialect.name == "sqlite":
            _sqlite(engine, findings)
        _counts(engine, findings)
        _images(engine, settings, findings, deep, progress)
        _workers(engine, settings, findings)
        _models(engine, settings, findings)
        _log(engine, findings)
        _splits(engine, findings)
    except UserError as error:
        findings.problem(str(error).removesuffix("."), "the store", "Mend this first, then check again.")
    except DatabaseError as error:
        first = str(error.orig or error).splitlines()[0]
        findings.problem(f"it cannot be read ({first})", "the store", "Restore a backup.")
    _disk(settings, findings)
    return findings


def _sqlite(engine: sa.Engine, findings: Findings) -> None:
    with engine.connect() as connection:
        for (line,) in connection.exec_driver_sql("PRAGMA integrity_check"):
            if line != "ok":
                findings.problem(f"the file is damaged ({line})", "the store", "Restore a backup.")
        for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            findings.problem(
                f"row {row} names a row of {parent} that is not there", f"table {table}", "Restore a backup."
            )


def _counts(engine: sa.Engine, findings: Findings) -> None:
    tables = {
        "datasets": Dataset,
        "cells": Cell,
        "files": CellFile,
        "subjects": Subject,
        "leak_groups": LeakGroup,
        "reviewers": Reviewer,
        "annotations": Annotation,
        "runs": Run,
        "snapshots": Snapshot,
        "predictions": Prediction,
    }
    with db.reading(engine) as session:
        for name, table in tables.items():
            findings.counts[name] = session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def _images(
    engine: sa.Engine, settings: Settings, findings: Findings, deep: bool, progress: Progress
) -> None:
    """Every cell has a file, every file is there (and unchanged, with `deep`), every thumbnail is made."""
    with db.reading(engine) as session:
        query = (
            sa.select(Cell.id, Cell.sha256, CellFile.path)
            .outerjoin(CellFile, CellFile.cell_id == Cell.id)
            .order_by(Cell.id, CellFile.path)
        )
        rows = [(cell_id, sha256, path) for cell_id, sha256, path in session.execute(query)]
    for (cell_id, _, path), wrong in zip(rows, _look(rows, deep, progress), strict=True):
        if wrong is None:
            continue
        findings.problem(wrong, path or f"cell {cell_id}", "Put the original file back in its place.")
    pictures = {sha256 for _, sha256, _ in rows if not thumbnail_path(settings, sha256).is_file()}
    if pictures:
        findings.warn(
            f"{len(pictures):,} cells have no thumbnail",
            str(settings.thumbnails),
            "They are made again when they are shown.",
        )


def _look(
    rows: Sequence[tuple[int, str, str | None]], deep: bool, progress: Progress
) -> Iterable[str | None]:
    """What is wrong with each file, or None."""
    remote = any("://" in (path or "") for _, _, path in rows)
    with ThreadPoolExecutor(AT_ONCE if remote else os.cpu_count() or 1, "check") as pool:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            yield from pool.map(lambda row: _wrong_with(row[1], row[2], deep), batch)
            progress(start + len(batch), len(rows))


def _wrong_with(sha256: str, path: str | None, deep: bool) -> str | None:
    if path is None:
        return "no file is known that holds this cell"
    try:
        if not deep:
            return None if kind(cell_file(path)) == "file" else "the file is gone"
        same = hashlib.sha256(read_bytes(cell_file(path))).hexdigest() == sha256
    except UserError as error:
        return str(error)
    return None if same else "the file has changed since it was imported"


def _workers(engine: sa.Engine, settings: Settings, findings: Findings) -> None:
    with db.reading(engine) as session:
        query = sa.select(Run.id, Run.state).where(Run.state.in_(("queued", "running"))).order_by(Run.id)
        unfinished = list(session.execute(query))
    if not unfinished or living(settings):
        return
    # With PostgreSQL the worker may live on another machine, whose lock cannot be seen from here.
    report = findings.problem if engine.dialect.name == "sqlite" else findings.warn
    for run_id, state in unfinished:
        report(
            f"it is {state}, and no worker is alive",
            f"run {run_id}",
            "Start one with `allreview worker`, or open the app: it goes on where it stopped.",
        )


def _models(engine: sa.Engine, settings: Settings, findings: Findings) -> None:
    """Runs with a model or predictions still have the model file they were made with."""
    with db.reading(engine) as session:
        predicts = sa.exists().where(Prediction.run_id == Run.id)
        query = sa.select(Run.id, Run.model_hash).where(sa.or_(Run.model_hash.is_not(None), predicts))
        runs = list(session.execute(query.order_by(Run.id)))
    for run_id, model_hash in runs:
        lacking = [name for name in MODEL_FILES if not (settings.run_folder(run_id) / name).is_file()]
        if lacking and model_hash and available(settings, run_id, MODEL_FILES) == list(MODEL_FILES):
            continue  # another machine has it, and hashes it
        wrong = _wrong_with_model(settings.run_folder(run_id), model_hash)
        if wrong:
            findings.problem(
                wrong, f"run {run_id}", f"Restore {settings.run_folder(run_id)}, or train again."
            )


def _wrong_with_model(folder: Path, model_hash: str | None) -> str | None:
    if model_hash is None:
        return "it has predictions, but no model is on record"
    try:
        described = json.loads((folder / "model.json").read_text(encoding="utf-8"))["model_sha256"]
        found = file_hash(folder / "model.keras")
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is gone"
    except (OSError, ValueError, KeyError, TypeError):
        return "model.json is damaged"
    return None if described == found == model_hash else "model.keras is not the model that was saved"


def _log(engine: sa.Engine, findings: Findings) -> None:
    """Each cell's events are numbered 1, 2, 3 … without a gap, undo names an event of the same cell, and what is kept
    beside the cell is what its log says."""
    undone = aliased(Annotation)
    with db.reading(engine) as session:
        first, last, number = (
            sa.func.min(Annotation.sequence),
            sa.func.max(Annotation.sequence),
            sa.func.count(),
        )
        gaps = (
            sa.select(Annotation.cell_id)
            .group_by(Annotation.cell_id)
            .having(sa.or_(first != 1, last != number))
        )
        strays = (
            sa.select(Annotation.cell_id)
            .join(undone, undone.id == Annotation.undoes_id)
            .where(undone.cell_id != Annotation.cell_id)
        )
        for query, what in ((gaps, "events are missing"), (strays, "an undo names an event of another cell")):
            for cell_id in session.scalars(query):
                findings.problem(
                    f"{what} in its log of decisions", f"cell {cell_id}", "Restore a backup of the store."
                )
        for cell_id in wrongly_kept(session):
            findings.problem(
                "its current label is not what its log of decisions says",
                f"cell {cell_id}",
                "Restore a backup of the store, or decide on it again.",
            )


def _splits(engine: sa.Engine, findings: Findings) -> None:
    """No subject, and no leak group, has cells in more than one part of a snapshot."""
    query = (
        sa.select(SnapshotCell.snapshot_id, Subject.leak_group_id, Subject.name, SnapshotCell.part)
        .join(Cell, Cell.id == SnapshotCell.cell_id)
        .join(Subject, Subject.id == Cell.subject_id)
        .distinct()
    )
    groups: dict[tuple[int, int], dict[str, set[str]]] = {}
    with db.reading(engine) as session:
        for snapshot_id, group, subject, part in session.execute(query):
            groups.setdefault((snapshot_id, group), {}).setdefault(subject, set()).add(part)
        runs: dict[int, list[str]] = {}
        for snapshot_id, run_id in session.execute(sa.select(Run.snapshot_id, Run.id).order_by(Run.id)):
            runs.setdefault(snapshot_id, []).append(str(run_id))
    for (snapshot_id, _), parts_of in sorted(groups.items()):
        where = f"run {', '.join(runs.get(snapshot_id, ['(none)']))}"
        cut = sorted(subject for subject, parts in parts_of.items() if len(parts) > 1)
        if cut:
            findings.problem(
                f"subject {', '.join(cut)} has cells in several parts, so its figures flatter",
                where,
                "Train anew, without a parent.",
            )
        elif len(set.union(*parts_of.values())) > 1:
            findings.warn(
                f"subjects {', '.join(sorted(parts_of))} are in several parts: "
                "cells imported later showed that they are tied",
                where,
                "Retrain: the whole group then goes to training.",
            )


def _disk(settings: Settings, findings: Findings) -> None:
    if not settings.root.is_dir():
        return
    free = shutil.disk_usage(settings.root).free
    if free < LITTLE_DISK:
        report = findings.problem if free < NO_DISK else findings.warn
        report(f"only {free / 10**9:.1f} GB are free", str(settings.root), "Free some space on this disk.")
