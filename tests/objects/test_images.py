"""Cells in object storage: imported, shown and checked like those on a disk, and what is said where that fails."""

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from PIL import Image

import db
from allreview.cells.decoding import read_bytes, read_rgb
from allreview.cells.importing import ImportReport, import_cells
from allreview.cells.thumbnails import thumbnail
from allreview.errors import UserError
from allreview.places import cell_file, place
from allreview.recipe import Recipe
from allreview.settings import current_settings
from allreview.training.views import CellImage
from db.tables import Cell, CellFile, Subject
from tests.cells.pictures import put
from tests.cli.commands import command
from tests.objects.conftest import Bucket, reach

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight pictures in the C-NMC layout, two of them alike, and what does not belong there."""
    root = tmp_path / "C-NMC"
    for number, subject in enumerate(("1", "2", "3", "4")):
        put(root / "fold_0" / "all" / f"UID_{subject}_1_1_all.bmp", number)
        put(root / "fold_1" / "hem" / f"UID_H{subject}_1_1_hem.bmp", max(number, 1) + 10)
    (root / "fold_0" / "all" / ".DS_Store").write_bytes(b"x")
    (root / "fold_0" / "notes.txt").write_text("x")
    (root / "fold_0" / "all" / "UID_5_1_1_all.bmp").write_bytes(b"")
    return root


def imported(source: str, **named: object) -> ImportReport:
    from allreview.store import open_store

    return import_cells(open_store(), current_settings(), place(source), **named)  # type: ignore[arg-type]


def stored(engine: sa.Engine, dataset_id: int) -> set[tuple[str, str, str, str | None]]:
    """(hash, label, subject, fold) of each cell."""
    query = (
        sa.select(Cell.sha256, Cell.source_label, Subject.name, Cell.fold)
        .join(Subject, Subject.id == Cell.subject_id)
        .where(Cell.dataset_id == dataset_id)
    )
    with db.reading(engine) as session:
        return {tuple(row) for row in session.execute(query)}


def test_a_folder_is_imported_as_it_would_be_from_a_disk(sqlite_engine, bucket: Bucket, folder: Path) -> None:
    address = bucket.put_folder(folder, "cells/C-NMC")
    bucket.put("cells/C-NMC/fold_1/", b"")  # as some tools mark a folder
    there, here = imported(address), imported(str(folder), dataset="here")
    assert there.dataset == "C-NMC"
    assert there.as_dict() | {"dataset": "", "dataset_id": 0} == here.as_dict() | {
        "dataset": "",
        "dataset_id": 0,
    }
    assert (there.cells, there.duplicates, there.leak_groups, len(there.rejected)) == (7, 1, 7, 2)
    assert stored(sqlite_engine, there.dataset_id) == stored(sqlite_engine, here.dataset_id)
    assert imported(address).added == 0


def test_pixels_thumbnails_and_checks_read_the_object(sqlite_engine, bucket: Bucket, folder: Path) -> None:
    address = bucket.put_folder(folder, "C-NMC")
    imported(address)
    with db.reading(sqlite_engine) as session:
        rows = session.execute(sa.select(CellFile.path, Cell.sha256).join(Cell)).all()
    assert all(path.startswith(address) for path, _ in rows)
    for path, sha256 in rows:
        original = folder / path.removeprefix(address + "/")
        assert read_rgb(cell_file(path), 10**6).tobytes() == Image.open(original).convert("RGB").tobytes()
        assert hashlib.sha256(read_bytes(cell_file(path))).hexdigest() == sha256
    path, sha256 = rows[0]
    settings = current_settings()
    made = thumbnail(settings, sha256, path)
    shutil.rmtree(settings.thumbnails)
    assert thumbnail(settings, sha256, path) == made
    assert "Everything is in order" in command("check", "--deep").stdout


@pytest.mark.parametrize("where", ["inside", "on this machine"])
def test_a_csv_names_objects_below_the_folder(
    sqlite_engine, bucket: Bucket, folder: Path, tmp_path: Path, where: str
) -> None:
    address = bucket.put_folder(folder, "C-NMC")
    rows = ["path,label,subject", "fold_0/all/UID_1_1_1_all.bmp,hem,P1"]
    rows += [f"{address}/fold_0/all/UID_2_1_1_all.bmp,,", "fold_0/all/none.bmp,all,P3"]
    text = "\n".join(rows).encode()
    if where == "inside":
        bucket.put("C-NMC/labels.csv", text)
        labels = place(f"{address}/labels.csv")
    else:
        labels = tmp_path / "labels.csv"
        labels.write_bytes(text)
    report = imported(address, labels=labels)
    assert [entry.path for entry in report.rejected] == ["fold_0/all/none.bmp"]
    assert {row[1:3] for row in stored(sqlite_engine, report.dataset_id)} == {("hem", "P1"), ("all", "2")}


def test_a_zip_is_fetched_and_unpacked(sqlite_engine, bucket: Bucket, folder: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
    report = imported(bucket.put("in/packed.zip", archive.read_bytes()))
    assert (report.dataset, report.cells) == ("packed", 7)
    assert not list(current_settings().uploads.glob(".fetching-*"))


def test_the_command_reads_object_storage(sqlite_engine, bucket: Bucket, folder: Path) -> None:
    address = bucket.put_folder(folder, "C-NMC")
    assert "7 new cells" in command("import", address).stdout
    bucket.remove("C-NMC/fold_0/all/UID_1_1_1_all.bmp")
    bucket.put("C-NMC/fold_0/all/UID_2_1_1_all.bmp", (folder / "fold_0/all/UID_3_1_1_all.bmp").read_bytes())
    said = command("check", "--deep").stdout
    assert "the file is gone" in said
    assert "the file has changed since it was imported" in said


def test_names_that_mean_something_elsewhere(sqlite_engine, bucket: Bucket, folder: Path) -> None:
    data = (folder / "fold_0/all/UID_1_1_1_all.bmp").read_bytes()
    for name in ("a b.bmp", "what?.bmp", "no#1.bmp", "100%20.bmp", "ü.bmp", "/double.bmp"):
        address = bucket.put(f"odd/all/{name}", data)
        assert read_bytes(cell_file(address)) == data
    assert imported(f"{bucket.address}/odd").rejected == ()


def test_an_object_that_was_replaced_is_not_trained_on(bucket: Bucket, folder: Path) -> None:
    from allreview.training.features import read_cell

    first, second = (folder / "fold_0/all" / f"UID_{number}_1_1_all.bmp" for number in (1, 2))
    address = bucket.put("cells/a.bmp", first.read_bytes())
    cell = CellImage(hashlib.sha256(first.read_bytes()).hexdigest(), cell_file(address))
    recipe = Recipe(image_size=32)
    assert read_cell(cell, recipe, 10**6).shape == (32, 32, 3)
    bucket.put("cells/a.bmp", second.read_bytes())
    with pytest.raises(
        UserError, match=rf"^'{address}' cannot be used: it has changed since it was imported"
    ):
        read_cell(cell, recipe, 10**6)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("s3://no-such-bucket-here/cells", "there is no bucket 'no-such-bucket-here'"),
        ("{bucket}/nothing", "There is no folder or zip at {bucket}/nothing."),
        ("gs://bucket/cells", "of object storage only s3://bucket/folder is."),
    ],
)
def test_what_is_not_there_is_said(sqlite_engine, bucket: Bucket, source: str, said: str) -> None:
    result = command("import", source.format(bucket=bucket.address))
    assert result.exit_code == 2
    assert said.format(bucket=bucket.address) in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_nobody_answers(sqlite_engine, bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = bucket.put_folder(folder, "C-NMC")
    imported(address)
    reach(monkeypatch, NOBODY)
    with pytest.raises(UserError, match=r"cannot be reached at http://127\.0\.0\.1:9") as raised:
        imported(address)
    assert str(raised.value).count(". ") == 0
    began = time.monotonic()
    for _ in range(48):  # a page of cells waits for one answer, not for 48
        with pytest.raises(UserError, match="cannot be reached"):
            read_bytes(cell_file(f"{address}/fold_0/all/UID_1_1_1_all.bmp"))
    assert time.monotonic() - began < 10


def test_no_credentials(
    sqlite_engine, bucket: Bucket, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(monkeypatch, s3_server, key=None)
    with pytest.raises(UserError, match=r"no credentials .* set AWS_ACCESS_KEY_ID"):
        imported(f"{bucket.address}/cells")


def test_the_packages_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match="without the packages universal-pathlib and s3fs"):
        place("s3://bucket/cells")
    with pytest.raises(UserError, match="without the packages"):
        read_bytes(cell_file("s3://bucket/cell.bmp"))


def test_a_disk_is_read_without_the_packages_of_object_storage(tmp_path: Path) -> None:
    code = (
        "import sys; from allreview.cells.decoding import read_bytes; from allreview.places import cell_file; "
        "import allreview.artefacts, allreview.cells.importing; read_bytes(cell_file(sys.argv[1])); "
        "print([name for name in ('fsspec', 's3fs', 'upath', 'aiobotocore') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, put(tmp_path / "a.bmp", 1)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
