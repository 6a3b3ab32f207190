"""Zips: what is safe goes in, the rest is named, and nothing is ever written outside."""

import io
import os
import zipfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from allreview.cells import archives
from allreview.cells.archives import unpack
from allreview.cells.importing import import_cells
from allreview.errors import UserError
from allreview.settings import Settings, current_settings
from tests.cells.pictures import picture


@pytest.fixture
def settings(home: Path) -> Settings:
    return current_settings()


def bmp(number: int) -> bytes:
    buffer = io.BytesIO()
    picture(number).save(buffer, "BMP")
    return buffer.getvalue()


def zipped(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def test_a_wrapped_cnmc_zip_imports_and_repeats(
    sqlite_engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    path = zipped(
        tmp_path / "C-NMC.zip",
        {
            "data/fold_0/all/UID_1_1_1_all.bmp": bmp(1),
            "data/fold_0/hem/UID_H2_1_1_hem.bmp": bmp(2),
            "data/.DS_Store": b"x",
            "__MACOSX/data/fold_0/all/._UID_1_1_1_all.bmp": b"x",
            "data/README.txt": b"hello",
            "../escape.bmp": bmp(3),
        },
    )
    seen: list[tuple[int, int, str]] = []
    first = import_cells(sqlite_engine, settings, path, progress=lambda *at: seen.append(at))
    assert (first.dataset, first.cells, first.subjects, first.classes) == (
        "C-NMC",
        2,
        2,
        {"all": 1, "hem": 1},
    )
    assert [entry.path for entry in first.rejected] == ["../escape.bmp", "data/README.txt"]
    assert (2, 2, "Unpacking the zip") in seen
    assert seen[-1] == (4, 4, "Writing to the store")
    second = import_cells(sqlite_engine, settings, path)
    assert second.as_dict() == first.as_dict() | {"added": 0}
    assert len(list(settings.uploads.iterdir())) == 1
    assert not list(tmp_path.rglob("escape.bmp"))


@pytest.mark.parametrize(
    "name",
    [
        "../x.bmp",
        "a/../../x.bmp",
        "/etc/x.bmp",
        "C:/x.bmp",
        "C:\\x.bmp",
        "..\\x.bmp",
        "a\\..\\..\\x.bmp",
        "\\\\h\\x.bmp",
    ],
)
def test_paths_that_lead_out_are_refused(settings: Settings, tmp_path: Path, name: str) -> None:
    unpacked = unpack(settings, zipped(tmp_path / "z.zip", {name: bmp(1), "all/good.bmp": bmp(2)}))
    assert [entry.reason for entry in unpacked.rejected] == ["its path leads out of the zip"]
    files = list(tmp_path.rglob("*.bmp"))
    assert files == [unpacked.folder / "all" / "good.bmp"]


def test_backslashes_are_folders(settings: Settings, tmp_path: Path) -> None:
    unpacked = unpack(settings, zipped(tmp_path / "z.zip", {"all\\x.bmp": bmp(1)}))
    assert (unpacked.folder / "all" / "x.bmp").read_bytes() == bmp(1)


def test_links_are_refused(settings: Settings, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("all/link.bmp")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    unpacked = unpack(settings, tmp_path / "z.zip")
    assert "link" in unpacked.rejected[0].reason
    assert not list(unpacked.folder.rglob("*.bmp"))


def test_encrypted_entries_are_named(settings: Settings, tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "z.zip", {"all/a.bmp": bmp(1)}).read_bytes())
    data[6] |= 1  # general purpose flag of the local header
    data[data.index(b"PK\x01\x02") + 8] |= 1  # and of the directory
    (tmp_path / "z.zip").write_bytes(data)
    assert "encrypted" in unpack(settings, tmp_path / "z.zip").rejected[0].reason


def test_a_damaged_entry_stays_out_and_the_rest_goes_in(settings: Settings, tmp_path: Path) -> None:
    path = zipped(tmp_path / "z.zip", {"all/a.bmp": bmp(1), "all/b.bmp": bmp(2)})
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    unpacked = unpack(settings, path)
    assert [entry.path for entry in unpacked.rejected] == ["all/a.bmp"]
    assert [found.name for found in unpacked.folder.rglob("*.bmp")] == ["b.bmp"]


def test_names_that_repeat_or_collide(settings: Settings, tmp_path: Path) -> None:
    entries = {
        "all/a.bmp": bmp(1),
        "all\\a.bmp": bmp(2),
        "all/a.bmp/b.bmp": bmp(3),
        f"{'n' * 300}.bmp": bmp(4),
    }
    unpacked = unpack(settings, zipped(tmp_path / "z.zip", entries))
    assert len(unpacked.rejected) == 3
    assert (unpacked.folder / "all" / "a.bmp").read_bytes() == bmp(1)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 not really", b"text"])
def test_not_a_zip(settings: Settings, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "z.zip").write_bytes(data)
    with pytest.raises(UserError, match="not a zip"):
        unpack(settings, tmp_path / "z.zip")
    assert not any(settings.uploads.iterdir())


def test_too_much_data_is_refused_before_it_is_written(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(tmp_path / "z.zip", {"all/a.bmp": bytes(2_000_000)})
    monkeypatch.setattr(archives, "RATIO_COUNTS_FROM", 1_000_000)
    with pytest.raises(UserError, match="-fold when unpacked"):
        unpack(settings, path)
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1_000_000)
    with pytest.raises(UserError, match="split it"):
        unpack(settings, path)
    assert not any(settings.uploads.iterdir())


def test_a_size_that_lies_is_caught(settings: Settings, tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "z.zip", {"all/a.bmp": bytes(500_000)}).read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[22:26] = data[directory + 24 : directory + 28] = (1000).to_bytes(4, "little")
    (tmp_path / "z.zip").write_bytes(data)
    unpacked = unpack(settings, tmp_path / "z.zip")
    assert [entry.path for entry in unpacked.rejected] == ["all/a.bmp"]
    assert sum(os.path.getsize(path) for path in unpacked.folder.rglob("*.bmp")) == 0
