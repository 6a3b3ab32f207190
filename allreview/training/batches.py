"""The batches of a fit: which cells, in which versions, how mixed.

All that is random in an epoch follows from the recipe's seed and the epoch's number, whatever went before: a fit
that was killed and resumed gives the numbers of one that was not.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np

from allreview.models.building import preprocess_of
from allreview.recipe import Recipe
from allreview.training.augmentation import augmented, cutmix, mixup
from allreview.training.features import read_cell
from allreview.training.views import CellImage

PIXEL_MEMORY_BYTES = 1 << 30
"""Decoded training cells are kept in memory between epochs up to this size; the rest is decoded anew."""

_ORDER, _VERSION, _MIX, _HEAD = 1, 2, 3, 4  # what random numbers are for: no two uses share them

Batch = tuple[np.ndarray, ...]


class FeatureBatches(keras.utils.PyDataset):
    """Training batches of features, labels (one-hot, or mixed) and cell weights.

    `views` hold the features of the cells, and maybe of others: `own` [n] are the rows of the n that `labels` are of.
    An epoch shows as many cells as `drawn` says, or at least `least_cells`, some of them twice then.
    """

    def __init__(
        self,
        recipe: Recipe,
        views: Sequence[np.ndarray],
        labels: np.ndarray,
        n_classes: int,
        *,
        own: np.ndarray | None = None,
        least_cells: int = 0,
    ) -> None:
        super().__init__()
        self.recipe, self.views, self.labels, self.least_cells = recipe, views, labels, least_cells
        self.own = np.arange(len(labels)) if own is None else own
        self.targets = one_hot(labels, n_classes)
        self.weights = cell_weights(recipe, labels, n_classes)
        self.begin(0)

    def begin(self, epoch: int) -> None:
        self.epoch = epoch
        rows, choice = drawn(self.recipe, self.labels, len(self.views), epoch)
        self.n_cells = max(len(rows), self.least_cells)
        self.rows, self.choice = np.resize(rows, self.n_cells), np.resize(choice, self.n_cells)
        self.places = _in_batches(self.recipe, self.n_cells)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Batch:
        places = self.places[index]
        rows, choice = self.rows[places], self.choice[places]
        features = self.views[0][self.own[rows]]
        for number, view in enumerate(self.views[1:], start=1):
            chosen = choice == number
            features[chosen] = view[self.own[rows[chosen]]]
        return _mixed(self.recipe, (features, self.targets[rows], self.weights[rows]), self.epoch, index)


class CrossFitBatches:
    """Training batches for several heads, each of the cells it does not leave out: features [n, heads, d], labels
    [n, heads, classes], weights [n, heads].

    `held_out` [heads, cells] says which cells each head leaves out. Each head has an order and mixtures of its own. An
    epoch is as long as the head with the most cells needs.
    """

    def __init__(
        self,
        recipe: Recipe,
        views: Sequence[np.ndarray],
        labels: np.ndarray,
        held_out: np.ndarray,
        n_classes: int,
    ) -> None:
        rows = [np.flatnonzero(~left_out) for left_out in held_out]
        most = max(len(drawn(recipe, labels[own], 1, 0)[0]) for own in rows)
        seeds = np.random.SeedSequence([_HEAD, recipe.seed]).generate_state(len(rows)) >> 1
        self._of_heads = [
            FeatureBatches(
                recipe.model_copy(update={"seed": int(seed)}),
                views,
                labels[own],
                n_classes,
                own=own,
                least_cells=most,
            )
            for seed, own in zip(seeds, rows, strict=True)
        ]
        self.n_cells = most

    def begin(self, epoch: int) -> None:
        for batches in self._of_heads:
            batches.begin(epoch)

    def __len__(self) -> int:
        return len(self._of_heads[0])

    def __getitem__(self, index: int) -> Batch:
        of_heads = zip(*(batches[index] for batches in self._of_heads), strict=True)
        return tuple(np.stack(arrays, axis=1) for arrays in of_heads)


class ImageBatches(keras.utils.PyDataset):
    """Batches of prepared images, labels (one-hot) and, in training, cell weights.

    A batch is decoded and augmented by the pool's threads; Keras asks for it while the one before is in the
    network.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: Sequence[CellImage],
        labels: np.ndarray,
        n_classes: int,
        *,
        max_pixels: int,
        pool: ThreadPoolExecutor,
        training: bool,
    ) -> None:
        super().__init__()
        self.recipe, self.images, self.labels, self.max_pixels = recipe, images, labels, max_pixels
        self.pool, self.training = pool, training
        self.targets = one_hot(labels, n_classes)
        self.weights = cell_weights(recipe, labels, n_classes)
        self.preprocess = preprocess_of(recipe)
        self.kept: dict[int, np.ndarray] = {}
        self.may_keep = PIXEL_MEMORY_BYTES // (recipe.image_size**2 * 3)
        self.failure: Exception | None = None
        self.begin(0)

    def begin(self, epoch: int) -> None:
        self.epoch = epoch
        if self.training:
            self.rows, _ = drawn(self.recipe, self.labels, 1, epoch)
        else:
            self.rows = np.arange(len(self.labels))
        self.n_cells = len(self.rows)
        self.places = _in_batches(self.recipe, self.n_cells)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Batch:
        places = self.places[index]
        rows = self.rows[places]
        try:
            pixels = self.preprocess(np.stack(list(self.pool.map(self._pixels, places))))
        except Exception as error:
            self.failure = error
            raise
        if not self.training:
            return pixels, self.targets[rows]
        return _mixed(self.recipe, (pixels, self.targets[rows], self.weights[rows]), self.epoch, index)

    def _pixels(self, place: int) -> np.ndarray:
        row = int(self.rows[place])
        pixels = self.kept.get(row)
        if pixels is None:
            pixels = read_cell(self.images[row], self.recipe, self.max_pixels)
            if len(self.kept) < self.may_keep:
                self.kept[row] = pixels
        if not self.training:
            return pixels
        return augmented(pixels, self.recipe, _random(_VERSION, self.recipe, self.epoch, place))


def drawn(recipe: Recipe, labels: np.ndarray, n_views: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells of an epoch in the order they are shown, by their rows, and the view each is shown in.

    Each cell is shown once, in a view chosen at random. With imbalance=augment each class is shown as often as
    the largest has cells: those of a rarer class come round again, each time in its next view.
    """
    random = _random(_ORDER, recipe, epoch)
    first_view = random.integers(n_views, size=len(labels))
    if recipe.imbalance == "augment":
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        wanted = max(map(len, classes))
        # Whole rounds through a class, each in an order of its own; the last is cut off.
        rounds = [
            (random.permutation(cells), number)
            for cells in classes
            for number in range(math.ceil(wanted / len(cells)))
        ]
    else:
        wanted = len(labels)
        rounds = [(np.arange(len(labels)), 0)]
    rows = np.concatenate([cells[: wanted - number * len(cells)] for cells, number in rounds])
    turns = np.concatenate(
        [np.full(min(len(cells), wanted - number * len(cells)), number) for cells, number in rounds]
    )
    order = random.permutation(len(rows))
    rows, turns = rows[order], turns[order]
    return rows, (first_view[rows] + turns) % n_views


def one_hot(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Class positions [n] as float32 [n, classes]."""
    return np.eye(n_classes, dtype=np.float32)[labels]


def cell_weights(recipe: Recipe, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Each cell's weight in the loss, float32 [n]: n / (classes present * cells of its class), or 1."""
    if recipe.imbalance != "class_weights":
        return np.ones(len(labels), dtype=np.float32)
    counts = np.bincount(labels, minlength=n_classes)
    present = np.count_nonzero(counts)
    return (len(labels) / (present * counts[labels])).astype(np.float32)


def smallest_batch(recipe: Recipe, n_cells: int) -> int:
    """How many cells the smallest batch of an epoch has."""
    return n_cells // math.ceil(n_cells / recipe.batch_size) if n_cells else 0


def _in_batches(recipe: Recipe, n_cells: int) -> list[np.ndarray]:
    """The places 0..n in batches, which differ by one cell at most: a last batch of a single cell would upset
    batch normalisation."""
    return np.array_split(np.arange(n_cells), math.ceil(n_cells / recipe.batch_size))


def _mixed(recipe: Recipe, batch: tuple[np.ndarray, np.ndarray, np.ndarray], epoch: int, index: int) -> Batch:
    """The batch as MixUp or CutMix leave it; a weight is mixed as the label it belongs to."""
    if not (recipe.mixup or recipe.cutmix):
        return batch
    inputs, targets, weights = batch
    mix, alpha = (mixup, recipe.mixup) if recipe.mixup else (cutmix, recipe.cutmix)
    inputs, soft = mix(inputs, np.c_[targets, weights], alpha, _random(_MIX, recipe, epoch, index))
    return inputs, soft[:, :-1], soft[:, -1]


def _random(purpose: int, recipe: Recipe, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([purpose, recipe.seed, *map(int, numbers)])
