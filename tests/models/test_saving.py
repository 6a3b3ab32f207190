"""A model comes back with its class names and preprocessing, or not at all."""

import json

import numpy as np
import pytest
from PIL import Image

from allreview.errors import UserError
from allreview.models.backbones import backbone_named
from allreview.models.building import build_model
from allreview.models.pretrained import file_hash
from allreview.models.saving import TrainedModel, load_model, save_model
from allreview.recipe import make_recipe

RECIPE = make_recipe(
    {"backbone": "alexnet", "weights": "none", "mode": "finetune", "image_size": 64, "crop": 90}
)
CLASSES = ["hem", "all", "neutrophil <b>"]


@pytest.fixture(scope="module")
def model():
    return build_model(RECIPE, CLASSES, {})


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, model):
    save_model(tmp_path / "run", model, recipe=RECIPE, classes=CLASSES, weights_hash=None)
    return tmp_path / "run"


def test_round_trip(tmp_path, model, pixels):
    digest = save_model(tmp_path, model, recipe=RECIPE, classes=CLASSES, weights_hash="ab" * 32)
    assert digest == file_hash(tmp_path / "model.keras")
    loaded = load_model(tmp_path)
    assert (loaded.classes, loaded.recipe) == (CLASSES, RECIPE)
    expected = np.asarray(model(backbone_named("alexnet").preprocess(pixels)))
    np.testing.assert_allclose(loaded.probabilities(pixels, batch_size=2), expected, atol=1e-5)
    assert loaded.probabilities(pixels[:0]).shape == (0, 3)
    assert expected.std() > 1e-4
    description = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert description["classes"] == CLASSES
    assert description["weights_sha256"] == "ab" * 32
    assert (description["preprocessing"], description["image_size"], description["crop"]) == (
        "minus_one_to_one",
        64,
        90,
    )
    assert set(description["versions"]) == {"allreview", "keras", "tensorflow"}
    assert [path.name for path in tmp_path.glob("*.keras")] == ["model.keras"]


def test_prepare_crops_and_resizes_by_the_recipe(model):
    image = Image.new("RGB", (120, 120))
    image.paste((200, 10, 10), (15, 15, 105, 105))
    pixels = TrainedModel(model, RECIPE, CLASSES).prepare([image, Image.new("RGB", (30, 50))])
    assert (pixels.shape, pixels.dtype) == ((2, 64, 64, 3), np.uint8)
    assert (pixels[0] == (200, 10, 10)).all()


def test_saving_again_replaces_both_files(folder, pixels):
    other = build_model(RECIPE, CLASSES, {})
    save_model(folder, other, recipe=RECIPE, classes=CLASSES[::-1], weights_hash=None)
    loaded = load_model(folder)
    assert loaded.classes == CLASSES[::-1]
    expected = np.asarray(other(backbone_named("alexnet").preprocess(pixels)))
    np.testing.assert_allclose(loaded.probabilities(pixels), expected, atol=1e-5)


def test_class_names_must_fit_the_outputs(tmp_path, model):
    with pytest.raises(ValueError, match="3 outputs"):
        save_model(tmp_path, model, recipe=RECIPE, classes=["all", "hem"], weights_hash=None)


def test_missing_and_damaged_models_are_refused(tmp_path, folder):
    with pytest.raises(UserError, match="no trained model in"):
        load_model(tmp_path / "nothing")
    whole, description = (folder / "model.keras").read_bytes(), (folder / "model.json").read_text()
    (folder / "model.keras").write_bytes(whole[:-100])
    with pytest.raises(UserError, match="damaged or changed"):
        load_model(folder)
    (folder / "model.keras").unlink()
    with pytest.raises(UserError, match=r"no trained model at .*model\.keras"):
        load_model(folder)
    (folder / "model.json").write_text(description[:50])
    with pytest.raises(UserError, match=r"model\.json is damaged"):
        load_model(folder)


def test_a_description_of_other_preprocessing_or_classes_is_refused(folder):
    path = folder / "model.json"
    description = json.loads(path.read_text())
    for changed, words in [
        ({"preprocessing": "unchanged"}, "prepared in another way"),
        ({"classes": ["all", "hem"]}, "does not fit the class names"),
        ({"recipe": {"backbone": "unheard_of"}}, "cannot be loaded"),
    ]:
        path.write_text(json.dumps(description | changed))
        with pytest.raises(UserError, match=words):
            load_model(folder)
