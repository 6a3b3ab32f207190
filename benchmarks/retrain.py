"""A retrain after corrections, from the press of the button to the new queue, against the plain way.

    python -m benchmarks.retrain [--cells 600] [--epochs 20] [--backbone mobilenet_v2] [--corrections 30]
                                 [--pictures FOLDER] [--plain-epochs N] [--json]

A worker trains a run on drawn cells (or the pictures of a folder), then labels of training cells are made wrong, and
put right again, with a retrain after each: `seconds` of both, from asking for the run until it is finished, which is
when predictions, calibrated figures with intervals, out-of-fold probabilities and the queue are there. The worker is
warm and the features of the cells are known, as after any first run.

The plain way is a Keras script on the same cells, labels and split: the frozen backbone with the same head, fitted for
as many epochs from `keras.utils.image_dataset_from_directory`, its best epoch kept; then it predicts all cells. That
it has neither folds nor figures is to its advantage. With `--plain-epochs` it runs fewer epochs; its seconds for all
are then reckoned from those, the document says so in `reckoned`, and its accuracy is that of the fewer epochs.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sqlalchemy as sa

import db
from allreview.cells.importing import import_cells
from allreview.cells.naming import IMAGE_SUFFIXES
from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe
from allreview.review import queues, rankings
from allreview.review.log.annotations import decide_many, reviewer_named
from allreview.review.log.events import last_event_id
from allreview.settings import Settings, current_settings
from allreview.store import open_store
from allreview.training import jobs
from allreview.training.runs import RunRow, get_run
from allreview.training.snapshots import SnapshotLine, lines

ROOT = Path(__file__).parent.parent
PATIENCE = 3600.0
LOOK = 0.2  # seconds between two looks: whoever looks all the time takes the worker's core


def main() -> None:
    """Retrain twice, fit the plain way once, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ("mobilenet_v2", "resnet50", "efficientnet_b3", "vgg16")
    parser.add_argument("--cells", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--backbone", choices=names, default="mobilenet_v2")
    parser.add_argument("--corrections", type=int, default=30)
    parser.add_argument("--pictures", type=Path, help="a folder of real cells, in any layout that is read")
    parser.add_argument("--plain-epochs", type=int, help="run the plain way for fewer epochs, and reckon")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALLREVIEW_HOME"] = str(Path(folder) / "home")
        os.environ.pop("ALLREVIEW_DATABASE_URL", None)
        try:
            found = measure(Path(folder), asked)
        except UserError as error:
            raise SystemExit(str(error)) from None
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{found['compares']}: {found['ratio']:.0f} times as fast")
    print(f"  here {found['seconds']} s, plain {found['plain_seconds']:.1f} s{_how(found)}")
    print(f"  accuracy on test cells here {found['accuracy']:.1%}, plain {found['plain_accuracy']:.1%}")
    print(f"  longest time without news on the page {found['longest_silence_seconds']:.2f} s")


def _how(found: dict[str, Any]) -> str:
    return f" (reckoned from {found['plain_epochs']} epochs)" if found["reckoned"] else ""


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """What both took, in seconds, and how right they were."""
    settings = current_settings()
    engine = open_store(settings)
    pictures = _chosen(folder, asked) if asked.pictures else _drawn(folder / "drawn", asked.cells)
    imported = import_cells(engine, settings, pictures, dataset="Retrain")
    recipe = make_recipe({"backbone": asked.backbone, "epochs": asked.epochs})
    with _worker(settings):
        run_id = jobs.submit(engine, settings, dataset_id=imported.dataset_id, recipe=recipe)
        _wait(engine, run_id)
        _wait_until_idle(settings, run_id)
        seconds, silences = [], []
        for right in (False, True):
            _correct(engine, run_id, asked.corrections, right=right)
            started = time.perf_counter()
            run_id = jobs.retrain(engine, settings, run_id)
            silences.append(_wait(engine, run_id))
            seconds.append(round(time.perf_counter() - started, 2))
            with db.reading(engine) as session:
                assert queues.queue_of(session, run_id, by="label-error", limit=20, settings=settings)
            _wait_until_idle(settings, run_id)
    with db.reading(engine) as session:
        run = get_run(session, run_id)
        cells = lines(session, run.snapshot_id)
    epochs = asked.plain_epochs or asked.epochs
    plain = _plain(folder, recipe, run.classes, cells, settings, epochs)
    whole = plain["fit"] * asked.epochs / epochs + plain["predict"]
    return {
        "ratio": whole / statistics.median(seconds),
        "compares": f"A retrain of {asked.epochs} epochs on {len(cells)} cells ({asked.backbone}), with figures, "
        "out-of-fold probabilities and the new queue, against model.fit of the frozen backbone from "
        "image_dataset_from_directory"
        + (f" (reckoned from {epochs} of its epochs)" if epochs != asked.epochs else ""),
        "seconds": seconds,
        "plain_seconds": whole,
        "plain_fit_seconds": plain["fit"],
        "plain_predict_seconds": plain["predict"],
        "plain_epochs": epochs,
        "reckoned": epochs != asked.epochs,
        "accuracy": run.metrics["test"]["accuracy"],
        "plain_accuracy": plain["accuracy"],
        "test_cells": run.metrics["test"]["n"],
        "longest_silence_seconds": max(silences),
        "corrections": asked.corrections,
        "cells": len(cells),
        "cores": os.cpu_count(),
    }


@contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    settings.logs.mkdir(parents=True, exist_ok=True)
    with open(settings.logs / "worker.log", "ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "allreview", "worker"], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(30)


def _wait(engine: sa.Engine, run_id: int) -> float:
    """Wait until the run is finished; the longest time in which the store had no news of it while it ran."""
    longest, seen, moment = 0.0, None, None

    def over() -> bool:
        nonlocal longest, seen, moment
        with db.reading(engine) as session:
            run = get_run(session, run_id)
        if run.state in ("failed", "stopped"):
            raise SystemExit(run.message or "The run was stopped.")
        news = (run.stage, run.done, len(run.epochs), run.state)
        if run.state != "queued" and news != seen:
            now = time.perf_counter()
            longest = max(longest, now - moment) if moment else 0.0
            seen, moment = news, now
        return not run.unfinished

    _until(over, LOOK)
    return round(longest, 2)


def _wait_until_idle(settings: Settings, run_id: int) -> None:
    """Wait for the map: it is the last that the worker does for a run."""
    _until((settings.run_folder(run_id) / rankings.MAP).is_file, 0.1)


def _until(reached: Callable[[], bool], pause: float) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        if time.monotonic() > end:
            raise SystemExit("The worker takes too long.")
        time.sleep(pause)


def _correct(engine: sa.Engine, run_id: int, number: int, *, right: bool) -> None:
    """Give so many training cells their own label, or another class."""
    reader = reviewer_named(engine, "Ann")
    with db.reading(engine) as session:
        run = get_run(session, run_id, with_epochs=False)
        trained = [cell for cell in lines(session, run.snapshot_id) if cell.part == "train"]
        some = trained[:: max(len(trained) // number, 1)][:number]
        seen = {cell.cell_id: last_event_id(session, cell.cell_id) for cell in some}
    labels = {cell.cell_id: cell.source_label if right else _other(run, cell) for cell in some}
    decide_many(engine, cells=seen, label=labels, reviewer_id=reader)


def _other(run: RunRow, cell: SnapshotLine) -> str:
    return next(name for name in run.classes if name != cell.source_label)


def _plain(
    folder: Path,
    recipe: Recipe,
    classes: list[str],
    cells: list[SnapshotLine],
    settings: Settings,
    epochs: int,
) -> dict[str, float]:
    """The way of the Keras guides, by the same recipe."""
    import keras
    import numpy as np

    from allreview.models.building import compile_model
    from allreview.training.batches import cell_weights

    keras.utils.set_random_seed(recipe.seed)
    for cell in cells:
        path = folder / "plain" / cell.part / cell.label / f"{cell.sha256}{Path(cell.path).suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(cell.path)

    def images(part: str) -> Any:
        return keras.utils.image_dataset_from_directory(
            folder / "plain" / part,
            class_names=classes,
            label_mode="categorical",
            image_size=(recipe.image_size, recipe.image_size),
            batch_size=recipe.batch_size,
            shuffle=part == "train",
            seed=recipe.seed,
            verbose=False,
        )

    model = compile_model(_plain_model(recipe, len(classes), settings), recipe)
    labels = np.array([classes.index(cell.label) for cell in cells if cell.part == "train"])
    weights = cell_weights(recipe, labels, len(classes))
    best = folder / "best.weights.h5"
    keeping = keras.callbacks.ModelCheckpoint(
        best, monitor=recipe.best_by, mode="min", save_best_only=True, save_weights_only=True
    )
    started = time.perf_counter()
    model.fit(
        images("train"),
        validation_data=images("validation"),
        epochs=epochs,
        class_weight={int(label): float(weights[labels == label][0]) for label in np.unique(labels)},
        callbacks=[keeping],
        verbose=0,  # pyright: ignore[reportArgumentType]
    )
    fitted = time.perf_counter()
    model.load_weights(best)
    said = {part: model.predict(images(part), verbose=0) for part in ("train", "validation", "test")}  # pyright: ignore[reportArgumentType]
    predicted = time.perf_counter()
    truth = np.concatenate([labels.numpy() for _, labels in images("test")])
    return {
        "fit": fitted - started,
        "predict": predicted - fitted,
        "accuracy": float((said["test"].argmax(axis=1) == truth.argmax(axis=1)).mean()),
    }


def _plain_model(recipe: Recipe, n_classes: int, settings: Settings) -> Any:
    import keras

    from allreview.models.backbones import backbone_named
    from allreview.models.building import build_head
    from allreview.models.grafting import prepared, raw_pixels
    from allreview.models.pretrained import obtain

    size, name = recipe.image_size, recipe.backbone
    pixels = raw_pixels(size)
    backbone = backbone_named(name).build((size, size, 3), obtain(name, settings))
    backbone.trainable = False
    mirrored = keras.layers.RandomFlip("horizontal", seed=recipe.seed)(pixels)
    pooled = keras.layers.GlobalMaxPooling2D()(backbone(prepared(mirrored, name), training=False))
    return keras.Model(pixels, build_head(recipe, pooled.shape[-1], n_classes)(pooled))


def _chosen(folder: Path, asked: argparse.Namespace) -> Path:
    """So many of the pictures, taken evenly, at the places they have in their folder."""
    found = sorted(path for path in asked.pictures.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    for place in range(min(asked.cells, len(found))):
        path = found[place * len(found) // min(asked.cells, len(found))]
        link = folder / "chosen" / path.relative_to(asked.pictures)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, link)
    return folder / "chosen"


def _drawn(folder: Path, number: int) -> Path:
    """So many drawn cells of 24 subjects, half of them with leukaemia."""
    import numpy as np

    from allreview.cells.drawing import draw_cell, subject_stain

    for place in range(number):
        subject = place % 24
        label = ("all", "hem")[subject % 2]
        stain = subject_stain(np.random.default_rng(subject))
        path = folder / label / f"{subject}" / f"{place}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_cell(np.random.default_rng(1000 + place), stain, blast=label == "all").save(path)
    return folder


if __name__ == "__main__":
    main()
