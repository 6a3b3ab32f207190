"""Which cells each head of a run leaves out. Without Keras."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from allreview.cells.splits import SplitCell, cross_fitting_parts
from allreview.labels import NOT_CLASSES
from allreview.recipe import Recipe
from allreview.training.snapshots import SnapshotLine


def held_out(recipe: Recipe, cells: Sequence[SnapshotLine]) -> NDArray[np.bool_]:
    """Which cells each head leaves out, [heads, cells]; of one head the validation cells.

    Training and validation cells are dealt out by leak group, so that every one of them is left out by a head. Where a
    class has too few groups for that, all heads leave out the validation cells. Source labels decide, so a correction
    moves no cell. Test cells and cells without a class are left out of everything, and not said to be.
    """
    not_test = [number for number, cell in enumerate(cells) if cell.part != "test"]
    by_image = recipe.shares_patients
    parts = None
    if recipe.n_heads > 1:
        as_split = [
            SplitCell(cell.cell_id, cell.source_label, cell.cell_id if by_image else cell.group)
            for cell in (cells[number] for number in not_test)
        ]
        parts = cross_fitting_parts(as_split, parts=recipe.n_heads, seed=recipe.seed)
    found = np.zeros((recipe.n_heads, len(cells)), dtype=bool)
    for number in not_test:
        if cells[number].label in NOT_CLASSES:
            continue
        if parts is not None:
            found[parts[cells[number].cell_id], number] = True
        elif cells[number].part == "validation":
            found[:, number] = True
    return found


def is_cross_fitted(recipe: Recipe, cells: Sequence[SnapshotLine]) -> bool:
    """Whether every cell that may train was left out by a head, and is judged by that one."""
    if recipe.n_heads == 1:
        return False
    return any(cells[int(number)].part == "train" for number in np.flatnonzero(held_out(recipe, cells)[0]))
