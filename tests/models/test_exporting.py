"""Exports answer as the model they came from, on raw pixels."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from allreview.errors import UserError
from allreview.models import exporting
from allreview.models.averaging import average_models
from allreview.models.building import build_model, head_of, preprocess_of
from allreview.models.exporting import FORMATS, TOLERANCE, export_model
from allreview.models.saving import TrainedModel
from allreview.recipe import make_recipe

CLASSES = ["all", "hem"]
SIZE = 64
PAIR = ("vgg16", "mobilenet_v2")
"""Small backbones with different preparations; the large ones are exported alone."""
SUFFIX = {"onnx": ".onnx", "savedmodel": "", "keras": ".keras"}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Images of four brightnesses, so that answers differ."""
    noise = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3))
    return (noise * np.array([1, 0.7, 0.3, 0.1])[:, None, None, None]).astype(np.uint8)


def from_scratch(backbone: str, pixels: np.ndarray, **values: str) -> TrainedModel:
    """A model whose head is set so that it answers differently to each of the images."""
    recipe = make_recipe(
        {"backbone": backbone, "weights": "none", "mode": "finetune", "image_size": SIZE, **values}
    )
    model = build_model(recipe, CLASSES, {})
    generator = np.random.default_rng(0)
    body = keras.Model(model.input, model.get_layer("head_normalization").input)
    features = np.asarray(body(preprocess_of(recipe)(pixels)))
    head = head_of(model)
    head.get_layer("head_normalization").moving_mean.assign(features.mean(axis=0))
    spread = features.var(axis=0) + 1e-3 * np.abs(features).max() ** 2
    head.get_layer("head_normalization").moving_variance.assign(spread)
    # Undo the layer's epsilon, before which the features of a random network vanish.
    head.get_layer("head_normalization").gamma.assign(np.sqrt(1 + 0.001 / spread))
    kernel = generator.normal(0, 0.3, (256, 2))
    head.get_layer("probabilities").set_weights([kernel, np.zeros(2)])
    logits = np.log(np.asarray(head(features)))
    head.get_layer("probabilities").set_weights([kernel, -np.median(logits, axis=0)])  # not all of one class
    return TrainedModel(model, recipe, CLASSES)


def averaged(pixels: np.ndarray) -> TrainedModel:
    members = [from_scratch(name, pixels) for name in PAIR]
    values = {"backbone": PAIR[0], "partner": PAIR[1], "combine": "average"}
    recipe = make_recipe({**members[0].recipe.model_dump(), **values})
    return TrainedModel(average_models(members), recipe, CLASSES)


MODELS: dict[str, Callable[[np.ndarray], TrainedModel]] = {
    "alexnet": lambda pixels: from_scratch("alexnet", pixels),
    "mobilenet_v2": lambda pixels: from_scratch("mobilenet_v2", pixels),
    "vgg16": lambda pixels: from_scratch("vgg16", pixels),
    "resnet50": lambda pixels: from_scratch("resnet50", pixels),
    "efficientnet_b3": lambda pixels: from_scratch("efficientnet_b3", pixels),
    "concatenated": lambda pixels: from_scratch(PAIR[0], pixels, partner=PAIR[1]),
    "averaged": averaged,
}


def opened(path: Path, format: str) -> Callable[[np.ndarray], np.ndarray]:
    """The exported file, read as another program would read it."""
    if format == "onnx":
        onnx.checker.check_model(onnx.load(path), full_check=True)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return lambda given: np.asarray(session.run(["probabilities"], {"pixels": given})[0])
    if format == "savedmodel":
        serve = tf.saved_model.load(str(path)).signatures["serving_default"]
        return lambda given: serve(pixels=tf.constant(given))["probabilities"].numpy()
    model = keras.saving.load_model(path, compile=False)
    return lambda given: np.asarray(model(given))


SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))


@pytest.mark.parametrize(
    "name", ["alexnet", *(pytest.param(name, marks=SLOW) for name in MODELS if name != "alexnet")]
)
def test_every_format_answers_as_the_model_does(name: str, pixels: np.ndarray, tmp_path: Path) -> None:
    trained = MODELS[name](pixels)
    expected = trained.probabilities(pixels)
    assert np.ptp(expected[:, 0]) > 0.02
    for format in FORMATS:
        target = tmp_path / format / f"model{SUFFIX[format]}"
        difference = export_model(trained, target, format, {"run": 7}, pixels)
        answer = opened(target, format)
        found = answer(pixels.astype(np.float32))
        assert found.shape == (4, 2)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)
        assert difference == pytest.approx(np.abs(found - expected).max(), abs=1e-6)
        # One image alone, and more than were compared.
        np.testing.assert_allclose(answer(pixels[:1].astype(np.float32)), expected[:1], atol=TOLERANCE)
        beside = target / "allreview.json" if format == "savedmodel" else target.with_suffix(".json")
        description = json.loads(beside.read_text())
        assert (description["run"], description["classes"]) == (7, CLASSES)
        assert make_recipe(description["recipe"]) == trained.recipe
        assert description["input"]["shape"] == ["cells", SIZE, SIZE, 3]
        assert sorted(path.name for path in target.parent.iterdir()) == sorted(
            {target.name, *([] if format == "savedmodel" else [beside.name])}
        )


def test_an_export_that_differs_is_not_kept(pixels, tmp_path, monkeypatch):
    trained = from_scratch("alexnet", pixels)
    write, _ = exporting._WRITERS["keras"]
    wrong = (write, lambda _: lambda given: trained.probabilities(given.astype(np.uint8)) + 2 * TOLERANCE)
    monkeypatch.setitem(exporting._WRITERS, "keras", wrong)
    with pytest.raises(UserError, match=r"differ from the run's own by up to 0\.0002, more than 0\.0001"):
        export_model(trained, tmp_path / "model.keras", "keras", {}, pixels)
    nothing = (write, lambda _: lambda given: np.full((len(given), 2), np.nan))
    monkeypatch.setitem(exporting._WRITERS, "keras", nothing)
    with pytest.raises(UserError, match="not kept"):
        export_model(trained, tmp_path / "model.keras", "keras", {}, pixels)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(pixels, tmp_path):
    (tmp_path / "model.json").write_text("mine")
    with pytest.raises(UserError, match=r"something at .*model\.json already"):
        export_model(from_scratch("alexnet", pixels), tmp_path / "model.onnx", "onnx", {}, pixels)
    assert (tmp_path / "model.json").read_text() == "mine"
