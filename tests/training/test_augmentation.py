"""Augmentation: the same generator gives the same pixels, black stays black, and labels mix as pixels do."""

import numpy as np
import pytest

from allreview.cells.drawing import draw_cell, subject_stain
from allreview.recipe import make_recipe
from allreview.training.augmentation import SETTINGS, augmented, cutmix, mixup

EVERYTHING = {
    "flip": True, "flip_vertical": True, "rotation": 180, "translation": 0.1, "stain": 0.3, "brightness": 0.3,
    "tint": 0.2,
}  # fmt: skip
NOTHING = {"flip": False}


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed or 0)


class Fixed:
    """A generator that draws what a test wants: one number, for all."""

    def __init__(self, number: float) -> None:
        self.number = number

    def uniform(self, low: float, high: float, size: int) -> np.ndarray:
        return np.full(size, self.number)


def cell() -> np.ndarray:
    """Noise on a black frame, as odd as cells come, and not square in colour."""
    pixels = np.zeros((48, 48, 3), dtype=np.uint8)
    pixels[10:38, 12:36] = generator(7).integers(1, 256, size=(28, 24, 3))
    pixels[20:30, 20:30, 2] = 0  # a hole in one colour is not black
    return pixels


def test_the_generator_alone_decides_and_the_cell_is_left_alone():
    pixels, recipe = cell(), make_recipe(EVERYTHING)
    before = pixels.copy()
    first = augmented(pixels, recipe, generator(1))
    assert (first.shape, first.dtype) == (pixels.shape, np.uint8)
    np.testing.assert_array_equal(augmented(pixels, recipe, generator(1)), first)
    assert (augmented(pixels, recipe, generator(2)) != first).any()
    np.testing.assert_array_equal(pixels, before)
    same = augmented(pixels, make_recipe(NOTHING), generator(1))
    np.testing.assert_array_equal(same, pixels)
    assert same is not pixels
    assert not np.shares_memory(same, pixels)


def test_a_setting_does_not_disturb_the_others():
    pixels = cell()
    alone = augmented(pixels, make_recipe({"flip": True}), generator(3))
    coloured = augmented(pixels, make_recipe({"flip": True, "stain": 0.3}), generator(3))
    np.testing.assert_array_equal(alone.any(axis=2), coloured.any(axis=2))
    assert set(SETTINGS) <= set(type(make_recipe({})).model_fields)


def test_cells_are_mirrored_half_of_the_time():
    pixels, recipe = cell(), make_recipe({"flip": True, "flip_vertical": True})
    kinds = {b"": pixels, b"|": pixels[:, ::-1], b"-": pixels[::-1], b"+": pixels[::-1, ::-1]}
    counts = dict.fromkeys(kinds, 0)
    random = generator()
    for _ in range(400):
        found = augmented(pixels, recipe, random)
        counts[next(kind for kind, like in kinds.items() if np.array_equal(found, like))] += 1
    assert all(70 < count < 130 for count in counts.values()), counts


def test_cells_are_turned_by_quarters_and_nothing_else_is_disturbed():
    pixels, recipe = cell(), make_recipe({"flip": True, "quarter_turns": True})
    ways = [np.rot90(lain, turns) for lain in (pixels, pixels[:, ::-1]) for turns in range(4)]
    random, counts = generator(), [0] * 8
    for _ in range(800):
        found = augmented(pixels, recipe, random)
        counts[next(number for number, way in enumerate(ways) if np.array_equal(found, way))] += 1
    assert all(60 < count < 140 for count in counts), counts
    coloured = {"flip": True, "stain": 0.3, "brightness": 0.2}
    before = augmented(pixels, make_recipe(coloured), generator(4))
    turned = augmented(pixels, make_recipe({**coloured, "quarter_turns": True}), generator(4))
    assert any(np.array_equal(turned, np.rot90(before, turns)) for turns in range(1, 4))


@pytest.mark.parametrize(
    ("settings", "number", "expected"),
    [
        ({"rotation": 90}, -1.0, np.rot90),
        ({"rotation": 180}, -1.0, lambda p: p[::-1, ::-1]),
        ({"rotation": 90}, 1.0, lambda p: np.rot90(p, -1)),
        ({"translation": 0.125}, 1.0, lambda p: np.pad(p, ((6, 0), (6, 0), (0, 0)))[:-6, :-6]),
        ({"translation": 0.25}, -1.0, lambda p: np.pad(p, ((0, 12), (0, 12), (0, 0)))[12:, 12:]),
    ],
)
def test_turned_and_shifted_exactly_where_that_is_possible(settings, number, expected):
    pixels = generator(5).integers(1, 256, size=(48, 48, 3)).astype(np.uint8)  # full background
    found = augmented(pixels, make_recipe({**NOTHING, **settings}), Fixed(number))
    np.testing.assert_allclose(
        found.astype(int), expected(pixels).astype(int), atol=1
    )  # Pillow cuts off fractions


def test_corners_that_come_from_outside_are_black():
    white = np.full((64, 64, 3), 255, dtype=np.uint8)
    turned = augmented(white, make_recipe({**NOTHING, "rotation": 90}), Fixed(0.5))
    assert not turned[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert (turned[24:40, 24:40] >= 254).all()


@pytest.mark.parametrize("number", [-1.0, -0.3, 0.8, 1.0])
def test_colour_leaves_black_black_and_makes_nothing_black(number):
    """All levels, at the strongest settings."""
    recipe = make_recipe({**NOTHING, "stain": 0.9, "brightness": 0.9, "tint": 0.9})
    pixels = np.zeros((256, 4, 3), dtype=np.uint8)
    pixels[:, 0] = np.arange(256)[:, None]
    for channel in range(3):
        pixels[:, 1 + channel, channel] = np.arange(256)
    found = augmented(pixels, recipe, Fixed(number))
    np.testing.assert_array_equal(found.any(axis=2), pixels.any(axis=2))
    assert (found != pixels).any()
    random = generator(1)
    real = np.asarray(draw_cell(random, subject_stain(random), blast=True))
    np.testing.assert_array_equal(augmented(real, recipe, Fixed(number)).any(axis=2), real.any(axis=2))


def test_stain_scales_optical_density():
    pixels = generator(5).integers(40, 250, size=(32, 32, 3)).astype(np.uint8)
    found = augmented(pixels, make_recipe({**NOTHING, "stain": 0.2}), Fixed(1.0))
    density, after = -np.log(pixels / 255), -np.log(found / 255)
    clear = density > 0.2
    np.testing.assert_allclose((after / density)[clear], np.exp(0.2), rtol=0.05)
    drawn = augmented(pixels, make_recipe({**NOTHING, "stain": 0.2}), generator(4))
    ratios = [np.median((-np.log(drawn / 255) / density)[..., c][clear[..., c]]) for c in range(3)]
    assert len({round(ratio, 2) for ratio in ratios}) == 3  # each colour on its own
    assert all(np.exp(-0.21) < ratio < np.exp(0.21) for ratio in ratios)


def test_brightness_scales_every_colour_alike():
    pixels = generator(5).integers(1, 150, size=(32, 32, 3)).astype(np.uint8)
    found = augmented(pixels, make_recipe({**NOTHING, "brightness": 0.5}), Fixed(1.0))
    np.testing.assert_allclose(found, 1.5 * pixels, atol=0.51)


def test_tint_scales_the_brightness_of_each_colour_on_its_own():
    pixels = generator(5).integers(1, 150, size=(32, 32, 3)).astype(np.uint8)
    recipe = make_recipe({**NOTHING, "tint": 0.4})
    np.testing.assert_allclose(augmented(pixels, recipe, Fixed(1.0)), 1.4 * pixels, atol=0.51)
    drawn = augmented(pixels, recipe, generator(4)) / pixels
    ratios = [float(np.median(drawn[..., colour][pixels[..., colour] > 40])) for colour in range(3)]
    assert len({round(ratio, 2) for ratio in ratios}) == 3
    assert all(0.59 < ratio < 1.41 for ratio in ratios)
    coloured = {**NOTHING, "stain": 0.3, "rotation": 90}
    before = augmented(pixels, make_recipe(coloured), generator(2))
    assert (augmented(pixels, make_recipe({**coloured, "tint": 0.2}), generator(2)) != before).any()


def constant_images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Image i is i all over, and its target says i, so whatever the pixels say the target must say."""
    images = np.broadcast_to(np.arange(n, dtype=np.float32)[:, None, None, None], (n, 20, 30, 3)).copy()
    return images, np.c_[np.eye(n), np.arange(n) + 1.0].astype(np.float32)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_targets_and_weights_mix_as_the_pixels_do(mix):
    images, targets = constant_images(16)
    mixed, soft = mix(images, targets, 1.0, generator(2))
    assert (mixed.dtype, soft.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(soft[:, :-1].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)), soft[:, :-1] @ np.arange(16), atol=1e-4)
    np.testing.assert_allclose(soft[:, -1], soft[:, :-1] @ (np.arange(16) + 1), rtol=1e-5)
    assert ((soft[:, :-1] > 0).sum(axis=1) == 2).sum() > 10
    again, _ = mix(images, targets, 1.0, generator(2))
    np.testing.assert_array_equal(again, mixed)
    np.testing.assert_array_equal(images, constant_images(16)[0])


def test_mixup_mixes_vectors_too_and_alpha_says_how_much():
    vectors = generator(1).normal(size=(400, 5)).astype(np.float32)
    targets = np.eye(400, dtype=np.float32)
    little, much = (mixup(vectors, targets, alpha, generator(1))[1].max(axis=1).mean() for alpha in (0.1, 4))
    assert little > 0.9
    assert 0.5 < much < 0.7


def test_cutmix_keeps_boxes_whole():
    images, targets = constant_images(8)
    mixed, _ = cutmix(images, targets, 1.0, generator(0))
    boxed = 0
    for row in range(8):
        other = mixed[row, :, :, 0] != row
        rows, columns = np.flatnonzero(other.any(axis=1)), np.flatnonzero(other.any(axis=0))
        if len(rows):
            assert other[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            boxed += 1
    assert boxed > 3
