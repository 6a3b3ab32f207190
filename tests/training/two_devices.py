"""Run by a test in a process of its own: the same fit on one CPU and on the same CPU as two devices.

Prints one JSON document: the epochs of each fit, and of one on two devices that was stopped and resumed. Each
batch holds four cells twice, so that both devices get the same: batch normalisation, which sees the part of its
device only, then does the same on two as on one.
"""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from allreview.models.saving import TrainedModel
from allreview.recipe import Recipe, make_recipe
from allreview.settings import current_settings
from allreview.training import batches
from allreview.training.epochs import StopRequested
from allreview.training.features import CellImage
from allreview.training.fitting import best_model, fit_end_to_end, image_probabilities
from tests.training.test_fitting import Hooks

RECIPE = make_recipe(
    {
        "backbone": "alexnet", "weights": "none", "mode": "finetune", "image_size": 64, "epochs": 2,
        "batch_size": 8, "flip": False, "dense_units": 8, "dropout": 0, "optimizer": "sgd", "learning_rate": 0.01,
    }
)  # fmt: skip
TWO = ["CPU:0", "CPU:1"]


def cells(folder: Path) -> tuple[list[CellImage], np.ndarray]:
    """Noise, with a bright square whose colour is the class. Sixteen to train on; five, an odd number to share,
    to validate on."""
    random = np.random.default_rng(0)
    images = []
    for number in range(21):
        pixels = random.integers(0, 120, (64, 64, 3), dtype=np.uint8)
        pixels[16:48, 16:48, number % 2] = 250
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        images.append(CellImage(hashlib.sha256(path.read_bytes()).hexdigest(), path))
    return images, np.arange(21) % 2


def drawn_twice(
    recipe: Recipe, labels: np.ndarray, n_views: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """In place of `batches.drawn`."""
    order = np.random.default_rng(epoch).permutation(len(labels))
    rows = np.concatenate([np.tile(order[start : start + 4], 2) for start in range(0, len(labels), 4)])
    return rows, np.zeros_like(rows)


def main(folder: Path) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    batches.drawn = drawn_twice
    images, labels = cells(folder)

    def fit(name: str, devices: list[str], hooks: Hooks) -> list[dict]:
        fit_end_to_end(
            RECIPE, images[:16], labels[:16], images[16:], labels[16:], ["all", "hem"], {}, folder / name,
            current_settings(), hooks, devices=devices,
        )  # fmt: skip
        return [asdict(row) for row in hooks.rows]

    found = {"one": fit("one", TWO[:1], Hooks()), "two": fit("two", TWO, Hooks())}
    stopped = Hooks(stop_after=1 + 4 + 1 + 1)  # in the second epoch
    try:
        fit("stopped", TWO, stopped)
    except StopRequested:
        found["resumed"] = [asdict(row) for row in stopped.rows] + fit("stopped", TWO, Hooks())
    best = best_model(RECIPE, ["all", "hem"], {}, folder / "two")
    trained = TrainedModel(best, RECIPE, ["all", "hem"])
    probabilities = image_probabilities(trained, images[16:], 10**8)
    truth = probabilities[np.arange(5), labels[16:]]
    found["kept_cross_entropy"] = float(-np.log(truth).mean())
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
