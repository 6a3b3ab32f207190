"""The fit in both modes: same numbers every time, resumed after a kill, stopped within a batch."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from allreview.cells.decoding import read_rgb
from allreview.errors import UserError
from allreview.models.building import build_head, compile_model, head_of
from allreview.models.pretrained import WEIGHT_FILES
from allreview.models.saving import TrainedModel
from allreview.recipe import make_recipe
from allreview.settings import current_settings
from allreview.training import callbacks, fitting, heads
from allreview.training.batches import FeatureBatches, drawn, one_hot
from allreview.training.checkpoints import kept_epoch
from allreview.training.compiling import compiled
from allreview.training.epochs import EpochRow, StopRequested, best_epoch
from allreview.training.features import CellImage, cached_features
from allreview.training.fitting import (
    best_head,
    best_model,
    fit_end_to_end,
    fit_head,
    head_probabilities,
    with_backbones,
)
from allreview.training.tensorboard import EventLog

EVERYTHING_ON = {
    "imbalance": "augment", "mixup": 0.1, "schedule": "cosine", "warmup_epochs": 1, "label_smoothing": 0.02,
}  # fmt: skip
RECIPE = make_recipe(
    {
        **EVERYTHING_ON,
        "epochs": 5,
        "batch_size": 16,
        "dense_units": 16,
        "image_size": 64,
        "learning_rate": 0.05,
    }
)
STEPS = 9  # an epoch: of 90 cells 67 are of the larger class, so 134 are shown
ROOT = Path(__file__).parent.parent.parent


class Hooks:
    """Records what the fit says; stops after a number of batches, training and validation together."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rows: list[EpochRow] = []
        self.batches: list[tuple[int, int, float, float]] = []
        self.checks, self.stop_after = 0, stop_after

    def on_epoch(self, row: EpochRow) -> None:
        self.rows.append(row)

    def on_batch(self, done: int, total: int, rate: float, left: float) -> None:
        self.batches.append((done, total, rate, left))

    def check(self) -> None:
        self.checks += 1
        if self.checks == self.stop_after:
            raise StopRequested


def vectors(n: int = 90, m: int = 30):
    """Two views of separable classes, one rarer: views, labels, validation, validation labels."""
    generator = np.random.default_rng(0)
    labels = (generator.random(n + m) < 0.3).astype(int)
    features = (generator.normal(size=(n + m, 20)) + labels[:, None]).astype(np.float32)
    views = [features[:n], features[:n] + generator.normal(0, 0.1, (n, 20)).astype(np.float32)]
    return views, labels[:n], features[n:], labels[n:]


def figures(rows: list[EpochRow]) -> list[tuple[float, ...]]:
    return [(row.epoch, row.loss, row.accuracy, row.val_loss, row.val_accuracy) for row in rows]


def fitted_head(recipe, data, folder, hooks):
    """The head of a fit's best epoch."""
    fit_head(recipe, *data, 2, folder, hooks)
    head = best_head(recipe, data[0][0].shape[1], 2, folder)
    assert head is not None
    return head


@pytest.fixture(autouse=True)
def every_epoch_backed_up(monkeypatch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_BACKUPS", 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A fit that nobody disturbed: its hooks and its head."""
    hooks = Hooks()
    return hooks, fitted_head(RECIPE, vectors(), tmp_path_factory.mktemp("whole"), hooks)


def assert_same_weights(one, other):
    for expected, found in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_head_learns_and_reports(whole):
    hooks, head = whole
    assert [row.epoch for row in hooks.rows] == [1, 2, 3, 4, 5]
    assert hooks.rows[-1].loss < hooks.rows[0].loss
    assert hooks.rows[-1].val_accuracy > 0.8
    assert all(row.seconds > 0 for row in hooks.rows)
    assert hooks.checks == 1 + 5 * (STEPS + 1)
    for done, total, rate, left in hooks.batches:
        assert 0 < done <= total == 5 * STEPS
        assert rate > 0
        assert left >= 0
    assert hooks.batches
    _, _, validation, labels = vectors()
    assert (np.asarray(head(validation)).argmax(1) == labels).mean() > 0.8


def test_the_same_recipe_and_data_give_the_same_numbers(whole, tmp_path):
    hooks = Hooks()
    head = fitted_head(RECIPE, vectors(), tmp_path, hooks)
    assert figures(hooks.rows) == figures(whole[0].rows)
    assert_same_weights(whole[1], head)
    other = Hooks()
    fit_head(RECIPE.model_copy(update={"seed": 1}), *vectors(), 2, tmp_path / "other", other)
    assert figures(other.rows) != figures(hooks.rows)


def test_a_killed_fit_goes_on_with_the_same_numbers(whole, tmp_path):
    command = [sys.executable, "-m", "tests.training.killed_fit", str(tmp_path)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [line.split("seconds")[0] for line in killed.stdout.splitlines()] == [
        str(row).split("seconds")[0] for row in whole[0].rows[:3]
    ]
    hooks = Hooks()
    head = fitted_head(RECIPE, vectors(), tmp_path, hooks)
    # Epoch 3 was reported but not backed up: it comes once more, the same; 1 and 2 do not.
    assert figures(hooks.rows) == figures(whole[0].rows[2:])
    assert_same_weights(whole[1], head)
    finished = Hooks()
    assert_same_weights(head, fitted_head(RECIPE, vectors(), tmp_path, finished))
    assert finished.rows == []


def test_epochs_that_follow_close_on_a_backup_are_run_again_the_same(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_BACKUPS", 3600)
    stopped, resumed = Hooks(stop_after=1 + 3 * (STEPS + 1) + 2), Hooks()
    with pytest.raises(StopRequested):
        fit_head(RECIPE, *vectors(), 2, tmp_path, stopped)
    assert len(stopped.rows) == 3
    head = fitted_head(RECIPE, vectors(), tmp_path, resumed)
    assert figures(resumed.rows) == figures(whole[0].rows[1:])
    assert_same_weights(whole[1], head)


def test_averaged_weights_are_what_is_validated_and_kept_and_a_fit_goes_on_with_both(tmp_path):
    recipe = RECIPE.model_copy(update={"weight_averaging": 0.9})
    whole, stopped, resumed = Hooks(), Hooks(stop_after=1 + 3 * (STEPS + 1) + 2), Hooks()
    data = vectors()
    head = fitted_head(recipe, data, tmp_path / "whole", whole)
    best = min(whole.rows, key=lambda row: row.val_cross_entropy)
    said = head_probabilities(head, data[2])
    measured = -np.log(said[np.arange(len(said)), data[3]]).mean()
    assert measured == pytest.approx(best.val_cross_entropy, abs=1e-5)
    plain = fitted_head(RECIPE, data, tmp_path / "plain", Hooks())
    assert np.abs(head_probabilities(plain, data[2]) - said).max() > 0.01
    with pytest.raises(StopRequested):
        fit_head(recipe, *data, 2, tmp_path / "stopped", stopped)
    again = fitted_head(recipe, data, tmp_path / "stopped", resumed)
    assert figures(stopped.rows + resumed.rows) == figures(whole.rows)
    assert_same_weights(head, again)


def test_adamw_takes_off_its_share_of_weights_alone(tmp_path):
    far = RECIPE.model_copy(update={"optimizer": "adamw", "weight_decay": 1.0, "learning_rate": 0.01})
    near = far.model_copy(update={"weight_decay": 0.0})
    sizes = [
        float(
            np.linalg.norm(
                fitted_head(recipe, vectors(), tmp_path / name, Hooks()).get_layer("hidden").kernel
            )
        )
        for name, recipe in (("far", far), ("near", near))
    ]
    assert sizes[0] < 0.95 * sizes[1]
    optimizer = compile_model(build_head(far, 20, 2), far).optimizer
    optimizer.build([keras.Variable([1.0], name=name) for name in ("kernel", "bias", "gamma", "beta")])
    decayed = [v.name for v in optimizer._trainable_variables if optimizer._use_weight_decay(v)]
    assert decayed == ["kernel"]


@pytest.mark.parametrize("name", ["adamax", "adam", "adamw", "sgd"])
def test_a_head_is_fitted_as_keras_itself_would(name, tmp_path):
    """Its twin goes through `keras.Model.fit`, with the same batches, callbacks and validation."""
    recipe = make_recipe({**RECIPE.model_dump(), "optimizer": name, "learning_rate": 0.01, "epochs": 4})
    views, labels, validation, validation_labels = vectors()
    hooks, plain_hooks = Hooks(), Hooks()
    head = fitted_head(recipe, vectors(), tmp_path / "ours", hooks)

    batches = FeatureBatches(recipe, views, labels, 2)
    plain = build_head(recipe, 20, 2)
    fitting._start_normalization(plain, views, drawn(recipe, labels, 1, 0)[0])
    trainer = compiled(keras.Model(plain.inputs, plain.outputs), recipe, len(batches))
    folder = tmp_path / "keras"
    trainer.fit(
        batches, validation_data=(validation, one_hot(validation_labels, 2)), validation_batch_size=256,
        epochs=4, shuffle=False, verbose=0,
        callbacks=[
            callbacks.Reporter(trainer, recipe, batches, plain_hooks),
            callbacks.EpochKeeper(
                plain, trainer, recipe, batches, folder, [], EventLog(folder, []), plain_hooks
            ),
        ],
    )  # fmt: skip
    np.testing.assert_allclose(figures(hooks.rows), figures(plain_hooks.rows), rtol=1e-5)
    assert hooks.checks == 1 + plain_hooks.checks  # ours looks once before it begins
    twin = best_head(recipe, 20, 2, folder)
    assert twin is not None
    for found, expected in zip(head.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_fit_finds_the_steps_of_the_one_before_and_nothing_else_of_it(tmp_path):
    first, again = (
        fitted_head(RECIPE, vectors(), tmp_path / "1", Hooks()),
        heads._kept_trainer.cache_info().hits,
    )
    views, labels, *rest = vectors()
    other = fitted_head(RECIPE, (views, 1 - labels, *rest), tmp_path / "2", Hooks())
    assert heads._kept_trainer.cache_info().hits == again + 1
    assert not np.array_equal(first.get_weights()[4], other.get_weights()[4])
    assert_same_weights(first, fitted_head(RECIPE, vectors(), tmp_path / "3", Hooks()))


def test_stop_ends_within_a_batch_and_keeps_the_best(whole, tmp_path):
    stopped = Hooks(stop_after=1 + 2 * (STEPS + 1) + 3)
    with pytest.raises(StopRequested):
        fit_head(RECIPE, *vectors(), 2, tmp_path, stopped)
    assert stopped.checks == stopped.stop_after
    assert figures(stopped.rows) == figures(whole[0].rows[:2])
    kept = kept_epoch(tmp_path)
    assert kept is not None
    assert kept.epoch == best_epoch(stopped.rows, RECIPE.best_by)
    resumed = Hooks()
    fit_head(RECIPE, *vectors(), 2, tmp_path, resumed)
    assert figures(stopped.rows + resumed.rows) == figures(whole[0].rows)


def test_stop_in_validation_and_before_the_first_epoch(tmp_path):
    for stop_after in (1, 4, STEPS + 1, STEPS + 2):
        hooks = Hooks(stop_after=stop_after)
        folder = tmp_path / str(stop_after)
        with pytest.raises(StopRequested):
            fit_head(RECIPE, *vectors(), 2, folder, hooks)
        assert hooks.checks == stop_after
        assert hooks.rows == []
        assert kept_epoch(folder) is None
        assert best_head(RECIPE, 20, 2, folder) is None


def row(epoch: int, val_loss: float, val_accuracy: float = 0.5) -> EpochRow:
    return EpochRow(epoch, 1.0, 0.5, val_loss, val_accuracy, val_loss, 0.001, 0.1)


def test_the_earliest_of_equals_is_best():
    rows = [row(1, 0.9, 0.6), row(2, 0.7, 0.8), row(3, 0.7, 0.8), row(4, 0.8, 0.8)]
    assert best_epoch(rows[::-1], "val_loss") == 2
    assert best_epoch(rows, "val_accuracy") == 2
    assert best_epoch([], "val_loss") is None


@pytest.mark.parametrize("best_by", ["val_loss", "val_accuracy"])
def test_the_best_epochs_weights_are_returned(best_by, tmp_path):
    """Labels of noise: validation gets worse while training goes on."""
    views, labels, validation, _ = vectors()
    noise = np.random.default_rng(3).integers(2, size=30)
    recipe = make_recipe({**RECIPE.model_dump(), "best_by": best_by, "epochs": 8, "kernel_l2": 0})
    hooks = Hooks()
    head = fitted_head(recipe, (views, labels, validation, noise), tmp_path, hooks)
    kept = kept_epoch(tmp_path)
    assert kept is not None
    assert kept.epoch == best_epoch(hooks.rows, best_by) < 8
    accuracy = (np.asarray(head(validation)).argmax(1) == noise).mean()
    assert accuracy == pytest.approx(hooks.rows[kept.epoch - 1].val_accuracy)


def test_a_diverging_fit_says_what_to_do(tmp_path):
    views, *rest = vectors()
    recipe = make_recipe(
        {**RECIPE.model_dump(), "optimizer": "sgd", "learning_rate": 1.0, "activity_l1": 1e30}
    )
    with pytest.raises(UserError, match=r"diverged in epoch 1 .* learning_rate below 1"):
        fit_head(recipe, [view * 1e15 for view in views], *rest, 2, tmp_path, Hooks())
    assert kept_epoch(tmp_path) is None


def test_without_cells_there_is_no_fit(tmp_path):
    views, labels, validation, _ = vectors()
    with pytest.raises(UserError, match="no validation cells"):
        fit_head(RECIPE, views, labels, validation[:0], labels[:0], 2, tmp_path, Hooks())


@pytest.fixture
def cells(cnmc: Path) -> tuple[list[CellImage], np.ndarray]:
    """Twenty-four real cells, half of each class."""
    paths = [
        path for label in ("all", "hem") for path in sorted(cnmc.glob(f"fold_*/{label}/*.bmp"))[::8][:12]
    ]
    paths = [paths[i] for i in np.random.default_rng(0).permutation(24)]
    images = [CellImage(hashlib.sha256(path.read_bytes()).hexdigest(), path) for path in paths]
    return images, np.array([int(path.parent.name == "hem") for path in paths])


def test_the_joined_model_says_of_images_what_the_head_says_of_features(cells, weights, tmp_path):
    images, labels = cells
    files = {"mobilenet_v2": weights / WEIGHT_FILES["mobilenet_v2"].name}
    features = cached_features(
        images, RECIPE, files, current_settings(), progress=lambda *_: None, check=lambda: None
    )
    head = fitted_head(RECIPE, ([features], labels, features, labels), tmp_path, Hooks())
    model = with_backbones(head, RECIPE, files)
    trained = TrainedModel(model, RECIPE, ["all", "hem"])
    expected = np.asarray(head(features))
    pixels = trained.prepare([read_rgb(image.path, 10**8) for image in images])
    np.testing.assert_allclose(trained.probabilities(pixels), expected, atol=1e-3)
    np.testing.assert_allclose(head_probabilities(head, features), expected, atol=1e-6)
    assert_same_weights(head, head_of(model))


SCRATCH = make_recipe(
    {
        "backbone": "alexnet", "weights": "none", "mode": "finetune", "image_size": 64, "epochs": 3,
        "batch_size": 8, "dense_units": 8, "rotation": 180, "translation": 0.1, "stain": 0.1, "brightness": 0.1,
        "cutmix": 0.5, "imbalance": "augment", "schedule": "exponential",
    }
)  # fmt: skip


def end_to_end(cells, folder, hooks, recipe=SCRATCH, files=None):
    images, labels = cells
    return fit_end_to_end(
        recipe, images[:16], labels[:16], images[16:], labels[16:], ["all", "hem"], files or {}, folder,
        current_settings(), hooks,
    )  # fmt: skip


def test_end_to_end_stopped_and_resumed_gives_the_same_numbers(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_REPORTS", 0)
    undisturbed, stopped, resumed = Hooks(), Hooks(stop_after=1 + 3 + 1), Hooks()
    expected = end_to_end(cells, tmp_path / "whole", undisturbed)
    with pytest.raises(StopRequested):
        end_to_end(cells, tmp_path / "stopped", stopped)
    assert stopped.checks == stopped.stop_after
    assert best_model(SCRATCH, ["all", "hem"], {}, tmp_path / "stopped") is not None
    found = end_to_end(cells, tmp_path / "stopped", resumed)
    assert figures(stopped.rows + resumed.rows) == figures(undisturbed.rows)
    assert len(undisturbed.rows) == 3
    assert_same_weights(expected, found)
    best = best_model(SCRATCH, ["all", "hem"], {}, tmp_path / "whole")
    assert_same_weights(expected, best)
    assert [done for done, *_ in undisturbed.batches] == [2, 3, 4, 5, 6]


def test_end_to_end_names_the_file_it_cannot_read(cells, tmp_path):
    images, labels = cells
    gone = CellImage("0" * 64, tmp_path / "gone.bmp")
    with pytest.raises(UserError, match=r"gone\.bmp.* is gone"):
        end_to_end(([*images[:15], gone, *images[16:]], labels), tmp_path / "run", Hooks())


@pytest.mark.slow
def test_fine_tuning_from_the_real_weights(cells, weights, tmp_path):
    recipe = make_recipe({**SCRATCH.model_dump(), "backbone": "mobilenet_v2", "weights": "imagenet"})
    hooks = Hooks()
    end_to_end(cells, tmp_path, hooks, recipe, {"mobilenet_v2": weights / WEIGHT_FILES["mobilenet_v2"].name})
    # Not the loss: with dropout, three epochs of a few cells need not show on it.
    assert hooks.rows[-1].val_cross_entropy < hooks.rows[0].val_cross_entropy


def test_predictions_of_a_short_fit_can_be_trusted(tmp_path):
    """Features far from mean 0 and variance 1: a few steps of moving averages would be nowhere near them."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    features = (50 + 20 * random.normal(size=(60, 8)) + 30 * labels[:, None]).astype(np.float32)
    recipe = make_recipe({"epochs": 4, "batch_size": 16, "learning_rate": 0.01, "flip": False})
    hooks = Hooks()
    fit_head(recipe, [features], labels, features, labels, 2, tmp_path, hooks)
    assert max(row.val_accuracy for row in hooks.rows) > 0.85
