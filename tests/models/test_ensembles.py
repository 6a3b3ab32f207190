"""Two backbones in one model, against the parts computed by hand."""

import itertools

import keras
import numpy as np
import pytest

from allreview.models.averaging import average_models
from allreview.models.backbones import BACKBONES, backbone_named
from allreview.models.building import (
    HEAD_LAYERS,
    build_backbone,
    build_head,
    build_model,
    head_of,
    join,
    preprocess_of,
    temper,
)
from allreview.models.grafting import Preparation, graft, raw_pixels
from allreview.models.pretrained import WEIGHT_FILES
from allreview.models.saving import TrainedModel, load_model, save_model
from allreview.recipe import BACKBONE_NAMES, make_recipe

CLASSES = ["all", "hem"]
SCRATCH = {"weights": "none", "mode": "finetune", "image_size": 64}
MEMBERS = ("mobilenet_v2", "alexnet")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3))
    return (noise * np.array([1, 0.5, 0.1])[:, None, None, None]).astype(np.uint8)


def trained(backbone: str, seed: int = 0) -> TrainedModel:
    """A model from scratch whose answers differ from cell to cell."""
    recipe = make_recipe({**SCRATCH, "backbone": backbone, "seed": seed})
    model = build_model(recipe, CLASSES, {})
    generator = np.random.default_rng(seed)
    model.get_layer("probabilities").set_weights([generator.normal(0, 1, (256, 2)), np.array([0.1, -0.1])])
    return TrainedModel(model, recipe, CLASSES)


@pytest.fixture(scope="module")
def members() -> list[TrainedModel]:
    return [trained(name) for name in MEMBERS]


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_preparation_in_the_graph_is_the_backbones(name, pixels):
    layer = Preparation(backbone_named(name).preprocessing, name="preparation")
    expected = backbone_named(name).preprocess(pixels)
    np.testing.assert_allclose(np.asarray(layer(pixels.astype(np.float32))), expected, atol=1e-5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    np.testing.assert_allclose(np.asarray(again(pixels.astype(np.float32))), expected, atol=1e-5)


def test_no_backbones_prefix_begins_another():
    for first, second in itertools.permutations(BACKBONE_NAMES, 2):
        assert not first.startswith(f"{second}_")


@pytest.mark.slow
def test_no_two_backbones_share_a_layer_name_once_grafted():
    """All five in one graph: Keras refuses a graph in which two layers share a name."""
    inputs = raw_pixels(64)
    ends = [graft(BACKBONES[name].build((64, 64, 3), None), inputs, prefix=name) for name in BACKBONE_NAMES]
    model = keras.Model(inputs, ends)
    names = [layer.name for layer in model.layers]
    assert len(names) == len(set(names)) > 500


def test_joined_features_are_those_of_the_parts_in_order(pixels, tmp_path):
    recipe = make_recipe({**SCRATCH, "backbone": MEMBERS[0], "partner": MEMBERS[1]})
    model = build_model(recipe, CLASSES, {})
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert [name for name in HEAD_LAYERS if model.get_layer(name)] == list(HEAD_LAYERS)
    features = []
    for name in MEMBERS:
        alone = build_model(make_recipe({**SCRATCH, "backbone": name}), CLASSES, {})
        body = keras.Model(alone.input, alone.get_layer("global_max_pooling").output)
        features.append(np.asarray(body(backbone_named(name).preprocess(pixels))))
    assert all(part.std() > 0 for part in features)
    expected = np.asarray(head_of(model)(np.concatenate(features, axis=1)))
    found = np.asarray(model(preprocess_of(recipe)(pixels)))
    assert found.std() > 1e-4
    np.testing.assert_allclose(found, expected, atol=1e-5)
    save_model(tmp_path, model, recipe=recipe, classes=CLASSES, weights_hash=None)
    np.testing.assert_allclose(load_model(tmp_path).probabilities(pixels), expected, atol=1e-5)


def test_frozen_backbones_and_a_head_join(pixels, weights, tmp_path):
    recipe = make_recipe({"backbone": "vgg16", "partner": "mobilenet_v2", "image_size": 64})
    files = {
        "mobilenet_v2": weights / WEIGHT_FILES["mobilenet_v2"].name,
        "vgg16": tmp_path / "vgg.weights.h5",
    }
    BACKBONES["vgg16"].build((64, 64, 3), None).save_weights(files["vgg16"])
    backbones = [build_backbone(name, 64, files[name]) for name in recipe.backbones]
    head = build_head(recipe, 512 + 1280, 2)
    head.get_layer("probabilities").set_weights(
        [np.random.default_rng(0).normal(0, 0.01, (256, 2)), np.zeros(2)]
    )
    features = [
        np.asarray(backbone(backbone_named(name).preprocess(pixels)))
        for name, backbone in zip(recipe.backbones, backbones, strict=True)
    ]
    expected = np.asarray(head(np.concatenate(features, axis=1)))
    joined = join(backbones, head, recipe)
    np.testing.assert_allclose(np.asarray(joined(pixels.astype(np.float32))), expected, atol=1e-5)
    assert expected.std() > 1e-3
    assert {layer.name for layer in joined.layers if layer.trainable_weights} == set(HEAD_LAYERS) - {
        "head_dropout"
    }


def test_the_average_is_the_mean_of_the_members(members, pixels, tmp_path):
    recipe = make_recipe({**SCRATCH, "backbone": MEMBERS[0], "partner": MEMBERS[1], "combine": "average"})
    expected = np.mean([member.probabilities(pixels) for member in members], axis=0)
    before = [member.model.get_weights() for member in members]
    model = average_models(members)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    save_model(tmp_path, model, recipe=recipe, classes=CLASSES, weights_hash=None)
    found = load_model(tmp_path).probabilities(pixels)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(expected[0] - expected[1]).max() > 1e-4
    for member, weights in zip(members, before, strict=True):
        for now, then in zip(member.model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)


def test_an_average_of_what_does_not_fit_is_refused(members):
    other = TrainedModel(members[1].model, members[1].recipe, CLASSES[::-1])
    with pytest.raises(ValueError, match="disagree on the classes"):
        average_models([members[0], other])
    with pytest.raises(ValueError, match="different backbones"):
        average_models([members[0], members[0]])
    smaller = TrainedModel(members[1].model, make_recipe({**SCRATCH, "image_size": 96}), CLASSES)
    with pytest.raises(ValueError, match="image size"):
        average_models([members[0], smaller])


def test_an_averaged_recipe_is_not_built():
    recipe = make_recipe({**SCRATCH, "backbone": "resnet50", "partner": "vgg16", "combine": "average"})
    with pytest.raises(ValueError, match="members"):
        build_model(recipe, CLASSES, {})


def test_every_backbones_file_is_wanted():
    recipe = make_recipe({"backbone": "resnet50", "partner": "vgg16"})
    with pytest.raises(ValueError, match="weights=imagenet"):
        build_model(recipe, CLASSES, {})


def test_tempering_divides_the_logits(pixels, tmp_path):
    member = trained("alexnet", seed=4)
    before = member.probabilities(pixels)
    assert temper(member.model, 2.5) is member.model
    expected = np.exp(np.log(before) / 2.5)
    expected /= expected.sum(axis=1, keepdims=True)
    save_model(
        tmp_path, member.model, recipe=member.recipe, classes=CLASSES, weights_hash=None, temperature=2.5
    )
    loaded = load_model(tmp_path)
    assert loaded.temperature == 2.5
    np.testing.assert_allclose(loaded.probabilities(pixels), expected, atol=1e-5)
    assert np.abs(before - expected).max() > 0.01


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(members, temperature):
    with pytest.raises(ValueError, match="temperature"):
        temper(members[0].model, temperature)
