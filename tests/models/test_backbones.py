"""Backbones against keras.applications: sizes, preprocessing, and the same features from the same file."""

from pathlib import Path
from typing import get_args

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from allreview.errors import UserError
from allreview.models.backbones import BACKBONES, LocalResponseNormalization, backbone_named
from allreview.models.pretrained import WEIGHT_FILES
from allreview.recipe import BackboneName

SHAPE = (64, 64, 3)
# Published counts of the networks without their top; AlexNet's from its layer sizes, as one tower.
SIZES = {
    "mobilenet_v2": (2_257_984, 1280),
    "resnet50": (23_587_712, 2048),
    "efficientnet_b3": (10_783_535, 1536),
    "vgg16": (14_714_688, 512),
    "alexnet": (
        sum(size**2 * before * after + after for size, before, after in [
            (11, 3, 96), (5, 96, 256), (3, 256, 384), (3, 384, 384), (3, 384, 256)
        ]),
        256,
    ),
}  # fmt: skip


def pixels(n: int = 2, size: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_every_name_a_recipe_may_give_is_registered():
    assert set(BACKBONES) == set(get_args(BackboneName))


@pytest.mark.parametrize("name", SIZES)
def test_size_and_output(name):
    model = backbone_named(name).build(SHAPE, None)
    parameters, channels = SIZES[name]
    assert model.count_params() == parameters
    assert len(model.output_shape) == 4
    assert model.output_shape[-1] == channels
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("name", sorted(WEIGHT_FILES))
def test_preprocessing_is_kerass_and_leaves_its_argument_alone(name, kind):
    module = {"efficientnet_b3": "efficientnet"}.get(name, name)
    given = pixels().astype(kind)
    before = given.copy()
    expected = getattr(keras.applications, module).preprocess_input(given.astype(np.float32))
    prepared = backbone_named(name).preprocess(given)
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(prepared, expected)
    np.testing.assert_array_equal(given, before)


def test_mobilenet_gives_kerass_features_from_the_real_file(weights: Path):
    path = weights / WEIGHT_FILES["mobilenet_v2"].name
    backbone = backbone_named("mobilenet_v2")
    inputs = backbone.preprocess(pixels())
    expected = keras.applications.MobileNetV2(input_shape=SHAPE, include_top=False, weights=str(path))
    features = np.asarray(backbone.build(SHAPE, path)(inputs))
    np.testing.assert_allclose(features, np.asarray(expected(inputs)), atol=1e-5)
    assert features.std() > 0.01


def save_as_published(model: keras.Model, path: Path) -> None:
    """The weights in the format of Keras's published files."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


def test_efficientnet_gives_the_features_of_kerass_imagenet_graph(tmp_path, monkeypatch):
    from keras.src.applications import efficientnet

    keras.utils.set_random_seed(0)
    path = tmp_path / WEIGHT_FILES["efficientnet_b3"].name
    source = keras.applications.EfficientNetB3(input_shape=SHAPE, include_top=False, weights=None)
    normalization = next(layer for layer in source.layers if isinstance(layer, keras.layers.Normalization))
    normalization.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
    save_as_published(source, path)
    monkeypatch.setattr(efficientnet.file_utils, "get_file", lambda *_, **__: str(path))
    imagenet = keras.applications.EfficientNetB3(input_shape=SHAPE, include_top=False, weights="imagenet")
    by_path = keras.applications.EfficientNetB3(input_shape=SHAPE, include_top=False, weights=str(path))
    ours = backbone_named("efficientnet_b3").build(SHAPE, path)
    inputs = backbone_named("efficientnet_b3").preprocess(pixels())
    expected = np.asarray(imagenet(inputs))
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(np.asarray(ours(inputs)), expected, atol=1e-4 * scale)
    assert np.abs(np.asarray(by_path(inputs)) - expected).max() > 1e-2 * scale  # the trap is there


@pytest.mark.parametrize(
    ("name", "application"), [("resnet50", keras.applications.ResNet50), ("vgg16", keras.applications.VGG16)]
)
def test_a_published_file_gives_kerass_features(name, application, tmp_path):
    keras.utils.set_random_seed(0)
    path = tmp_path / WEIGHT_FILES[name].name
    source = application(input_shape=SHAPE, include_top=False, weights=None)
    save_as_published(source, path)
    loaded = backbone_named(name).build(SHAPE, path)
    assert loaded.count_params() == source.count_params()
    for expected, found in zip(source.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    preprocess = getattr(keras.applications, name).preprocess_input
    expected = np.asarray(source(preprocess(pixels().astype(np.float32))))
    features = np.asarray(loaded(backbone_named(name).preprocess(pixels())))
    assert expected.std() > 1e-3
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_a_file_of_other_weights_is_refused_by_name(tmp_path, weights):
    damaged = tmp_path / "cut.h5"
    damaged.write_bytes((weights / WEIGHT_FILES["mobilenet_v2"].name).read_bytes()[:100_000])
    for path, name in [(damaged, "mobilenet_v2"), (weights / WEIGHT_FILES["mobilenet_v2"].name, "vgg16")]:
        with pytest.raises(UserError, match=path.name):
            backbone_named(name).build(SHAPE, path)


def test_too_small_an_image_is_refused():
    with pytest.raises(UserError, match="AlexNet needs images of at least 64 pixels"):
        backbone_named("alexnet").build((63, 63, 3), None)


def test_local_response_normalization_is_the_papers_formula():
    activity = np.random.default_rng(0).normal(0, 100, (1, 2, 2, 7)).astype(np.float32)
    expected = np.empty_like(activity)
    for channel in range(7):
        neighbours = activity[..., max(0, channel - 2) : channel + 3]
        expected[..., channel] = activity[..., channel] / (2 + 1e-4 * (neighbours**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(np.asarray(LocalResponseNormalization()(activity)), expected, rtol=1e-4)
