"""The ways in which a cell is shown to a frozen backbone. Without Keras."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from allreview.places import File
from allreview.recipe import Recipe
from allreview.training.augmentation import SETTINGS, VERSION, augmented


@dataclass(frozen=True)
class CellImage:
    """One cell to read: the SHA-256 of its file, and where a file with that content lies."""

    sha256: str
    path: File


@dataclass(frozen=True)
class View:
    """One way to show a cell to a frozen backbone: as it is, mirrored, turned, or in a version drawn at random.

    `number` is the number of quarter turns to the left, after mirroring left to right where the cell is *flipped*.
    Of the drawn versions there are many, told apart by their number. Each follows from the cell's content, the
    recipe's augmentation and seed, and the number: of more views the first are those there were before.
    """

    kind: Literal["original", "flipped", "turned", "drawn"]
    number: int = 0

    @property
    def way(self) -> tuple[bool, int]:
        """How the cell lies, if it is not drawn: mirrored or not, and then so many quarter turns to the left."""
        return self.kind == "flipped", self.number

    def of(self, pixels: np.ndarray, cell: CellImage, recipe: Recipe) -> np.ndarray:
        """The cell's pixels uint8 [size, size, 3] in this view."""
        if self.kind == "drawn":
            content = [int(cell.sha256[start : start + 8], 16) for start in range(0, 64, 8)]
            return augmented(pixels, recipe, np.random.default_rng([recipe.seed, self.number, *content]))
        mirrored = pixels[:, ::-1] if self.kind == "flipped" else pixels
        return np.rot90(mirrored, self.number) if self.number else mirrored

    def key(self, recipe: Recipe) -> Any:
        """What the features in this view depend on besides the cell."""
        if self.kind != "drawn":
            return f"{self.kind}, turned by {90 * self.number}" if self.number else self.kind
        settings = {name: value for name, value in recipe.identity.items() if name in SETTINGS}
        return {"drawn": self.number, "seed": recipe.seed, "version": VERSION, **settings}


ORIGINAL, FLIPPED = View("original"), View("flipped")
SYMMETRIES = (
    ORIGINAL,
    *(View("turned", turns) for turns in (1, 2, 3)),
    *(View("flipped", turns) for turns in range(4)),
)
"""The eight ways a square picture can lie: a cell has no up nor down, so what is said of it may be averaged over
them. None is resampled."""


def training_views(recipe: Recipe) -> list[View]:
    """The views a head is trained on: the cell itself, and the ways it lies when the recipe only mirrors or turns
    by quarters; with any other augmentation `recipe.views` drawn versions."""
    if recipe.augments_pixels:
        return [View("drawn", number) for number in range(recipe.views)]
    if recipe.quarter_turns:
        return list(SYMMETRIES if recipe.flip or recipe.flip_vertical else SYMMETRIES[:4])
    return [ORIGINAL, FLIPPED] if recipe.flip else [ORIGINAL]


def prediction_views(recipe: Recipe) -> list[View]:
    """The views a prediction is the mean over, the cell itself first."""
    averaged = {"none": SYMMETRIES[:1], "flip": (ORIGINAL, FLIPPED), "symmetries": SYMMETRIES}
    return list(averaged[recipe.test_time_augmentation])
