"""The learning rate by step, and the rules by which a fit ends."""

import math

import keras
import pytest

from allreview.recipe import make_recipe
from allreview.training.compiling import learning_rate, rate_at
from allreview.training.epochs import EpochRow, best_epoch, is_over

STEPS = 10  # an epoch


def rates(**settings) -> list[float]:
    recipe = make_recipe({"epochs": 5, "learning_rate": 0.01, **settings})
    return [rate_at(recipe, STEPS, step) for step in range(5 * STEPS)]


def test_a_constant_rate_is_a_plain_number():
    assert learning_rate(make_recipe({"learning_rate": 0.003}), STEPS) == 0.003
    assert set(rates()) == {0.01}


def test_cosine_falls_to_nothing():
    found = rates(schedule="cosine")
    expected = [0.01 * (1 + math.cos(math.pi * step / 50)) / 2 for step in range(50)]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert found[-1] < 0.01 * 0.002


def test_exponential_falls_to_a_hundredth():
    found = rates(schedule="exponential")
    assert found == pytest.approx([0.01 * 0.01 ** (step / 50) for step in range(50)], rel=1e-4)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
def test_warm_up_rises_evenly_and_the_rest_follows(schedule):
    found = rates(schedule=schedule, warmup_epochs=2)
    assert found[:20] == pytest.approx([0.01 * (step + 1) / 20 for step in range(20)], rel=1e-5)
    later = make_recipe({"epochs": 3, "learning_rate": 0.01, "schedule": schedule})
    assert found[20:] == pytest.approx([rate_at(later, STEPS, step) for step in range(30)], rel=1e-4)


def test_the_optimiser_takes_the_rate_from_its_own_steps():
    """So a backup, which holds them, holds where the schedule stood."""
    rate = learning_rate(make_recipe({"schedule": "cosine", "warmup_epochs": 1, "epochs": 5}), STEPS)
    optimizer = keras.optimizers.Adamax(rate)
    optimizer.build([keras.Variable([0.0])])
    optimizer.iterations.assign(30)
    recipe = make_recipe({"schedule": "cosine", "warmup_epochs": 1, "epochs": 5})
    assert float(optimizer.learning_rate) == pytest.approx(rate_at(recipe, STEPS, 30))


def row(epoch: int, val_cross_entropy: float) -> EpochRow:
    return EpochRow(epoch, 1.0, 0.5, 9.0 - epoch, 0.5, val_cross_entropy, 0.001, 0.1)


def test_patience_counts_from_the_best_epoch_by_the_recipes_measure():
    rows = [row(1, 0.9), row(2, 0.5), row(3, 0.6), row(4, 0.5), row(5, 0.7)]
    patient = make_recipe({"patience": 3, "epochs": 9})
    assert [is_over(rows[:done], patient) for done in range(6)] == [False] * 5 + [True]
    assert not is_over(rows, patient.model_copy(update={"patience": 4}))
    assert not is_over(rows, patient.model_copy(update={"patience": None}))
    assert not is_over(rows, patient.model_copy(update={"best_by": "val_loss"}))  # falls all the time
    assert is_over(rows, make_recipe({"epochs": 5}))
    assert best_epoch(rows, "val_cross_entropy") == 2
