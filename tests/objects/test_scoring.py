"""`evaluate` and `predict` of images in object storage say what they say of the same images on a disk."""

from pathlib import Path

import pytest

from tests.cli.commands import refused, succeed

# A run whose model was saved without being trained, and its cells.
from tests.cli.conftest import few, run_with_model, saved_model  # noqa: F401
from tests.objects.conftest import Bucket


def test_predict_says_the_same_of_objects(run_with_model: int, few: Path, bucket: Bucket) -> None:  # noqa: F811
    files = sorted(few.rglob("*.bmp"))[:3]
    addresses = [bucket.put(path.name, path.read_bytes()) for path in files]
    bad = bucket.put("bad.bmp", b"hello")
    on_disk = succeed("predict", run_with_model, *files)
    found = succeed("predict", run_with_model, *addresses, bad)
    assert [entry["path"] for entry in found] == [*addresses, bad]
    assert "error" in found.pop()
    for entry, same in zip(found, on_disk, strict=True):
        assert entry["probabilities"] == pytest.approx(same["probabilities"], abs=1e-6)
    assert "no file at" in refused("predict", run_with_model, f"{bucket.address}/gone.bmp")


def test_evaluate_scores_a_bucket_as_the_folder(run_with_model: int, few: Path, bucket: Bucket) -> None:  # noqa: F811
    address = bucket.put_folder(few, "cells")
    labels = bucket.put("labels.csv", b"path,label,subject\n" + b"".join(_lines(few)))
    on_disk = succeed("evaluate", run_with_model, few)
    found = succeed("evaluate", run_with_model, address)
    assert (found["n"], found["rejected"]) == (24, [])
    assert found["confusion"] == on_disk["confusion"]
    assert found["known_cells"] == on_disk["known_cells"]
    assert found["per_subject"] == on_disk["per_subject"]
    listed = succeed("evaluate", run_with_model, address, "--labels", labels)
    assert listed["confusion"] == on_disk["confusion"]
    assert set(listed["per_subject"]) == {"EVERYBODY"}
    assert "gone" in refused("evaluate", run_with_model, f"{bucket.address}/gone")


def _lines(folder: Path) -> list[bytes]:
    """Each cell with its own label, and one subject for all."""
    files = sorted(folder.rglob("*.bmp"))
    return [
        f"{path.relative_to(folder).as_posix()},{path.parent.name},everybody\n".encode() for path in files
    ]
