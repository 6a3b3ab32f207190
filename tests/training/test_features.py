"""The feature cache on real cells: right, complete, and safe under kills, damage and change."""

import hashlib
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from allreview.cells.decoding import cell_pixels, read_rgb
from allreview.errors import UserError
from allreview.models.backbones import backbone_named
from allreview.models.building import build_backbone
from allreview.models.pretrained import WEIGHT_FILES
from allreview.recipe import Preparation, make_recipe
from allreview.settings import current_settings
from allreview.training import features
from allreview.training.augmentation import augmented
from allreview.training.engines import Computing, intended
from allreview.training.epochs import StopRequested
from allreview.training.features import cache_features, cached_features
from allreview.training.frozen import frozen_backbone
from allreview.training.views import (
    FLIPPED,
    ORIGINAL,
    SYMMETRIES,
    CellImage,
    View,
    prediction_views,
    training_views,
)

RECIPE = make_recipe({"image_size": 64})


@pytest.fixture
def cells(cnmc: Path) -> list[CellImage]:
    paths = sorted(cnmc.rglob("*.bmp"))[::6][:70]
    return [CellImage(hashlib.sha256(path.read_bytes()).hexdigest(), path) for path in paths]


@pytest.fixture
def file(weights: Path) -> Path:
    return weights / WEIGHT_FILES["mobilenet_v2"].name


class Watch:
    """Records progress, and stops at a given check."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.reports: list[tuple[int, int, float]] = []
        self.checks, self.stop_at = 0, stop_at

    def progress(self, done: int, total: int, rate: float) -> None:
        self.reports.append((done, total, rate))

    def check(self) -> None:
        self.checks += 1
        if self.checks == self.stop_at:
            raise StopRequested


def compute(cells, file, *, recipe=RECIPE, view=ORIGINAL, watch=None) -> np.ndarray:
    watch = watch or Watch()
    return cached_features(
        cells,
        recipe,
        {"mobilenet_v2": file},
        current_settings(),
        view=view,
        progress=watch.progress,
        check=watch.check,
    )


def test_the_cache_gives_what_computing_gives_in_the_order_given(cells, file):
    pixels = np.stack([cell_pixels(read_rgb(cell.path, 10**8), Preparation(64)) for cell in cells])
    prepared = backbone_named("mobilenet_v2").preprocess(pixels)
    direct = np.asarray(build_backbone("mobilenet_v2", 64, file)(prepared))
    watch = Watch()
    found = compute(cells, file, watch=watch)
    assert (found.shape, found.dtype) == ((len(cells), 1280), np.float32)
    np.testing.assert_allclose(found, direct, atol=1e-3)
    distinct = len({cell.sha256 for cell in cells})
    assert watch.reports[0] == (0, distinct, 0.0)
    assert watch.reports[-1][:2] == (distinct, distinct)
    assert watch.reports[-1][2] > 0
    again = Watch()
    np.testing.assert_array_equal(compute(cells[::-1], file, watch=again), found[::-1])
    assert again.reports == [(distinct, distinct, 0.0)]
    assert again.checks == 0
    mirrored = np.asarray(build_backbone("mobilenet_v2", 64, file)(prepared[:, :, ::-1]))
    np.testing.assert_allclose(compute(cells, file, view=FLIPPED), mirrored, atol=1e-3)
    assert compute([], file).shape == (0, 1280)


def test_features_of_a_cell_do_not_depend_on_its_neighbours(cells, file, monkeypatch, tmp_path):
    together = compute(cells, file)
    monkeypatch.setenv("ALLREVIEW_HOME", str(tmp_path / "other"))
    np.testing.assert_array_equal(compute(cells[7:9], file), together[7:9])


def test_every_key_has_a_folder_of_its_own_that_says_what_it_is(cells, file):
    for recipe, view in [
        (RECIPE, ORIGINAL),
        (RECIPE, FLIPPED),
        (make_recipe({"image_size": 64, "crop": 90}), ORIGINAL),
        (make_recipe({"image_size": 64, "crop": 91, "pooling": "depths"}), ORIGINAL),
        (make_recipe({"image_size": 64, "crop": 92, "colours": "normalized"}), ORIGINAL),
        (make_recipe({"image_size": 64, "crop": 93, "pooling": "cell"}), ORIGINAL),
    ]:
        compute(cells[:2], file, recipe=recipe, view=view)
    # What only the head reads does not change the features.
    compute(cells[:2], file, recipe=make_recipe({"image_size": 64, "epochs": 3, "seed": 9}))
    keys = [json.loads(path.read_text()) for path in current_settings().features.glob("*/key.json")]
    assert sorted((key["view"], key["crop"]) for key in keys if key["crop"] is None) == [
        ("flipped", None),
        ("original", None),
    ]
    assert len(keys) == 6
    assert {key["crop"]: (key["pooling"], key.get("colours")) for key in keys} == {
        None: ("max", None),
        90: ("max", None),
        91: ("depths", None),
        92: ("max", "normalized"),
        93: ("cell", None),
    }
    assert {key["weights_sha256"] for key in keys} == {hashlib.sha256(file.read_bytes()).hexdigest()}


def test_stop_keeps_what_was_computed(cells, file):
    with pytest.raises(StopRequested):
        compute(cells, file, watch=Watch(stop_at=2))
    rest = Watch()
    compute(cells, file, watch=rest)
    assert rest.reports[0][0] == frozen_backbone("mobilenet_v2", 64, file).batch


def test_damaged_rows_are_computed_again(cells, file):
    expected = compute(cells[:10], file)
    (vectors,) = current_settings().features.glob("*/*.vectors")
    data = bytearray(vectors.read_bytes())
    data[3 * len(data) // 10 + 100] ^= 1  # one bit of the fourth row
    vectors.write_bytes(data)
    watch = Watch()
    np.testing.assert_array_equal(compute(cells[:10], file, watch=watch), expected)
    assert watch.reports[0][0] == 9
    vectors.write_bytes(vectors.read_bytes()[:-1])  # the last row, which now is the repaired one
    watch = Watch()
    np.testing.assert_array_equal(compute(cells[:10], file, watch=watch), expected)
    assert watch.reports[0][0] == 9
    watch = Watch()
    compute(cells[:10], file, watch=watch)
    assert watch.reports == [(10, 10, 0.0)]


def test_changed_weights_and_another_engine_give_other_features(cells, file, tmp_path, monkeypatch):
    compute(cells[:2], file)
    changed = tmp_path / file.name
    shutil.copyfile(file, changed)
    with h5py.File(changed, "r+") as opened:
        names: list[str] = []
        opened.visit(lambda name: names.append(name) if name.endswith("kernel:0") else None)
        opened[names[-1]][...] *= 2
    watch = Watch()
    assert not np.allclose(compute(cells[:2], changed, watch=watch), compute(cells[:2], file))
    assert watch.reports[0][0] == 0
    monkeypatch.setenv("ALLREVIEW_ENGINE", "tensorflow")
    watch = Watch()
    compute(cells[:2], file, watch=watch)
    expected = intended("auto").engine == "tensorflow"
    assert (watch.reports[0][0] == 2) is expected


def test_weights_that_change_while_they_are_read_are_refused(cells, file, tmp_path):
    changed = tmp_path / file.name
    shutil.copyfile(file, changed)
    backbone = frozen_backbone("mobilenet_v2", 64, changed)
    with changed.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(UserError, match="was changed while it was read"):
        _ = backbone.model


def test_an_unreadable_or_changed_file_is_named(cells, file, tmp_path):
    broken = tmp_path / "UID_1_1_1_all.bmp"
    broken.write_bytes(b"BM this is no picture")
    sha256 = hashlib.sha256(broken.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=r"UID_1_1_1_all.bmp.* cannot be used"):
        compute([cells[0], CellImage(sha256, broken)], file)
    broken.write_bytes(cells[0].path.read_bytes())
    with pytest.raises(UserError, match=r"UID_1_1_1_all.bmp.* has changed since it was imported"):
        compute([CellImage(cells[1].sha256, broken)], file)
    with pytest.raises(UserError, match=r"gone\.bmp.* is gone"):
        compute([CellImage("0" * 64, tmp_path / "gone.bmp")], file)


def test_the_backbone_is_built_once(cells, file):
    compute(cells[:1], file)
    first = features.frozen_backbone("mobilenet_v2", 64, file)
    compute(cells[:1], file, view=FLIPPED)
    assert features.frozen_backbone("mobilenet_v2", 64, file) is first


TURNED = make_recipe({"image_size": 64, "rotation": 180, "stain": 0.2, "views": 3})


def test_the_views_a_head_is_trained_on():
    assert training_views(make_recipe({"flip": False})) == [ORIGINAL]
    assert training_views(make_recipe({"flip": True})) == [ORIGINAL, FLIPPED]
    assert training_views(make_recipe({"flip": False, "quarter_turns": True})) == list(SYMMETRIES[:4])
    upside_down = make_recipe({"flip": False, "flip_vertical": True, "quarter_turns": True})
    for recipe in (upside_down, make_recipe({"flip": True, "quarter_turns": True})):
        assert training_views(recipe) == list(SYMMETRIES)
    assert training_views(TURNED.model_copy(update={"quarter_turns": True})) == training_views(TURNED)
    assert training_views(TURNED) == [View("drawn", 0), View("drawn", 1), View("drawn", 2)]


def test_the_views_a_prediction_is_of():
    of = {
        name: prediction_views(make_recipe({"test_time_augmentation": name}))
        for name in ("none", "flip", "symmetries")
    }
    assert of == {"none": [ORIGINAL], "flip": [ORIGINAL, FLIPPED], "symmetries": list(SYMMETRIES)}


def test_what_was_drawn_before_quarter_turns_were_a_setting_is_found_again():
    """Its settings are a key in the cache."""
    before = {"flip", "flip_vertical", "rotation", "translation", "stain", "brightness"}
    assert set(View("drawn", 1).key(TURNED)) == {"drawn", "seed", "version", *before}
    quarters = TURNED.model_copy(update={"quarter_turns": True})
    assert set(View("drawn", 1).key(quarters)) == {"drawn", "seed", "version", "quarter_turns", *before}


def test_drawn_views_are_computed_once_and_follow_from_cell_recipe_and_number(cells, file):
    cells = cells[:6]
    first, second = (compute(cells, file, recipe=TURNED, view=View("drawn", number)) for number in (0, 1))
    assert (first != second).any(axis=1).all()
    again = Watch()
    more_views = TURNED.model_copy(update={"views": 9, "epochs": 3, "imbalance": "augment", "mixup": 0.3})
    found = compute(cells[::-1], file, recipe=more_views, view=View("drawn", 0), watch=again)
    np.testing.assert_array_equal(found, first[::-1])
    assert again.checks == 0  # from the cache
    for other in ({"rotation": 90.0}, {"seed": 1}, {"flip_vertical": True}):
        changed = Watch()
        compute(cells[:1], file, recipe=TURNED.model_copy(update=other), view=View("drawn", 0), watch=changed)
        assert changed.checks == 1, other


def test_a_drawn_view_is_the_backbones_answer_to_the_augmented_cell(cells, file):
    cell, view = cells[3], View("drawn", 2)
    pixels = cell_pixels(read_rgb(cell.path, 10**8), Preparation(64))
    shown = view.of(pixels, cell, TURNED)
    words = [int(cell.sha256[start : start + 8], 16) for start in range(0, 64, 8)]
    expected = augmented(pixels, TURNED, np.random.default_rng([0, 2, *words]))
    np.testing.assert_array_equal(shown, expected)
    direct = features.frozen_backbone("mobilenet_v2", 64, file)(shown[None])
    np.testing.assert_allclose(compute([cell], file, recipe=TURNED, view=view), direct, atol=1e-3)


class Sum:
    """Stands for a second backbone, whose weights are not at hand: colour sums as features."""

    name, weights_hash, n_features, batch = "resnet50", "0" * 64, 3, 4
    computing = Computing("tensorflow", "float32")

    def settle(self) -> bool:
        return False

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        assert len(pixels) <= self.batch
        return pixels.sum(axis=(1, 2), dtype=np.float32)


@pytest.fixture
def two(monkeypatch, file) -> dict:
    """Weights of an ensemble whose first backbone is a stand-in."""
    real, stand_in = features.frozen_backbone, Sum()
    monkeypatch.setattr(
        features, "frozen_backbone", lambda name, *rest: stand_in if name == "resnet50" else real(name, *rest)
    )
    return {"mobilenet_v2": file, "resnet50": file}


ENSEMBLE = make_recipe({"image_size": 64, "backbone": "resnet50", "partner": "mobilenet_v2"})


def test_an_ensembles_features_stand_side_by_side_and_share_the_single_ones(cells, file, two):
    alone, watch = compute(cells[:5], file), Watch()
    found = cached_features(
        cells[:5], ENSEMBLE, two, current_settings(), progress=watch.progress, check=watch.check
    )
    np.testing.assert_array_equal(found[:, 3:], alone)
    pixels = np.stack([cell_pixels(read_rgb(cell.path, 10**8), Preparation(64)) for cell in cells[:5]])
    np.testing.assert_array_equal(found[:, :3], pixels.sum(axis=(1, 2)))
    assert [report[:2] for report in watch.reports] == [(5, 10), (9, 10), (10, 10)]  # only the new one


def test_all_views_of_a_cell_are_computed_from_one_reading(cells, file, two, monkeypatch):
    read: list[str] = []
    real = features.read_cell
    monkeypatch.setattr(
        features, "read_cell", lambda cell, *rest: read.append(cell.sha256) or real(cell, *rest)
    )
    compute(cells[:1], file)  # one is there already
    read.clear()
    watch = Watch()
    wanted = [(cells[:6], ORIGINAL), *((cells[:3], view) for view in SYMMETRIES[1:])]
    cache_features(wanted, ENSEMBLE, two, current_settings(), progress=watch.progress, check=watch.check)
    assert sorted(read) == sorted(cell.sha256 for cell in cells[:6])
    assert watch.reports[0] == (1, 2 * (6 + 3 * 7), 0.0)
    assert watch.reports[-1][:2] == (54, 54)
    read.clear()
    pixels = np.stack([cell_pixels(read_rgb(cell.path, 10**8), Preparation(64)) for cell in cells[:3]])
    for view in SYMMETRIES:
        shown = np.stack([view.of(one, cell, RECIPE) for one, cell in zip(pixels, cells, strict=False)])
        expected = frozen_backbone("mobilenet_v2", 64, file)(shown)
        np.testing.assert_array_equal(compute(cells[:3], file, view=view), expected)
    assert read == []


def test_the_symmetries_are_the_eight_ways_a_square_can_lie(cells):
    cell = cells[0]
    pixels = cell_pixels(read_rgb(cell.path, 10**8), Preparation(64))
    shown = [view.of(pixels, cell, RECIPE) for view in SYMMETRIES]
    assert len({np.ascontiguousarray(one).tobytes() for one in shown}) == 8
    assert len({str(view.key(RECIPE)) for view in SYMMETRIES}) == 8
    np.testing.assert_array_equal(shown[1], np.rot90(pixels))
    np.testing.assert_array_equal(shown[5], np.rot90(pixels[:, ::-1]))
