"""The synthetic demo set: drawn once, imported as synthetic, with its wrong labels and its leak group."""

import csv
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

import db
from allreview.cells.decoding import foreground, read_rgb
from allreview.cells.demo import DATASET, demo_cells, draw_demo, import_demo
from allreview.cells.drawing import draw_cell, subject_stain
from allreview.cells.importing import import_cells
from allreview.errors import UserError
from allreview.settings import current_settings
from db.tables import Cell, CellFile, Dataset, LeakGroup, Subject
from tests.cells.pictures import put


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "demo"
    draw_demo(folder)
    return folder


def test_it_is_in_the_cnmc_format(drawn: Path) -> None:
    files = sorted((drawn / "cells").rglob("*.bmp"))
    assert len(files) == 324
    for path in files[::60]:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((450, 450), "RGB")
        assert 0.05 < foreground(read_rgb(path, 10**8)).mean() < 0.35


def test_wrong_labels_are_told(drawn: Path) -> None:
    with open(drawn / "wrong_labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 19
    for row in rows:
        path = drawn / row["path"]
        assert path.is_file()
        assert {path.parent.name, row["true_label"]} == {"all", "hem"}
        assert path.name.startswith("UID_H") == (row["true_label"] == "hem")


def test_importing_twice_draws_and_adds_once(sqlite_engine: sa.Engine, drawn: Path) -> None:
    settings = current_settings()
    settings.uploads.mkdir(parents=True)
    (settings.uploads / "demo").symlink_to(drawn)
    first = import_demo(sqlite_engine, settings)
    assert (first.dataset, first.added, first.cells, first.subjects) == (DATASET, 320, 320, 20)
    assert (first.duplicates, first.leak_groups, first.rejected) == (4, 19, ())
    assert import_demo(sqlite_engine, settings).added == 0
    with db.reading(sqlite_engine) as session:
        assert session.scalars(sa.select(Dataset.synthetic)).one()
        tied = session.scalars(
            sa.select(Subject.name).where(
                Subject.leak_group_id.in_(
                    sa.select(Subject.leak_group_id)
                    .group_by(Subject.leak_group_id)
                    .having(sa.func.count() > 1)
                )
            )
        ).all()
    assert sorted(tied) == ["3", "7"]


def test_real_cells_never_join_the_synthetic_ones(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    settings = current_settings()
    put(tmp_path / "real" / "all" / "x.png", 1)
    put(tmp_path / "real" / "hem" / "y.png", 2)
    import_cells(sqlite_engine, settings, tmp_path / "real", dataset="drawn", synthetic=True)
    with pytest.raises(UserError, match="holds synthetic cells and these are real"):
        import_cells(sqlite_engine, settings, tmp_path / "real", dataset="drawn")
    with db.reading(sqlite_engine) as session:
        counts = [session.scalar(sa.select(sa.func.count(t.id))) for t in (Cell, CellFile, LeakGroup)]
    assert counts == [2, 2, 0]


def test_a_cell_is_the_same_each_time_and_blasts_are_larger_but_overlap() -> None:
    def cell(seed: int, blast: bool) -> Image.Image:
        random = np.random.default_rng(seed)
        return draw_cell(random, subject_stain(random), blast=blast)

    assert cell(1, True).tobytes() == cell(1, True).tobytes()
    blasts = [foreground(cell(seed, True)).sum() for seed in range(15)]
    normals = [foreground(cell(seed + 100, False)).sum() for seed in range(15)]
    assert np.mean(blasts) > 1.15 * np.mean(normals)
    assert min(blasts) < max(normals)


def test_the_list_of_cells_is_fixed() -> None:
    assert demo_cells() == demo_cells()
    assert len({cell.path for cell in demo_cells()}) == 320
