"""Runs and features that machines share through object storage; each machine here is a home folder of its own."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview import artefacts
from allreview.errors import UserError
from allreview.review import rankings
from allreview.review.saliency import overlays
from allreview.settings import Settings, current_settings
from allreview.training import worker, workflows
from allreview.training.feature_sharing import obtain_features, share_features
from allreview.training.feature_store import FeatureFolder
from db.tables import Run
from tests.factory import finished_run, small_store
from tests.objects.conftest import Bucket, reach

KEY = {"backbone": "none"}
HASHES = [hashlib.sha256(bytes([number])).hexdigest() for number in range(8)]
NOBODY = "http://127.0.0.1:9"

Machine = Callable[[str], Settings]


@pytest.fixture(params=["s3", "folder"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that all machines see."""
    if request.param == "folder":
        return str(tmp_path / "shared")
    return f"{request.getfixturevalue('bucket').address}/allreview"


@pytest.fixture
def machine(tmp_path: Path, shared: str) -> Machine:
    """The settings of a machine by its name."""
    return lambda name: Settings(home=tmp_path / name, artefacts=shared)


def small_run(settings: Settings, run_id: int = 7) -> Path:
    folder = settings.run_folder(run_id)
    for name, text in {
        "model.keras": "the model",
        "model.json": "{}",
        "figures/roc.html": "<html>",
        "saliency/gradcam/ab.png": "heat",
        "backup/latest.weights.h5": "cut off",
        ".half.part": "ha",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_another_machine_gets_what_it_asks_for_and_only_that(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    folder = small_run(here)
    assert artefacts.mirror(here, 7) is None
    names = ["model.keras", "saliency/gradcam/ab.png", "map.npz"]
    assert artefacts.available(there, 7, names) == names[:2]
    assert not there.run_folder(7).exists()
    artefacts.obtain(there, 7, names[1:])
    assert files(there.run_folder(7)) == {"saliency/gradcam/ab.png": b"heat"}
    artefacts.obtain_folder(there, 7)
    kept = {name: data for name, data in files(folder).items() if not name.startswith(("backup", "."))}
    assert files(there.run_folder(7)) == kept
    assert len(kept) == 4


def test_what_is_added_or_changed_is_copied_and_nothing_else(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = machine("here"), machine("there")
    folder = small_run(here)
    artefacts.mirror(here, 7)
    artefacts.obtain_folder(there, 7)
    copied: list[str] = []
    upload = artefacts.upload
    monkeypatch.setattr(artefacts, "upload", lambda file, to: (copied.append(file.name), upload(file, to)))
    artefacts.mirror(here, 7)
    artefacts.mirror(there, 7)
    assert copied == []
    (folder / "map.npz").write_bytes(b"map")
    path = folder / "figures/roc.html"
    path.write_text("<HTML>")
    os.utime(path, (path.stat().st_mtime + 60,) * 2)
    artefacts.mirror(here, 7)
    assert sorted(copied) == ["map.npz", "roc.html"]


def test_a_page_that_waits_sees_a_heat_map_of_another_machine(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    assert overlays.missing(there, 7, "gradcam", ["ab"]) == ["ab"]
    overlays.save_heatmap(here, 7, "gradcam", "ab", np.ones((4, 4)))
    artefacts.mirror(here, 7)
    artefacts._listings.clear()  # what a second does
    assert overlays.missing(there, 7, "gradcam", ["ab", "cd"]) == ["cd"]
    heat = overlays.load_heatmap(there, 7, "gradcam", "ab")
    assert heat is not None
    assert heat.min() == 1


def test_rankings_are_read_from_another_machine(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    drawn = rankings.CellMap(HASHES, np.zeros((8, 2), dtype=np.float32))
    rankings.save(here.run_folder(7) / rankings.MAP, drawn)
    artefacts.mirror(here, 7)
    found = rankings.cell_map(there, 7)
    assert found is not None
    assert found.sha256 == HASHES


def test_what_could_not_be_copied_is_copied_later(
    bucket: Bucket, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Settings(home=tmp_path / "here", artefacts=bucket.address)
    small_run(here)
    reach(monkeypatch, NOBODY)
    assert "cannot be reached" in (artefacts.mirror(here, 7) or "")
    assert artefacts.mirror_left(here) == []
    reach(monkeypatch, s3_server)
    assert artefacts.mirror_left(here) == [7]
    assert "runs/7/model.keras" in bucket.listed()
    assert artefacts.mirror_left(here) == []


def test_storage_that_does_not_answer_is_a_sentence_and_is_asked_once(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Settings(home=tmp_path / "there", artefacts=bucket.address)
    reach(monkeypatch, NOBODY)
    asked: list[object] = []
    files_in = artefacts.files_in
    monkeypatch.setattr(artefacts, "files_in", lambda folder: (asked.append(folder), files_in(folder))[1])
    with pytest.raises(
        UserError, match=r"Nothing can be had from s3://\S+: the object storage cannot be reached"
    ):
        artefacts.obtain(there, 7, ["model.keras"])
    assert artefacts.available(there, 7, ["model.keras"]) == []
    assert rankings.neighbours(there, 7) is None or len(asked) == 1
    assert len(asked) == 1


def stored(settings: Settings, hashes: list[str]) -> np.ndarray:
    folder = FeatureFolder(settings.features, KEY)
    rows = np.array([[HASHES.index(sha256)] * 5 for sha256 in hashes], dtype=np.float32)
    writer = folder.writer(5)
    writer.add(hashes, rows)
    writer.close()
    return rows


def test_features_are_shared_and_closed_segments_never_grow(machine: Machine) -> None:
    here, there = machine("here"), machine("there")
    mine, theirs = FeatureFolder(here.features, KEY), FeatureFolder(there.features, KEY)
    stored(here, HASHES[:4])
    share_features(here, [mine.path])
    closed = files(mine.path)
    assert obtain_features(there, [theirs.path])
    assert not obtain_features(there, [theirs.path])
    found = np.zeros((8, 5), dtype=np.float32)
    assert theirs.read(HASHES, found).tolist() == [True] * 4 + [False] * 4
    stored(there, HASHES[4:])
    stored(here, HASHES[2:5])
    for settings, folder in ((there, theirs), (here, mine)):
        share_features(settings, [folder.path])
        assert closed.items() <= files(folder.path).items()
    assert obtain_features(here, [mine.path])
    assert mine.read(HASHES, found).all()
    assert found[:, 0].tolist() == list(range(8))
    assert len({path.name for path in mine.path.glob("*.keys")}) == 3


def test_a_damaged_copy_is_passed_over(bucket: Bucket, tmp_path: Path) -> None:
    here = Settings(home=tmp_path / "here", artefacts=bucket.address)
    there = Settings(home=tmp_path / "there", artefacts=bucket.address)
    mine, theirs = FeatureFolder(here.features, KEY), FeatureFolder(there.features, KEY)
    stored(here, HASHES[:4])
    share_features(here, [mine.path])
    key = next(key for key in bucket.listed() if key.endswith(".vectors"))
    data = bytearray(next(mine.path.glob("*.vectors")).read_bytes())
    data[25] ^= 1
    bucket.put(key, bytes(data))
    obtain_features(there, [theirs.path])
    assert theirs.read(HASHES[:4], np.zeros((4, 5), dtype=np.float32)).tolist() == [True, False, True, True]


def test_without_the_setting_segments_stay_open(tmp_path: Path) -> None:
    alone = Settings(home=tmp_path / "alone")
    stored(alone, HASHES[:2])
    folder = FeatureFolder(alone.features, KEY).path
    before = files(folder)
    share_features(alone, [folder])
    assert files(folder) == before
    assert artefacts.mirror(alone, 7) is None


def test_a_run_whose_files_are_not_copied_says_so_until_they_are(
    sqlite_engine: sa.Engine, bucket: Bucket, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLREVIEW_ARTEFACTS", bucket.address)
    store = small_store(sqlite_engine)
    run_id = finished_run(sqlite_engine, store, dict.fromkeys(store.cells["1"], ("all", 0.9)))
    small_run(current_settings(), run_id)
    reach(monkeypatch, NOBODY)
    workflows.keep_step(run_id)
    with db.reading(sqlite_engine) as session:
        message = session.get_one(Run, run_id).message
    assert message is not None
    assert "not at ALLREVIEW_ARTEFACTS yet; the worker tries again" in message
    reach(monkeypatch, s3_server)
    worker._note_copied(sqlite_engine, artefacts.mirror_left(current_settings()))
    with db.reading(sqlite_engine) as session:
        assert session.get_one(Run, run_id).message is None
