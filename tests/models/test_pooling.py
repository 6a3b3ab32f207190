"""What the head is told of a backbone's feature maps."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from allreview.models.backbones import BACKBONES, backbone_named
from allreview.models.building import build_backbone, build_model, preprocess_of
from allreview.models.grafting import PREPARE
from allreview.models.pooling import CellShare, MeanAndDeviation, MeanAndDeviationWithin, pooled
from allreview.models.saving import load_model, save_model
from allreview.recipe import BackboneName, Pooling, make_recipe
from allreview.review.saliency.cut_models import CutModel

SIDE = 96


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "made.weights.h5"
    keras.utils.set_random_seed(1)
    backbone_named("mobilenet_v2").build((SIDE, SIDE, 3), None).save_weights(path)
    return path


def test_mean_and_deviation_are_those_of_each_channel() -> None:
    maps = np.random.default_rng(0).normal(3, 2, (2, 7, 5, 4)).astype(np.float32)
    found = np.asarray(MeanAndDeviation()(maps))
    assert found.shape == (2, 8)
    np.testing.assert_allclose(found[:, :4], maps.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[:, 4:], maps.std((1, 2)), rtol=1e-5)


def test_a_map_that_is_the_same_everywhere_has_a_slope() -> None:
    maps = keras.Variable(np.ones((1, 3, 3, 2), np.float32))
    with tf.GradientTape() as tape:
        found: Any = keras.ops.sum(MeanAndDeviation()(maps.value))
    assert np.isfinite(tape.gradient(found, maps.value)).all()


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_has_depths_that_become_coarser(name: BackboneName) -> None:
    backbone = BACKBONES[name]
    body = backbone.build((SIDE, SIDE, 3), None)
    sides = [body.get_layer(depth).output.shape[1] for depth in backbone.depths]
    assert len(sides) == 3
    assert sides == sorted(sides, reverse=True)
    channels = sum(body.get_layer(depth).output.shape[-1] for depth in backbone.depths)
    for pooling in ("depths", "cell"):
        whole = pooled(body, pooling, backbone.depths, backbone.preprocessing)
        assert whole.output_shape == (None, 2 * channels)


def _framed(size: int, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Three pictures of noise with a black frame around a rectangle, uint8 [3, size, size, 3]."""
    cells = np.zeros((3, size, size, 3), np.uint8)
    noise = np.random.default_rng(1).integers(2, 256, (3, height, width, 3), np.uint8)
    cells[:, top : top + height, left : left + width] = noise
    return cells


@pytest.mark.parametrize("preprocessing", PREPARE)
def test_the_share_of_a_place_is_the_area_that_is_not_black(preprocessing: str) -> None:
    cells = _framed(12, 2, 3, 6, 9)
    cells[1, :, :, 1:] = 0  # one colour is enough
    cells[1, 2:8, 3:, 0] = 2
    cells[2, 4, 4] = 1  # as dark as rounding makes the frame
    prepared = PREPARE[preprocessing](cells.astype(np.float32))
    found = np.asarray(CellShare(preprocessing, 3, 4)(prepared))
    inside = np.zeros((3, 12, 12))
    inside[:, 2:8, 3:] = 1
    inside[2, 4, 4] = 0
    np.testing.assert_allclose(found, inside.reshape(3, 3, 4, 4, 3).mean((2, 4)), atol=1e-6)
    uneven = np.asarray(CellShare(preprocessing, 5, 5)(prepared))  # places that end within a pixel
    np.testing.assert_allclose(uneven.mean((1, 2)), inside.mean((1, 2)), atol=1e-6)


def test_mean_and_deviation_within_weigh_every_place_by_its_share() -> None:
    random = np.random.default_rng(0)
    maps = random.normal(3, 2, (2, 7, 5, 4)).astype(np.float32)
    shares = random.uniform(size=(2, 7, 5)).astype(np.float32)
    found = np.asarray(MeanAndDeviationWithin()([maps, shares]))
    for own, weights, statistics in zip(maps.reshape(2, 35, 4), shares.reshape(2, 35), found, strict=True):
        mean = np.average(own, axis=0, weights=weights)
        deviation = np.sqrt(np.average((own - mean) ** 2, axis=0, weights=weights))
        np.testing.assert_allclose(statistics, [*mean, *deviation], rtol=1e-4)
    everywhere = np.asarray(MeanAndDeviationWithin()([maps, np.ones_like(shares)]))
    np.testing.assert_allclose(everywhere, np.asarray(MeanAndDeviation()(maps)), rtol=1e-4)


def test_a_black_picture_has_numbers() -> None:
    maps = np.random.default_rng(0).normal(size=(1, 3, 3, 2)).astype(np.float32)
    assert np.isfinite(np.asarray(MeanAndDeviationWithin()([maps, np.zeros((1, 3, 3), np.float32)]))).all()


def test_statistics_within_the_cell_are_those_of_its_places(file: Path) -> None:
    cells = backbone_named("mobilenet_v2").preprocess(_framed(SIDE, 16, 32, 48, 32))
    body = backbone_named("mobilenet_v2").build((SIDE, SIDE, 3), file)
    depth = backbone_named("mobilenet_v2").depths[0]
    maps = np.asarray(keras.Model(body.input, body.get_layer(depth).output)(cells))
    own = maps[:, 2:8, 4:8]  # an eighth as wide as the picture, and the cell ends where places do
    found = np.asarray(build_backbone("mobilenet_v2", SIDE, file, "cell")(cells))
    channels = maps.shape[-1]
    np.testing.assert_allclose(found[:, :channels], own.mean((1, 2)), atol=1e-4)
    np.testing.assert_allclose(found[:, channels : 2 * channels], own.std((1, 2)), atol=2e-3)


@pytest.mark.parametrize("partner", [None, "resnet50"])
def test_in_pictures_without_a_frame_everything_is_cell(file: Path, partner: BackboneName | None) -> None:
    cells = np.random.default_rng(0).integers(10, 256, (2, SIDE, SIDE, 3), np.uint8)
    said = []
    for pooling in ("depths", "cell"):
        recipe = make_recipe(
            {
                "image_size": SIDE,
                "pooling": pooling,
                "partner": partner,
                "weights": "none",
                "mode": "finetune",
            }
        )
        said.append(np.asarray(build_model(recipe, ["all", "hem"], {})(preprocess_of(recipe)(cells))))
    np.testing.assert_allclose(*said, atol=1e-4)


def test_each_pooling_gives_what_it_says(file: Path) -> None:
    cells = np.random.default_rng(0).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
    body = backbone_named("mobilenet_v2").build((SIDE, SIDE, 3), file)
    maps = np.asarray(body(cells))
    expectations: list[tuple[Pooling, np.ndarray]] = [
        ("max", maps.max((1, 2))),
        ("average", maps.mean((1, 2))),
    ]
    for pooling, expected in expectations:
        found = np.asarray(build_backbone("mobilenet_v2", SIDE, file, pooling)(cells))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    depths = backbone_named("mobilenet_v2").depths
    several = keras.Model(body.input, [body.get_layer(name).output for name in depths])(cells)
    expected = np.concatenate(
        [np.concatenate([np.mean(each, (1, 2)), np.std(each, (1, 2))], axis=1) for each in several], axis=1
    )
    network = build_backbone("mobilenet_v2", SIDE, file, "depths")
    np.testing.assert_allclose(np.asarray(network(cells)), expected, atol=2e-3)
    assert "block_16_expand" not in [layer.name for layer in network.layers]


@pytest.mark.parametrize("pooling", ["depths", "cell"])
def test_a_model_of_several_depths_is_saved_and_loaded(file: Path, tmp_path: Path, pooling: Pooling) -> None:
    recipe = make_recipe({"image_size": SIDE, "pooling": pooling, "dense_units": 8})
    model = build_model(recipe, ["all", "hem"], {"mobilenet_v2": file})
    cells = np.random.default_rng(0).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
    save_model(tmp_path, model, recipe=recipe, classes=["all", "hem"], weights_hash="0" * 64)
    loaded = load_model(tmp_path)
    assert loaded.recipe.pooling == pooling
    np.testing.assert_allclose(np.asarray(loaded.model(cells)), np.asarray(model(cells)), atol=1e-6)


@pytest.mark.parametrize("pooling", ["depths", "cell"])
@pytest.mark.parametrize("partner", [None, "resnet50"])
def test_saliency_sees_every_depth(file: Path, partner: str | None, pooling: Pooling) -> None:
    recipe = make_recipe(
        {"image_size": SIDE, "pooling": pooling, "partner": partner, "weights": "none", "mode": "finetune"}
    )
    cut = CutModel(build_model(recipe, ["all", "hem"], {}))
    (score,) = cut.scores
    assert [layer.name.removeprefix("mobilenet_v2_").removeprefix("resnet50_") for layer in score.ends] == [
        *backbone_named("mobilenet_v2").depths,
        *(backbone_named("resnet50").depths if partner else ()),
    ]
