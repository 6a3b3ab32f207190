"""The batches of an epoch: who is shown how often, in which version, with which weight."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from allreview.recipe import make_recipe
from allreview.training import batches
from allreview.training.batches import FeatureBatches, ImageBatches, cell_weights, drawn
from allreview.training.features import CellImage

RECIPE = make_recipe({"batch_size": 16})
BALANCED = make_recipe({"batch_size": 16, "imbalance": "augment"})
LABELS = np.array([0] * 40 + [1] * 9 + [2] * 1)


def test_each_cell_appears_once_an_epoch_in_a_view_of_its_own():
    labels = np.arange(50) % 2
    views = [np.arange(50, dtype=np.float32)[:, None], 1000 + np.arange(50, dtype=np.float32)[:, None]]
    found = FeatureBatches(RECIPE, views, labels, 2)
    epochs = []
    for epoch in (0, 1, 0):
        found.begin(epoch)
        shown = [found[index] for index in range(len(found))]
        epochs.append(np.concatenate([features for features, _, _ in shown]).ravel())
        assert sorted(epochs[-1] % 1000) == list(range(50))
        assert 10 < (epochs[-1] >= 1000).sum() < 40
        assert max(len(f) for f, _, _ in shown) - min(len(f) for f, _, _ in shown) <= 1
        for features, targets, _ in shown:
            np.testing.assert_array_equal(targets.argmax(1), features.ravel() % 2)
    np.testing.assert_array_equal(epochs[0], epochs[2])
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize("n_views", [1, 4])
def test_balanced_classes_are_shown_alike_and_their_cells_take_turns(n_views):
    epochs = [drawn(BALANCED, LABELS, n_views, epoch) for epoch in range(3)]
    for rows, views in epochs:
        assert np.bincount(LABELS[rows]).tolist() == [40, 40, 40]
        times = np.bincount(rows)
        assert set(times[:40]) == {1}
        assert set(times[40:49]) == {4, 5}  # 40 of 9 cells
        assert times[49] == 40
        assert (views < n_views).all()
        for cell in range(40, 50):  # versions of one cell differ as long as there are new ones
            counts = np.bincount(views[rows == cell], minlength=n_views)
            assert counts.max() - counts.min() <= 1
    assert (epochs[0][0] != epochs[1][0]).any()
    again = drawn(BALANCED, LABELS, n_views, 1)
    np.testing.assert_array_equal(again[0], epochs[1][0])
    np.testing.assert_array_equal(again[1], epochs[1][1])
    assert (drawn(BALANCED.model_copy(update={"seed": 1}), LABELS, n_views, 1)[0] != again[0]).any()


def test_over_the_epochs_a_balanced_class_shows_all_its_cells_and_views():
    """Those cut off in the last round are not always the same."""
    times, views = np.zeros(9), np.zeros(4)
    for epoch in range(100):
        rows, shown = drawn(BALANCED, LABELS, 4, epoch)
        times += np.bincount(rows, minlength=50)[40:49]
        views += np.bincount(shown, minlength=4)
    assert times.sum() == 4000
    np.testing.assert_allclose(times / times.mean(), 1, atol=0.05)
    np.testing.assert_allclose(views / views.mean(), 1, atol=0.05)


def test_rare_classes_weigh_more_when_the_recipe_says_so():
    labels = np.array([0] * 30 + [1] * 10)
    weights = cell_weights(RECIPE, labels, 3)
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum())
    assert weights.sum() == pytest.approx(40)
    for other in ("none", "augment"):
        recipe = make_recipe({"imbalance": other})
        assert (cell_weights(recipe, labels, 3) == 1).all()


def test_mixed_batches_mix_weights_with_labels_and_depend_on_the_epoch_alone():
    recipe = make_recipe({"batch_size": 16, "mixup": 0.4})
    targets = np.eye(3, dtype=np.float32)[LABELS]
    weights = cell_weights(recipe, LABELS, 3)
    found = FeatureBatches(recipe, [np.c_[targets, weights]], LABELS, 3)
    found.begin(2)
    features, soft, mixed = zip(*(found[index] for index in range(len(found))), strict=True)
    np.testing.assert_allclose(np.concatenate(features), np.c_[np.concatenate(soft), np.concatenate(mixed)])
    assert (np.concatenate(soft).max(axis=1) < 0.99).any()
    assert not np.array_equal(soft[0][:5], soft[1][:5])
    found.begin(1)
    found.begin(2)
    for index, expected in enumerate(features):  # in any order
        np.testing.assert_array_equal(found[index][0], expected)


@pytest.fixture
def image_batches(monkeypatch):
    """Makes batches of drawn images: cell i is of level i, with a white edge on its left."""

    def read(cell, recipe, max_pixels):
        pixels = np.full((recipe.image_size, recipe.image_size, 3), int(cell.sha256), dtype=np.uint8)
        pixels[:, :4] = 255
        return pixels

    monkeypatch.setattr(batches, "read_cell", read)
    images = [CellImage(str(number), None) for number in range(1, len(LABELS) + 1)]  # pyright: ignore
    with ThreadPoolExecutor(2) as pool:

        def make(recipe, training=True):
            found = ImageBatches(recipe, images, LABELS, 3, max_pixels=1, pool=pool, training=training)
            found.preprocess = lambda pixels: pixels.astype(np.float32)
            return found

        yield make


def test_images_are_augmented_in_training_only_and_by_epoch_and_place_alone(image_batches):
    recipe = make_recipe(
        {"image_size": 32, "batch_size": 16, "rotation": 20, "brightness": 0.1, "imbalance": "augment"}
    )
    validation = image_batches(recipe, training=False)
    np.testing.assert_array_equal(
        np.concatenate([validation[i][0][:, 5, 10, 0] for i in range(len(validation))]), np.arange(1, 51)
    )
    assert len(validation[0]) == 2
    first, second = image_batches(recipe), image_batches(recipe)
    first.begin(3)
    second.begin(1)
    second.begin(3)
    assert first.n_cells == 120
    for index in reversed(range(len(first))):
        for one, other in zip(first[index], second[index], strict=True):
            np.testing.assert_array_equal(one, other)
    # The one cell of the rarest class comes 40 times, each time changed in another way.
    shown = np.concatenate([first[index][0] for index in range(len(first))])
    labels = np.concatenate([first[index][1] for index in range(len(first))]).argmax(axis=1)
    assert len({picture.tobytes() for picture in shown[labels == 2]}) == 40
    second.begin(4)
    assert (second[0][0] != first[0][0]).any()


def test_cutmix_on_images(image_batches):
    recipe = make_recipe({"mode": "finetune", "image_size": 32, "batch_size": 25, "cutmix": 1, "flip": False})
    found = image_batches(recipe)
    pixels, soft, _ = found[0]
    assert ((soft > 0) & (soft < 1)).any()
    own = found.rows[found.places[0]] + 1
    changed = (pixels[:, :, 4:, 0] != own[:, None, None]).any(axis=(1, 2))
    assert 5 < changed.sum() <= 25


def test_a_failure_to_read_is_remembered(image_batches):
    found = image_batches(make_recipe({"image_size": 32}))

    def refuse(*_):
        raise OSError("gone")

    found.kept.clear()
    found._pixels = refuse
    with pytest.raises(OSError, match="gone"):
        found[0]
    assert isinstance(found.failure, OSError)
