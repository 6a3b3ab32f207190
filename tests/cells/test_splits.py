"""Splits: groups whole, classes balanced, the same again for the same seed."""

import itertools
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allreview.cells.splits import PARTS, SplitCell, split_cells
from allreview.errors import UserError

SHARES = {"train": 0.65, "validation": 0.15, "test": 0.2}


@st.composite
def cells(draw: st.DrawFn, most_groups: int = 30) -> list[SplitCell]:
    groups = draw(st.integers(3, most_groups))
    sizes = draw(st.lists(st.integers(1, 12), min_size=groups, max_size=groups))
    labels = st.sampled_from(["all", "hem", "unclear"])
    drawn = [(draw(labels), group) for group, size in enumerate(sizes) for _ in range(size)]
    return [SplitCell(number, label, group) for number, (label, group) in enumerate(drawn)]


def split(given: list[SplitCell], seed: int = 0) -> dict[int, str]:
    return {**split_cells(given, validation=0.15, test=0.2, seed=seed)}


@given(cells(), st.integers(0, 2**31 - 1), st.randoms())
@settings(deadline=None, max_examples=40)
def test_no_group_straddles_and_order_does_not_matter(given, seed, shuffler) -> None:
    parts = split(given, seed)
    assert parts.keys() == {cell.cell_id for cell in given}
    parts_of_group = defaultdict(set)
    for cell in given:
        parts_of_group[cell.group].add(parts[cell.cell_id])
    assert all(len(found) == 1 for found in parts_of_group.values())
    assert set(parts.values()) == set(PARTS)
    shuffled = given[:]
    shuffler.shuffle(shuffled)
    assert split(shuffled, seed) == parts


def gaps(given: list[SplitCell], part_of_group: dict) -> int:
    """Pairs of part and class without a cell."""
    held = {(part_of_group[cell.group], cell.label) for cell in given}
    return len(set(itertools.product(PARTS, {cell.label for cell in given})) - held)


@given(cells(most_groups=6))
@settings(deadline=None, max_examples=40)
def test_every_part_has_every_class_where_any_assignment_can(given: list[SplitCell]) -> None:
    groups = list({cell.group for cell in given})
    parts = split(given)
    found = gaps(given, {cell.group: parts[cell.cell_id] for cell in given})
    possible = [
        dict(zip(groups, chosen, strict=True))
        for chosen in itertools.product(PARTS, repeat=len(groups))
        if len(set(chosen)) == 3
    ]
    assert found == min(gaps(given, assignment) for assignment in possible)


def test_a_rare_class_of_three_subjects_reaches_every_part() -> None:
    given = [SplitCell(i, "common", i // 10) for i in range(400)]
    given += [SplitCell(1000 + i, "rare", ("rare", i // 5)) for i in range(15)]
    for seed in range(5):
        parts = split(given, seed)
        assert {parts[cell.cell_id] for cell in given if cell.label == "rare"} == set(PARTS)


def test_shares_hold_for_each_class_of_uneven_subjects() -> None:
    sizes = np.random.default_rng(0).lognormal(3, 0.9, 50).astype(int) + 1
    given = [
        SplitCell(1000 * group + i, "all" if group < 30 else "hem", group)
        for group, size in enumerate(sizes)
        for i in range(size)
    ]
    parts = split(given)
    for label in ("all", "hem"):
        of_class = [parts[cell.cell_id] for cell in given if cell.label == label]
        for part, share in SHARES.items():
            assert Counter(of_class)[part] / len(of_class) == pytest.approx(share, abs=0.03)


def test_another_seed_is_another_split() -> None:
    given = [SplitCell(i, "all" if i % 2 else "hem", i // 4) for i in range(200)]
    assert split(given, 1) == split(given, 1)
    assert split(given, 1) != split(given, 2)


@pytest.mark.parametrize("groups", [1, 2])
def test_too_few_groups_say_what_to_do(groups: int) -> None:
    with pytest.raises(UserError, match=f"there are {groups}: import cells of more subjects"):
        split([SplitCell(i, "all", i % groups) for i in range(10)])


@pytest.mark.parametrize(("validation", "test"), [(0, 0.2), (0.2, 0), (0.5, 0.5), (-0.1, 0.2)])
def test_impossible_shares_are_refused(validation: float, test: float) -> None:
    with pytest.raises(UserError, match="shares"):
        split_cells([SplitCell(i, "a", i) for i in range(9)], validation=validation, test=test, seed=0)


@pytest.mark.parametrize("groups", [100, 20_000])
def test_many_cells_are_quick(groups: int) -> None:
    given = [SplitCell(i, "all" if i % groups % 3 else "hem", i % groups) for i in range(200_000)]
    started = time.perf_counter()
    split(given)
    assert time.perf_counter() - started < 10
