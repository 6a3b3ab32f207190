"""Train, validation and test: by leak group, by the dataset's own folds, or by single image.

Every split but the last keeps leak groups whole. All depend on the seed and on nothing else: not on the order
of the cells.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from allreview.cells.balancing import assign_groups
from allreview.errors import UserError
from allreview.wording import plural

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_LEAST_TRAINING = 0.2  # share of the cells, as in recipes
_SUBJECTS = "unrelated subjects"


class SplitCell(NamedTuple):
    """A cell as the split sees it. Cells of equal `group` go to one part; give a cell without subject a group
    of its own. `fold` is the name of the dataset's own fold it came in."""

    cell_id: int
    label: str
    group: Hashable
    fold: str | None = None


def split_cells(cells: Sequence[SplitCell], *, validation: float, test: float, seed: int) -> dict[int, Part]:
    """The part of every cell, by its id: whole leak groups, the classes balanced as well as groups allow.

    `validation` and `test` are shares of the cells, in (0, 1), together below 1. A part never lacks a class,
    nor is it empty, where an assignment without such a gap was found (see `balancing.assign_groups`).

    Raises:
        UserError: fewer than three groups, or shares that leave nothing for training.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise UserError(
            f"Validation {validation:g} and test {test:g} must be shares above 0 "
            "that leave some cells for training."
        )
    table = _Table(cells)
    if len(table.groups) < 3:
        raise UserError(
            f"Training, validation and test need cells of at least three unrelated subjects, and there are "
            f"{len(table.groups)}: import cells of more subjects (identical cells tie subjects into one)."
        )
    shares = np.array([1 - validation - test, validation, test])
    return table.parts(assign_groups(table.counts, shares, np.random.default_rng(seed)))


def fold_split(
    cells: Sequence[SplitCell], *, folds: int, fold: int, validation: float, seed: int
) -> dict[int, Part]:
    """The part of every cell when fold number `fold` of `folds` is the test part; folds count from 0.

    Folds are whole leak groups of about equal size, the classes balanced as well as groups allow; for one
    seed the test parts of all folds hold each cell exactly once. Validation, a share of all cells in (0, 1),
    is taken by whole groups from the other folds.

    Raises:
        UserError: no such fold, a class of fewer groups than folds, or too little left for training.
    """
    return _cross_validation(_Table(cells), folds, fold, validation, seed, _SUBJECTS)


def _cross_validation(
    table: "_Table", folds: int, fold: int, validation: float, seed: int, unit: str
) -> dict[int, Part]:
    if not 0 <= fold < folds:
        raise UserError(f"There is no fold {fold}: with {folds} folds they are 0 to {folds - 1}.")
    _enough_groups(table, folds, unit)
    if validation + 1 / folds > 1 - _LEAST_TRAINING + 1e-9:
        raise UserError(
            f"With {folds} folds and validation_fraction={validation:g} less than 20 % is left for training: "
            "set more folds or a smaller validation_fraction."
        )
    of_group = assign_groups(table.counts, np.full(folds, 1 / folds), np.random.default_rng(seed))
    return _with_validation(table, of_group == fold, np.zeros(len(of_group), bool), validation, (seed, fold))


def dataset_fold_split(
    cells: Sequence[SplitCell], *, fold: int, validation: float, seed: int
) -> dict[int, Part]:
    """The part of every cell when one of the dataset's own folds is the test part.

    `fold` is its number, from 0, in `ordered_folds` of the cells' folds. A leak group with cells in that fold
    and elsewhere trains, all of it, and so does a group with a cell that is in no fold. Validation, a share of
    all cells in (0, 1), is taken by whole groups from the rest.

    Raises:
        UserError: the dataset has no folds of its own, no such fold, or no group wholly in it.
    """
    names = ordered_folds(cell.fold for cell in cells if cell.fold is not None)
    if len(names) < 2:
        raise UserError(
            "This dataset has no folds of its own: its cells must come in at least two folders such as "
            "fold_0 and fold_1. Choose another split."
        )
    if not 0 <= fold < len(names):
        listed = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
        raise UserError(f"There is no fold {fold} in this dataset: its folds are {listed}.")
    table = _Table(cells)
    folds_of: dict[int, set[str | None]] = defaultdict(set)
    for cell, group in zip(table.cells, table.group, strict=True):
        folds_of[int(group)].add(cell.fold)
    found = [folds_of[group] for group in range(len(table.groups))]
    test = np.array([held == {names[fold]} for held in found])
    training = np.array([(len(held) > 1 and names[fold] in held) or None in held for held in found])
    if not test.any():
        raise UserError(
            f"No leak group lies wholly in fold {fold} ({names[fold]}): identical cells tie all its subjects to "
            "others. Choose another fold, or another split."
        )
    return _with_validation(table, test, training, validation, (seed, fold))


def image_split(
    cells: Sequence[SplitCell],
    *,
    validation: float,
    test: float,
    seed: int,
    folds: int | None = None,
    fold: int = 0,
) -> dict[int, Part]:
    """The part of every cell when single cells are dealt at random, stratified by class, whoever they are of.

    Patients are in training and test at once, which flatters every figure. With `folds` as `fold_split`.

    Raises:
        UserError: as `split_cells` and `fold_split`.
    """
    alone = [cell._replace(group=cell.cell_id) for cell in cells]
    if folds is not None:
        return _cross_validation(_Table(alone), folds, fold, validation, seed, "cells")
    return split_cells(alone, validation=validation, test=test, seed=seed)


def cross_fitting_parts(cells: Sequence[SplitCell], *, parts: int, seed: int) -> dict[int, int] | None:
    """The number of each cell's part, from 0, by its id: whole leak groups, the parts about equal in every class.

    None where no part can be left out without the rest lacking a class: too few groups hold it.
    """
    table = _Table(cells)
    if len(table.groups) < parts:
        return None
    of_group = assign_groups(table.counts, np.full(parts, 1 / parts), np.random.default_rng(seed))
    held = np.stack([table.counts[of_group == part].sum(axis=0) for part in range(parts)])
    if not (table.counts.sum(axis=0) > held).all() or not held.any(axis=1).all():
        return None
    return {cell.cell_id: int(of_group[index]) for cell, index in zip(table.cells, table.group, strict=True)}


def ordered_folds(names: Iterable[str]) -> list[str]:
    """The different names of folds in order, numbers in them by value: fold_2 before fold_10."""
    return sorted(set(names), key=lambda name: ([_piece(text) for text in re.split(r"([0-9]+)", name)], name))


def _piece(text: str) -> tuple[int, str]:
    return (int(text), "") if text.isdecimal() else (-1, text)


class _Table:
    """The cells in order of their id, and how many of each class each group holds.

    `group` [cells] is each cell's row in `counts` [groups, classes].
    """

    def __init__(self, cells: Sequence[SplitCell]) -> None:
        self.cells = sorted(cells, key=lambda cell: cell.cell_id)
        self.groups = {
            name: index for index, name in enumerate(dict.fromkeys(cell.group for cell in self.cells))
        }
        self.classes = sorted({cell.label for cell in self.cells})
        labels = {name: index for index, name in enumerate(self.classes)}
        number = len(self.cells)
        self.group = np.fromiter((self.groups[cell.group] for cell in self.cells), np.int64, number)
        label = np.fromiter((labels[cell.label] for cell in self.cells), np.int64, number)
        size = len(self.groups), len(labels)
        flat = np.bincount(self.group * size[1] + label, minlength=size[0] * size[1])
        self.counts = flat.reshape(size).astype(np.float64)

    def parts(self, of_group: NDArray[np.integer]) -> dict[int, Part]:
        """The part of each cell by its id, from the part's number of each group."""
        return {
            cell.cell_id: PARTS[of_group[index]] for cell, index in zip(self.cells, self.group, strict=True)
        }


def _with_validation(
    table: _Table,
    test: NDArray[np.bool_],
    training: NDArray[np.bool_],
    validation: float,
    seed: tuple[int, int],
) -> dict[int, Part]:
    """Parts when some groups are `test`, some are `training` for sure, and validation comes from the rest."""
    of_group = np.where(test, 2, 0).astype(np.int8)
    rest = np.flatnonzero(~test & ~training)
    counts = table.counts[rest]
    share = validation * table.counts.sum() / max(counts.sum(), 1.0)
    if len(rest) < (1 if training.any() else 2):
        raise UserError(
            f"Besides the test part, cells of {plural(len(rest), 'unrelated subject')} are too few to train and "
            "validate on: import cells of more subjects."
        )
    if share >= 1:
        raise UserError(
            f"validation_fraction={validation:g} leaves nothing for training besides this test part: set it lower."
        )
    counts = counts[:, counts.any(axis=0)]
    if len(rest) == 1:
        of_group[rest] = 1
    else:
        shares = np.array([1 - share, share])
        of_group[rest] = assign_groups(counts, shares, np.random.default_rng(seed))
    return table.parts(of_group)


def _enough_groups(table: _Table, folds: int, unit: str) -> None:
    """Refuse more folds than the rarest class has groups: a fold would test on one class less."""
    of_class = (table.counts > 0).sum(axis=0)
    least = int(of_class.min(initial=len(table.cells)))
    if least < folds:
        name = table.classes[int(of_class.argmin())] if len(of_class) else "every class"
        most = f"choose at most {least} folds" if least >= 2 else "choose one split without folds"
        raise UserError(
            f"{folds} folds need {folds} {unit} of each class, and {name!r} has {least}: {most}, "
            "or import more cells."
        )
