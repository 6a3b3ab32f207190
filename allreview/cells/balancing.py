"""Which group goes to which part, so that every part gets its share of every class.

Stratified splits of groups are set covering in disguise, so this is a search: seeded shuffles are scored by how far
each part's count of each class is from its share, and the best are improved by moving single groups.
"""

import numpy as np
from numpy.typing import NDArray

_EXACT = 6561  # assignments: few enough to try every one; 8 groups to 3 parts
_TRIAL_BUDGET = 1_000_000  # shuffles × groups × classes
_STARTS = 8
_POLISH_BUDGET = 20_000_000
_GOOD_ENOUGH = 0.001  # summed deviation of all shares
_MISSING = 1000.0  # a part without a class is worse than any imbalance

Counts = NDArray[np.float64]
Assignment = NDArray[np.int8]


def assign_groups(counts: Counts, shares: Counts, random: np.random.Generator) -> Assignment:
    """The part of each group, int8 [groups].

    `counts` [groups, classes] holds the cells of each class in each group, `shares` [parts] what each part
    should get of every class; they sum to 1. A part never lacks a class, nor is it empty, where an assignment
    without such a gap was found; where there are few groups (up to 8 for three parts) all are tried.
    """
    groups, parts = len(counts), len(shares)
    if parts**groups <= _EXACT:
        order = random.permutation(groups)  # among equals, the seed decides
        every = np.indices((parts,) * groups, dtype=np.int8).reshape(groups, -1).T[:, order]
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
    cuts = np.cumsum(shares[:0:-1])  # the last part first; the rest is the first part's
    order = np.arange(len(shares), dtype=np.int8)[::-1]
    result = np.zeros((trials, groups), dtype=np.int8)
    for one in np.unique(main_class):
        members = np.flatnonzero(main_class == one)
        orders = np.argsort(random.random((trials, len(members))), axis=1)
        ordered_sizes = sizes[members][orders]
        middles = (np.cumsum(ordered_sizes, axis=1) - ordered_sizes / 2) / sizes[members].sum()
        parts = order[np.searchsorted(cuts, middles, side="right")]
        np.put_along_axis(result, members[orders], parts, axis=1)
    return result


def _scores(assignments: Assignment, counts: Counts, shares: Counts) -> Counts:
    """How bad each of [trials, groups] is: lower is better."""
    held = np.stack([(assignments == part) @ counts for part in range(len(shares))], axis=1)
    return _badness(held, counts.sum(axis=0), shares).sum(axis=-1)


def _badness(held: Counts, totals: Counts, shares: Counts) -> Counts:
    """How bad each part is, [..., parts], from its counts `held` [..., parts, classes].

    The sum over classes of |count / class total - share|, the same for all classes together, and a large
    amount for each class the part lacks.
    """
    shared = np.abs(held / totals - shares[:, None]).sum(axis=-1)
    whole = np.abs(held.sum(axis=-1) / totals.sum() - shares)
    lacking = (held == 0).sum(axis=-1)
    return shared + whole + _MISSING * (lacking + len(totals) * (lacking == len(totals)))


def _polish(start: Assignment, counts: Counts, shares: Counts) -> Assignment:
    """`start`, improved by the best single move of a group until none helps or the budget is spent."""
    (groups, classes), parts = counts.shape, len(shares)
    assigned = start.copy()
    totals = counts.sum(axis=0)
    held = np.stack([counts[assigned == part].sum(axis=0) for part in range(parts)])
    every = np.arange(groups)
    budget = _POLISH_BUDGET // (_STARTS * groups * 3 * parts * classes)
    for _ in range(int(np.clip(budget, parts, 200))):
        now = _badness(held, totals, shares)
        if now.sum() < _GOOD_ENOUGH:
            break
        # A move changes two parts only: the one that gives and the one that takes.
        taking = _badness(held + counts[:, None, :], totals, shares) - now
        giving = _badness(held[assigned] - counts, totals, shares[assigned])
        change = taking + (giving - now[assigned])[:, None]
        change[every, assigned] = 0
        group, part = divmod(int(np.argmin(change)), parts)
        if change[group, part] >= -1e-12:
            break
        held[assigned[group]] -= counts[group]
        held[part] += counts[group]
        assigned[group] = part
    return assigned
