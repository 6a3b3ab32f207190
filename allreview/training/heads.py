"""The fit of one head or several on cached features: Keras's training step, traced once and kept for the next fit.

The arithmetic is that of `keras.Model.fit`, batch by batch, with the compiled optimiser, loss and metrics. Only what
`fit` does around a step is left out, which for a head costs several times the step: handing every batch to another
thread, making a NumPy array of every figure, and tracing anew for every fit.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from allreview.models.building import build_head
from allreview.models.cross_fitting import build_heads
from allreview.recipe import Recipe
from allreview.training.batches import Batch, CrossFitBatches, FeatureBatches
from allreview.training.compiling import compiled

VALIDATION_BATCH = 256
_BATCHES_TOGETHER = 64
"""Batches of features that are handed to TensorFlow at once: bounds the memory, however many cells there are."""


class HeadModel(keras.Model):
    """A functional model whose training step ends in compiled code: its optimiser and metrics are a hundred small
    operations, which take longer one by one than all matrix products.

    Of several `heads` the loss is the sum, as each has penalties of its own; what is measured is their mean.
    """

    heads = 1

    def train_step(self, data: Any) -> None:
        features, targets, weights = data
        with tf.GradientTape() as tape:
            said = self(features, training=True)
            loss: Any = self._summed_loss(features, targets, said, weights)
        gradients = tape.gradient(loss, self.trainable_variables)  # type: ignore[arg-type] - a tensor
        self._learn(gradients, loss, targets, said, weights)

    @tf.function(jit_compile=True, autograph=False)
    def _learn(self, gradients: Any, loss: Any, targets: Any, said: Any, weights: Any) -> None:
        self.optimizer.apply(gradients, self.trainable_variables)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss / self.heads, sample_weight=tf.shape(targets)[0])
            else:
                metric.update_state(targets, said, sample_weight=weights)

    def test_step(self, data: Any) -> None:
        features, targets, weights = data
        said = self(features, training=False)
        loss: Any = self._summed_loss(features, targets, said, weights)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss / self.heads, sample_weight=tf.shape(targets)[0])
            else:
                metric.update_state(targets, said, sample_weight=weights)

    def _summed_loss(self, features: Any, targets: Any, said: Any, weights: Any) -> Any:
        return self.compute_loss(x=features, y=targets, y_pred=said, sample_weight=self.heads * weights)


class HeadTrainer:
    """A head, or several side by side (`cross_fitting.build_heads`), with the optimiser, and the steps as TensorFlow
    runs them.

    `head` is uncompiled, `trainer` the compiled model on the same layers. A fit begins with `reset`. Of several heads
    features, labels and weights have one more axis, the second, of the heads.
    """

    def __init__(self, recipe: Recipe, n_features: int, n_classes: int, steps_per_epoch: int) -> None:
        several = recipe.n_heads > 1
        self.head = (build_heads if several else build_head)(recipe, n_features, n_classes)
        self.trainer: Any = compiled(HeadModel(self.head.inputs, self.head.outputs), recipe, steps_per_epoch)
        self.trainer.heads = recipe.n_heads
        self.trainer.optimizer.build(self.trainer.trainable_variables)
        cells = (None, recipe.n_heads) if several else (None,)
        signature = [
            tf.TensorSpec((*cells, n_features), tf.float32),
            tf.TensorSpec((*cells, n_classes), tf.float32),
            tf.TensorSpec(cells, tf.float32),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.int32),
        ]
        self._train: Any = tf.function(self._train_step, autograph=False).get_concrete_function(*signature)
        self._test: Any = tf.function(self._test_step, autograph=False).get_concrete_function(*signature)
        self._start = [variable.numpy() for variable in self._variables()]

    def reset(self) -> None:
        """Put weights and optimiser back to where the recipe's seed had them."""
        for variable, value in zip(self._variables(), self._start, strict=True):
            variable.assign(value)
        self.trainer.stop_training = False

    def fit(
        self,
        batches: FeatureBatches | CrossFitBatches,
        validation: Batch,
        epochs: range,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        """Run these epochs, counted from 0, or until a callback stops them. `validation` is features, labels (one-hot)
        and weights, as a batch.

        The callbacks hear what Keras would tell them of epochs and batches, but get figures at an epoch's end only.
        """
        for epoch in epochs:
            for callback in callbacks:
                callback.on_epoch_begin(epoch)
            self.trainer.reset_metrics()
            for number in self._train_on(batches):
                for callback in callbacks:
                    callback.on_train_batch_end(number)
            figures = dict(self.trainer.get_metrics_result())
            self.trainer.reset_metrics()
            for callback in callbacks:
                callback.on_test_begin()
            for number in self._test_on(*validation):
                for callback in callbacks:
                    callback.on_test_batch_end(number)
            for callback in callbacks:
                callback.on_test_end()
            held_out = self.trainer.get_metrics_result()
            figures |= {f"val_{name}": value for name, value in held_out.items()}
            for callback in callbacks:
                callback.on_epoch_end(epoch, figures)
            if self.trainer.stop_training:
                return

    def _train_on(self, batches: FeatureBatches | CrossFitBatches) -> Iterator[int]:
        """Train on an epoch's batches, and give the number of each when it is done."""
        together = max(1, _BATCHES_TOGETHER // self.trainer.heads)
        for first in range(0, len(batches), together):
            some = [batches[number] for number in range(first, min(first + together, len(batches)))]
            joined = _joined(some)
            ends = np.cumsum([0, *(len(batch[0]) for batch in some)], dtype=np.int32)
            for number, (start, end) in enumerate(pairwise(ends), start=first):
                self._train(*joined, tf.constant(start), tf.constant(end))
                yield number

    def _test_on(self, *validation: np.ndarray) -> Iterator[int]:
        count = len(validation[0])
        for number, start in enumerate(range(0, count, VALIDATION_BATCH)):
            some = [tf.constant(array[start : start + VALIDATION_BATCH]) for array in validation]
            self._test(*some, tf.constant(0), tf.constant(min(VALIDATION_BATCH, count - start)))
            yield number

    def _train_step(self, features: Any, targets: Any, weights: Any, start: Any, end: Any) -> None:
        self.trainer.train_step((features[start:end], targets[start:end], weights[start:end]))

    def _test_step(self, features: Any, targets: Any, weights: Any, start: Any, end: Any) -> None:
        self.trainer.test_step((features[start:end], targets[start:end], weights[start:end]))

    def _variables(self) -> list[Any]:
        return [*self.trainer.variables, *self.trainer.optimizer.variables]


def head_trainer(recipe: Recipe, n_features: int, n_classes: int, steps_per_epoch: int) -> HeadTrainer:
    """The recipe's trainer as a fit begins. The last two are kept: a retrain finds its parent's.

    It serves one fit at a time.
    """
    scheduled = recipe.schedule != "constant" or recipe.warmup_epochs
    kept = _kept_trainer(recipe.model_dump_json(), n_features, n_classes, steps_per_epoch if scheduled else 0)
    kept.reset()
    return kept


@lru_cache(maxsize=2)
def _kept_trainer(recipe: str, n_features: int, n_classes: int, steps_per_epoch: int) -> HeadTrainer:
    return HeadTrainer(Recipe.model_validate_json(recipe), n_features, n_classes, steps_per_epoch)


def _joined(batches: Sequence[Batch]) -> list[Any]:
    return [tf.constant(np.concatenate(arrays)) for arrays in zip(*batches, strict=True)]
