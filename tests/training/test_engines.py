"""OpenVINO computes what TensorFlow computes, and is used where it can be."""

import hashlib
import importlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from allreview.cells.decoding import cell_pixels, read_rgb
from allreview.errors import UserError
from allreview.models.backbones import backbone_named
from allreview.models.building import build_backbone
from allreview.models.pretrained import WEIGHT_FILES
from allreview.recipe import Preparation, make_recipe
from allreview.settings import Settings
from allreview.training import engines
from allreview.training.engines import Computing, OpenVino, TensorFlow, engine_for, intended
from allreview.training.features import cached_features
from allreview.training.views import CellImage

SIDE = 96
FLOAT32 = Computing("openvino", "float32")

pytestmark = pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def paths(cnmc: Path) -> list[Path]:
    return sorted(cnmc.rglob("*.bmp"))[::2]


@pytest.fixture(scope="module")
def pixels(paths) -> np.ndarray:
    return np.stack([cell_pixels(read_rgb(path, 10**8), Preparation(SIDE, 300)) for path in paths])


@pytest.fixture(scope="module")
def network(weights: Path):
    return build_backbone("mobilenet_v2", SIDE, weights / WEIGHT_FILES["mobilenet_v2"].name)


@pytest.fixture(scope="module")
def backbone():
    return backbone_named("mobilenet_v2")


def computed(engine, pixels: np.ndarray) -> np.ndarray:
    starts = range(0, len(pixels), engine.batch)
    return np.concatenate([engine(pixels[start : start + engine.batch]) for start in starts])


@pytest.fixture(scope="module")
def by_both(backbone, network, pixels) -> tuple[np.ndarray, np.ndarray]:
    tensorflow = TensorFlow(backbone, network, Computing("tensorflow", "float32"))
    return computed(OpenVino(backbone, network, FLOAT32), pixels), computed(tensorflow, pixels)


def test_features_of_real_cells_agree(by_both):
    ours, theirs = by_both
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() >= 0.999
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_heads_on_them_predict_the_same(by_both, paths):
    """A head fitted on one engine's features says the same of the other's."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.array([path.parent.name for path in paths])
    fitted = np.arange(len(paths)) % 2 == 0
    ours, theirs = by_both

    def head(
        features: np.ndarray,
    ):  # tight enough that what differs is the features, not where the solver stopped
        solver = LogisticRegression(C=1e-3, tol=1e-8, max_iter=1000)
        return make_pipeline(StandardScaler(), solver).fit(features[fitted], labels[fitted])

    expected = head(theirs).predict_proba(theirs)
    assert len(set(expected.argmax(1))) == 2
    np.testing.assert_allclose(head(theirs).predict_proba(ours), expected, atol=0.005)
    np.testing.assert_allclose(head(ours).predict_proba(ours), expected, atol=0.005)


def test_an_image_does_not_depend_on_its_neighbours(backbone, network, pixels):
    engine = OpenVino(backbone, network, FLOAT32)
    together = engine(pixels[: engine.batch])
    np.testing.assert_array_equal(engine(pixels[5:6]), together[5:6])
    np.testing.assert_array_equal(engine(pixels[: engine.batch][::-1]), together[::-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "vgg16", "efficientnet_b3", "mobilenet_v2"])
def test_every_pretrained_backbone_is_taken(name, tmp_path):
    """The network as it is built from weights at random, which say as much about the conversion."""
    made = backbone_named(name).build((SIDE, SIDE, 3), None)
    made.save_weights(tmp_path / "made.weights.h5")
    network = build_backbone(name, SIDE, tmp_path / "made.weights.h5")
    assert isinstance(engine_for(backbone_named(name), network, FLOAT32), OpenVino)


def test_an_engine_that_computes_something_else_is_not_used(backbone, network, monkeypatch):
    class Wrong(OpenVino):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            return super().__call__(pixels)[:, ::-1]

    tried: list[str] = []

    class Noted(Wrong):
        def __init__(self, backbone, network, computing):
            tried.append(computing.precision)
            super().__init__(backbone, network, FLOAT32)

    monkeypatch.setattr(engines, "OpenVino", Noted)
    engine = engine_for(backbone, network, Computing("openvino", "bfloat16"))
    assert tried == ["bfloat16", "float32"]
    assert isinstance(engine, TensorFlow)
    assert engine.computing == Computing("tensorflow", "float32")
    with pytest.raises(UserError, match="ALLREVIEW_ENGINE=auto"):
        engine_for(backbone, network, FLOAT32, "openvino")


def test_features_are_filed_under_what_computed_them(paths, weights, monkeypatch, tmp_path):
    """Where OpenVINO was thought to compute, and did not do."""

    class Broken(OpenVino):
        def __init__(self, backbone, network, computing):
            raise RuntimeError("not on this processor")

    monkeypatch.setattr(engines, "OpenVino", Broken)
    file = tmp_path / "weights.h5"  # another path, so that no backbone in memory is taken
    file.write_bytes((weights / WEIGHT_FILES["mobilenet_v2"].name).read_bytes())
    cells = [CellImage(hashlib.sha256(path.read_bytes()).hexdigest(), path) for path in paths[:3]]
    settings = Settings(home=tmp_path)
    reports = []
    for _ in range(2):
        cached_features(
            cells,
            make_recipe({"image_size": 64}),
            {"mobilenet_v2": file},
            settings,
            progress=lambda *report: reports.append(report[:2]),
            check=lambda: None,
        )
    assert reports == [(0, 3), (3, 3), (3, 3)]
    (key,) = settings.features.glob("*/key.json")
    assert json.loads(key.read_text())["engine"] == "tensorflow"


def test_what_is_asked_for_is_intended(monkeypatch):
    assert intended("tensorflow").engine == "tensorflow"
    assert intended("openvino").engine == "openvino"
    monkeypatch.setattr(engines, "_openvino", lambda: None)
    assert intended("auto").engine in ("tensorflow", "tensorflow-gpu")
    with pytest.raises(UserError, match="ALLREVIEW_ENGINE"):
        intended("openvino")


def test_openvino_tells_nobody_that_it_is_used():
    """The library reports its import to its makers, unless what it reports with cannot be loaded."""
    assert intended("openvino").engine == "openvino"
    telemetry = importlib.import_module("openvino.tools.ovc").telemetry
    assert telemetry.__class__.__module__ == "openvino.tools.ovc.telemetry_stub"
    assert sys.modules["openvino_telemetry"] is None
