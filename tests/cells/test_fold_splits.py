"""Folds, the dataset's own folds and single images: what may meet in one part, and what may not."""

import time
import warnings
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from allreview.cells.balancing import assign_groups
from allreview.cells.leak_groups import join_members
from allreview.cells.splits import (
    PARTS,
    SplitCell,
    dataset_fold_split,
    fold_split,
    image_split,
    ordered_folds,
    split_cells,
)
from allreview.errors import UserError

QUICK = settings(deadline=None, max_examples=60)
FEW = settings(deadline=None, max_examples=20)


@st.composite
def tied_cells(draw: st.DrawFn) -> list[SplitCell]:
    """Cells of subjects of one class each, some without a subject, some subjects tied by identical cells."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=4, max_size=24))
    subjects = range(len(sizes))
    ties = draw(st.lists(st.tuples(st.sampled_from(subjects), st.sampled_from(subjects)), max_size=6))
    group_of = join_members(subjects, ties)
    found = []
    for subject, size in enumerate(sizes):
        label = "hem" if subject % 3 == 0 else "all"
        home = draw(st.sampled_from(["fold_0", "fold_1", "fold_2", None]))
        for _ in range(size):
            wanders = draw(st.integers(0, 20)) == 0
            fold = draw(st.sampled_from(["fold_0", "fold_10", None])) if wanders else home
            found.append(SplitCell(len(found), label, group_of[subject], fold))
    alone = draw(st.integers(0, 5))
    return found + [SplitCell(1000 + i, "all", ("alone", i), "fold_1") for i in range(alone)]


def parts_by_group(given_cells: list[SplitCell], parts: dict) -> dict:
    found = defaultdict(set)
    for cell in given_cells:
        found[cell.group].add(parts[cell.cell_id])
    return found


@given(tied_cells(), st.integers(0, 2**31 - 1), st.integers(2, 4), st.randoms())
@FEW
def test_folds_keep_groups_whole_and_test_each_cell_once(cells, seed, folds, shuffler) -> None:
    shuffled = cells[:]
    shuffler.shuffle(shuffled)
    tested: Counter[int] = Counter()
    for fold in range(folds):
        try:
            parts = fold_split(cells, folds=folds, fold=fold, validation=0.15, seed=seed)
        except UserError:
            assume(False)  # too few groups of a class, or besides the test part: said in words
            raise
        assert parts.keys() == {cell.cell_id for cell in cells}
        assert set(parts.values()) == set(PARTS)
        assert all(len(held) == 1 for held in parts_by_group(cells, parts).values())
        assert fold_split(shuffled, folds=folds, fold=fold, validation=0.15, seed=seed) == parts
        tested.update(cell_id for cell_id, part in parts.items() if part == "test")
    assert tested == dict.fromkeys((cell.cell_id for cell in cells), 1)


@given(tied_cells(), st.integers(0, 1000), st.integers(0, 3))
@QUICK
def test_the_datasets_folds_test_only_groups_that_lie_in_them(cells, seed, fold) -> None:
    names = ordered_folds(cell.fold for cell in cells if cell.fold)
    try:
        parts = dataset_fold_split(cells, fold=fold, validation=0.2, seed=seed)
    except UserError:
        assume(False)  # no such fold, all of it tied to others, or too little besides it: said in words
        raise
    folds_of = defaultdict(set)
    for cell in cells:
        folds_of[cell.group].add(cell.fold)
    for group, held in parts_by_group(cells, parts).items():
        assert len(held) == 1
        wholly = folds_of[group] == {names[fold]}
        assert ("test" in held) == wholly
        if None in folds_of[group] or (names[fold] in folds_of[group] and not wholly):
            assert held == {"train"}
    assert "validation" in parts.values()
    assert "train" in parts.values()


@given(tied_cells(), st.integers(0, 1000), st.integers(2, 4))
@FEW
def test_images_are_dealt_one_by_one(cells, seed, folds) -> None:
    assume(min(Counter(cell.label for cell in cells).values()) >= folds)
    tested: Counter[int] = Counter()
    for fold in range(folds):
        parts = image_split(cells, validation=0.2, test=0.2, seed=seed, folds=folds, fold=fold)
        tested.update(cell_id for cell_id, part in parts.items() if part == "test")
    assert tested == dict.fromkeys((cell.cell_id for cell in cells), 1)


def test_images_of_one_patient_are_on_both_sides_and_classes_are_balanced() -> None:
    cells = [SplitCell(i, "all" if i < 700 else "hem", i // 100) for i in range(1000)]
    parts = image_split(cells, validation=0.15, test=0.2, seed=3)
    assert all(held == set(PARTS) for held in parts_by_group(cells, parts).values())
    for label, number in (("all", 700), ("hem", 300)):
        tested = sum(parts[cell.cell_id] == "test" for cell in cells if cell.label == label)
        assert tested == pytest.approx(0.2 * number, abs=1)
    assert parts != image_split(cells, validation=0.15, test=0.2, seed=4)


@given(
    st.lists(st.integers(1, 200), min_size=6, max_size=40),
    st.lists(st.integers(1, 200), min_size=6, max_size=20),
    st.integers(2, 6),
    st.integers(0, 100),
)
@QUICK
def test_no_fold_lacks_a_class_and_folds_are_as_even_as_scikit_learns(first, second, folds, seed) -> None:
    """Subjects of one class each: every class can then be in every fold, however uneven they are."""
    sizes = np.array(first + second)
    label = np.repeat([0, 1], [len(first), len(second)])
    counts = np.zeros((len(sizes), 2))
    counts[np.arange(len(sizes)), label] = sizes
    found = assign_groups(counts, np.full(folds, 1 / folds), np.random.default_rng(seed))
    held = np.stack([counts[found == fold].sum(axis=0) for fold in range(folds)])
    assert (held > 0).all()
    cells, groups = np.repeat(label, sizes), np.repeat(np.arange(len(sizes)), sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(cells, cells, groups)
        theirs = np.stack([np.bincount(cells[test], minlength=2) for _, test in splits])
    if (theirs > 0).all():
        assert _unevenness(held) <= _unevenness(theirs) + 0.1 * folds


def _unevenness(held: np.ndarray) -> float:
    shares = held / held.sum(axis=0)
    return float(np.abs(shares - 1 / len(held)).sum())


def test_folds_of_real_proportions_are_even() -> None:
    """As many subjects as C-NMC has, of 50 to 500 cells: each fold has its fifth of each class."""
    sizes = np.random.default_rng(0).integers(50, 500, 73)
    cells = [
        SplitCell(1000 * subject + i, "all" if subject < 47 else "hem", subject)
        for subject, size in enumerate(sizes)
        for i in range(size)
    ]
    total = Counter(cell.label for cell in cells)
    for fold in range(5):
        parts = fold_split(cells, folds=5, fold=fold, validation=0.15, seed=0)
        for label in total:
            of_class = Counter(parts[cell.cell_id] for cell in cells if cell.label == label)
            assert of_class["test"] / total[label] == pytest.approx(0.2, abs=0.01)
            assert of_class["validation"] / total[label] == pytest.approx(0.15, abs=0.02)


def test_folds_of_many_single_cells_are_quick() -> None:
    cells = [SplitCell(i, "all" if i % 3 else "hem", i) for i in range(20_000)]
    started = time.perf_counter()
    fold_split(cells, folds=50, fold=7, validation=0.15, seed=0)
    assert time.perf_counter() - started < 10


def test_what_cannot_be_split_into_folds_is_said() -> None:
    cells = [SplitCell(i, "all" if i % 10 < 7 else "hem", i % 10) for i in range(100)]
    with pytest.raises(UserError, match="4 folds need 4 unrelated subjects of each class, and 'hem' has 3"):
        fold_split(cells, folds=4, fold=0, validation=0.15, seed=0)
    with pytest.raises(UserError, match="they are 0 to 2"):
        fold_split(cells, folds=3, fold=3, validation=0.15, seed=0)
    with pytest.raises(UserError, match="less than 20 %"):
        fold_split(cells, folds=2, fold=0, validation=0.4, seed=0)
    with pytest.raises(UserError, match="31 folds need 31 cells of each class, and 'hem' has 30"):
        image_split(cells, validation=0.15, test=0.2, seed=0, folds=31)
    with pytest.raises(UserError, match="at least three unrelated subjects"):
        split_cells([cell for cell in cells if cell.group in (1, 9)], validation=0.15, test=0.2, seed=0)


def test_what_is_wrong_with_the_datasets_folds_is_said() -> None:
    def cells(*folds: str | None) -> list[SplitCell]:
        return [SplitCell(i, "all" if i % 2 else "hem", i // 4, folds[i // 4]) for i in range(4 * len(folds))]

    with pytest.raises(UserError, match="no folds of its own"):
        dataset_fold_split(cells(None, "a", "a"), fold=0, validation=0.2, seed=0)
    with pytest.raises(UserError, match=r"folds are 0 \(fold_2\), 1 \(fold_10\)"):
        dataset_fold_split(cells("fold_10", "fold_2", "fold_2"), fold=2, validation=0.2, seed=0)
    with pytest.raises(UserError, match="too few to train and validate"):
        dataset_fold_split(cells("a", "a", "b"), fold=0, validation=0.2, seed=0)
    tied = [SplitCell(i, "all", 0 if i < 2 else i, "a" if i == 0 else "b") for i in range(9)]
    with pytest.raises(UserError, match="No leak group lies wholly in fold 0"):
        dataset_fold_split(tied, fold=0, validation=0.2, seed=0)
    with pytest.raises(UserError, match="leaves nothing for training"):
        dataset_fold_split(cells(*["a"] * 8, "b", "b"), fold=0, validation=0.5, seed=0)


def test_folds_are_in_the_order_of_their_numbers() -> None:
    assert ordered_folds(["fold_10", "test", "fold_2", "fold_2"]) == ["fold_2", "fold_10", "test"]
