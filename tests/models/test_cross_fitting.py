"""Several heads side by side, and the one head they make."""

import keras
import numpy as np
import pytest

from allreview.models.building import build_head
from allreview.models.cross_fitting import LAYERS_WITH_WEIGHTS, as_one_head, build_heads, each_head
from allreview.recipe import make_recipe

RECIPE = make_recipe({"heads": 3, "dense_units": 5, "seed": 4})
FEATURES, CLASSES = 7, 3


@pytest.fixture
def heads() -> keras.Model:
    """Three heads as a fit might leave them: no two weights alike."""
    model = build_heads(RECIPE, FEATURES, CLASSES)
    random = np.random.default_rng(0)
    for name in LAYERS_WITH_WEIGHTS:
        layer = model.get_layer(name)
        layer.set_weights([random.uniform(0.2, 1.5, array.shape) for array in layer.get_weights()])
    return model


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(6, FEATURES)).astype(np.float32)


def test_each_starts_as_a_head_of_its_own() -> None:
    model = build_heads(RECIPE, FEATURES, CLASSES)
    alone = each_head(model, RECIPE)
    kernels = [head.get_layer("hidden").get_weights()[0] for head in alone]
    assert all(kernel.shape == (FEATURES, 5) for kernel in kernels)
    assert len({kernel.tobytes() for kernel in kernels}) == 3
    limit = np.sqrt(6 / (FEATURES + 5))  # Glorot's, of one head
    assert all(limit / 2 < np.abs(kernel).max() <= limit for kernel in kernels)
    again = build_heads(RECIPE, FEATURES, CLASSES)
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_each_head_alone_says_what_it_says_among_the_others(heads: keras.Model, vectors: np.ndarray) -> None:
    together = np.asarray(heads(np.stack([vectors, vectors + 1, vectors - 1], axis=1)))
    assert together.shape == (6, 3, CLASSES)
    for number, head in enumerate(each_head(heads, RECIPE)):
        said = np.asarray(head(vectors + (0, 1, -1)[number]))
        np.testing.assert_allclose(together[:, number], said, atol=1e-6)


def test_they_are_penalised_as_heads_alone(heads: keras.Model, vectors: np.ndarray) -> None:
    heads(np.repeat(vectors[:, None], 3, axis=1), training=False)
    together = float(sum(heads.losses))
    apart = 0.0
    for head in each_head(heads, RECIPE):
        head(vectors, training=False)
        apart += float(sum(head.losses))
    assert together == pytest.approx(apart, rel=1e-5)


def test_one_head_is_the_softmax_of_their_mean_logits(heads: keras.Model, vectors: np.ndarray) -> None:
    one = as_one_head(heads, RECIPE)
    logits = np.mean([np.log(np.asarray(head(vectors))) for head in each_head(heads, RECIPE)], axis=0)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.asarray(one(vectors)), expected, atol=1e-5)
    assert one.get_layer("hidden").units == 15
    like = build_head(RECIPE, FEATURES, CLASSES)
    assert [w.shape for w in one.get_weights()] == [w.shape for w in like.get_weights()]
