"""The paper's head, what trains and what does not, and the joined model against its two parts."""

import keras
import numpy as np
import pytest

from allreview.models.backbones import backbone_named
from allreview.models.building import (
    HEAD_LAYERS,
    build_backbone,
    build_head,
    build_model,
    compile_model,
    head_of,
    join,
)
from allreview.models.pretrained import WEIGHT_FILES
from allreview.recipe import make_recipe

CLASSES = ["all", "hem", "other"]


@pytest.fixture
def mobilenet(weights):
    return {"mobilenet_v2": weights / WEIGHT_FILES["mobilenet_v2"].name}


def test_the_head_is_the_papers_layer_by_layer(mobilenet):
    recipe = make_recipe({"image_size": 64, "seed": 3})
    model = build_model(recipe, CLASSES, mobilenet)
    pooling, normalization, hidden, dropout, output = model.layers[-5:]
    assert isinstance(pooling, keras.layers.GlobalMaxPooling2D)
    assert isinstance(normalization, keras.layers.BatchNormalization)
    assert (normalization.axis, normalization.momentum, normalization.epsilon) == (-1, 0.99, 0.001)
    assert isinstance(hidden, keras.layers.Dense)
    assert (hidden.units, hidden.activation.__name__) == (256, "relu")
    assert float(hidden.kernel_regularizer.l2) == pytest.approx(0.016)
    assert float(hidden.activity_regularizer.l1) == pytest.approx(0.006)
    assert float(hidden.bias_regularizer.l1) == pytest.approx(0.006)
    assert (type(dropout), dropout.rate, dropout.seed) == (keras.layers.Dropout, 0.45, 3)
    assert (output.name, output.units, output.activation.__name__) == ("probabilities", 3, "softmax")
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    head_parameters = 4 * 1280 + (1280 * 256 + 256) + (256 * 3 + 3)
    assert model.count_params() == 2_257_984 + head_parameters


def trainable_layers(model):
    return {layer.name for layer in model.layers if layer.trainable_weights}


def test_in_features_mode_only_the_head_trains(mobilenet):
    model = build_model(make_recipe({"image_size": 64}), CLASSES, mobilenet)
    assert trainable_layers(model) == set(HEAD_LAYERS) - {"head_dropout"}


def test_fine_tuning_keeps_the_pretrained_batch_statistics(mobilenet):
    model = build_model(make_recipe({"image_size": 64, "mode": "finetune"}), CLASSES, mobilenet)
    kinds = {type(model.get_layer(name)) for name in trainable_layers(model) - set(HEAD_LAYERS)}
    assert keras.layers.BatchNormalization not in kinds
    assert {keras.layers.Conv2D, keras.layers.DepthwiseConv2D} <= kinds
    compile_model(model, make_recipe({}))
    before = model.get_layer("Conv1").get_weights()[0].copy(), model.get_layer("bn_Conv1").get_weights()
    x = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype(np.float32)
    model.fit(x, np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], verbose=0)
    assert np.abs(model.get_layer("Conv1").get_weights()[0] - before[0]).max() > 0
    for old, new in zip(before[1], model.get_layer("bn_Conv1").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_pretrained_normalization_learns_where_the_recipe_says_so(mobilenet):
    recipe = make_recipe({"image_size": 64, "mode": "finetune", "backbone_normalization": "trained"})
    model = build_model(recipe, CLASSES, mobilenet)
    assert trainable_layers(model) == {layer.name for layer in model.layers if layer.count_params()}
    before = model.get_layer("bn_Conv1").get_weights()
    compile_model(model, recipe).fit(
        np.zeros((4, 64, 64, 3), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], verbose=0
    )
    after = model.get_layer("bn_Conv1").get_weights()
    assert all(np.abs(new - old).max() > 0 for old, new in zip(before[2:], after[2:], strict=True))


def test_from_scratch_everything_trains():
    recipe = make_recipe({"image_size": 64, "mode": "finetune", "weights": "none"})
    model = build_model(recipe, CLASSES, {})
    assert trainable_layers(model) == {layer.name for layer in model.layers if layer.count_params()}


def test_random_weights_are_never_taken_for_pretrained_ones():
    with pytest.raises(ValueError, match="weights=imagenet"):
        build_model(make_recipe({"image_size": 64}), CLASSES, {})


def test_joined_gives_what_the_two_stages_give(mobilenet):
    recipe = make_recipe({"image_size": 64})
    backbone = build_backbone("mobilenet_v2", 64, mobilenet["mobilenet_v2"])
    head = build_head(recipe, 1280, 3)
    generator = np.random.default_rng(0)
    head.set_weights([generator.uniform(0.1, 1, w.shape).astype(w.dtype) for w in head.get_weights()])
    head.get_layer("probabilities").set_weights([generator.normal(0, 0.01, (256, 3)), np.zeros(3)])
    images = backbone_named(recipe.backbone).preprocess(generator.integers(0, 256, (5, 64, 64, 3)))
    features = np.asarray(backbone(images))
    assert features.shape == (5, 1280)
    expected = np.asarray(head(features))
    joined = join([backbone], head, recipe)
    np.testing.assert_allclose(np.asarray(joined(images)), expected, atol=1e-5)
    np.testing.assert_allclose(np.asarray(head_of(joined)(features)), expected, atol=1e-6)
    assert expected.std() > 1e-3
    assert not any(isinstance(layer, keras.Model) for layer in joined.layers)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamax", keras.optimizers.Adamax),
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.AdamW),
        ("sgd", keras.optimizers.SGD),
    ],
)
def test_the_recipes_optimiser_is_used(name, kind):
    recipe = make_recipe({"optimizer": name, "learning_rate": 0.02})
    model = compile_model(build_head(recipe, 8, 2), recipe)
    assert type(model.optimizer) is kind
    assert float(model.optimizer.learning_rate) == pytest.approx(0.02)


@pytest.mark.parametrize("values", [{}, {"backbone": "alexnet", "weights": "none", "mode": "finetune"}])
def test_the_starting_weights_come_from_the_seed_alone(values: dict[str, str]) -> None:
    """Whatever other threads draw from Python's generator meanwhile; and another seed starts elsewhere."""

    def start(seed: int, disturbance: int) -> list[np.ndarray]:
        keras.utils.set_random_seed(disturbance)
        recipe = make_recipe({"image_size": 64, "seed": seed, **values})
        scratch = recipe.weights == "none"
        model = build_model(recipe, ["all", "hem"], {}) if scratch else build_head(recipe, 12, 2)
        return model.get_weights()

    first, again, other = start(3, 1), start(3, 2), start(4, 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    spread = next(weight for weight in first if weight.ndim > 1).std()
    assert spread > 0.001
