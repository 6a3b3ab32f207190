"""What a recipe can ask of a fit beyond epochs: patience, schedules, smoothing; and what a fit leaves behind."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from allreview.recipe import make_recipe
from allreview.training import callbacks
from allreview.training.checkpoints import kept_epoch
from allreview.training.compiling import rate_at
from allreview.training.epochs import StopRequested
from allreview.training.fitting import fit_head
from tests.training.test_fitting import RECIPE, STEPS, Hooks, vectors


@pytest.fixture(autouse=True)
def every_epoch_backed_up(monkeypatch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_BACKUPS", 0)


def fit(folder: Path, hooks: Hooks | None = None, *, labels: np.ndarray | None = None, **settings):
    """The rows of a fit of the head on vectors, with these settings changed."""
    views, known, validation, validation_labels = vectors()
    hooks = hooks or Hooks()
    recipe = make_recipe({**RECIPE.model_dump(), **settings})
    fit_head(
        recipe, views, known, validation, validation_labels if labels is None else labels, 2, folder, hooks
    )
    return hooks.rows


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """{part/name: [(step, value)]} as they lie in TensorBoard's files."""
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((folder / "tensorboard").rglob("events*")):
        for record in tf.data.TFRecordDataset([str(file)]):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(f"{file.parent.name}/{value.tag}", []).append((event.step, number))
    return found


def test_tensorboard_has_each_epoch_once_after_a_stop_too(tmp_path):
    hooks = Hooks(stop_after=1 + 2 * (STEPS + 1) + 3)
    with pytest.raises(StopRequested):
        fit(tmp_path, hooks)
    assert [step for step, _ in scalars(tmp_path)["train/epoch/loss"]] == [1, 2]
    rows = hooks.rows + fit(tmp_path)
    found = scalars(tmp_path)
    for name, field in {
        "train/epoch/loss": "loss",
        "train/epoch/accuracy": "accuracy",
        "train/epoch/learning_rate": "learning_rate",
        "validation/epoch/loss": "val_loss",
        "validation/epoch/accuracy": "val_accuracy",
        "validation/epoch/cross_entropy": "val_cross_entropy",
    }.items():
        steps, values = zip(*found[name], strict=True)
        assert steps == (1, 2, 3, 4, 5)
        assert values == pytest.approx([getattr(row, field) for row in rows])
    # Each epoch's rate is that of its last step, also where the fit began anew in between.
    expected = [rate_at(RECIPE, STEPS, epoch * STEPS - 1) for epoch in range(1, 6)]
    assert [row.learning_rate for row in rows] == pytest.approx(expected)


def test_patience_ends_a_fit_and_a_resumed_one_alike(tmp_path):
    """Labels of noise: validation gets worse while training goes on."""
    noise = np.random.default_rng(3).integers(2, size=30)
    settings = {
        "labels": noise,
        "epochs": 30,
        "patience": 2,
        "kernel_l2": 0,
        "mixup": 0,
        "schedule": "constant",
    }
    rows = fit(tmp_path / "whole", **settings)
    best = kept_epoch(tmp_path / "whole")
    assert best is not None
    assert len(rows) == best.epoch + 2 < 30
    stopped = Hooks(stop_after=1 + (best.epoch + 1) * (STEPS + 1) + 2)
    with pytest.raises(StopRequested):
        fit(tmp_path / "stopped", stopped, **settings)
    assert len(stopped.rows) == best.epoch + 1
    resumed = fit(tmp_path / "stopped", **settings)
    assert [replace(row, seconds=0) for row in stopped.rows + resumed] == [
        replace(row, seconds=0) for row in rows
    ]
    assert fit(tmp_path / "stopped", **settings) == []  # it is over, and stays so


def test_smoothing_and_penalties_are_in_the_loss_and_not_in_the_cross_entropy(tmp_path):
    plain = {"mixup": 0, "label_smoothing": 0, "kernel_l2": 0, "activity_l1": 0, "bias_l1": 0, "epochs": 2}
    for row in fit(tmp_path / "plain", **plain):
        assert row.val_loss == pytest.approx(row.val_cross_entropy, rel=1e-5)
    for row in fit(tmp_path / "smooth", **{**plain, "label_smoothing": 0.3}):
        assert row.val_loss > row.val_cross_entropy + 0.01
