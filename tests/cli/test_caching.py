"""`cache`: what lies there, which runs use it, and removing it."""

import os
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from allreview.recipe import Recipe, make_recipe
from allreview.settings import current_settings
from allreview.training.feature_store import FORMAT, FeatureFolder
from allreview.training.views import FLIPPED, ORIGINAL, SYMMETRIES, View
from tests.cli.commands import command, refused, succeed
from tests.factory import finished_run, small_store

RECIPE = make_recipe({"image_size": 64, "crop": 300})
DRAWS = make_recipe({"image_size": 96, "rotation": 90, "views": 2})
DAY = 86_400


def kept(recipe: Recipe, view: View, *, days: float = 0, **changes: object) -> FeatureFolder:
    """A key with two cells, last used so many days ago."""
    key = {
        "format": FORMAT,
        "backbone": recipe.backbone,
        "weights_sha256": "0" * 64,
        "image_size": recipe.image_size,
        "crop": recipe.crop,
        "pooling": recipe.pooling,
        "view": view.key(recipe),
        "engine": "openvino",
        "precision": "float32",
        **changes,
    }
    folder = FeatureFolder(current_settings().features, key)
    writer = folder.writer(4)
    writer.add(["a" * 64, "b" * 64], np.ones((2, 4), dtype=np.float32))
    writer.close()
    moment = (folder.path / "key.json").stat().st_mtime - days * DAY
    for path in (folder.path / "key.json", folder.path):
        os.utime(path, (moment, moment))
    return folder


@pytest.fixture
def runs(sqlite_engine: sa.Engine) -> tuple[int, int]:
    store = small_store(sqlite_engine)
    return finished_run(sqlite_engine, store, {}, recipe=RECIPE), finished_run(
        sqlite_engine, store, {}, recipe=DRAWS
    )


def test_each_key_is_shown_in_words_with_the_runs_that_use_it(runs):
    kept(RECIPE, ORIGINAL, days=1)
    kept(RECIPE, FLIPPED, days=2, precision="bfloat16")
    kept(RECIPE, SYMMETRIES[7], days=3, engine="tensorflow")
    kept(RECIPE, SYMMETRIES[1], days=4)
    kept(DRAWS, View("drawn", 1), days=5)
    kept(DRAWS, View("drawn", 2), days=6)
    kept(make_recipe({"backbone": "vgg16"}), ORIGINAL, days=7)
    shown = succeed("cache")
    assert [(key["features"], key["view"], key["engine"], key["runs"]) for key in shown["keys"]] == [
        ("MobileNetV2, 64 pixels of the centre 300", "as it is", "OpenVINO, float32", [runs[0]]),
        ("MobileNetV2, 64 pixels of the centre 300", "mirrored", "OpenVINO, bfloat16", [runs[0]]),
        ("MobileNetV2, 64 pixels of the centre 300", "mirrored, turned by 270°", "TensorFlow, float32", [runs[0]]),
        ("MobileNetV2, 64 pixels of the centre 300", "turned by 90°", "OpenVINO, float32", [runs[0]]),
        ("MobileNetV2, 96 pixels", "drawn version 2", "OpenVINO, float32", [runs[1]]),
        ("MobileNetV2, 96 pixels", "drawn version 3", "OpenVINO, float32", []),
        ("VGG16, 224 pixels", "as it is", "OpenVINO, float32", []),
    ]  # fmt: skip
    assert {key["cells"] for key in shown["keys"]} == {2}
    assert shown["bytes"] == sum(key["bytes"] for key in shown["keys"]) > 7 * 32
    told = command("cache")
    assert "mirrored, turned by 270°" in told.stdout
    assert "7 keys" in told.stdout


def test_pruning_removes_what_no_run_uses(runs):
    used = kept(RECIPE, ORIGINAL, days=100)
    unused, former = kept(make_recipe({"backbone": "vgg16"}), ORIGINAL), kept(RECIPE, ORIGINAL, format=1)
    busy = kept(RECIPE, ORIGINAL, weights_sha256="1" * 64, crop=200)
    writer = busy.writer(4)
    found = succeed("cache", "--prune")
    assert {key["key"] for key in found["removed"]} == {unused.path.name, former.path.name}
    assert [key["key"] for key in found["in_use"]] == [busy.path.name]
    assert {key["key"] for key in found["keys"]} == {used.path.name, busy.path.name}
    assert found["freed_bytes"] == sum(key["bytes"] for key in found["removed"])
    assert not unused.path.exists()
    writer.add(["c" * 64], np.ones((1, 4), dtype=np.float32))
    writer.close()
    assert busy.known(["a" * 64, "c" * 64]).all()


def test_pruning_by_age_and_altogether(runs):
    old, new = kept(RECIPE, ORIGINAL, days=31), kept(RECIPE, FLIPPED, days=29)
    shared = current_settings().features / "neighbourhoods"
    shared.mkdir()
    for name, days in (("old.npz", 31), ("new.npz", 29)):
        (shared / name).write_bytes(b"12345")
        moment = (shared / name).stat().st_mtime - days * DAY
        os.utime(shared / name, (moment, moment))
    found = succeed("cache", "--prune", "--older-than", 30)
    assert [key["key"] for key in found["removed"]] == [old.path.name]
    assert found["neighbourhoods"] == {"files": 1, "bytes": 5}
    found = succeed("cache", "--prune", "--all")
    assert [key["key"] for key in found["removed"]] == [new.path.name]
    assert (found["keys"], found["bytes"]) == ([], 0)
    assert command("cache").stdout.startswith("0 keys")


def test_what_says_what_to_remove_needs_prune(home: Path):
    assert "add --prune" in refused("cache", "--all")
    assert "add --prune" in refused("cache", "--older-than", 3)
    assert "contradict" in refused("cache", "--prune", "--all", "--older-than", 3)
