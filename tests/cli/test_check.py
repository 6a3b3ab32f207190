"""`check` finds what was broken on purpose, and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import db
from allreview.settings import current_settings
from db.tables import Annotation, Cell, CellFile, Run, SnapshotCell, Subject
from tests.cli.commands import command, succeed
from tests.factory import finished_run, small_store


def check(*options: str) -> dict[str, Any]:
    result = command("check", "--json", *options)
    found = json.loads(result.stdout)
    assert result.exit_code == (0 if found["ok"] else 1)
    assert found["ok"] == (not found["problems"])
    return found


def _own_copy(few: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(few, tmp_path / "own"))


def test_an_empty_home_is_no_problem_and_stays_empty(home: Path) -> None:
    found = check()
    assert found["ok"]
    assert "no store yet" in found["warnings"][0]["what"]
    assert not home.exists()


def test_what_is_in_order_is_called_so(engine: sa.Engine, few: Path) -> None:
    succeed("import", few)
    found = check("--deep")
    assert (found["ok"], found["warnings"]) == (True, [])
    assert found["counts"]["cells"] == found["counts"]["files"] == 24
    assert "Everything is in order" in command("check").stdout


def test_missing_and_changed_images_and_thumbnails(
    sqlite_engine: sa.Engine, few: Path, tmp_path: Path
) -> None:
    own = _own_copy(few, tmp_path)
    succeed("import", own)
    gone, changed, *_ = sorted(own.rglob("*.bmp"))
    gone.unlink()
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x01")
    next(current_settings().thumbnails.rglob("*.webp")).unlink()
    shallow = check()
    assert [entry["where"] for entry in shallow["problems"]] == [str(gone)]
    assert [entry["what"] for entry in shallow["warnings"]] == ["1 cells have no thumbnail"]
    deep = check("--deep")
    assert {entry["where"]: entry["what"] for entry in deep["problems"]} == {
        str(gone): "the file is gone",
        str(changed): "the file has changed since it was imported",
    }


@pytest.fixture
def judged(run_with_model: int) -> int:
    assert check()["problems"] == []
    return run_with_model


def test_a_model_that_is_not_the_one_that_was_saved(judged: int) -> None:
    folder = current_settings().run_folder(judged)
    with open(folder / "model.keras", "ab") as file:
        file.write(b"x")
    assert [entry["where"] for entry in check()["problems"]] == [f"run {judged}"]
    (folder / "model.keras").unlink()
    assert "gone" in check()["problems"][0]["what"]
    (folder / "model.json").write_text("{")
    assert "damaged" in check()["problems"][0]["what"]


def test_a_run_nobody_works_on(sqlite_engine: sa.Engine, judged: int) -> None:
    with db.writing(sqlite_engine) as session:
        session.execute(sa.update(Run).values(state="running"))
    (problem,) = check()["problems"]
    assert "no worker is alive" in problem["what"]
    assert "allreview worker" in problem["advice"]


def test_a_gap_in_the_log_of_decisions(sqlite_engine: sa.Engine, judged: int) -> None:
    cell = 1
    for label in ("hem", "all"):
        succeed("label", cell, label, "--reviewer", "Ann")
    assert check()["ok"]
    with db.writing(sqlite_engine) as session:
        session.execute(sa.update(Annotation).where(Annotation.sequence == 2).values(sequence=3))
    assert [entry["where"] for entry in check()["problems"]] == [f"cell {cell}"]


def test_a_split_that_cuts_a_subject_and_one_that_was_cut_later(
    sqlite_engine: sa.Engine, judged: int
) -> None:
    with db.writing(sqlite_engine) as session:
        rows = session.execute(
            sa.select(Subject.id, Subject.leak_group_id, SnapshotCell.part, SnapshotCell.cell_id)
            .join(Cell, Cell.subject_id == Subject.id)
            .join(SnapshotCell, SnapshotCell.cell_id == Cell.id)
        ).all()
        group = next(row.leak_group_id for row in rows if row.part == "train")
        tested = next(row for row in rows if row.part == "test")
        session.execute(sa.update(Subject).where(Subject.id == tested.id).values(leak_group_id=group))
    later = check()
    assert later["ok"]
    assert "several parts" in later["warnings"][0]["what"]
    with db.writing(sqlite_engine) as session:
        session.execute(
            sa.update(SnapshotCell).where(SnapshotCell.cell_id == tested.cell_id).values(part="train")
        )
    (problem,) = check()["problems"]
    assert problem["where"] == f"run {judged}"
    assert "several parts" in problem["what"]


def test_rows_that_name_nothing(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    finished_run(sqlite_engine, store, {})
    raw = sqlite_engine.raw_connection()
    raw.cursor().execute("PRAGMA foreign_keys=OFF")
    raw.cursor().execute(f"delete from datasets where id = {store.dataset}")
    raw.driver_connection.commit()  # pyright: ignore[reportOptionalMemberAccess]
    raw.close()
    sqlite_engine.dispose()
    assert "table cells" in {entry["where"] for entry in check()["problems"]}


def test_a_store_that_is_no_database(home: Path, sqlite_engine: sa.Engine) -> None:
    sqlite_engine.dispose()
    for path in home.glob("allreview.sqlite*"):
        path.write_bytes(b"not a database at all" * 400)
    found = check()
    assert not found["ok"]
    assert found["problems"][0]["where"] == "the store"


def test_a_cell_without_a_file(sqlite_engine: sa.Engine, few: Path) -> None:
    succeed("import", few)
    with db.writing(sqlite_engine) as session:
        session.execute(sa.delete(CellFile).where(CellFile.cell_id == 1))
    assert [entry["where"] for entry in check()["problems"]] == ["cell 1"]
