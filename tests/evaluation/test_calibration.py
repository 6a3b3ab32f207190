"""Temperature scaling finds the temperature that was put in, and is harmless where there is nothing to find."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from allreview.errors import UserError
from allreview.evaluation.calibration import fit_temperature, tempered
from allreview.evaluation.metrics import evaluate


def _calibrated_case(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the probabilities themselves, so these are calibrated by construction."""
    random = np.random.default_rng(seed)
    table = softmax(random.normal(scale=2, size=(n, k)), axis=1)
    labels = (random.random((n, 1)) > table.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    return labels, table


@pytest.mark.parametrize("k", [2, 8])
@pytest.mark.parametrize("put_in", [0.4, 1.0, 3.0])
def test_finds_the_temperature_that_was_put_in(k: int, put_in: float) -> None:
    labels, table = _calibrated_case(20_000, k)
    assert fit_temperature(labels, tempered(table, 1 / put_in)) == pytest.approx(put_in, rel=0.04)


def test_an_overconfident_model_is_calibrated_on_cells_it_was_not_fitted_on() -> None:
    labels, table = _calibrated_case(8_000, 2)
    overconfident = tempered(table, 1 / 4)
    temperature = fit_temperature(labels[:4000], overconfident[:4000])
    names = [("all", "hem")[label] for label in labels[4000:]]
    before = evaluate(names, overconfident[4000:], ["all", "hem"])
    after = evaluate(names, tempered(overconfident[4000:], temperature), ["all", "hem"])
    assert (before["ece"] or 0) > 0.1
    assert (after["ece"] or 1) < 0.03
    assert before["confusion"] == after["confusion"]


@pytest.mark.parametrize(
    ("labels", "table"),
    [
        ([], np.zeros((0, 2))),
        ([0, 1], [[0.4, 0.6], [0.6, 0.4]]),
        ([0] * 30, [[0.4, 0.6]] * 30),
        ([0, 1] * 10, [[0.9, 0.1], [0.1, 0.9]] * 10),
        ([0, 1] * 10, [[0.5, 0.5]] * 20),
    ],
    ids=["no cells", "two cells", "one class", "all right", "no opinion"],
)
def test_where_cells_cannot_tell_nothing_changes(labels: list[int], table: object) -> None:
    assert fit_temperature(np.array(labels, dtype=int), np.array(table)) == 1.0


def test_bounds_hold_where_the_model_is_worse_than_chance() -> None:
    labels = np.array([0, 1] * 20)
    wrong = np.array([[1.0, 0.0] if label else [0.0, 1.0] for label in labels])
    assert fit_temperature(labels, wrong) == pytest.approx(10.0, rel=1e-3)


def test_certainties_of_zero_and_one_stay_finite() -> None:
    labels = np.array([0, 1] * 20)
    certain = np.array([[1.0, 0.0] if label == 0 else [0.0, 1.0] for label in labels])
    certain[0] = certain[0][::-1]
    temperature = fit_temperature(labels, certain)
    assert 1 < temperature <= 10
    assert np.isfinite(tempered(certain, temperature)).all()


@given(
    st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(0.2, 10),
)
def test_tempering_is_dividing_logits_and_can_be_taken_back(
    logits: list[list[float]], temperature: float
) -> None:
    table = softmax(np.array(logits), axis=1)
    warm = tempered(table, temperature)
    assert warm == pytest.approx(softmax(np.array(logits) / temperature, axis=1), abs=1e-9)
    assert tempered(warm, 1 / temperature) == pytest.approx(table, abs=1e-9)


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(UserError, match="not a positive number"):
        tempered([[0.5, 0.5]], temperature)


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(UserError, match="one for each cell"):
        fit_temperature([0, 1], [[0.5, 0.5]])
    with pytest.raises(UserError, match="position from 0 to 1"):
        fit_temperature([0, 2] * 10, [[0.5, 0.5]] * 20)
    with pytest.raises(UserError, match="not a number between 0 and 1"):
        fit_temperature([0, 1] * 10, [[float("nan"), 0.5]] * 20)
    with pytest.raises(UserError, match="one row for each cell"):
        tempered([0.5, 0.5], 2)
