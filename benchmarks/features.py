"""Features of cells by a frozen backbone, against the plain way.

    python -m benchmarks.features [--backbone resnet50] [--cells 300] [--pictures FOLDER] [--rounds 3] [--json]

Each round computes the same features twice, each time from nothing but files: by the feature cache, which also
compares every file with its hash and stores what it computes, and by `keras.utils.image_dataset_from_directory` and
`model.predict`. What is built once (networks, traces) is built before. The backbone has its ImageNet weights where
`ALLREVIEW_WEIGHTS` has the file, and random ones otherwise: how fast it is does not depend on them. At the end, the
cosines of features of the same pixels by both engines say whether it was the same work. `processor_ratio` compares
the processor time, which says more where the machine has other things to do.
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIDE = 224
BATCH = 32


def main() -> None:
    """Draw or find cells, compute in rounds, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ("mobilenet_v2", "resnet50", "efficientnet_b3", "vgg16")
    parser.add_argument("--backbone", choices=names, default="resnet50")
    parser.add_argument("--cells", type=int, default=300)
    parser.add_argument("--pictures", type=Path, help="a folder of real cells")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), asked)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{found['compares']}: {found['ratio']:.2f} times as fast, by {found['engine']}")
    print(
        f"  here {found['images_per_second']:.1f} images/s, plain {found['plain_images_per_second']:.1f} images/s"
    )
    print(f"  in seconds of processor time {found['processor_ratio']:.2f} times as fast")
    print(f"  least cosine of their features {found['least_cosine']:.6f}")


def measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """What the rounds took, in seconds, and how they compare."""
    import numpy as np

    from allreview.recipe import make_recipe
    from allreview.settings import Settings, current_settings
    from allreview.training.features import cached_features, read_cell
    from allreview.training.frozen import frozen_backbone
    from allreview.training.views import CellImage

    paths = _paths(folder, asked)
    cells = {}
    for path in paths:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        cells[sha256] = CellImage(sha256, path)
    shown = _linked(folder, list(cells.values()))
    weights = _weights(folder, asked.backbone)
    recipe = make_recipe({"backbone": asked.backbone, "image_size": SIDE})
    engine = current_settings().engine
    backbone = frozen_backbone(asked.backbone, SIDE, weights, engine)
    backbone.settle()
    plain = _Plain(asked.backbone, weights)
    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    plain.features(shown, take=1)
    for number in range(asked.rounds):
        started = _clocks()
        cached_features(
            list(cells.values()),
            recipe,
            {asked.backbone: weights},
            Settings(home=folder / f"home{number}", engine=engine),
            progress=lambda *_: None,
            check=lambda: None,
        )
        ours.append(_since(started))
        started = _clocks()
        assert len(plain.features(shown)) == len(cells)
        theirs.append(_since(started))
    few = np.stack([read_cell(cell, recipe, 10**8) for cell in list(cells.values())[:BATCH]])
    first, second = backbone(few), plain.of_pixels(few)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    seconds, busy = zip(*ours, strict=True)
    plain_seconds, plain_busy = zip(*theirs, strict=True)
    return {
        "ratio": _ratio(plain_seconds, seconds),
        "compares": f"{asked.backbone} features of {len(cells)} cells from their files against "
        "image_dataset_from_directory and model.predict",
        "processor_ratio": _ratio(plain_busy, busy),
        "seconds": seconds,
        "plain_seconds": plain_seconds,
        "processor_seconds": busy,
        "plain_processor_seconds": plain_busy,
        "images_per_second": len(cells) / statistics.median(seconds),
        "plain_images_per_second": len(cells) / statistics.median(plain_seconds),
        "engine": f"{backbone.computing.engine}, {backbone.computing.precision}",
        "least_cosine": float(((first * second).sum(axis=1) / lengths).min()),
        "cells": len(cells),
        "cores": os.cpu_count(),
    }


def _clocks() -> tuple[float, float]:
    """Now, by the clock and in seconds the processor worked for this process."""
    return time.perf_counter(), time.process_time()


def _since(started: tuple[float, float]) -> tuple[float, float]:
    now, busy = _clocks()
    return now - started[0], busy - started[1]


def _ratio(plain: Sequence[float], ours: Sequence[float]) -> float:
    """How many times as long the plain way took, as the median of the rounds."""
    return statistics.median(other / own for other, own in zip(plain, ours, strict=True))


class _Plain:
    """The way of the Keras guides: a network with its preprocessing, and predict."""

    def __init__(self, name: Any, weights: Path) -> None:
        import keras

        from allreview.models.backbones import backbone_named
        from allreview.models.grafting import prepared, raw_pixels

        pixels = raw_pixels(SIDE)
        body = backbone_named(name).build((SIDE, SIDE, 3), weights)
        pooled = keras.layers.GlobalMaxPooling2D()(body(prepared(pixels, name)))
        self.model = keras.Model(pixels, pooled)

    def features(self, folder: Path, take: int = -1) -> Any:
        import keras

        images: Any = keras.utils.image_dataset_from_directory(
            folder, labels=None, image_size=(SIDE, SIDE), batch_size=BATCH, shuffle=False, verbose=False
        )
        return self.model.predict(images.take(take), verbose=0)  # pyright: ignore[reportArgumentType]

    def of_pixels(self, pixels: Any) -> Any:
        return self.model.predict(pixels.astype("float32"), batch_size=BATCH, verbose=0)  # pyright: ignore[reportArgumentType]


def _paths(folder: Path, asked: argparse.Namespace) -> list[Path]:
    source = asked.pictures or _drawn(folder, asked.cells)
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".bmp", ".png", ".jpg"))
    step = max(len(found) // asked.cells, 1)
    return found[::step][: asked.cells]


def _drawn(folder: Path, number: int) -> Path:
    """So many drawn cells as BMP."""
    import numpy as np

    from allreview.cells.drawing import draw_cell, subject_stain

    drawn = folder / "drawn"
    drawn.mkdir()
    for place in range(number):
        stain = subject_stain(np.random.default_rng(place % 12))
        draw_cell(np.random.default_rng(place), stain, blast=place % 2 == 0).save(drawn / f"{place}.bmp")
    return drawn


def _linked(folder: Path, cells: list[Any]) -> Path:
    """The cells alone in a folder, for the plain way to list."""
    shown = folder / "shown"
    shown.mkdir()
    for cell in cells:
        (shown / f"{cell.sha256}{cell.path.suffix}").symlink_to(cell.path.resolve())
    return shown


def _weights(folder: Path, name: Any) -> Path:
    """The published file where it is at hand, else one with random weights."""
    from allreview.models.backbones import backbone_named
    from allreview.models.pretrained import availability
    from allreview.settings import current_settings

    there = availability(name, current_settings())
    if there.path is not None:
        return there.path
    path = folder / "random.weights.h5"
    backbone_named(name).build((SIDE, SIDE, 3), None).save_weights(path)
    return path


if __name__ == "__main__":
    main()
