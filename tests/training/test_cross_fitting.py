"""Several heads, each fitted without another part of the cells: who leaves out what, the fit, what is said."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview.cells.decoding import read_rgb
from allreview.models.cross_fitting import as_one_head, build_heads, each_head
from allreview.models.saving import load_model
from allreview.recipe import Recipe, make_recipe
from allreview.settings import current_settings
from allreview.store import open_store
from allreview.training import callbacks, jobs, snapshots
from allreview.training.batches import CrossFitBatches, FeatureBatches, one_hot
from allreview.training.compiling import compiled
from allreview.training.cross_fitting import unseen_probabilities, validation_of
from allreview.training.epochs import StopRequested
from allreview.training.fitting import best_head, best_heads, fit_heads
from allreview.training.heads import HeadTrainer
from allreview.training.leaving_out import held_out, is_cross_fitted
from allreview.training.runs import get_run
from allreview.training.snapshots import SnapshotLine
from db.tables import Prediction
from tests import workers
from tests.conftest import Trained
from tests.training.test_fitting import Hooks, assert_same_weights, figures

RECIPE = make_recipe(
    {"heads": 3, "epochs": 4, "batch_size": 16, "dense_units": 8, "learning_rate": 0.02, "imbalance": "none"}
)


def lines(groups: int = 12, each: int = 6) -> list[SnapshotLine]:
    """Cells of so many subjects, a third of them normal; the last two test, the two before validation."""
    found = []
    for group in range(groups):
        part = "test" if group >= groups - 2 else "validation" if group >= groups - 4 else "train"
        label = "hem" if group % 3 == 0 else "all"
        for number in range(each):
            cell = len(found) + 1
            given = "unsure" if number == 0 else label
            found.append(
                SnapshotLine(cell, f"{cell:064}", "", given, part, label, f"P{group}", f"group {group}")
            )
    return found


def test_every_cell_that_may_train_is_left_out_by_one_head_with_its_whole_leak_group() -> None:
    cells = lines()
    found = held_out(RECIPE, cells)
    assert found.shape == (3, len(cells))
    may_train = np.array([cell.part != "test" and cell.label != "unsure" for cell in cells])
    np.testing.assert_array_equal(found.sum(axis=0), may_train)
    groups = np.array([cell.group for cell in cells])
    assert all(len({row.tobytes() for row in found[:, (groups == g) & may_train].T}) <= 1 for g in groups)
    labels = np.array([cell.label for cell in cells])
    for left_out in found:
        assert set(labels[left_out]) == set(labels[may_train & ~left_out]) == {"all", "hem"}
    backwards = held_out(RECIPE, cells[::-1])[:, ::-1]
    np.testing.assert_array_equal(backwards, found)
    assert is_cross_fitted(RECIPE, cells)
    assert not is_cross_fitted(RECIPE.model_copy(update={"heads": 1}), cells)


def test_a_correction_moves_no_cell_to_another_head() -> None:
    cells = lines()
    before = held_out(RECIPE, cells)
    changed = {3: "hem", 20: "unusable", 24: "all"}
    after = held_out(RECIPE, [replace(cell, label=changed.get(cell.cell_id, cell.label)) for cell in cells])
    same = np.array([cell.cell_id != 20 for cell in cells])
    np.testing.assert_array_equal(after[:, same], before[:, same])
    assert not after[:, ~same].any()


def test_one_head_leaves_out_the_validation_cells() -> None:
    cells = lines()
    expected = [cell.part == "validation" and cell.label != "unsure" for cell in cells]
    np.testing.assert_array_equal(held_out(RECIPE.model_copy(update={"heads": 1}), cells), [expected])


def test_with_too_few_groups_all_heads_leave_out_the_validation_cells() -> None:
    """Subjects 0 and 3 are the normal ones, and 3 is a test subject: no other head could know the class."""
    cells = lines(groups=5)
    found = held_out(RECIPE, cells)
    expected = [cell.part == "validation" and cell.label != "unsure" for cell in cells]
    assert any(expected)
    np.testing.assert_array_equal(found, [expected] * 3)
    assert not is_cross_fitted(RECIPE, cells)


def test_by_single_images_cells_of_one_subject_may_be_left_out_by_different_heads() -> None:
    found = held_out(RECIPE.model_copy(update={"split": "image"}), lines())
    of_one = found[:, 1:6]
    assert len({column.tobytes() for column in of_one.T}) > 1


def vectors(n: int = 90) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Two views of separable classes, and which third each head leaves out, uneven."""
    generator = np.random.default_rng(0)
    labels = (generator.random(n) < 0.4).astype(int)
    features = (generator.normal(size=(n, 10)) + labels[:, None]).astype(np.float32)
    views = [features, features + generator.normal(0, 0.1, features.shape).astype(np.float32)]
    part = np.digitize(np.arange(n), [20, 55])
    return views, labels, part == np.arange(3)[:, None]


@pytest.mark.parametrize("imbalance", ["none", "augment"])
def test_no_head_is_shown_what_it_leaves_out_and_every_head_all_else(imbalance: str) -> None:
    _, labels, left_out = vectors()
    numbered = [np.arange(90, dtype=np.float32)[:, None], np.arange(90, dtype=np.float32)[:, None] + 1000]
    recipe = make_recipe({**RECIPE.model_dump(), "imbalance": imbalance})
    batches = CrossFitBatches(recipe, numbered, labels, left_out, 2)
    seen: list[Counter[int]] = [Counter() for _ in range(3)]
    views: Counter[bool] = Counter()
    for epoch in range(3):
        batches.begin(epoch)
        shown = [batches[number] for number in range(len(batches))]
        assert sum(len(batch[0]) for batch in shown) == batches.n_cells
        for features, targets, weights in shown:
            assert features.shape[1:] == (3, 1)
            assert weights.shape == features.shape[:2]
            for head in range(3):
                rows = features[:, head, 0].astype(int) % 1000
                np.testing.assert_array_equal(targets[:, head], one_hot(labels[rows], 2))
                seen[head].update(rows.tolist())
            views.update((features >= 1000).ravel().tolist())
    for head, own in enumerate(left_out):
        assert set(seen[head]) == set(np.flatnonzero(~own).tolist())
    assert min(views.values()) > 0.4 * views.total()


def test_epochs_are_the_same_whatever_went_before() -> None:
    recipe = make_recipe({**RECIPE.model_dump(), "mixup": 0.4})
    one, other = (CrossFitBatches(recipe, *vectors(), 2) for _ in range(2))
    other.begin(3)
    other.begin(1)
    one.begin(1)
    for found, expected in zip(one[2], other[2], strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("optimizer", ["adamax", "sgd"])
def test_heads_side_by_side_learn_what_each_learns_alone(optimizer: str) -> None:
    """Each head's twin goes through Keras's own training step with that head's batches; nothing is dropped, for each
    draws its own."""
    recipe = make_recipe({**RECIPE.model_dump(), "dropout": 0, "optimizer": optimizer, "mixup": 0.4})
    views, labels, left_out = vectors()
    batches = CrossFitBatches(recipe, views, labels, left_out, 2)
    trainer = HeadTrainer(recipe, 10, 2, len(batches))
    twins = each_head(trainer.head, recipe)
    measured: dict[str, Any] = {}

    class Last(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            measured.update(logs)

    trainer.fit(batches, validation_of(views[0], labels, left_out, 2), range(1), [Last()])
    alone = recipe.model_copy(update={"heads": 1})
    expected = []
    for number, (twin, own) in enumerate(zip(twins, left_out, strict=True)):
        plain: Any = compiled(keras.Model(twin.inputs, twin.outputs), alone, len(batches))
        of_head = [tuple(array[:, number] for array in batches[index]) for index in range(len(batches))]
        losses = []
        for features, targets, weights in of_head:
            plain.reset_metrics()
            losses.append(
                plain.train_on_batch(features, targets, sample_weight=weights, return_dict=True)["loss"]
            )
        trained = {"loss": np.average(losses, weights=[len(features) for features, _, _ in of_head])}
        held = plain.evaluate(views[0][own], one_hot(labels[own], 2), verbose=0, return_dict=True)
        expected.append({**trained, **{f"val_{name}": value for name, value in held.items()}})
    for found, twin in zip(each_head(trainer.head, recipe), twins, strict=True):
        for one, other in zip(found.get_weights(), twin.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    # The penalty on hidden outputs is of cells that come round again too.
    for name, near in (
        ("loss", 1e-4),
        ("val_loss", 1e-2),
        ("val_accuracy", 1e-4),
        ("val_cross_entropy", 1e-4),
    ):
        mean = np.mean([figures_of_one[name] for figures_of_one in expected])
        assert float(measured[name]) == pytest.approx(mean, rel=near), name


def fit(recipe: Recipe, folder: Path, hooks: Hooks) -> keras.Model:
    fit_heads(recipe, *vectors(), 2, folder, hooks)
    found = best_heads(recipe, 10, 2, folder)
    assert found is not None
    return found


def test_a_stopped_fit_goes_on_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_BACKUPS", 0)
    whole, stopped, resumed = Hooks(), Hooks(stop_after=13), Hooks()
    heads = fit(RECIPE, tmp_path / "whole", whole)
    assert [row.epoch for row in whole.rows] == [1, 2, 3, 4]
    with pytest.raises(StopRequested):
        fit_heads(RECIPE, *vectors(), 2, tmp_path / "stopped", stopped)
    assert 0 < len(stopped.rows) < 4
    again = fit(RECIPE, tmp_path / "stopped", resumed)
    assert figures(stopped.rows + resumed.rows) == figures(whole.rows)
    assert_same_weights(heads, again)


def test_the_head_of_a_fit_is_the_heads_as_one(tmp_path: Path) -> None:
    assert best_head(RECIPE, 10, 2, tmp_path) is None
    heads = fit(RECIPE, tmp_path, Hooks())
    one = best_head(RECIPE, 10, 2, tmp_path)
    assert one is not None
    assert_same_weights(as_one_head(heads, RECIPE), one)


def test_only_heads_that_never_saw_a_cell_speak_of_it() -> None:
    heads = build_heads(RECIPE, 10, 2)
    alone = each_head(heads, RECIPE)
    (features, _), _, _ = vectors()
    left_out = np.zeros((3, 90), bool)
    left_out[0, :30] = left_out[1, 30:60] = left_out[2, 40:60] = True
    found = unseen_probabilities(heads, RECIPE, features, left_out)
    np.testing.assert_allclose(found[:30], np.asarray(alone[0](features[:30])), atol=1e-6)
    np.testing.assert_allclose(found[30:40], np.asarray(alone[1](features[30:40])), atol=1e-6)
    logits = np.mean([np.log(np.asarray(head(features[40:60]))) for head in alone[1:]], axis=0)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[40:60], expected, atol=1e-6)
    np.testing.assert_allclose(found[60:], np.asarray(as_one_head(heads, RECIPE)(features[60:])), atol=1e-6)


def test_a_cells_own_label_does_not_sway_what_is_said_of_it(tmp_path: Path) -> None:
    """Labels of noise are known by heart where they were seen, and by chance where they were not."""
    random = np.random.default_rng(5)
    features = random.normal(size=(90, 60)).astype(np.float32)
    labels = random.integers(2, size=90)
    left_out = np.arange(90) % 3 == np.arange(3)[:, None]
    recipe = make_recipe(
        {**RECIPE.model_dump(), "epochs": 60, "dropout": 0, "kernel_l2": 0, "best_by": "val_loss"}
    )
    fit_heads(recipe, [features], labels, left_out, 2, tmp_path, Hooks())
    trainer = HeadTrainer(recipe, 60, 2, 4)
    batches = CrossFitBatches(recipe, [features], labels, left_out, 2)
    trainer.fit(batches, validation_of(features, labels, left_out, 2), range(60), [])
    seen = np.asarray(as_one_head(trainer.head, recipe)(features)).argmax(1)
    unseen = unseen_probabilities(trainer.head, recipe, features, left_out).argmax(1)
    assert (seen == labels).mean() > 0.95
    assert (unseen == labels).mean() < 0.75


def test_one_head_is_fitted_as_ever() -> None:
    """What several heads need leaves the batches of one as they were."""
    views, labels, _ = vectors()
    recipe = RECIPE.model_copy(update={"heads": 1})
    plain = FeatureBatches(recipe, views, labels, 2)
    some = FeatureBatches(recipe, views, labels, 2, own=np.arange(90))
    for found, expected in zip(plain[1], some[1], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_run_of_several_heads_from_worker_to_model(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model that is saved is what judged the test cells; other cells were judged by heads that left them out."""
    # On processors that multiply in 16 bits, OpenVINO's features would be compared with a model in 32.
    monkeypatch.setenv("ALLREVIEW_ENGINE", "tensorflow")
    settings = current_settings()
    engine = open_store(settings)
    recipe = make_recipe({"image_size": 64, "crop": 300, "heads": 3, "epochs": 5, "pooling": "cell"})
    run_id = jobs.submit(engine, settings, dataset_id=trained.dataset, recipe=recipe)
    assert workers.wait_until_over(engine, run_id).state == "finished"
    with db.reading(engine) as session:
        run = get_run(session, run_id)
        cells = snapshots.lines(session, run.snapshot_id)
        query = sa.select(Prediction.cell_id, Prediction.probabilities).where(Prediction.run_id == run_id)
        stored = {
            row.cell_id: [row.probabilities[name] for name in run.classes] for row in session.execute(query)
        }
    assert is_cross_fitted(recipe, cells)
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4, 5]
    model = load_model(settings.run_folder(run_id))
    pixels = model.prepare([read_rgb(Path(cell.path), 10**8) for cell in cells])
    said = model.probabilities(pixels)
    judged = np.array([stored[cell.cell_id] for cell in cells])
    test = np.array([cell.part == "test" for cell in cells])
    np.testing.assert_allclose(said[test], judged[test], atol=0.005)
    assert np.abs(said - judged)[~test].max() > 0.05
    card = (settings.run_folder(run_id) / "model-card.md").read_text()
    assert "dealt out among 3 heads, whole subjects together" in card
    assert "3 of them side by side" in card
    again = jobs.retrain(engine, settings, run_id)
    assert workers.wait_until_over(engine, again).state == "finished"
    with db.reading(engine) as session:
        assert get_run(session, again).recipe == recipe
