"""Saliency on a network whose right answer is known, and on MobileNetV2 with its ImageNet weights."""

import gc
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

from allreview.cells.decoding import cell_pixels, read_rgb
from allreview.errors import UserError
from allreview.models.grafting import graft
from allreview.models.pooling import CellShare, MeanAndDeviationWithin
from allreview.recipe import Preparation
from allreview.review.saliency import methods
from allreview.review.saliency.methods import heatmaps, heatmaps_by_method
from allreview.review.saliency.overlays import METHODS

SIDE = 32
RED, BLUE = (slice(4, 12), slice(4, 12)), (slice(18, 26), slice(20, 28))


def _square_network(gain: float = 200.0) -> keras.Model:
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


def _two_branches() -> keras.Model:
    """One branch sees red, one blue; class 0 is driven by both through joined features, class 1 by neither."""
    inputs = keras.Input((SIDE, SIDE, 3))
    pooled = []
    for name, colour in (("red", 0), ("blue", 2)):
        layer = keras.layers.Conv2D(1, 1, activation="relu", name=name)
        pooled.append(keras.layers.GlobalMaxPooling2D()(layer(inputs)))
        kernel = np.zeros((1, 1, 3, 1), dtype=np.float32)
        kernel[0, 0, colour] = 1
        layer.set_weights([kernel, np.full(1, -0.6, dtype=np.float32)])
    joined = keras.layers.Concatenate()(pooled)
    head = keras.layers.Dense(2, activation="softmax", use_bias=False, name="classes")
    model = keras.Model(inputs, head(joined))
    head.set_weights([np.array([[5, 0], [5, 0]], dtype=np.float32)])
    return model


def _average_of(*networks: keras.Model) -> keras.Model:
    pixels = keras.Input((SIDE, SIDE, 3))
    rows = [graft(network, pixels, prefix=f"member{number}") for number, network in enumerate(networks)]
    return keras.Model(pixels, keras.layers.Average()(rows))


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
    none: Any = None
    backbone = keras.applications.MobileNetV2(include_top=False, weights=none, input_shape=(96, 96, 3))
    backbone.load_weights(next(weights.glob("mobilenet_v2*no_top.h5")))
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    model = keras.Model(backbone.input, keras.layers.Dense(2, activation="softmax", use_bias=False)(pooled))
    direction = np.random.default_rng(0).normal(size=(1280, 1)).astype(np.float32)
    # Opposite columns: the more probable class has a positive score, so some pixel speaks for it.
    model.layers[-1].set_weights([np.hstack([direction, -direction])])
    return model


@pytest.fixture(scope="module")
def real_cells(cnmc: Path) -> np.ndarray:
    paths = sorted(cnmc.rglob("*.bmp"))[::200][:2]
    return (
        np.stack([cell_pixels(read_rgb(path, 10**7), Preparation(96, 300)) for path in paths]).astype(
            "float32"
        )
        / 127.5
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
    squares: keras.Model, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With one channel for each cell, a batch scored on the union of channels would give other maps.
    monkeypatch.setattr("allreview.review.saliency.methods.SCORECAM_CHANNELS", 1)
    both = _two_squares()
    mostly_red = both * np.array([1, 1, 0.7], dtype=np.float32)
    mostly_blue = both * np.array([0.7, 1, 1], dtype=np.float32)
    together = heatmaps(squares, np.concatenate([mostly_red, mostly_blue, both]), [0, 1, 0], method)
    assert together[1].std() > 0.01
    np.testing.assert_allclose(together[1], heatmaps(squares, mostly_blue, [1], method)[0], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_joined_branches_both_have_their_say(method: str) -> None:
    image = _two_squares()
    heat = heatmaps(_two_branches(), image, [0], method)[0]
    assert (heat.min(), heat.max()) == (0, 1)
    assert heat[RED].max() > 0.4
    assert heat[BLUE].max() > 0.4
    dark = np.ones((SIDE, SIDE), dtype=bool)
    dark[RED] = dark[BLUE] = False
    assert heat[dark].max() < 0.1


@pytest.mark.parametrize("method", METHODS)
def test_an_average_of_models_has_the_mean_of_their_maps(method: str) -> None:
    image = _two_squares()
    members = [_square_network(), _square_network()]
    kernel, bias = members[1].get_layer("bright").get_weights()
    members[1].get_layer("bright").set_weights([kernel[..., ::-1], bias])  # it takes blue for red
    each = [heatmaps(member, image, [0], method)[0] for member in members]
    assert each[0][RED].mean() > 4 * each[0][BLUE].mean()
    assert each[1][BLUE].mean() > 4 * each[1][RED].mean()
    mean = np.mean(each, axis=0)
    mean = (mean - mean.min()) / (mean.max() - mean.min())
    found = heatmaps(_average_of(*members), image, [0], method)[0]
    np.testing.assert_allclose(found, mean, atol=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_mobilenet_on_real_cells(mobilenet: keras.Model, real_cells: np.ndarray, method: str) -> None:
    predicted = np.asarray(mobilenet(real_cells)).argmax(axis=1)
    maps = heatmaps(mobilenet, real_cells, list(predicted), method)
    assert (maps.shape, maps.dtype) == ((2, 96, 96), np.float32)
    np.testing.assert_array_equal(maps.max(axis=(1, 2)), [1, 1])
    np.testing.assert_array_equal(maps.min(axis=(1, 2)), [0, 0])
    assert np.abs(maps[0] - maps[1]).mean() > 0.01


def _maps(pixels: Any, name: str, seed: int) -> Any:
    """Feature maps [n, 14, 14, 6] of the layer `name`, by weights drawn from the seed."""
    first = keras.layers.Conv2D(5, 3, strides=2, activation="relu", kernel_initializer=_drawn(seed))(pixels)
    convolution = keras.layers.Conv2D(6, 2, kernel_initializer=_drawn(seed + 1), name=name, activation="relu")
    return convolution(first)


def _drawn(seed: int) -> Any:
    return keras.initializers.GlorotNormal(seed=seed)


def _classes(row: Any, seed: int) -> Any:
    hidden = keras.layers.Dense(8, activation="relu", kernel_initializer=_drawn(seed))(row)
    hidden = keras.layers.Dropout(0.5)(hidden)
    return keras.layers.Dense(3, activation="softmax", kernel_initializer=_drawn(seed + 1))(hidden)


def _drawn_network(seed: int = 0) -> keras.Model:
    pixels = keras.Input((SIDE, SIDE, 3))
    pooled = keras.layers.GlobalMaxPooling2D()(_maps(pixels, "maps", seed))
    return keras.Model(pixels, _classes(pooled, seed + 2))


def _joined_network() -> keras.Model:
    pixels = keras.Input((SIDE, SIDE, 3))
    left = keras.layers.GlobalMaxPooling2D()(_maps(pixels, "left", 10))
    right = keras.layers.GlobalAveragePooling2D()(_maps(pixels, "right", 20))
    return keras.Model(pixels, _classes(keras.layers.Concatenate()([left, right]), 30))


def _framed_network() -> keras.Model:
    """Its maps are described where the cell is; what shows where that is, comes from the pixels by another way."""
    pixels = keras.Input((SIDE, SIDE, 3))
    maps = _maps(pixels, "maps", 10)
    shares = CellShare("minus_one_to_one", *maps.shape[1:3])(pixels)
    return keras.Model(pixels, _classes(MeanAndDeviationWithin()([maps, shares]), 30))


def _noisy_images(number: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-1, 1, (number, SIDE, SIDE, 3)).astype(np.float32)


def _by_the_library(model: keras.Model, layer: str, image: np.ndarray, index: int, method: str) -> np.ndarray:
    """One map by tf-keras-vis alone, from a copy of the whole model, for one cell."""
    linear = ReplaceToLinear()
    score, batch, options = (
        CategoricalScore(index),
        [image[None]],
        {"expand_cam": False, "normalize_cam": False},
    )
    named = {"penultimate_layer": layer, "seek_penultimate_conv_layer": False, **options}
    if method == "smoothgrad":
        explainer = Saliency(model, model_modifier=linear)
        samples = methods.SMOOTH_SAMPLES
        (raw,) = explainer(score, batch, smooth_samples=samples, smooth_noise=0.2, normalize_map=False)
        raw = np.minimum(raw, np.quantile(raw, 0.99))
    elif method == "scorecam":
        raw = Scorecam(model, model_modifier=linear)(score, batch, max_N=6, **named)
    else:
        kind = Gradcam if method == "gradcam" else GradcamPlusPlus
        # Less a constant, for Grad-CAM++ takes the exponential of scores that are large here.
        shifted = lambda output: score(output) - float(score(output)[0])  # noqa: E731
        raw = kind(model, model_modifier=linear)(shifted, batch, **named)
    return methods._finished(np.asarray(raw)[0], image.shape[0])


@pytest.fixture
def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """SmoothGrad's noise in the library, which it draws from NumPy's global generator, as ours is drawn; and few
    copies, for it takes them one at a time."""
    monkeypatch.setattr(methods, "SMOOTH_SAMPLES", 4)
    monkeypatch.setattr(
        np.random,
        "normal",
        lambda mean, sigma, shape: np.random.default_rng(0).normal(mean, float(np.max(sigma)), shape),
    )


@pytest.mark.usefixtures("same_noise")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["one", "joined", "averaged", "framed"])
def test_maps_are_those_of_the_library_alone(kind: str, method: str) -> None:
    images, targets = _noisy_images(2), [2, 0]
    if kind == "one":
        model = _drawn_network()
        each = [(model, "maps")]
    elif kind == "joined":
        model = _joined_network()
        each = [(model, "left"), (model, "right")]
    elif kind == "framed":
        images[:, :10] = images[:, :, 25:] = -1
        model = _framed_network()
        each = [(model, "maps")]
    else:
        members = [_drawn_network(), _drawn_network(40)]
        model = _average_of(*members)
        each = [(member, "maps") for member in members]
    if method == "smoothgrad" and kind == "joined":
        each = each[:1]  # gradients by pixel go through both branches at once
    found = heatmaps(model, images, targets, method)
    for image, index, heat in zip(images, targets, found, strict=True):
        plain = np.mean([_by_the_library(net, layer, image, index, method) for net, layer in each], axis=0)
        plain = methods._finished(plain, SIDE) if len(each) > 1 else plain
        assert plain.std() > 0.05
        np.testing.assert_allclose(heat, plain, atol=2e-3)


def test_mobilenet_is_explained_as_by_the_library_alone(
    mobilenet: keras.Model, real_cells: np.ndarray
) -> None:
    index = int(np.asarray(mobilenet(real_cells[:1])).argmax())
    found = heatmaps(mobilenet, real_cells[:1], [index], "gradcam")[0]
    plain = _by_the_library(mobilenet, "out_relu", real_cells[0], index, "gradcam")
    np.testing.assert_allclose(found, plain, atol=1e-3)


def test_several_methods_at_once_give_what_each_gives_alone() -> None:
    model, images = _drawn_network(), _noisy_images(20)
    targets = [number % 3 for number in range(20)]
    together = heatmaps_by_method(model, images, targets, ["gradcam_plus_plus", "gradcam"])
    for method, maps in together.items():
        np.testing.assert_allclose(maps, heatmaps(model, images, targets, method), atol=1e-4)


def test_a_model_is_traced_once_whatever_is_asked() -> None:
    model = _drawn_network()
    for number in (1, 3, 20):
        for method in ("gradcam", "gradcam_plus_plus", "smoothgrad"):
            heatmaps(model, _noisy_images(number), [number % 3] * number, method)
    cut = methods._cut_of(model)
    assert cut.feature_maps.experimental_get_tracing_count() == 1
    assert cut.scores[0].gradients.experimental_get_tracing_count() == 1


def test_a_model_nobody_uses_any_more_is_let_go() -> None:
    model = _drawn_network()
    heatmaps(model, _noisy_images(1), [0], "gradcam")
    held = weakref.ref(model)
    del model
    gc.collect()
    assert held() is None


def test_an_explained_model_is_saved_as_if_it_had_not_been(tmp_path: Path) -> None:
    model, images = _joined_network(), _noisy_images(2)
    for method in METHODS:
        heatmaps(model, images, [0, 1], method)
    model.save(tmp_path / "model.keras")
    read: Any = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(read(images)), np.asarray(model(images)))
    assert [layer.name for layer in read.layers] == [layer.name for layer in model.layers]


def test_smoothgrad_gives_the_same_map_each_time(squares: keras.Model) -> None:
    np.random.seed(7)
    first = heatmaps(squares, _two_squares(), [0], "smoothgrad")
    drawn = np.random.random()
    second = heatmaps(squares, _two_squares(), [0], "smoothgrad")
    np.testing.assert_array_equal(first, second)
    np.random.seed(7)
    assert drawn == np.random.random()


@pytest.mark.parametrize("method", METHODS)
def test_the_callers_model_is_left_as_it_was(method: str) -> None:
    model = _square_network()
    before = np.asarray(model(_two_squares()))
    weights = model.get_weights()
    heatmaps(model, _two_squares(), [0], method)
    assert model.layers[-1].activation is keras.activations.softmax
    np.testing.assert_array_equal(np.asarray(model(_two_squares())), before)
    for now, then in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)


def test_weights_that_changed_since_the_last_map_count() -> None:
    model = _square_network()
    before = heatmaps(model, _two_squares(), [0], "gradcam")[0]
    swapped = model.get_layer("classes").get_weights()[0][::-1]
    model.get_layer("classes").set_weights([swapped])
    after = heatmaps(model, _two_squares(), [0], "gradcam")[0]
    assert before[RED].mean() > 0.5 > before[BLUE].mean()
    assert after[BLUE].mean() > 0.5 > after[RED].mean()


def test_grad_cam_plus_plus_stands_large_scores() -> None:
    # The class scores are 100, and the exponential of more than 88 overflows in float32.
    heat = heatmaps(_square_network(4000.0), _two_squares(), [0], "gradcam_plus_plus")[0]
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


def test_a_way_around_the_last_feature_maps_is_refused_in_words() -> None:
    pixels = keras.Input((SIDE, SIDE, 3))
    early = keras.layers.Conv2D(4, 3)(pixels)
    late = keras.layers.Conv2D(4, 3)(early)
    pooled = [keras.layers.GlobalMaxPooling2D(keepdims=True)(maps) for maps in (early, late)]
    row = keras.layers.Flatten()(keras.layers.Concatenate()(pooled))
    with pytest.raises(UserError, match="a way around them"):
        heatmaps(
            keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(row)),
            _noisy_images(1),
            [0],
            "gradcam",
        )
