"""`export`, with a real model and real cells."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import sqlalchemy as sa

from allreview.cells.decoding import cell_pixels, read_rgb
from allreview.recipe import Preparation
from allreview.settings import current_settings
from allreview.training.inference import load_run_model
from tests.cli.commands import refused, succeed


def test_an_exported_run_answers_as_the_run_does(
    sqlite_engine: sa.Engine, run_with_model: int, few: Path, tmp_path: Path
) -> None:
    found = succeed("export", run_with_model, tmp_path)
    target = tmp_path / f"run-{run_with_model}.onnx"
    assert found["path"] == str(target)
    assert (found["format"], found["compared_on"], found["compared"]) == ("onnx", "cells", 8)
    assert found["largest_difference"] <= 1e-4
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    cell = cell_pixels(read_rgb(next(few.rglob("*.bmp")), 10**7), Preparation(64))
    expected = load_run_model(sqlite_engine, current_settings(), run_with_model).probabilities(cell[None])
    answer = session.run(["probabilities"], {"pixels": cell[None].astype(np.float32)})[0]
    np.testing.assert_allclose(np.asarray(answer), expected, atol=1e-4)
    description = json.loads(session.get_modelmeta().custom_metadata_map["allreview"])
    assert description["classes"] == ["all", "hem"]
    assert description["recipe"]["image_size"] == 64
    beside = json.loads((tmp_path / f"run-{run_with_model}.json").read_text())
    assert beside["largest_difference"] == found["largest_difference"]
    # Nothing is overwritten.
    assert str(target) in refused("export", run_with_model, target)


def test_bad_places_and_formats_are_refused(sqlite_engine: sa.Engine, run_with_model: int, few: Path) -> None:
    assert "onnx, savedmodel, keras" in refused("export", run_with_model, few, "--format", "pickle")
    assert "There is no run 77" in refused("export", 77, few)
    existing = next(few.rglob("*.bmp"))
    assert "cannot be written" in refused("export", run_with_model, existing / "inside.onnx")
