"""Train, validation and test: whole leak groups to parts, the classes balanced as well as groups allow."""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from allreview.errors import UserError

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_EXACT_GROUPS = 8  # 3^8 = 6,561 assignments: few enough to try every one
_TRIAL_BUDGET = 1_000_000  # shuffles × groups × classes
_STARTS = 8
_POLISH_BUDGET = 20_000_000
_GOOD_ENOUGH = 0.001  # summed deviation of all shares
_MISSING = 1000.0  # a part without a class is worse than any imbalance

Counts = NDArray[np.float64]
Assignment = NDArray[np.int8]


class SplitCell(NamedTuple):
    """A cell as the split sees it. Cells of equal `group` go to one part; give a cell without subject a group
    of its own."""

    cell_id: int
    label: str
    group: Hashable


def split_cells(cells: Sequence[SplitCell], *, validation: float, test: float, seed: int) -> dict[int, Part]:
    """The part of every cell, by its id.

    Many seeded shuffles of the groups are scored by how far each part's count of each class is from its
    share, the best are improved by moving single groups, and the best of those is taken. A part never lacks
    a class, nor is it empty, where an assignment without such a gap was found; up to 8 groups all are tried.

    `validation` and `test` are shares of the cells, in (0, 1), together below 1. The result depends on the
    seed and on nothing else: not on the order of `cells`.

    Raises:
        UserError: fewer than three groups, or shares that leave nothing for training.
    """
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise UserError(
            f"Validation {validation:g} and test {test:g} must be shares above 0 "
            "that leave some cells for training."
        )
    ordered = sorted(cells, key=lambda cell: cell.cell_id)
    names = {name: index for index, name in enumerate(dict.fromkeys(cell.group for cell in ordered))}
    labels = {name: index for index, name in enumerate(sorted({cell.label for cell in ordered}))}
    if len(names) < 3:
        raise UserError(
            f"Training, validation and test need cells of at least three unrelated subjects, and there are "
            f"{len(names)}: import cells of more subjects (identical cells tie subjects into one)."
        )
    group = np.fromiter((names[cell.group] for cell in ordered), np.int64, len(ordered))
    label = np.fromiter((labels[cell.label] for cell in ordered), np.int64, len(ordered))
    flat = np.bincount(group * len(labels) + label, minlength=len(names) * len(labels))
    counts = flat.reshape(len(names), len(labels)).astype(np.float64)
    shares = np.array([1 - validation - test, validation, test])
    parts = _assign(counts, shares, np.random.default_rng(seed))
    return {cell.cell_id: PARTS[parts[index]] for cell, index in zip(ordered, group, strict=True)}


def _assign(counts: Counts, shares: Counts, random: np.random.Generator) -> Assignment:
    """The part (0 train, 1 validation, 2 test) of each group; `counts` is [groups, classes]."""
    groups = len(counts)
    if groups <= _EXACT_GROUPS:
        order = random.permutation(groups)  # among equals, the seed decides
        every = np.indices((3,) * groups, dtype=np.int8).reshape(groups, -1).T[:, order]
        return every[int(np.argmin(_scores(every, counts, shares)))]
    trials = _shuffles(counts, shares, random)
    scores = _scores(trials, counts, shares)
    starts = np.argsort(scores, kind="stable")[:_STARTS]
    polished = [_polish(trials[start], counts, shares) for start in starts]
    return polished[int(np.argmin(_scores(np.stack(polished), counts, shares)))]


def _shuffles(counts: Counts, shares: Counts, random: np.random.Generator) -> Assignment:
    """Random assignments [trials, groups]: the groups of each class, shuffled, are cut at the shares."""
    groups, classes = counts.shape
    trials = int(np.clip(_TRIAL_BUDGET // (groups * classes), 4, 4000))
    sizes, main_class = counts.sum(axis=1), counts.argmax(axis=1)
    cuts = np.cumsum(shares[[2, 1]])  # test first, then validation; the rest trains
    result = np.zeros((trials, groups), dtype=np.int8)
    for one in np.unique(main_class):
        members = np.flatnonzero(main_class == one)
        orders = np.argsort(random.random((trials, len(members))), axis=1)
        ordered_sizes = sizes[members][orders]
        middles = (np.cumsum(ordered_sizes, axis=1) - ordered_sizes / 2) / sizes[members].sum()
        parts = np.array([2, 1, 0], dtype=np.int8)[np.searchsorted(cuts, middles, side="right")]
        np.put_along_axis(result, members[orders], parts, axis=1)
    return result


def _scores(assignments: Assignment, counts: Counts, shares: Counts) -> Counts:
    """How bad each of [trials, groups] is: lower is better."""
    held = np.stack([(assignments == part) @ counts for part in range(3)], axis=1)
    return _badness(held, counts.sum(axis=0), shares)


def _badness(held: Counts, totals: Counts, shares: Counts) -> Counts:
    """Badness of per-part class counts `held` [..., 3, classes].

    The sum over parts and classes of |count / class total - share|, the same for all classes together, and a
    large amount for each class a part lacks.
    """
    shared = np.abs(held / totals - shares[:, None]).sum(axis=(-1, -2))
    whole = np.abs(held.sum(axis=-1) / totals.sum() - shares).sum(axis=-1)
    lacking = (held == 0).sum(axis=(-1, -2))
    empty = (held.sum(axis=-1) == 0).sum(axis=-1)
    return shared + whole + _MISSING * (lacking + len(totals) * empty)


def _polish(start: Assignment, counts: Counts, shares: Counts) -> Assignment:
    """`start`, improved by the best single move of a group until none helps or the budget is spent."""
    groups, classes = counts.shape
    parts = start.copy()
    totals = counts.sum(axis=0)
    held = np.stack([counts[parts == part].sum(axis=0) for part in range(3)])
    best = float(_badness(held, totals, shares))
    identity = np.eye(3)
    for _ in range(int(np.clip(_POLISH_BUDGET // (_STARTS * groups * 9 * classes), 3, 200))):
        if best < _GOOD_ENOUGH:
            break
        change = identity[None, :, :] - identity[parts][:, None, :]  # group, new part, part
        moved = held + change[..., None] * counts[:, None, None, :]
        scores = _badness(moved, totals, shares)
        at = int(np.argmin(scores))
        group, part = divmod(at, 3)
        if scores.flat[at] >= best - 1e-12:
            break
        best = float(scores.flat[at])
        held = moved[group, part]
        parts[group] = part
    return parts
