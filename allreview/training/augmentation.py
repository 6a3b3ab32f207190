"""Training cells changed at random, so that a network cannot learn them by heart. Without Keras.

One cell is changed by `augmented`; a batch is mixed by `mixup` or `cutmix`. All take what is random from the
generator they are given: the same generator gives the same pixels, on every machine.

The frame around a cell is exactly black, and models could learn its shade. So colours are changed by tables
that keep 0 at 0 and send every other level to 1..255: the frame stays black, and nothing else becomes black.
"""

from math import cos, radians, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from allreview.recipe import Recipe

VERSION = 1
"""Raise it when the same recipe and generator give other pixels than before: stored features depend on it."""

SETTINGS = (
    "flip",
    "flip_vertical",
    "quarter_turns",
    "rotation",
    "translation",
    "stain",
    "brightness",
    "tint",
)
"""The recipe's settings that `augmented` reads, and nothing else does."""

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def augmented(pixels: Pixels, recipe: Recipe, random: np.random.Generator) -> Pixels:
    """A changed version of a cell, uint8 [size, size, 3] as the cell itself, which is left alone.

    Mirrored with a chance of one half in each direction the recipe allows, and turned by any number of quarters where
    it does; turned by up to `rotation` degrees and shifted by up to `translation` of the side, in one resampling, black
    where the picture has ended; the optical density of each colour scaled by exp(±`stain`); the brightness scaled by
    1 ± `brightness`, and once more that of each colour by 1 ± `tint`.

    Every setting has random numbers of its own, whether it is on or not: switching one on leaves the others'
    changes as they were.
    """
    drawn = random.uniform(-1, 1, size=13)
    mirrored, upturned, angle, right, down, red, green, blue, light, quarter = drawn[:10]
    if recipe.flip and mirrored > 0:
        pixels = pixels[:, ::-1]
    if recipe.flip_vertical and upturned > 0:
        pixels = pixels[::-1]
    if recipe.quarter_turns:
        pixels = np.rot90(pixels, int(2 * (quarter + 1)))
    if recipe.rotation or recipe.translation:
        shift = recipe.translation * len(pixels)
        pixels = _moved(pixels, angle * recipe.rotation, right * shift, down * shift)
    if recipe.stain or recipe.brightness or recipe.tint:
        densities = np.exp(recipe.stain * np.array([red, green, blue]))
        lights = (1 + light * recipe.brightness) * (1 + drawn[10:] * recipe.tint)
        pixels = _coloured(pixels, densities, lights)
    return np.array(pixels)


def mixup(
    inputs: Floats, targets: Floats, alpha: float, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """MixUp: each example becomes a blend of itself and another of the batch, and its target too.

    The share of itself is drawn from Beta(`alpha`, `alpha`) for each example. `inputs` are [n, ...] of any shape
    (features or images), `targets` [n, classes], with the weights as one more column where there are any; new
    arrays of the same shapes come back.

    Zhang et al. 2018, "mixup: beyond empirical risk minimization", arXiv:1710.09412, equation 1.
    """
    own, partner = _partners(len(inputs), alpha, random)
    spread = own.reshape(-1, *[1] * (inputs.ndim - 1))
    mixed = inputs * spread
    mixed += inputs[partner] * (np.float32(1) - spread)
    return mixed, _blended(targets, own, partner)


def cutmix(
    inputs: Floats, targets: Floats, alpha: float, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """CutMix: a box of each image is replaced by the same box of another; targets mix by the areas.

    The box covers a share of the image whose complement is drawn from Beta(`alpha`, `alpha`); its centre is
    drawn evenly, and the box is cut off at the border. `inputs` are images [n, height, width, channels],
    otherwise as `mixup`.

    Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers with localizable features",
    arXiv:1905.04899, section 3.1.
    """
    n, *size, _ = inputs.shape
    share, partner = _partners(n, alpha, random)
    centres, halves = random.random(size=(n, 2)) * size, np.sqrt(1 - share)[:, None] * size / 2
    starts = np.clip(np.rint(centres - halves), 0, size).astype(int)
    ends = np.clip(np.rint(centres + halves), 0, size).astype(int)
    mixed = inputs.copy()
    for row, ((top, left), (bottom, right)) in enumerate(zip(starts, ends, strict=True)):
        mixed[row, top:bottom, left:right] = inputs[partner[row], top:bottom, left:right]
    own = 1 - np.prod(ends - starts, axis=1) / np.prod(size)
    return mixed, _blended(targets, own.astype(np.float32), partner)


def _partners(n: int, alpha: float, random: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """For each of n examples the share that stays its own, and whom it is mixed with."""
    return random.beta(alpha, alpha, size=n).astype(np.float32), random.permutation(n)


def _blended(targets: Floats, own: Floats, partner: NDArray[np.int64]) -> Floats:
    share = own[:, None]
    return (share * targets + (1 - share) * targets[partner]).astype(np.float32)


def _moved(pixels: Pixels, degrees: float, right: float, down: float) -> Pixels:
    """Turned about the centre and then shifted by so many pixels; black where the picture has ended.

    Both in one affine map, from each new pixel back to where it comes from, so that it is blurred only once.
    """
    height, width = pixels.shape[:2]
    cosine, sine = cos(radians(degrees)), sin(radians(degrees))
    x, y = width / 2, height / 2
    back = (
        cosine, sine, x - cosine * (x + right) - sine * (y + down),
        -sine, cosine, y + sine * (x + right) - cosine * (y + down),
    )  # fmt: skip
    image = Image.fromarray(np.ascontiguousarray(pixels))
    moved = image.transform(
        (width, height), Image.Transform.AFFINE, back, resample=Image.Resampling.BICUBIC, fillcolor=(0, 0, 0)
    )
    return np.asarray(moved)


def _coloured(pixels: Pixels, densities: NDArray[np.float64], lights: NDArray[np.float64]) -> Pixels:
    """Each colour's optical density and its brightness scaled, by one table a colour.

    The optical density of a level I is -log(I / 255) (Ruifrok and Johnston 2001, "Quantification of
    histochemical staining by color deconvolution"), so scaling it by d is (I / 255) to the power d. Jitter of the
    stains as in Tellez et al. 2018, "Whole-slide mitosis detection in H&E breast histology", but of the picture's
    own three colours: unlike their two stains, they need no estimate from a picture of a single cell.
    """
    levels = np.arange(1, 256) / 255
    tables = np.zeros((3, 256), dtype=np.uint8)
    tables[:, 1:] = np.clip(np.rint(255 * lights[:, None] * levels ** densities[:, None]), 1, 255)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.point(tables.ravel().tolist()))
