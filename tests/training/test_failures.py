"""Every failure ends in a sentence that says what to do; on a full disk nothing half written stays."""

import errno
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from allreview.errors import UserError
from allreview.training import checkpoints
from allreview.training.checkpoints import back_up, keep_best, kept_epoch, restore_backup
from allreview.training.epochs import EpochRow
from allreview.training.failures import DISK_FULL, OUT_OF_MEMORY, sentence
from allreview.training.feature_store import FeatureFolder

ROW = EpochRow(1, 1.0, 0.5, 1.0, 0.5, 1.0, 0.001, 0.1)


def wrapped(inner: Exception, *, silent: bool = False) -> Exception:
    """The error as a library passes it on: behind one of its own."""
    try:
        try:
            raise inner
        except Exception as error:
            raise RuntimeError("could not save") from (None if silent else error)
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("Do this."), "Do this."),
        (wrapped(UserError("Do this.")), "Do this."),
        (OSError(errno.ENOSPC, "No space left on device"), DISK_FULL),
        (wrapped(OSError(errno.ENOSPC, "No space left on device")), DISK_FULL),
        (OSError("Can't write data (file write failed: errno = 28, error message = '...')"), DISK_FULL),
        (OSError("262144 requested and 1024 written"), DISK_FULL),
        (tf.errors.ResourceExhaustedError(None, None, "/x/events; No space left on device"), DISK_FULL),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), OUT_OF_MEMORY),
        (MemoryError(), OUT_OF_MEMORY),
        (wrapped(MemoryError()), OUT_OF_MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OUT_OF_MEMORY),
        (tf.errors.InternalError(None, None, "Failed to allocate 8 GiB"), OUT_OF_MEMORY),
    ],
)
def test_failures_people_can_do_something_about(error, expected):
    assert sentence(error) == expected


def test_anything_else_is_named_and_the_log_pointed_at():
    assert sentence(ValueError("odd\nsecond line")) == (
        "Something unexpected went wrong (ValueError: odd). See logs/worker.log."
    )
    hidden = wrapped(MemoryError(), silent=True)
    assert sentence(hidden).startswith("Something unexpected")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"only root can make a small disk: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def model(units: int) -> keras.Model:
    inputs = keras.layers.Input((100,))
    found = keras.Model(inputs, keras.layers.Dense(units)(inputs))
    found.compile("adam", "mse")
    found.optimizer.build(found.trainable_variables)
    return found


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # HDF5 cannot close its file
def test_a_full_disk_leaves_the_last_backup_whole_and_nothing_half_written(small_disk):
    fits, too_large = model(100), model(1000)
    keep_best(fits, small_disk, ROW)
    back_up(fits, small_disk, [ROW])
    writer = FeatureFolder(small_disk, {}).writer(300_000)
    before, room = sorted(small_disk.rglob("*")), shutil.disk_usage(small_disk).free
    for write in (
        lambda: keep_best(too_large, small_disk, ROW),
        lambda: back_up(too_large, small_disk, [ROW]),
        lambda: writer.add(["a" * 64], np.zeros((1, 300_000), dtype=np.float32)),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - which words is the next line's matter
            write()
        assert sentence(caught.value) == DISK_FULL, repr(caught.value)
        assert sorted(small_disk.rglob("*")) == before
        assert shutil.disk_usage(small_disk).free >= room - 8192
    assert kept_epoch(small_disk) == ROW
    assert restore_backup(model(100), small_disk) == [ROW]


def test_a_backup_of_an_older_version_is_not_resumed(tmp_path):
    """It lacks the history: the fit begins anew rather than with a hole in it."""
    older = model(3)
    path = tmp_path / checkpoints.BACKUP_FOLDER / checkpoints.BACKUP_FILE
    path.parent.mkdir()
    older.save_weights(path)
    assert restore_backup(model(3), tmp_path) == []
