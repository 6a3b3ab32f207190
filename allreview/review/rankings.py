"""What the worker found out about a run's cells, beyond what its model says of them.

    runs/<id>/out-of-fold.npz   what quick classifiers say of cells whose subjects they never saw
    runs/<id>/neighbours.npz    the cells most similar to each cell, and how like them it is
    runs/<id>/map.npz           where each cell lies on a map on which similar cells lie together

Each file is whole or not there, and each stands alone: a run that was trained before there were rankings has
none of them. Cells are named by their SHA-256, in the order of it. Nothing here is pickled.
"""

import os
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from allreview.artefacts import obtain_if_can
from allreview.errors import UserError
from allreview.labels import current_label, standing
from allreview.settings import Settings
from db.tables import Cell, Prediction, Run, SnapshotCell, Subject

OUT_OF_FOLD = "out-of-fold.npz"
NEIGHBOURS = "neighbours.npz"
MAP = "map.npz"


@dataclass(frozen=True)
class OutOfFold:
    """`probabilities` [n, classes], each row by a classifier that saw no cell of that cell's leak group.

    NaN where the classifier of a row did not know the class, because all its cells are of that leak group.
    """

    sha256: list[str]
    classes: list[str]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """The cells most like each cell, the most similar first.

    `positions` [n, k] are places in `sha256`, `similarities` [n, k] the cosines of the features. `typicality` [n]
    in (0, 1] is low for a cell that is unlike even its neighbours. `plane` [n, 2] are the first two principal
    components of the features.
    """

    sha256: list[str]
    positions: NDArray[np.int32]
    similarities: NDArray[np.float32]
    typicality: NDArray[np.float32]
    plane: NDArray[np.float32]


@dataclass(frozen=True)
class CellMap:
    """`points` [n, 2]: where each cell lies."""

    sha256: list[str]
    points: NDArray[np.float32]


@dataclass(frozen=True)
class MapPoints:
    """The cells of a run on its map, one place of each list or array a cell. All of it: the caller hides.

    `suspicion` in [0, 1] is what classifiers that never saw the cell's subject give its current label, so low is
    suspicious; NaN where that is not known. `predicted` is what the run's model says.
    """

    cell_id: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    suspicion: NDArray[np.float32]
    sha256: list[str]
    subject: list[str | None]
    part: list[str]
    source_label: list[str]
    current_label: list[str]
    predicted: list[str]
    probability: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.cell_id)


def out_of_fold(settings: Settings, run_id: int) -> OutOfFold | None:
    """The run's out-of-fold probabilities; None where there are none."""
    found = _load(_file(settings, run_id, OUT_OF_FOLD), ("classes", "probabilities"))
    return (
        None
        if found is None
        else OutOfFold(found["sha256"], found["classes"].tolist(), found["probabilities"])
    )


def neighbours(settings: Settings, run_id: int) -> Neighbours | None:
    """The run's neighbours; None where there are none."""
    return read_neighbours(_file(settings, run_id, NEIGHBOURS))


def cell_map(settings: Settings, run_id: int) -> CellMap | None:
    """The run's map; while it is not made yet the plane of its features, None where there is neither."""
    found = read_map(_file(settings, run_id, MAP))
    if found is not None:
        return found
    near = neighbours(settings, run_id)
    return None if near is None else CellMap(near.sha256, near.plane)


def read_neighbours(path: Path) -> Neighbours | None:
    """A stored file of neighbours; None when it is missing or cannot be read whole."""
    found = _load(path, ("positions", "similarities", "typicality", "plane"))
    return None if found is None else Neighbours(**found)


def read_map(path: Path) -> CellMap | None:
    """A stored map; None when it is missing or cannot be read whole."""
    found = _load(path, ("points",))
    return None if found is None else CellMap(**found)


def map_points(session: Session, settings: Settings, run_id: int) -> MapPoints:
    """The run's cells on its map, in the order of their ids; cells that were not predicted are left out.

    Raises:
        UserError: no such run, or it has no map; says what to do.
    """
    run = session.get(Run, run_id)
    if run is None:
        raise UserError(f"There is no run {run_id}.")
    drawn = cell_map(settings, run_id)
    if drawn is None:
        raise UserError(f"Run {run_id} has no map of its cells: retrain it, and the new run will have one.")
    now = standing()
    query = (
        sa.select(
            Cell.id,
            Cell.sha256,
            Subject.name,
            SnapshotCell.part,
            Cell.source_label,
            current_label(now),
            Prediction.label,
            Prediction.probability,
        )
        .join(SnapshotCell, SnapshotCell.cell_id == Cell.id)
        .join(Prediction, sa.and_(Prediction.cell_id == Cell.id, Prediction.run_id == run_id))
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(now, now.c.cell_id == Cell.id)
        .where(SnapshotCell.snapshot_id == run.snapshot_id)
        .order_by(Cell.id)
    )
    places = {sha256: place for place, sha256 in enumerate(drawn.sha256)}
    rows = [row for row in session.execute(query) if row[1] in places]
    columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(8)]
    ids, hashes, subjects, parts, sources, labels, predicted, probabilities = columns
    points = drawn.points[[places[sha256] for sha256 in hashes]].reshape(-1, 2)
    return MapPoints(
        cell_id=np.array(ids, dtype=np.int64),
        x=points[:, 0],
        y=points[:, 1],
        suspicion=believed(out_of_fold(settings, run_id), hashes, labels),
        sha256=hashes,
        subject=subjects,
        part=parts,
        source_label=sources,
        current_label=labels,
        predicted=predicted,
        probability=np.array(probabilities, dtype=np.float32),
    )


def believed(found: OutOfFold | None, hashes: Sequence[str], labels: Sequence[str]) -> NDArray[np.float32]:
    """The out-of-fold probability of each cell's label; NaN where it is not known."""
    if found is None:
        return np.full(len(hashes), np.nan, dtype=np.float32)
    rows = {sha256: row for row, sha256 in enumerate(found.sha256)}
    columns = {name: column for column, name in enumerate(found.classes)}
    table = np.pad(found.probabilities, ((0, 1), (0, 1)), constant_values=np.nan)
    return table[
        [rows.get(sha256, -1) for sha256 in hashes], [columns.get(label, -1) for label in labels]
    ].astype(np.float32)


def save(path: Path, found: OutOfFold | Neighbours | CellMap) -> None:
    """Write one of the files whole, or leave what was there."""
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(found).items()}
    arrays["sha256"] = np.array(found.sha256, dtype="S64")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _file(settings: Settings, run_id: int, name: str) -> Path:
    obtain_if_can(settings, run_id, [name])
    return settings.run_folder(run_id) / name


def _load(path: Path, names: tuple[str, ...]) -> dict[str, Any] | None:
    """The arrays of a file with its cells; None when it is missing or cannot be read whole."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found: dict[str, Any] = {name: file[name] for name in names}
            found["sha256"] = file["sha256"].astype(str).tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return found
