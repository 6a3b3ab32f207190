"""What the head is told of a backbone's feature maps."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from allreview.models.backbones import BACKBONES, backbone_named
from allreview.models.building import build_backbone, build_model
from allreview.models.pooling import MeanAndDeviation, pooled
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
    whole = pooled(body, "depths", backbone.depths)
    channels = sum(body.get_layer(depth).output.shape[-1] for depth in backbone.depths)
    assert whole.output_shape == (None, 2 * channels)


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


def test_a_model_of_several_depths_is_saved_and_loaded(file: Path, tmp_path: Path) -> None:
    recipe = make_recipe({"image_size": SIDE, "pooling": "depths", "dense_units": 8})
    model = build_model(recipe, ["all", "hem"], {"mobilenet_v2": file})
    cells = np.random.default_rng(0).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
    save_model(tmp_path, model, recipe=recipe, classes=["all", "hem"], weights_hash="0" * 64)
    loaded = load_model(tmp_path)
    assert loaded.recipe.pooling == "depths"
    np.testing.assert_allclose(np.asarray(loaded.model(cells)), np.asarray(model(cells)), atol=1e-6)


@pytest.mark.parametrize("partner", [None, "resnet50"])
def test_saliency_sees_every_depth(file: Path, partner: str | None) -> None:
    recipe = make_recipe(
        {"image_size": SIDE, "pooling": "depths", "partner": partner, "weights": "none", "mode": "finetune"}
    )
    cut = CutModel(build_model(recipe, ["all", "hem"], {}))
    (score,) = cut.scores
    assert [layer.name.removeprefix("mobilenet_v2_").removeprefix("resnet50_") for layer in score.ends] == [
        *backbone_named("mobilenet_v2").depths,
        *(backbone_named("resnet50").depths if partner else ()),
    ]
