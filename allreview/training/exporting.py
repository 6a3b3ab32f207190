"""A run's model as a file for other programs, checked on cells of the run.

Keras is loaded only once there is a model to export, so a mistyped run or place is answered at once.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import sqlalchemy as sa

import allreview
import db
from allreview.cells.decoding import cell_pixels, read_rgb
from allreview.cells.naming import shown
from allreview.errors import UserError
from allreview.places import cell_file
from allreview.settings import Settings
from allreview.training.inference import load_run_model, run_with_model
from allreview.training.runs import RunRow
from db.tables import Cell, CellFile, SnapshotCell

if TYPE_CHECKING:
    from allreview.models.exporting import Format
    from allreview.models.saving import TrainedModel

SUFFIXES = {"onnx": ".onnx", "savedmodel": "", "keras": ".keras"}
COMPARED = 8
"""Cells on which an export is compared with the run's own model."""


def export_run(
    engine: sa.Engine, settings: Settings, run_id: int, destination: Path, format: str
) -> dict[str, Any]:
    """Export a run's model and compare what it says with what the run's own model says.

    `destination` is the file, or for a SavedModel the folder, to make; in a folder that exists it is
    `run-<id>` with the format's suffix. See `models.exporting` for what the export takes and gives.

    Returns:
        `run, format, path, compared_on` ("cells" of the run, test cells first, or "random images" where no file
        is left), `compared` (how many) and `largest_difference`.

    Raises:
        UserError: no such run, model or format, a place that cannot be written, or outputs that differ.
    """
    if format not in SUFFIXES:
        raise UserError(f"There is no format {shown(format)!r}: use one of {', '.join(SUFFIXES)}.")
    run = run_with_model(engine, settings, run_id)
    target = _target(destination.expanduser().absolute(), run_id, SUFFIXES[format])
    model = load_run_model(engine, settings, run_id)
    cells = _cells(engine, settings, run, model)
    pixels = cells if len(cells) else _random_images(model)
    from allreview.models.exporting import export_model

    compared_on = "cells" if len(cells) else "random images"
    difference = export_model(
        model,
        target,
        cast("Format", format),
        {
            "run": run_id,
            "dataset": run.dataset,
            "snapshot_sha256": run.snapshot_hash,
            "weights_sha256": run.weights_hash,
            "allreview": allreview.__version__,
            "compared_on": f"{len(pixels)} {compared_on}",
            "intended_use": "research and review support; not a diagnostic device",
        },
        pixels,
    )
    return {
        "run": run_id,
        "format": format,
        "path": shown(os.fspath(target)),
        "compared_on": compared_on,
        "compared": len(pixels),
        "largest_difference": difference,
    }


def _target(destination: Path, run_id: int, suffix: str) -> Path:
    if destination.is_dir():
        destination = destination / f"run-{run_id}"
    if suffix and destination.suffix.lower() != suffix:
        destination = destination.with_name(destination.name + suffix)
    if destination.exists():
        where = shown(os.fspath(destination))
        raise UserError(f"There is something at {where} already: remove it, or name another place.")
    return destination


def _cells(engine: sa.Engine, settings: Settings, run: RunRow, model: "TrainedModel") -> np.ndarray:
    """A few cells of the run as the model sees them, uint8 [n, size, size, 3]; those whose file is still there."""
    query = (
        sa.select(sa.func.min(CellFile.path))
        .join(SnapshotCell, SnapshotCell.cell_id == CellFile.cell_id)
        .join(Cell, Cell.id == CellFile.cell_id)
        .where(SnapshotCell.snapshot_id == run.snapshot_id)
        .group_by(CellFile.cell_id, SnapshotCell.part, Cell.sha256)
        .order_by(sa.case((SnapshotCell.part == "test", 0), else_=1), Cell.sha256)
        .limit(COMPARED * 8)
    )
    with db.reading(engine) as session:
        paths = list(session.scalars(query))
    found: list[np.ndarray] = []
    size = model.recipe.image_size
    for path in paths:
        if len(found) == COMPARED:
            break
        try:
            found.append(
                cell_pixels(read_rgb(cell_file(path), settings.max_pixels), model.recipe.preparation)
            )
        except UserError:
            continue
    return np.stack(found) if found else np.empty((0, size, size, 3), dtype=np.uint8)


def _random_images(model: "TrainedModel") -> np.ndarray:
    size = model.recipe.image_size
    return np.random.default_rng(0).integers(0, 256, (COMPARED, size, size, 3)).astype(np.uint8)
