"""Several processes compute features of the same cells; one of them is killed."""

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from allreview.models.pretrained import WEIGHT_FILES
from allreview.recipe import make_recipe
from allreview.settings import Settings
from allreview.training.feature_store import FeatureFolder
from allreview.training.features import cached_features, feature_key
from allreview.training.frozen import frozen_backbone
from allreview.training.views import CellImage

ROOT = Path(__file__).parents[2]
RECIPE = make_recipe({"image_size": 64})

EXTRACT = """
import sys
from pathlib import Path
from tests.slow.test_many_extractors import extract
extract(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
print("done", flush=True)
"""


def cells_of(folder: Path) -> list[CellImage]:
    paths = sorted(folder.rglob("*.bmp"))
    return [CellImage(hashlib.sha256(path.read_bytes()).hexdigest(), path) for path in paths]


def extract(home: Path, folder: Path, file: Path, number: int | None = None) -> np.ndarray:
    return cached_features(
        cells_of(folder)[:number],
        RECIPE,
        {"mobilenet_v2": file},
        Settings(home=home),
        progress=lambda *_: None,
        check=lambda: None,
    )


@pytest.mark.slow
def test_two_extract_the_same_cells_and_a_third_is_killed(cnmc: Path, weights: Path, tmp_path: Path) -> None:
    file = weights / WEIGHT_FILES["mobilenet_v2"].name
    expected = extract(tmp_path / "alone", cnmc, file)
    command = [sys.executable, "-c", EXTRACT, str(tmp_path / "home"), str(cnmc), str(file)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(3)
    ]
    backbone = frozen_backbone("mobilenet_v2", 64, file)
    key = feature_key(RECIPE, "mobilenet_v2", backbone.weights_hash, computing=backbone.computing)
    folder = FeatureFolder(Settings(home=tmp_path / "home").features, key)
    hashes = [cell.sha256 for cell in cells_of(cnmc)]
    end = time.monotonic() + 240
    while not folder.known(hashes).any():
        assert time.monotonic() < end
        time.sleep(0.01)
    processes[0].kill()
    assert [process.communicate()[0] for process in processes[1:]] == ["done\n", "done\n"]
    processes[0].communicate()
    vectors = np.empty_like(expected)
    assert folder.read(hashes, vectors).all()
    np.testing.assert_array_equal(vectors, expected)
    np.testing.assert_array_equal(extract(tmp_path / "home", cnmc, file), expected)
