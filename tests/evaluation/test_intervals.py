"""Intervals from resampling subjects: against a plain loop, and against the truth of simulated subjects."""

import time
import warnings

import numpy as np
import pytest

from allreview.errors import UserError
from allreview.evaluation.intervals import (
    COMPARED,
    differences,
    draws,
    percentile_interval,
    subject_intervals,
)
from allreview.evaluation.metrics import FIGURES, evaluate
from allreview.evaluation.resampling import figures, numbered, sample

TWO = ["all", "hem"]


def _subjects(
    number: int, cells: int, seed: int, spread: float = 1.5, classes: list[str] = TWO
) -> tuple[list[str], np.ndarray, list[str]]:
    """Cells of subjects that differ by `spread`: labels, probabilities and subjects. Each is of one class."""
    random = np.random.default_rng(seed)
    k = len(classes)
    subject = np.repeat(np.arange(number), cells)
    truth = (np.arange(number) % (k + 1) % k)[subject]
    logits = random.normal(scale=spread, size=(number, k))[subject] + random.normal(size=(len(subject), k))
    logits[np.arange(len(subject)), truth] += 1.5
    table = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return [classes[position] for position in truth], table, [f"S{name}" for name in subject]


@pytest.mark.parametrize("classes", [TWO, ["a", "b", "c", "d"]])
@pytest.mark.parametrize("ties", [False, True])
def test_every_resample_is_what_a_plain_loop_finds(classes: list[str], ties: bool) -> None:
    labels, table, subjects = _subjects(14, 6, seed=3, classes=classes)
    if ties:
        table = np.round(table, 1)
    unit, count = numbered(subjects)
    weights = draws(count, 25, seed=7)
    found = figures(sample(labels, table, classes, unit, count), weights)
    defined = 0
    for row, weight in enumerate(weights):
        cells = np.concatenate([np.repeat(np.flatnonzero(unit == u), int(weight[u])) for u in range(count)])
        drawn = [labels[cell] for cell in cells]
        expected = evaluate(drawn, table[cells], classes)
        lacking = set(labels) - set(drawn)
        for name in FIGURES:
            value = found[name][row]
            if np.isnan(value):
                assert lacking or expected[name] is None, name
            else:
                assert value == pytest.approx(expected[name], abs=1e-10), name
                defined += 1
    assert defined > 25 * len(FIGURES) / 2


def test_counting_every_subject_once_gives_the_figures_themselves() -> None:
    labels, table, subjects = _subjects(9, 5, seed=1)
    unit, count = numbered(subjects)
    found = figures(sample(labels, table, TWO, unit, count), np.ones((1, count)))
    scores = evaluate(labels, table, TWO)
    assert {name: row[0] for name, row in found.items()} == pytest.approx(
        {name: scores[name] for name in FIGURES}
    )


def test_95_per_cent_of_intervals_hold_the_truth() -> None:
    labels, table, subjects = _subjects(6000, 5, seed=99)
    truth = evaluate(labels, table, TWO)
    names = ("accuracy", "macro_f1", "auroc", "average_precision", "brier", "ece")
    held = dict.fromkeys(names, 0)
    for seed in range(120):
        labels, table, subjects = _subjects(40, 8, seed)
        intervals = subject_intervals(labels, table, TWO, subjects, resamples=250, seed=seed)
        for name in names:
            low, high = intervals[name] or (1.0, 0.0)
            held[name] += low <= (truth[name] or 0) <= high
    assert all(0.88 <= count / 120 <= 1 for count in held.values()), held
    assert 0.92 <= np.mean(list(held.values())) / 120 <= 0.98, held


def test_where_subjects_differ_cells_alone_would_be_far_too_sure() -> None:
    labels, table, subjects = _subjects(30, 40, seed=2)
    by_subject = subject_intervals(labels, table, TWO, subjects)
    by_cell = subject_intervals(labels, table, TWO, [None] * len(labels))
    for name in ("accuracy", "balanced_accuracy", "weighted_f1", "auroc", "brier"):
        wide, narrow = by_subject[name] or [0, 0], by_cell[name] or [0, 1]
        assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0]), name


def test_where_subjects_do_not_differ_both_agree() -> None:
    labels, table, subjects = _subjects(100, 10, seed=2, spread=0.0)
    wide = subject_intervals(labels, table, TWO, subjects)["accuracy"] or [0, 0]
    narrow = subject_intervals(labels, table, TWO, [None] * len(labels))["accuracy"] or [0, 1]
    assert (wide[1] - wide[0]) / (narrow[1] - narrow[0]) == pytest.approx(1, abs=0.25)


def test_the_same_seed_gives_the_same_intervals_in_any_order_of_cells() -> None:
    labels, table, subjects = _subjects(12, 5, seed=4)
    order = np.random.default_rng(0).permutation(len(labels))
    once = subject_intervals(labels, table, TWO, subjects)
    again = subject_intervals([labels[i] for i in order], table[order], TWO, [subjects[i] for i in order])
    for name in FIGURES:
        assert once[name] == pytest.approx(again[name])
    assert once["accuracy"] != subject_intervals(labels, table, TWO, subjects, seed=1)["accuracy"]


def test_four_thousand_cells_take_well_under_two_seconds() -> None:
    labels, table, subjects = _subjects(50, 80, seed=5)
    subject_intervals(labels, table, TWO, subjects, resamples=10)  # loads what is loaded once
    begun = time.process_time()
    subject_intervals(labels, table, TWO, subjects)
    assert time.process_time() - begun < 2


def test_what_cells_cannot_tell_is_none() -> None:
    labels, table, subjects = _subjects(4, 50, seed=1)
    assert set(subject_intervals(labels, table, TWO, subjects).values()) == {None}
    assert set(subject_intervals([], np.zeros((0, 2)), TWO, []).values()) == {None}
    labels, table, subjects = _subjects(9, 5, seed=1)
    one_class = subject_intervals(["all"] * len(labels), table, TWO, subjects)
    assert one_class["accuracy"] is not None
    assert (one_class["auroc"], one_class["average_precision"]) == (None, None)
    right = np.array([[0.9, 0.1] if label == "all" else [0.1, 0.9] for label in labels])
    assert subject_intervals(labels, right, TWO, subjects)["accuracy"] is None


def test_a_class_of_a_single_subject_leaves_its_figures_without_interval() -> None:
    labels, table, subjects = _subjects(10, 5, seed=1)
    labels = ["hem" if subject == "S3" else "all" for subject in subjects]
    found = subject_intervals(labels, table, TWO, subjects)
    assert (found["auroc"], found["balanced_accuracy"]) == (None, None)
    assert found["accuracy"] is not None


def test_differences_of_the_same_cells_are_paired() -> None:
    labels, table, subjects = _subjects(20, 20, seed=6)
    unit, count = numbered(subjects)
    first = sample(labels, table, TWO, unit, count)
    assert differences(first, first)["accuracy"].value == 0
    # The second is right on one more cell of each subject: sure to be better, however much subjects differ.
    best = [TWO[k] for k in table.argmax(axis=1)]
    for subject in set(subjects):
        wrong = [i for i, s in enumerate(subjects) if s == subject and best[i] != labels[i]]
        for cell in wrong[:1]:
            best[cell] = labels[cell]
    found = differences(first, sample(labels, table, TWO, unit, count, best))["accuracy"]
    assert 0 < (found.low or 0) <= found.value <= (found.high or 0) <= 1 / 20
    alone = subject_intervals(labels, table, TWO, subjects)["accuracy"] or [0, 0]
    assert (found.high or 1) - (found.low or 0) < (alone[1] - alone[0]) / 4


def test_differences_name_only_what_both_have() -> None:
    labels, table, subjects = _subjects(8, 4, seed=6)
    unit, count = numbered(subjects)
    one_class = sample(["all"] * len(labels), table, TWO, unit, count)
    assert set(differences(one_class, one_class)) == set(COMPARED) - {"auroc"}


def test_the_expanded_interval_is_wider_with_few_units_only() -> None:
    values = np.linspace(0, 1, 10_001)
    few, many = percentile_interval(values, 10), percentile_interval(values, 100_000)
    assert few == pytest.approx([0.0086, 0.9914], abs=5e-4)
    assert many == pytest.approx([0.025, 0.975], abs=5e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert percentile_interval(np.full(10, np.nan), 10) is None


def test_units_that_do_not_belong_to_the_cells_are_refused() -> None:
    with pytest.raises(UserError, match="one of each for each cell"):
        subject_intervals(["all"], [[1, 0]], TWO, ["1", "2"])
