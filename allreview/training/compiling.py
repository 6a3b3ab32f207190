"""The recipe's learning rate, by step: it may rise at first and fall later.

It is a function of the optimiser's own count of steps, which a backup holds, so a fit that was killed goes on
where the rate stood.
"""

from typing import Any

import keras

from allreview.models.building import compile_model
from allreview.recipe import Recipe

LAST_SHARE = 0.01
"""What the exponential schedule has left of the learning rate at the end."""


def compiled(model: keras.Model, recipe: Recipe, steps_per_epoch: int) -> keras.Model:
    """The model with the recipe's optimiser, learning rate, loss and metrics."""
    return compile_model(model, recipe, learning_rate(recipe, steps_per_epoch))


def learning_rate(
    recipe: Recipe, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate as Keras takes it: a number, or a schedule of the step, counted from 0."""
    warmup = recipe.warmup_epochs * steps_per_epoch
    falls_for = recipe.epochs * steps_per_epoch - warmup
    schedules = keras.optimizers.schedules
    rate: Any = {
        "constant": lambda: recipe.learning_rate,
        "cosine": lambda: schedules.CosineDecay(recipe.learning_rate, falls_for),
        "exponential": lambda: schedules.ExponentialDecay(recipe.learning_rate, falls_for, LAST_SHARE),
    }[recipe.schedule]()
    return WarmUp(recipe.learning_rate, warmup, rate) if warmup else rate


def rate_at(recipe: Recipe, steps_per_epoch: int, step: int) -> float:
    """The learning rate of one step, counted from 0."""
    rate: Any = learning_rate(recipe, steps_per_epoch)
    found: Any = rate(step) if callable(rate) else rate
    return float(found)


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rises evenly to `peak` in so many steps, the last of them at `peak`; then what comes after.

    Goyal et al. 2017, arXiv:1706.02677, section 2.2. The first step is above 0, or it would teach nothing.
    """

    def __init__(self, peak: float, steps: int, after: Any) -> None:
        super().__init__()
        self.peak, self.steps, self.after = peak, steps, after

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        rising = self.peak * (step + 1) / self.steps
        after = self.after(step - self.steps) if callable(self.after) else self.after
        return keras.ops.where(step < self.steps, rising, after)
