"""Saliency on a network whose right answer is known, and on MobileNetV2 with its ImageNet weights."""

from pathlib import Path

import keras
import numpy as np
import pytest

from allreview.cells.decoding import cell_pixels, read_rgb
from allreview.errors import UserError
from allreview.review.overlays import METHODS
from allreview.review.saliency import heatmaps

SIDE = 32
RED, BLUE = (slice(4, 12), slice(4, 12)), (slice(18, 26), slice(20, 28))


def _square_network(gain: float = 4.0) -> keras.Model:
    """Class 0 is driven by bright red, class 1 by bright blue, and by nothing else."""
    inputs = keras.Input((SIDE, SIDE, 3))
    features = keras.layers.Conv2D(2, 1, activation="relu", name="bright")(inputs)
    pooled = keras.layers.AveragePooling2D(2)(features)
    pooled = keras.layers.GlobalAveragePooling2D()(pooled)
    outputs = keras.layers.Dense(2, activation="softmax", use_bias=False, name="classes")(pooled)
    model = keras.Model(inputs, outputs)
    kernel = np.zeros((1, 1, 3, 2), dtype=np.float32)
    kernel[0, 0, 0, 0] = kernel[0, 0, 2, 1] = 1
    model.get_layer("bright").set_weights([kernel, np.full(2, -0.6, dtype=np.float32)])
    model.get_layer("classes").set_weights([np.eye(2, dtype=np.float32) * gain])
    return model


def _two_squares() -> np.ndarray:
    image = np.zeros((1, SIDE, SIDE, 3), dtype=np.float32)
    image[0, *RED, 0] = 1
    image[0, *BLUE, 2] = 1
    return image


@pytest.fixture(scope="module")
def squares() -> keras.Model:
    return _square_network()


@pytest.fixture(scope="module")
def mobilenet(weights: Path) -> keras.Model:
    backbone = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(96, 96, 3))
    backbone.load_weights(next(weights.glob("mobilenet_v2*no_top.h5")))
    keras.utils.set_random_seed(0)
    pooled = keras.layers.GlobalMaxPooling2D()(backbone.output)
    hidden = keras.layers.Dense(16, activation="relu")(keras.layers.BatchNormalization()(pooled))
    return keras.Model(backbone.input, keras.layers.Dense(2, activation="softmax")(hidden))


@pytest.fixture(scope="module")
def real_cells(cnmc: Path) -> np.ndarray:
    paths = sorted(cnmc.rglob("*.bmp"))[::100][:3]
    return (
        np.stack([cell_pixels(read_rgb(path, 10**7), 96, 300) for path in paths]).astype("float32") / 127.5
        - 1
    )


@pytest.mark.parametrize("method", METHODS)
def test_heat_lies_on_the_square_that_drives_the_class(squares: keras.Model, method: str) -> None:
    images = np.repeat(_two_squares(), 2, axis=0)
    maps = heatmaps(squares, images, [0, 1], method)
    assert (maps.shape, maps.dtype) == ((2, SIDE, SIDE), np.float32)
    for heat, hot, cold in zip(maps, (RED, BLUE), (BLUE, RED), strict=True):
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert hot[0].start <= row < hot[0].stop
        assert hot[1].start <= column < hot[1].stop
        assert heat[hot].mean() > 4 * heat[cold].mean()
        assert (heat.min(), heat.max()) == (0, 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_does_not_depend_on_its_neighbours_in_the_batch(
    mobilenet: keras.Model, real_cells: np.ndarray, method: str
) -> None:
    together = heatmaps(mobilenet, real_cells, [0, 1, 0], method)
    alone = heatmaps(mobilenet, real_cells[1:2], [1], method)
    assert together.shape == (3, 96, 96)
    assert together.min() >= 0
    assert together.max() <= 1
    assert together[1].std() > 0.01
    np.testing.assert_allclose(together[1], alone[0], atol=0.02)


def test_smoothgrad_gives_the_same_map_each_time(mobilenet: keras.Model, real_cells: np.ndarray) -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (heatmaps(mobilenet, real_cells[:1], [0], "smoothgrad") for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_the_callers_model_is_left_as_it_was(mobilenet: keras.Model, real_cells: np.ndarray) -> None:
    before = mobilenet.predict(real_cells, verbose=0)
    heatmaps(mobilenet, real_cells[:1], [0], "gradcam")
    assert mobilenet.layers[-1].activation is keras.activations.softmax
    np.testing.assert_array_equal(mobilenet.predict(real_cells, verbose=0), before)


def test_weights_that_changed_since_the_last_map_count() -> None:
    model = _square_network()
    before = heatmaps(model, _two_squares(), [0], "gradcam")[0]
    swapped = model.get_layer("classes").get_weights()[0][::-1]
    model.get_layer("classes").set_weights([swapped])
    after = heatmaps(model, _two_squares(), [0], "gradcam")[0]
    assert before[RED].mean() > 0.5 > before[BLUE].mean()
    assert after[BLUE].mean() > 0.5 > after[RED].mean()


@pytest.mark.parametrize("gain", [4000.0, -4000.0])
def test_grad_cam_plus_plus_stands_scores_of_any_size(gain: float) -> None:
    # The exponential of a score of 150 or more overflows in float32.
    heat = heatmaps(_square_network(abs(gain)), _two_squares(), [0], "gradcam_plus_plus")[0]
    assert np.isfinite(heat).all()
    assert heat[RED].mean() > 0.5


@pytest.mark.parametrize("method", METHODS)
def test_nothing_to_see_gives_a_cold_map(squares: keras.Model, method: str) -> None:
    black = np.zeros((1, SIDE, SIDE, 3), dtype=np.float32)
    assert not heatmaps(squares, black, [0], method).any()


def test_no_cells_give_no_maps(squares: keras.Model) -> None:
    assert heatmaps(squares, np.zeros((0, SIDE, SIDE, 3), np.float32), [], "gradcam").shape == (0, SIDE, SIDE)


def test_nothing_is_printed(squares: keras.Model, capfd: pytest.CaptureFixture[str]) -> None:
    heatmaps(squares, _two_squares(), [0], "scorecam")
    assert capfd.readouterr().out == ""


def test_an_unknown_method_names_the_known_ones(squares: keras.Model) -> None:
    with pytest.raises(UserError, match="gradcam, gradcam_plus_plus, scorecam, smoothgrad"):
        heatmaps(squares, _two_squares(), [0], "lime")


def test_inputs_and_classes_must_fit(squares: keras.Model) -> None:
    with pytest.raises(UserError, match="one class for each"):
        heatmaps(squares, _two_squares(), [0, 1], "gradcam")
    with pytest.raises(UserError, match="a class the model does not have"):
        heatmaps(squares, _two_squares(), [2], "gradcam")


def test_other_kinds_of_model_are_refused_in_words(squares: keras.Model) -> None:
    layers = keras.layers
    nested = keras.Sequential([squares])
    inner = keras.Input((SIDE, SIDE, 3))
    wrapped = keras.Model(inner, squares(inner))
    for model in (nested, wrapped):
        with pytest.raises(UserError, match="flat functional model"):
            heatmaps(model, _two_squares(), [0], "gradcam")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inner))
    with pytest.raises(UserError, match="softmax as its activation"):
        heatmaps(keras.Model(inner, layers.Softmax()(pooled)), _two_squares(), [0], "gradcam")
    flat = layers.Dense(2, activation="softmax")(layers.Flatten()(inner))
    with pytest.raises(UserError, match="no feature maps"):
        heatmaps(keras.Model(inner, flat), _two_squares(), [0], "gradcam")
