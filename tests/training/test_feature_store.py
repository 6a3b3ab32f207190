"""Features on disk: whole under kills, damage, two writers, and somebody who removes them meanwhile."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from allreview.training.feature_store import FORMAT, FeatureFolder, remove, stored, sweep

ROOT = Path(__file__).parents[2]
WIDTH = 50
KEY = {"format": FORMAT, "backbone": "mobilenet_v2"}


def hashes(start: int, end: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(start, end)]


def rows(start: int, end: int) -> np.ndarray:
    """What is stored for these cells: as many random numbers as the width, by the cell's number."""
    return np.stack(
        [np.random.default_rng(number).random(WIDTH, dtype=np.float32) for number in range(start, end)]
    )


def add(folder: FeatureFolder, start: int, end: int) -> None:
    writer = folder.writer(WIDTH)
    writer.add(hashes(start, end), rows(start, end))
    writer.close()


def read(folder: FeatureFolder, wanted: list[str]) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.full((len(wanted), WIDTH), -1, dtype=np.float32)
    return folder.read(wanted, vectors), vectors


@pytest.fixture
def folder(tmp_path: Path) -> FeatureFolder:
    return FeatureFolder(tmp_path, KEY)


def test_what_was_added_is_found_in_the_order_asked_for(folder):
    assert not read(folder, hashes(0, 3))[0].any()
    assert not folder.path.exists()
    assert folder.width is None
    add(folder, 0, 2000)
    add(folder, 2000, 3000)
    assert folder.width == WIDTH
    assert len(list(folder.path.glob("*.keys"))) == 1  # the second writer went on where the first one ended
    wanted = [*hashes(2995, 3005), *hashes(0, 5), *hashes(1000, 1003)]
    found, vectors = read(folder, wanted)
    np.testing.assert_array_equal(found, [True] * 5 + [False] * 5 + [True] * 8)
    np.testing.assert_array_equal(
        vectors[found], np.concatenate([rows(2995, 3000), rows(0, 5), rows(1000, 1003)])
    )
    np.testing.assert_array_equal(vectors[~found], -1)
    np.testing.assert_array_equal(folder.known(wanted), found)


def test_another_key_has_another_folder(folder, tmp_path):
    add(folder, 0, 3)
    assert not FeatureFolder(tmp_path, {**KEY, "precision": "bfloat16"}).known(hashes(0, 3)).any()
    (entry,) = stored(tmp_path)
    assert (entry.key, entry.cells, entry.is_current) == (KEY, 3, True)
    assert entry.size_bytes > 3 * WIDTH * 4


def test_what_is_not_finite_is_not_kept(folder):
    writer, vectors = folder.writer(WIDTH), rows(0, 3)
    vectors[1, 7] = np.nan
    writer.add(hashes(0, 3), vectors)
    writer.close()
    np.testing.assert_array_equal(read(folder, hashes(0, 3))[0], [True, False, True])


def test_a_row_that_was_added_again_replaces_the_first(folder):
    add(folder, 0, 3)
    writer = folder.writer(WIDTH)
    writer.add(hashes(1, 2), rows(9, 10))
    writer.close()
    found, vectors = read(folder, hashes(0, 3))
    assert found.all()
    np.testing.assert_array_equal(vectors, np.concatenate([rows(0, 1), rows(9, 10), rows(2, 3)]))


@pytest.mark.parametrize(
    ("ending", "lost"), [(".vectors", 1), (".vectors", 4 * WIDTH * 3 + 1), (".keys", 1), (".keys", 100)]
)
def test_a_file_that_was_cut_short_loses_its_end_only(folder, ending, lost):
    add(folder, 0, 10)
    (path,) = folder.path.glob(f"*{ending}")
    os.truncate(path, path.stat().st_size - lost)
    size = 36 if ending == ".keys" else 4 * WIDTH
    left = 10 - -(-lost // size)
    found, vectors = read(folder, hashes(0, 10))
    np.testing.assert_array_equal(found, np.arange(10) < left)
    np.testing.assert_array_equal(vectors[found], rows(0, left))
    add(folder, left, 12)
    found, vectors = read(folder, hashes(0, 12))
    assert found.all()
    np.testing.assert_array_equal(vectors, rows(0, 12))


def test_every_damaged_byte_costs_its_row_and_no_other(folder):
    add(folder, 0, 10)
    for ending, size in ((".vectors", 4 * WIDTH), (".keys", 36)):
        (path,) = folder.path.glob(f"*{ending}")
        whole = path.read_bytes()
        for place in range(0, len(whole), 7):
            damaged = bytearray(whole)
            damaged[place] ^= 0x10
            path.write_bytes(damaged)
            found, vectors = read(folder, hashes(0, 10))
            np.testing.assert_array_equal(found, np.arange(10) != place // size)
            np.testing.assert_array_equal(vectors[found], rows(0, 10)[found])
        path.write_bytes(whole)


@pytest.mark.parametrize("junk", [b"", b"nothing of ours" * 40])
def test_files_that_are_no_segments_are_passed_over(folder, junk):
    add(folder, 0, 3)
    (folder.path / f"junk.{WIDTH}.keys").write_bytes(junk)
    (folder.path / f"junk.{WIDTH}.vectors").write_bytes(junk)
    (folder.path / "junk.keys").write_bytes(junk)
    (folder.path / "junk.word.keys").write_bytes(junk)
    assert read(folder, hashes(0, 3))[0].all()
    add(folder, 3, 5)
    assert read(folder, hashes(0, 5))[0].all()


def test_chunks_of_the_former_format_are_not_read(folder):
    folder.path.mkdir()
    np.save(folder.path / "a.npy", rows(0, 3))
    np.save(folder.path / "a.sha256.npy", np.array(hashes(0, 3), dtype="S64"))
    assert not read(folder, hashes(0, 3))[0].any()


WRITE = """
import sys
from pathlib import Path
from allreview.training.feature_store import FeatureFolder
from tests.training.test_feature_store import KEY, WIDTH, hashes, rows
writer = FeatureFolder(Path(sys.argv[1]), KEY).writer(WIDTH)
print("ready", flush=True)
sys.stdin.readline()
for start in range(0, int(sys.argv[2]), 20):
    writer.add(hashes(start, start + 20), rows(start, start + 20))
print("done", flush=True)
"""


def writing(root: Path, number: int) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(root), str(number)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_writers_at_once_lose_nothing_and_mix_nothing(folder, tmp_path):
    processes = [writing(tmp_path, 3000) for _ in range(2)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    while any(process.poll() is None for process in processes):
        found, vectors = read(folder, hashes(0, 3000))
        np.testing.assert_array_equal(vectors[found], rows(0, 3000)[found])
    assert [process.wait() for process in processes] == [0, 0]
    found, vectors = read(folder, hashes(0, 3000))
    assert found.all()
    np.testing.assert_array_equal(vectors, rows(0, 3000))
    assert len(list(folder.path.glob("*.keys"))) == 2


def test_a_writer_that_is_killed_leaves_whole_rows_and_the_next_one_goes_on(folder, tmp_path):
    kept = 0
    for patience in (0.0, 0.002, 0.01, 0.05):
        process = writing(tmp_path, 10**6)
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(patience)
        process.send_signal(signal.SIGKILL)
        process.wait()
        found, vectors = read(folder, hashes(0, 20_000))
        assert found.sum() >= kept
        kept = int(found.sum())
        np.testing.assert_array_equal(vectors[:kept], rows(0, kept) if kept else vectors[:0])
    assert kept
    assert len(list(folder.path.glob("*.keys"))) == 1


def test_what_somebody_writes_to_is_not_removed(folder, tmp_path):
    writer = folder.writer(WIDTH)
    writer.add(hashes(0, 3), rows(0, 3))
    assert not remove(folder.path)
    assert read(folder, hashes(0, 3))[0].all()
    writer.close()
    assert remove(folder.path)
    assert list(tmp_path.iterdir()) == []
    assert remove(folder.path)  # it is gone


def test_a_removal_that_was_cut_off_is_swept_up(folder, tmp_path):
    add(folder, 0, 3)
    folder.path.rename(tmp_path / "0.removed")
    assert stored(tmp_path) == []
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_readable_key_is_not_current(folder, tmp_path):
    add(folder, 0, 3)
    for text in ("", "[1]", json.dumps({**KEY, "format": 1})):
        (folder.path / "key.json").write_text(text)
        (entry,) = stored(tmp_path)
        assert not entry.is_current
