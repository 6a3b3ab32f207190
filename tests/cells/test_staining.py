"""Colours brought to one mean and spread of optical density."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from allreview.cells.decoding import cell_pixels
from allreview.cells.drawing import draw_cell, subject_stain
from allreview.cells.staining import DENSITY_SPREADS, MEAN_DENSITIES, normalized
from allreview.recipe import Preparation, make_recipe

pictures = arrays.arrays(np.uint8, st.tuples(st.integers(1, 8), st.integers(1, 8), st.just(3)))


def drawn(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.asarray(draw_cell(random, subject_stain(random), blast=True))


def densities(pixels: np.ndarray) -> np.ndarray:
    inside = pixels[pixels.any(axis=2)].astype(float)
    return -np.log((inside + 1) / 256)


@pytest.mark.parametrize("seed", range(4))
def test_every_cell_gets_the_same_mean_and_spread(seed: int) -> None:
    before, after = drawn(seed), normalized(drawn(seed))
    assert np.abs(densities(before).mean(axis=0) - MEAN_DENSITIES).max() > 0.05
    assert densities(after).mean(axis=0) == pytest.approx(MEAN_DENSITIES, abs=0.05)
    assert densities(after).std(axis=0) == pytest.approx(DENSITY_SPREADS, abs=0.06)


def test_a_stronger_stain_says_nothing() -> None:
    """Scaling the optical density, as a stain that took better does, changes next to nothing."""
    light = drawn(1)
    dark = np.where(light.any(axis=2)[..., None], np.clip(256 * ((light + 1) / 256) ** 1.3 - 1, 1, 255), 0)
    difference = np.abs(normalized(dark.astype(np.uint8)).astype(int) - normalized(light))
    assert np.abs(dark.astype(int) - light).mean() > 5 * difference.mean()
    assert np.percentile(difference, 99) <= 6


@given(pixels=pictures)
@settings(max_examples=200)
def test_black_stays_black_and_nothing_else_becomes_it(pixels: np.ndarray) -> None:
    before, after = pixels.copy(), normalized(pixels)
    assert (after.shape, after.dtype) == (pixels.shape, np.uint8)
    assert (after.any(axis=2) == before.any(axis=2)).all()
    assert (pixels == before).all()


def test_the_recipe_decides_and_the_source_is_normalised_before_it_is_resized() -> None:
    assert make_recipe({}).preparation == Preparation(224, None, False)
    recipe = make_recipe({"colours": "normalized", "crop": 300, "image_size": 150})
    assert recipe.preparation == Preparation(150, 300, True)
    image = Image.fromarray(drawn(2))
    side, left = image.width, (image.width - 300) // 2
    assert side >= 300
    cut = np.asarray(image)[left : left + 300, left : left + 300]
    resized = Image.fromarray(normalized(cut)).resize((150, 150), Image.Resampling.BICUBIC)
    assert (cell_pixels(image, recipe.preparation) == np.asarray(resized)).all()


def test_a_recipe_of_before_is_still_the_same() -> None:
    assert "colours" not in make_recipe({}).identity
    assert make_recipe({"colours": "normalized"}).hash != make_recipe({}).hash
