"""What the worker stored of a run: whole or not there; similar cells; points of a map."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.review import rankings
from allreview.review.log.annotations import decide
from allreview.review.rankings import CellMap, Neighbours, OutOfFold, map_points
from allreview.review.similar import similar_cells
from allreview.settings import current_settings
from db.tables import Cell
from tests.factory import Store, finished_run, small_store


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return small_store(engine, {"1": ("all", 3), "H1": ("hem", 2)})


@pytest.fixture
def run(engine: sa.Engine, store: Store) -> int:
    a, h = store.cells["1"], store.cells["H1"]
    predictions = {
        a[0]: ("all", 0.9),
        a[1]: ("hem", 0.6),
        a[2]: ("all", 0.7),
        h[0]: ("hem", 0.8),
        h[1]: ("all", 0.7),
    }
    return finished_run(engine, store, predictions, parts={a[1]: "test"})


def hashes(engine: sa.Engine) -> list[str]:
    """Of all cells, by their ids."""
    with db.reading(engine) as session:
        return list(session.scalars(sa.select(Cell.sha256).order_by(Cell.id)))


def near_of(engine: sa.Engine) -> Neighbours:
    """Each cell's nearest is the one before it, then the one before that."""
    names = hashes(engine)
    count = len(names)
    return Neighbours(
        sha256=names,
        positions=np.array([[(i - 1) % count, (i - 2) % count] for i in range(count)], dtype=np.int32),
        similarities=np.array([[0.9, 0.5]] * count, dtype=np.float32),
        typicality=np.full(count, 0.4, dtype=np.float32),
        plane=np.arange(2 * count, dtype=np.float32).reshape(-1, 2),
    )


def test_similar_cells_are_the_stored_neighbours(engine: sa.Engine, store: Store, run: int) -> None:
    a, h = store.cells["1"], store.cells["H1"]
    with db.reading(engine) as session:
        assert similar_cells(session, current_settings(), run, h[0]) == []
    rankings.save(current_settings().run_folder(run) / rankings.NEIGHBOURS, near_of(engine))
    decide(engine, cell_id=a[1], label="hem", reviewer_id=store.ann, seen=None)
    with db.reading(engine) as session:
        found = similar_cells(session, current_settings(), run, h[0])
        assert similar_cells(session, current_settings(), run, h[0], count=1) == found[:1]
        assert similar_cells(session, current_settings(), run, 999) == []
    assert [(cell.cell_id, round(cell.similarity, 3)) for cell in found] == [(a[2], 0.9), (a[1], 0.5)]
    second = found[1]
    assert (second.subject, second.source_label, second.current_label, second.part) == (
        "1",
        "all",
        "hem",
        "test",
    )
    assert second.path == "/nowhere/cells/1/1.bmp"


def test_a_map_has_every_predicted_cell_with_what_is_known_of_it(
    engine: sa.Engine, store: Store, run: int
) -> None:
    a, h = store.cells["1"], store.cells["H1"]
    settings, names = current_settings(), hashes(engine)
    with db.reading(engine) as session, pytest.raises(UserError, match="no map of its cells: retrain it"):
        map_points(session, settings, run)
    with db.reading(engine) as session, pytest.raises(UserError, match="no run 99"):
        map_points(session, settings, 99)
    rankings.save(settings.run_folder(run) / rankings.NEIGHBOURS, near_of(engine))
    decide(engine, cell_id=a[1], label="hem", reviewer_id=store.ann, seen=None)
    decide(engine, cell_id=h[1], label="unsure", reviewer_id=store.ann, seen=None)
    with db.reading(engine) as session:
        plane = map_points(session, settings, run)
    assert np.array_equal(np.stack([plane.x, plane.y], axis=1), near_of(engine).plane)
    assert np.isnan(plane.suspicion).all()
    turned = list(reversed(names))  # files need not be in the order of the ids
    rankings.save(
        settings.run_folder(run) / rankings.MAP,
        CellMap(turned, np.array([[i, -i] for i in range(5)], dtype=np.float32)),
    )
    table = np.array([[0.1 * i, 1 - 0.1 * i] for i in range(5)], dtype=np.float32)
    rankings.save(settings.run_folder(run) / rankings.OUT_OF_FOLD, OutOfFold(turned, ["all", "hem"], table))
    with db.reading(engine) as session:
        found = map_points(session, settings, run)
    assert found.cell_id.tolist() == [*a, *h]
    assert found.x.tolist() == [4, 3, 2, 1, 0]
    assert found.y.tolist() == [-4, -3, -2, -1, 0]
    assert found.suspicion == pytest.approx([0.4, 0.7, 0.2, 0.9, np.nan], nan_ok=True)
    assert found.subject == ["1", "1", "1", "H1", "H1"]
    assert found.part == ["train", "test", "train", "train", "train"]
    assert found.current_label == ["all", "hem", "all", "hem", "unsure"]
    assert found.source_label == ["all", "all", "all", "hem", "hem"]
    assert found.predicted == ["all", "hem", "all", "hem", "all"]


def test_a_file_that_is_not_whole_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / rankings.MAP
    rankings.save(path, CellMap(["a" * 64], np.ones((1, 2), dtype=np.float32)))
    whole = path.read_bytes()
    read = rankings.read_map(path)
    assert read is not None
    assert (read.sha256, read.points.tolist()) == (["a" * 64], [[1, 1]])
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        assert rankings.read_map(path) is None
    path.unlink()
    assert rankings.read_map(path) is None


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / rankings.MAP
    rankings.save(path, CellMap(["a" * 64], np.ones((1, 2), dtype=np.float32)))
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        rankings.save(path, CellMap(["b" * 64], np.zeros((1, 2), dtype=np.float32)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


_WRITER = """
import sys
from pathlib import Path
import numpy as np
from allreview.review.rankings import CellMap, save
names = [f"{n:064d}" for n in range(20_000)]
for number in range(10_000):
    save(Path(sys.argv[1]), CellMap(names, np.full((20_000, 2), number, dtype=np.float32)))
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / rankings.MAP
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], cwd=Path(__file__).parents[2])
    try:
        end = time.monotonic() + 60
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.35)
    finally:
        writer.kill()
        writer.wait()
    found = rankings.read_map(path)
    assert found is not None
    assert len(found.sha256) == 20_000
    assert len(set(itertools.chain.from_iterable(found.points.tolist()))) == 1
