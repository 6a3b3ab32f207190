"""What a fit keeps on disk: the weights of its best epoch, and all that is needed to go on after a kill.

Keras's own `BackupAndRestore` writes the weights and the epoch number into two files in place; a kill
between or inside the writes leaves them apart, or unreadable. A weight file here carries its epoch, and the
figures of all epochs before it, within itself and is renamed into place whole.
"""

import os
import uuid
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from allreview.models.saving import put_in_place
from allreview.training.epochs import EpochRow

BEST_FILE = "best.weights.h5"
BACKUP_FOLDER = "backup"
BACKUP_FILE = "latest.weights.h5"
HISTORY = "allreview_history"


def kept_epoch(folder: Path) -> EpochRow | None:
    """The epoch whose weights are kept in the folder; None before the first is complete."""
    path = folder / BEST_FILE
    if not path.is_file():
        return None
    with h5py.File(path, "r") as file:
        return _rows(file)[-1]


def keep_best(network: keras.Model, folder: Path, row: EpochRow) -> None:
    """Keep the weights of the best epoch so far."""
    _write_weights(network, folder / BEST_FILE, [row])


def back_up(trainer: keras.Model, folder: Path, rows: Sequence[EpochRow]) -> None:
    """Keep the weights, the optimiser and the figures of all epochs up to here."""
    _write_weights(trainer, folder / BACKUP_FOLDER / BACKUP_FILE, rows)


def restore_backup(model: keras.Model, folder: Path) -> list[EpochRow]:
    """Bring a compiled model back to its last backup, optimiser included; returns the epochs it has."""
    path = folder / BACKUP_FOLDER / BACKUP_FILE
    if not path.is_file():
        return []
    with h5py.File(path, "r") as file:
        rows = _rows(file) if HISTORY in file else []
    if rows:
        model.optimizer.build(model.trainable_variables)
        model.load_weights(path)
    return rows


def _rows(file: h5py.File) -> list[EpochRow]:
    table: Any = file[HISTORY]
    return [EpochRow(int(epoch), *map(float, figures)) for epoch, *figures in table[:]]


def _write_weights(model: keras.Model, path: Path, rows: Sequence[EpochRow]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{uuid.uuid4().hex}.weights.h5")
    try:
        model.save_weights(temporary)
        with h5py.File(temporary, "r+") as file:
            file[HISTORY] = np.array([astuple(row) for row in rows], dtype=np.float64)
        put_in_place(temporary, path)
    finally:
        _discard(temporary)


def _discard(path: Path) -> None:
    """Remove what was left half written, and free its space: on a full disk HDF5 fails to close its file, and an
    open file keeps its space when it is only unlinked."""
    if path.exists():
        os.truncate(path, 0)
        path.unlink()
