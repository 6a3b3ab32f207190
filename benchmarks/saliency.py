"""Heat maps of many cells, against tf-keras-vis called for one cell after another; and one heat map on demand.

    python -m benchmarks.saliency [--cells 200] [--backbone NAME] [--requests 20] [--pictures FOLDER] [--json]

The first part explains drawn cells (or the pictures of a folder) of 224 × 224 pixels by a network with ImageNet
weights, or from scratch where there are none: by `heatmaps`, and as the README of tf-keras-vis shows, with its object
made once. Both take turns, and both have explained a cell before, so nobody's first call counts; what ours costs is
told as `first_seconds`. Methods that take a second a cell are given few cells.

The second part trains a small run on drawn cells, in a temporary home with a worker of its own. Then it asks for the
Grad-CAM of one cell at a time, as the desk does, and measures until the file is there: with an idle worker, and with
one that trains.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import sqlalchemy as sa
from PIL import Image

import db
from allreview.cells.decoding import cell_pixels, read_rgb
from allreview.cells.drawing import draw_cell, subject_stain
from allreview.cells.importing import import_cells
from allreview.cells.naming import IMAGE_SUFFIXES
from allreview.models import pretrained
from allreview.models.building import build_model, preprocess_of
from allreview.recipe import BackboneName, Recipe, make_recipe
from allreview.review.queues import queue_of
from allreview.review.saliency import methods, overlays
from allreview.settings import Settings, current_settings
from allreview.store import open_store
from allreview.training import explaining, jobs, runs
from allreview.training.slots import somebody_works
from db.tables import Cell, Prediction

ROOT = Path(__file__).parent.parent
ROUNDS = 5
SLOW_CELLS = 5
"""Score-CAM and SmoothGrad are measured on so many cells."""
PATIENCE = 600.0


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument(
        "--requests", type=int, default=20, help="heat maps on demand; 0 leaves that part out"
    )
    parser.add_argument("--pictures", type=Path, help="a folder of real cells, in any layout that is read")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    recipe = _recipe(asked.backbone)
    found: dict[str, Any] = {"backbone": asked.backbone, "cells": asked.cells, **_side_by_side(recipe, asked)}
    if asked.requests:
        found |= _on_demand(recipe, asked.requests)
    print(json.dumps(found) if asked.json else "\n".join(f"{key:36} {found[key]}" for key in found))


def _recipe(backbone: str) -> Recipe:
    there = pretrained.availability(
        make_recipe({"backbone": backbone}).backbone, current_settings(), probe=True
    )
    if there.kind in ("file", "download"):
        return make_recipe({"backbone": backbone})
    return make_recipe({"backbone": backbone, "weights": "none", "mode": "finetune"})


def _side_by_side(recipe: Recipe, asked: argparse.Namespace) -> dict[str, Any]:
    names = recipe.backbones if recipe.weights == "imagenet" else []
    weights: dict[BackboneName, Path] = {name: pretrained.obtain(name, current_settings()) for name in names}
    model = build_model(recipe, ["all", "hem"], weights)
    inputs = preprocess_of(recipe)(_pixels(recipe, asked.cells, asked.pictures))
    index = int(np.asarray(model(inputs[:1])).argmax())
    # The library wraps the input in a list, and Keras remarks on it.
    warnings.filterwarnings("ignore", message="The structure of `inputs`")
    plain = _one_by_one(model)
    found: dict[str, Any] = {}
    for method in overlays.METHODS:
        number = len(inputs) if method.startswith("gradcam") else min(SLOW_CELLS, len(inputs))
        found |= _both_ways(model, method, plain[method], inputs[:number], index)
    compares = (
        f"Grad-CAM of {len(inputs)} cells by tf-keras-vis called one by one, in seconds, over the same in batches by"
        " one traced function"
    )
    return {"ratio": found["gradcam_ratio"], "compares": compares, **found}


def _both_ways(
    model: keras.Model, method: str, one: Callable[[Any, int], Any], inputs: np.ndarray, index: int
) -> dict[str, float]:
    """Seconds for all cells in batches and one by one, in turns, and their ratio."""

    def together(cells: np.ndarray) -> float:
        begun = time.perf_counter()
        methods.heatmaps(model, cells, [index] * len(cells), method)
        return time.perf_counter() - begun

    def in_turn(cells: np.ndarray) -> float:
        begun = time.perf_counter()
        with redirect_stdout(sys.stderr):  # Score-CAM draws progress bars
            for cell in cells:
                one(cell, index)
        return time.perf_counter() - begun

    first = together(inputs[:1])
    in_turn(inputs[:1])
    taken = [(together(part), in_turn(part)) for part in np.array_split(inputs, ROUNDS)]
    ours, theirs = np.sum(taken, axis=0)
    return {
        f"{method}_first_seconds": round(first, 2),
        f"{method}_seconds": round(ours, 2),
        f"{method}_one_by_one_seconds": round(theirs, 2),
        f"{method}_ratio": round(theirs / ours, 2),
    }


def _one_by_one(model: keras.Model) -> dict[str, Callable[[Any, int], Any]]:
    """What the README of tf-keras-vis shows, for one cell; Score-CAM on as many channels as ours."""
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
    from tf_keras_vis.utils.scores import CategoricalScore

    linear = ReplaceToLinear()
    gradcam, plus_plus = Gradcam(model, model_modifier=linear), GradcamPlusPlus(model, model_modifier=linear)
    scorecam, gradients = Scorecam(model), Saliency(model, model_modifier=linear)
    channels = methods.SCORECAM_CHANNELS
    return {
        "gradcam": lambda cell, index: gradcam(CategoricalScore(index), cell, penultimate_layer=-1),
        "gradcam_plus_plus": lambda cell, index: plus_plus(
            CategoricalScore(index), cell, penultimate_layer=-1
        ),
        "scorecam": lambda cell, index: scorecam(
            CategoricalScore(index), cell, penultimate_layer=-1, max_N=channels
        ),
        "smoothgrad": lambda cell, index: gradients(
            CategoricalScore(index),
            cell,
            smooth_samples=methods.SMOOTH_SAMPLES,
            smooth_noise=methods.SMOOTH_NOISE,
        ),
    }


def _pixels(recipe: Recipe, number: int, pictures: Path | None) -> np.ndarray:
    images = _pictures(pictures, number) if pictures else [_drawn(place) for place in range(number)]
    return np.stack([cell_pixels(image, recipe.preparation) for image in images])


def _pictures(folder: Path, number: int) -> list[Image.Image]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    return [
        read_rgb(path, current_settings().max_pixels)
        for path in paths[:: max(len(paths) // number, 1)][:number]
    ]


def _drawn(place: int) -> Image.Image:
    stain = subject_stain(np.random.default_rng(place % 12))
    return draw_cell(np.random.default_rng(place), stain, blast=place % 2 == 0)


def _on_demand(recipe: Recipe, requests: int) -> dict[str, int]:
    """Milliseconds from asking for one heat map to its file, by a worker that has just made the run."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALLREVIEW_HOME"] = str(Path(folder) / "home")
        os.environ.pop("ALLREVIEW_DATABASE_URL", None)
        settings = current_settings()
        engine = open_store(settings)
        source = _save_drawn(Path(folder) / "drawn", 3 * requests)
        dataset = import_cells(engine, settings, source, dataset="On demand").dataset_id
        with _worker(settings):
            run = jobs.submit(engine, settings, dataset_id=dataset, recipe=_with(recipe, epochs=1))
            _wait(lambda: _is(engine, run, state="finished"))
            _wait_until_explained(engine, settings, run)
            cells = _predicted(engine, run)
            idle = [_taken(settings, run, *cell) for cell in cells[:requests]]
            training = jobs.submit(
                engine, settings, dataset_id=dataset, recipe=_with(recipe, mode="finetune", epochs=500)
            )
            _wait(lambda: _is(engine, training, stage="fit"))
            busy = [_taken(settings, run, *cell) for cell in cells[requests : 2 * requests]]
            jobs.stop(engine, training)
            _wait(lambda: _is(engine, training, state="stopped"))
        engine.dispose()
    return {
        "on_demand_median_ms": round(1000 * statistics.median(idle)),
        "on_demand_p95_ms": round(1000 * statistics.quantiles(idle, n=20)[-1]),
        "on_demand_while_training_median_ms": round(1000 * statistics.median(busy)),
    }


def _save_drawn(folder: Path, number: int) -> Path:
    for place in range(number):
        path = folder / ("all", "hem")[place % 2] / f"{place % 12}" / f"{place}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        _drawn(place).save(path)
    return folder


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    return make_recipe({**recipe.model_dump(), **changes})


@contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "allreview", "worker"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(lambda: somebody_works(settings))
        yield
    finally:
        worker.terminate()
        worker.wait(30)


def _wait(reached: Callable[[], bool], every: float = 0.5) -> None:
    until = time.monotonic() + PATIENCE
    while not reached():
        if time.monotonic() > until:
            raise SystemExit("The worker did not come that far.")
        time.sleep(every)


def _is(engine: sa.Engine, run_id: int, **wanted: str) -> bool:
    with db.reading(engine) as session:
        run = runs.get_run(session, run_id, with_epochs=False)
    if run.state == "failed":
        raise SystemExit(f"The run failed: {run.message}")
    return all(getattr(run, name) == value for name, value in wanted.items())


def _wait_until_explained(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    with db.reading(engine) as session:
        head = queue_of(
            session, run_id, parts=("train", "validation"), limit=explaining.HEAD, settings=settings
        )
    last = explaining.HEAD_METHODS[-1]
    _wait(lambda: not overlays.missing(settings, run_id, last, [entry.sha256 for entry in head]))


def _predicted(engine: sa.Engine, run_id: int) -> list[tuple[int, str]]:
    """The run's cells, as their ids and hashes."""
    query = sa.select(Cell.id, Cell.sha256).join(Prediction, Prediction.cell_id == Cell.id)
    with db.reading(engine) as session:
        return [(cell_id, sha) for cell_id, sha in session.execute(query.where(Prediction.run_id == run_id))]


def _taken(settings: Settings, run_id: int, cell_id: int, sha256: str) -> float:
    """Seconds until the cell has its Grad-CAM, made anew where it was there."""
    overlays.heatmap_path(settings, run_id, "gradcam", sha256).unlink(missing_ok=True)
    begun = time.perf_counter()
    jobs.request_saliency(settings, run_id, "gradcam", [cell_id])
    _wait(lambda: not overlays.missing(settings, run_id, "gradcam", [sha256]), every=0.002)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
