"""The epochs of a fit as TensorBoard reads them, in the run's folder. TensorBoard itself is not needed.

Event files can only grow, so a fit that goes on after a kill writes them anew: each epoch is there once.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from allreview.training.epochs import EpochRow

FOLDER = "tensorboard"


class EventLog:
    """Event files in `tensorboard/train` and `tensorboard/validation`, a step for each epoch."""

    def __init__(self, folder: Path, rows: Iterable[EpochRow]) -> None:
        """Begin anew with the epochs known so far. `folder` is the run's."""
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        self._writers = {
            part: tf.summary.create_file_writer(str(folder / FOLDER / part))
            for part in ("train", "validation")
        }
        for row in rows:
            self.write(row)

    def write(self, row: EpochRow) -> None:
        """Add an epoch."""
        figures: dict[str, Mapping[str, float]] = {
            "train": {"loss": row.loss, "accuracy": row.accuracy, "learning_rate": row.learning_rate},
            "validation": {
                "loss": row.val_loss,
                "accuracy": row.val_accuracy,
                "cross_entropy": row.val_cross_entropy,
            },
        }
        for part, values in figures.items():
            with self._writers[part].as_default(step=row.epoch):
                for name, value in values.items():
                    tf.summary.write(f"epoch/{name}", tf.constant(value, tf.float32), metadata=_scalar())
            self._writers[part].flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()


def _scalar() -> Any:
    """Tells TensorBoard to draw the values as a curve."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    return metadata
