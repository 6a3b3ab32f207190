"""Agreement against published examples, against the libraries, and on readers whose agreement is known."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from allreview.review.log.readings import Reading
from allreview.review.readers import agreement, coefficients
from allreview.review.readers.agreement import agreement_of, strength

FLEISS_1971 = (
    "00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 "
    "00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"
)
"""30 patients, 6 psychiatrists, 5 diagnoses: how many gave each (Fleiss 1971, table 1)."""

KRIPPENDORFF_2011 = ("123321412", "1233224125 3", " 3332342251", "12332441251")
"""4 observers, 12 units (Krippendorff 2011, example C); blanks are missing."""

COHEN_1960 = ((88, 10, 2), (14, 40, 6), (18, 10, 12))
"""200 patients, 2 judges, 3 diagnoses (Cohen 1960, table 2)."""


def readings_of(columns: Mapping[str, Sequence[str | None]]) -> list[Reading]:
    """Readings from one column of answers for each reader."""
    return [
        Reading(cell_id=cell, reviewer_id=number, reviewer=name, label=label)
        for number, (name, labels) in enumerate(columns.items())
        for cell, label in enumerate(labels)
        if label is not None
    ]


def of_votes(rows: Iterable[str]) -> list[Reading]:
    """Readers are told apart by nothing: the first so many gave the first answer, and so on."""
    columns: dict[str, list[str | None]] = {f"Reader {number}": [] for number in range(6)}
    for row in rows:
        answers = [f"diagnosis {place}" for place, votes in enumerate(row) for _ in range(int(votes))]
        for column, answer in zip(columns.values(), answers, strict=True):
            column.append(answer)
    return readings_of(columns)


def test_fleiss_of_1971() -> None:
    found = agreement_of(of_votes(FLEISS_1971.split(" ")), {})
    assert found.fleiss.value == pytest.approx(0.430, abs=0.0005)
    assert (found.readers_per_cell, found.fleiss.cells, found.readings) == (6, 30, 180)
    low, high = found.fleiss.interval or (1.0, 0.0)
    assert 0.25 < low < 0.43 < high < 0.6


def test_krippendorff_of_2011() -> None:
    columns = {
        f"Observer {number}": [None if answer == " " else answer for answer in row.ljust(12)]
        for number, row in enumerate(KRIPPENDORFF_2011)
    }
    found = agreement_of(readings_of(columns), {})
    assert found.krippendorff.value == pytest.approx(0.743, abs=0.0005)
    assert (found.cells, found.shared) == (12, 11)


def test_cohen_of_1960() -> None:
    pairs = [
        (f"d{row}", f"d{column}")
        for row, counts in enumerate(COHEN_1960)
        for column, count in enumerate(counts)
        for _ in range(count)
    ]
    first, second = zip(*pairs, strict=True)
    (pair,) = agreement_of(readings_of({"A": first, "B": second}), {}).pairs
    assert pair.percent.value == pytest.approx(0.70)
    assert pair.kappa.value == pytest.approx(0.492, abs=0.0005)
    assert pair.confusion == {"labels": ["d0", "d1", "d2"], "matrix": [list(row) for row in COHEN_1960]}
    # Cohen's own standard error, 0.046 for N = 200, gives 0.40 to 0.58.
    assert pair.kappa.interval == pytest.approx([0.39, 0.59], abs=0.02)


def simulated(
    random: np.random.Generator, *, subjects: int, each: int, skills: Sequence[float]
) -> tuple[dict[str, list[str]], dict[int, str]]:
    """Readers who are right as often as their skill says, less so in subjects that are hard to read."""
    unit = np.repeat(np.arange(subjects), each)
    truth = random.integers(0, 2, len(unit))
    hard = random.uniform(-0.15, 0.15, subjects)[unit]
    columns: dict[str, list[str]] = {}
    for number, skill in enumerate(skills):
        right = random.random(len(unit)) < skill - hard
        columns[f"R{number}"] = ["all" if bit else "hem" for bit in np.where(right, truth, 1 - truth)]
    return columns, {cell: f"group {group}" for cell, group in enumerate(unit)}


def test_the_figures_are_those_of_the_libraries() -> None:
    columns, units = simulated(np.random.default_rng(4), subjects=12, each=5, skills=(0.9, 0.85, 0.7))
    found = agreement_of(readings_of(columns), units)
    assert [(pair.first, pair.second) for pair in found.pairs] == [("R0", "R1"), ("R0", "R2"), ("R1", "R2")]
    for pair in found.pairs:
        a, b = columns[pair.first], columns[pair.second]
        assert pair.kappa.value == pytest.approx(cohen_kappa_score(a, b))
        assert pair.percent.value == pytest.approx(np.mean([x == y for x, y in zip(a, b, strict=True)]))
    votes, _ = aggregate_raters(np.array(list(columns.values())).T)
    assert found.fleiss.value == pytest.approx(fleiss_kappa(votes))


def test_one_resample_of_everything_is_the_figure_itself() -> None:
    """The fast coefficients of resamples and the libraries' of the whole are the same coefficients."""
    random = np.random.default_rng(5)
    votes = random.multinomial(4, [0.5, 0.3, 0.2], 40).astype(float)
    unit = random.integers(0, 9, 40)
    weights = random.multinomial(9, np.full(9, 1 / 9), 3).astype(float)
    first, second = random.integers(0, 3, (2, 40))
    counts = coefficients.pair_counts(first, second, 3)
    for row, drawn in zip(weights, weights.astype(int), strict=True):
        times = drawn[unit]
        whole, tables = np.repeat(votes, times, axis=0), np.repeat(counts, times, axis=0)
        for coefficient, values in (
            (agreement._FLEISS, whole),
            (agreement._KRIPPENDORFF, whole),
            (agreement._PAIRED_PERCENT, whole),
            (agreement._COHEN, tables),
            (agreement._EQUAL, tables),
        ):
            original = votes if values is whole else counts
            resampled = coefficient.resampled(row[None], original, unit, 9)
            assert resampled[0] == pytest.approx(coefficient.exact(values))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """150 studies of 30 subjects; the truth is the agreement in a hundred thousand cells."""
    many, _ = simulated(np.random.default_rng(0), subjects=25_000, each=4, skills=(0.9, 0.8))
    truth = cohen_kappa_score(many["R0"], many["R1"])
    held = 0
    for seed in range(1, 151):
        columns, units = simulated(np.random.default_rng(seed), subjects=30, each=4, skills=(0.9, 0.8))
        first, second = (dict(enumerate(column)) for column in columns.values())
        pair = agreement._Comparing(["all", "hem"], units).two("R0", "R1", first, second)
        low, high = pair.kappa.interval or (1.0, 0.0)
        held += low <= truth <= high
    assert 0.88 <= held / 150 <= 0.99


def test_each_reader_against_the_others_themselves_and_the_adjudicated_label() -> None:
    columns = {"Ann": ["all"] * 6 + ["hem"] * 6, "Ben": ["all"] * 6 + ["hem"] * 6, "Cleo": ["hem"] * 12}
    again = [Reading(cell, 0, "Ann", "all", repeat=True) for cell in range(8)]
    final = [Reading(cell, 9, "Dora", "hem", adjudication=True) for cell in range(6)]
    found = agreement_of([*readings_of(columns), *again, *final], {})
    ann, ben, cleo = found.against_others
    # Ben and Cleo agree on the last six only; Ann and Ben on all twelve.
    assert (ann.cells, ann.percent.value, cleo.cells, cleo.percent.value) == (6, 1.0, 12, 0.5)
    assert (ben.second, ann.kappa.value, ann.kappa.why) == (
        agreement.OTHERS,
        None,
        agreement.ONE_ANSWER,
    )
    (themselves,) = found.with_themselves
    assert (themselves.first, themselves.cells, themselves.percent.value) == ("Ann", 8, 0.75)
    adjudicated = {compared.first: compared.percent.value for compared in found.against_adjudicated}
    assert adjudicated == {"Ann": 0.0, "Ben": 0.0, "Cleo": 1.0}
    assert found.readings == 36


def test_unsure_is_an_answer_unless_classes_alone_are_asked_for() -> None:
    columns = {"Ann": ["all", "hem", "unsure", "unusable", "all", "hem"], "Ben": ["all", "hem"] * 3}
    found = agreement_of(readings_of(columns), {})
    assert found.categories == ["all", "hem", "unsure", "unusable"]
    assert found.percent.value == pytest.approx(4 / 6)
    classes = agreement_of(readings_of(columns), {}, classes_only=True)
    assert (classes.categories, classes.percent.value, classes.shared) == (["all", "hem"], 1.0, 4)


def test_answers_that_saw_others_answers_are_left_out_and_counted() -> None:
    blind = readings_of({"Ann": ["all", "hem"] * 5})
    seeing = [
        Reading(cell, 1, "Ben", "all", independent=False, visible=("others", "prediction"))
        for cell in range(10)
    ]
    found = agreement_of([*blind, *seeing], {})
    assert (found.pairs, found.shared, found.dependent, found.readers) == ([], 0, 10, ["Ann"])
    everything = agreement_of([*blind, *seeing], {}, with_dependent=True)
    assert (everything.shared, everything.dependent, everything.saw_prediction) == (10, 10, 10)


def test_what_cannot_be_said_is_said_in_words() -> None:
    nothing = agreement_of([], {})
    assert (nothing.fleiss.value, nothing.fleiss.why) == (None, agreement.NO_CELLS)
    few = agreement_of(readings_of({"Ann": ["all", "hem"], "Ben": ["all", "all"]}), {}).pairs[0]
    assert (few.kappa.value, few.kappa.why) == (None, agreement.TOO_FEW_CELLS)
    assert (few.percent.value, few.percent.why) == (0.5, agreement.TOO_FEW_SUBJECTS)
    same = agreement_of(readings_of({"Ann": ["all"] * 9, "Ben": ["all"] * 9}), {})
    for estimate in (same.pairs[0].kappa, same.fleiss, same.krippendorff):
        assert (estimate.value, estimate.why) == (None, agreement.ONE_ANSWER)
    assert (same.percent.value, same.percent.interval, same.percent.why) == (1.0, None, agreement.NO_SPREAD)
    columns = {"Ann": ["all", "hem"] * 6, "Ben": ["all", "all", "hem"] * 4}
    two_subjects = agreement_of(readings_of(columns), {cell: f"group {cell % 2}" for cell in range(12)})
    assert (two_subjects.fleiss.interval, two_subjects.fleiss.why) == (None, agreement.TOO_FEW_SUBJECTS)


def test_strength_as_landis_and_koch_name_it() -> None:
    assert [strength(kappa) for kappa in (-0.1, 0.0, 0.2, 0.21, 0.5, 0.8, 0.81, 1.0)] == [
        "poor", "slight", "slight", "fair", "moderate", "substantial", "almost perfect", "almost perfect",
    ]  # fmt: skip
