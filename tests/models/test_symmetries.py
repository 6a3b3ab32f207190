"""A mean over the ways a square can lie, in one graph, against the ways one by one."""

from typing import Any

import keras
import numpy as np
import pytest

from allreview.evaluation.calibration import tempered
from allreview.models.averaging import average_models
from allreview.models.building import build_model, features_network, head_of, preprocess_of, temper
from allreview.models.exporting import TOLERANCE, export_model
from allreview.models.saving import TrainedModel, load_model, save_model
from allreview.models.symmetries import Symmetries, of_one_way, over_symmetries, ways_of
from allreview.recipe import Recipe, make_recipe
from allreview.review.saliency.methods import heatmaps
from allreview.training.views import SYMMETRIES, CellImage, prediction_views

CLASSES = ["all", "hem"]
MEAN = {"weights": "none", "mode": "finetune", "image_size": 64, "test_time_augmentation": "symmetries"}
ANY_CELL = CellImage("0" * 64, None)  # pyright: ignore[reportArgumentType] - these views need no file


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3))
    return (noise * np.array([1, 0.5, 0.1])[:, None, None, None]).astype(np.uint8)


def one_way(recipe: Recipe, pixels: np.ndarray) -> TrainedModel:
    """A model from scratch that says something else of each cell, and of each way it lies."""
    model = build_model(recipe, CLASSES, {})
    lain = np.concatenate([pixels, pixels[:, ::-1], pixels[:, :, ::-1]])
    features: Any = features_network(model)(preprocess_of(recipe)(lain))
    head: Any = head_of(model)
    normalization = head.get_layer("head_normalization")
    normalization.moving_mean.assign(np.mean(features, axis=0))
    normalization.gamma.assign(1 / (np.std(features, axis=0) + 1e-12))
    normalization.moving_variance.assign(np.full(features.shape[1], 1 - 0.001))
    kernel = np.random.default_rng(0).normal(0, 0.3, (256, 2))
    head.get_layer("probabilities").set_weights([kernel, np.zeros(2)])
    return TrainedModel(model, recipe, CLASSES)


def in_all_ways(trained: TrainedModel) -> TrainedModel:
    ways = [view.way for view in prediction_views(trained.recipe)]
    return TrainedModel(over_symmetries(trained.model, ways), trained.recipe, CLASSES)


def by_hand(trained: TrainedModel, pixels: np.ndarray) -> np.ndarray:
    """The model's probabilities of the cells in each view, one view after the other: [8, n, classes]."""
    each = np.stack(
        [
            trained.probabilities(np.stack([view.of(cell, ANY_CELL, trained.recipe) for cell in pixels]))
            for view in SYMMETRIES
        ]
    )
    assert each.std(axis=0).max() > 0.01  # they do differ
    return each


def test_the_ways_in_the_graph_are_the_views_of_the_cache(pixels):
    layer = Symmetries([view.way for view in SYMMETRIES])
    expected = [view.of(cell, ANY_CELL, make_recipe({})) for view in SYMMETRIES for cell in pixels]
    np.testing.assert_array_equal(np.asarray(layer(pixels.astype(np.float32))), expected)


def test_the_mean_is_saved_calibrated_and_exported(pixels, tmp_path):
    alone = one_way(make_recipe({**MEAN, "backbone": "alexnet"}), pixels)
    each = by_hand(alone, pixels)
    model = temper(in_all_ways(alone).model, 1.7)
    assert (ways_of(model), ways_of(alone.model)) == (8, 1)
    save_model(tmp_path, model, recipe=alone.recipe, classes=CLASSES, weights_hash=None, temperature=1.7)
    loaded = load_model(tmp_path)
    expected = tempered(each.mean(axis=0), 1.7)
    np.testing.assert_allclose(loaded.probabilities(pixels), expected, atol=1e-5)
    assert np.abs(expected - each.mean(axis=0)).max() > 1e-3
    np.testing.assert_allclose(loaded.probabilities(pixels, batch_size=1), expected, atol=1e-5)
    assert export_model(loaded, tmp_path / "export.onnx", "onnx", {}, pixels) < TOLERANCE


def test_the_weights_fit_a_model_of_one_way_and_it_is_got_back(pixels, tmp_path):
    alone = one_way(make_recipe({**MEAN, "backbone": "alexnet"}), pixels)
    averaged = in_all_ways(alone)
    expected = alone.probabilities(pixels)
    back = averaged.of_one_way
    assert not any(isinstance(layer, Symmetries) for layer in back.layers)
    np.testing.assert_allclose(np.asarray(back(alone.inputs(pixels))), expected, atol=1e-6)
    assert of_one_way(alone.model) is over_symmetries(alone.model, [(False, 0)]) is alone.model
    averaged.model.save_weights(tmp_path / "model.weights.h5")
    again = build_model(alone.recipe, CLASSES, {})
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(again.get_layer("hidden").kernel, alone.model.get_layer("hidden").kernel)


@pytest.mark.parametrize("combine", [pytest.param("concatenate", marks=pytest.mark.slow), "average"])
def test_ensembles_are_averaged_and_explained_as_the_cell_lies(combine, pixels, tmp_path):
    pair = {"backbone": "vgg16", "partner": "alexnet", "combine": combine}
    recipe = make_recipe({**MEAN, **pair})
    if combine == "average":
        members = [one_way(member, pixels) for member in recipe.members]
        plain = TrainedModel(average_models(members), recipe, CLASSES)
        model = average_models([in_all_ways(member) for member in members])
    else:
        plain = one_way(recipe, pixels)
        model = in_all_ways(plain).model
    save_model(tmp_path, model, recipe=recipe, classes=CLASSES, weights_hash=None)
    loaded = load_model(tmp_path)
    assert ways_of(loaded.model) == 8
    assert not any(isinstance(layer, keras.Model) for layer in loaded.model.layers)
    np.testing.assert_allclose(loaded.probabilities(pixels), by_hand(plain, pixels).mean(axis=0), atol=1e-5)
    inputs = loaded.inputs(pixels)
    np.testing.assert_allclose(
        np.asarray(loaded.of_one_way(inputs)), np.asarray(plain.model(inputs)), atol=1e-5
    )
    assert heatmaps(loaded.of_one_way, inputs[:1], [1], "gradcam").max() == 1
