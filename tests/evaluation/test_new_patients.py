"""What to expect of a patient the model has never seen."""

import numpy as np
import pytest

from allreview.evaluation.naming import new_patient_in_words
from allreview.evaluation.new_patients import new_patient


def test_every_patient_counts_the_same() -> None:
    units = ["a"] * 96 + ["b", "c", "d", "e"]
    found = new_patient([True] * 96 + [False] * 4, units)
    assert found is not None
    assert found["patients"] == 5
    assert found["accuracy"] == pytest.approx(0.2)  # 0.96 of the cells


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(100):
        shares = random.beta(4, 2, 25)
        right = random.random((25, 40)) < shares[:, None]
        found = new_patient(list(right.ravel()), [str(n) for n in np.repeat(np.arange(25), 40)])
        assert found is not None
        assert found["interval"] is not None
        low, high = found["interval"]
        held += low <= 4 / 6 <= high
    assert 88 <= held <= 100


def test_eight_in_ten_patients_lie_between_the_ends() -> None:
    right = [cell < patient for patient in range(11) for cell in range(10)]
    found = new_patient(right, [str(patient) for patient in range(11) for _ in range(10)])
    assert found is not None
    assert found["most"] == pytest.approx([0.1, 0.9])


def test_few_patients_tell_nothing() -> None:
    assert new_patient([True] * 40, ["a", "b", "c", "d"] * 10) is None


def test_the_words() -> None:
    found = {"patients": 12, "accuracy": 0.781, "interval": [0.68, 0.86], "most": [0.45, 0.98]}
    assert new_patient_in_words(found, shares_patients=False) == (
        "Of a new patient's cells, expect 78 % to be right (95 % interval 68 to 86 %, from 12 patients it never saw). "
        "Patients differ: for eight in ten of them it was 45 to 98 %."
    )
    assert "95 %" not in new_patient_in_words({**found, "interval": None}, shares_patients=False)
    assert new_patient_in_words(found, shares_patients=True).startswith("Nothing here tells")
    assert new_patient_in_words(None, shares_patients=False).startswith("Too few patients")
