"""Cells read in their company: what the others of a subject add, and where they may add nothing."""

import numpy as np
import pytest
import sqlalchemy as sa

from allreview.evaluation.company import Company, fit_company, in_company
from allreview.evaluation.naming import in_company_in_words
from allreview.evaluation.reports import company_report, run_report
from tests.factory import Store, finished_run, small_store


def table(chances: list[float]) -> np.ndarray:
    return np.array([[chance, 1 - chance] for chance in chances])


def test_a_lone_cell_says_what_it_said() -> None:
    said = table([0.9, 0.3])
    alone = in_company(said, ["a", "b"], Company(own=1.0, others=3.0))
    assert alone == pytest.approx(said)


def test_one_doubtful_cell_follows_its_many_neighbours() -> None:
    said = table([0.4] + [0.9] * 9)
    found = in_company(said, ["a"] * 10, Company(own=1.0, others=1.0))
    assert found[0, 0] > 0.5
    # Its own log-probabilities and those of the nine others, whose sum is divided by ten.
    logits = np.log([0.4, 0.6]) + 0.9 * np.log([0.9, 0.1])
    assert found[0] == pytest.approx(np.exp(logits) / np.exp(logits).sum())
    assert in_company(said, ["a"] * 10, Company(own=1.0, others=0.0)) == pytest.approx(said)


def _patients(random: np.random.Generator, mixed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities and subjects of 30 patients of 30 cells: all of one class each, or of both at random."""
    subjects = np.repeat(np.arange(30), 30)
    labels = random.integers(2, size=900) if mixed else subjects % 2
    logit = (2.0 * labels - 1) * 0.8 + random.normal(0, 1.3, 900)
    return labels, table(list(1 / (1 + np.exp(logit)))), subjects.astype(str)


def test_patients_of_one_class_are_judged_better_together() -> None:
    random = np.random.default_rng(0)
    fitted = fit_company(*_patients(random, mixed=False))
    assert fitted is not None
    assert fitted.others > 0.5
    labels, said, subjects = _patients(random, mixed=False)
    alone, together = (
        np.mean(one.argmax(axis=1) == labels) for one in (said, in_company(said, subjects, fitted))
    )
    assert alone < 0.78
    assert together > 0.95


def test_where_cells_of_a_patient_differ_company_counts_for_little() -> None:
    random = np.random.default_rng(1)
    fitted = fit_company(*_patients(random, mixed=True))
    assert fitted is not None
    labels, said, subjects = _patients(random, mixed=True)
    alone, together = (
        np.mean(one.argmax(axis=1) == labels) for one in (said, in_company(said, subjects, fitted))
    )
    assert together == pytest.approx(alone, abs=0.03)


def test_few_patients_or_one_class_tell_nothing() -> None:
    said = table([0.9, 0.2] * 6)
    assert fit_company([0, 1] * 6, said, ["a", "b", "c", "d"] * 3) is None
    assert fit_company([0] * 12, said, [str(n) for n in range(12)]) is None


SUBJECTS = {f"{n}": ("all", 8) for n in range(1, 9)} | {f"H{n}": ("hem", 8) for n in range(1, 7)}
TEST = ["1", "2", "3", "H1", "H2", "H3"]
VALIDATION = ["4", "5", "6", "H4", "H5"]


def _run(engine: sa.Engine, store: Store, validation: list[str]) -> int:
    random = np.random.default_rng(3)
    said = {}
    for subject, cells in store.cells.items():
        label, other = ("hem", "all") if subject.startswith("H") else ("all", "hem")
        for cell in cells:
            said[cell] = (label if random.random() < 0.75 else other, float(random.uniform(0.55, 0.8)))
    parts = {cell: "test" for subject in TEST for cell in store.cells[subject]}
    parts |= {cell: "validation" for subject in validation for cell in store.cells[subject]}
    return finished_run(engine, store, said, parts=parts)


def test_a_run_read_in_company_has_the_same_cells_and_figures_of_its_own(engine: sa.Engine) -> None:
    run = _run(engine, small_store(engine, SUBJECTS), VALIDATION)
    alone, together = run_report(engine, run), company_report(engine, run)
    assert together is not None
    assert (together.cell_ids, together.labels) == (alone.cell_ids, alone.labels)
    assert together.figures["accuracy"] > alone.figures["accuracy"]
    assert together.probabilities.sum(axis=1) == pytest.approx(1)
    assert run_report(engine, run).predicted == alone.predicted  # what is stored stays as it was


def test_no_company_without_validation_subjects(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine, SUBJECTS)
    assert company_report(sqlite_engine, _run(sqlite_engine, store, VALIDATION[:3])) is None


def test_no_company_where_patients_are_shared(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine, SUBJECTS, tied=(("1", "7"),))  # 7 is trained on, and 1 tested
    assert company_report(sqlite_engine, _run(sqlite_engine, store, VALIDATION)) is None


def test_the_words() -> None:
    scores = {"n": 1200, "accuracy": 0.913, "weighted_f1": 0.912, "intervals": {"accuracy": [0.82, 0.97]}}
    assert in_company_in_words(scores) == (
        "Read in their company, 91.3 % of the 1,200 test cells are right (95 % interval 82 to 97 %), "
        "weighted F1 91.2 %."
    )
    assert in_company_in_words(None).startswith("Cells were not read in their company")
