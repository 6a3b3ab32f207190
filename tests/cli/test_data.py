"""`import` and `demo`."""

import json
import shutil
from pathlib import Path

import sqlalchemy as sa

from tests.cli.commands import command, process, refused, succeed


def test_import_counts_repeats_and_rejects(engine: sa.Engine, few: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cells"
    shutil.copytree(few, folder)
    (folder / "fold_0" / "all" / "broken.bmp").write_bytes(b"BM")
    report = succeed("import", folder, "--dataset", "C-NMC")
    assert report["cells"] == report["added"] == 24
    assert report["classes"] == {"all": 12, "hem": 12}
    assert report["subjects"] == 12
    assert [entry["path"] for entry in report["rejected"]] == ["fold_0/all/broken.bmp"]
    again = succeed("import", folder, "--dataset", "C-NMC")
    assert again["added"] == 0
    assert {**again, "added": 24} == report


def test_a_csv_decides_labels_and_subjects(sqlite_engine: sa.Engine, few: Path, tmp_path: Path) -> None:
    first, second = sorted((few / "fold_0" / "all").iterdir())[:2]
    table = tmp_path / "labels.csv"
    table.write_text(f"path,label,subject\n{first},blast,p1\n{second},lymphocyte,p2\n")
    report = succeed("import", few, "--dataset", "mine", "--labels", table)
    assert report["classes"] == {"blast": 1, "lymphocyte": 1}


def test_eight_classes_come_in_through_the_real_program(pbc: Path) -> None:
    done = process("import", pbc, "--dataset", "blood", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["cells"] == 480
    assert len(report["classes"]) == 8
    assert done.stderr == ""


def test_import_tells_people_what_came_in(sqlite_engine: sa.Engine, few: Path) -> None:
    told = command("import", few)
    assert told.exit_code == 0
    assert "24 new cells in dataset 'cells'." in told.stdout
    assert "12 ALL, 12 Normal (hem)" in told.stdout


def test_nothing_to_import_is_refused(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no images" in refused("import", tmp_path / "empty", "--json")


def test_the_demo_set_is_imported_as_synthetic(sqlite_engine: sa.Engine) -> None:
    report = succeed("demo")
    assert report["dataset"] == "Synthetic demo"
    assert report["subjects"] == 20
    assert report["leak_groups"] == 19
    assert succeed("demo")["added"] == 0
