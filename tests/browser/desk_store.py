"""A store that is ready for the desk, without a worker: real cells, a run made by hand, heat maps on disk."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa

import db
from allreview.cells.importing import import_cells
from allreview.recipe import make_recipe
from allreview.review.log.annotations import reviewer_named
from allreview.review.saliency.overlays import METHODS, save_heatmap
from allreview.settings import Settings
from db.tables import Cell
from tests.factory import Store, finished_run

PROBABILITY = 0.8731
"""What the run says of every cell; as no other number on the page."""


@dataclass(frozen=True)
class Ready:
    """`labels` by cell id; the run says the other class of every cell."""

    dataset: int
    run: int
    labels: dict[int, str]


def ready_store(
    engine: sa.Engine, settings: Settings, folder: Path, *, part: str = "train", methods: int = len(METHODS)
) -> Ready:
    """Import the folder and let a run be wrong about every cell, more sure of the later ones."""
    dataset = import_cells(engine, settings, folder, dataset="C-NMC").dataset_id
    ann, ben = reviewer_named(engine, "Ann"), reviewer_named(engine, "Ben")
    with db.reading(engine) as session:
        cells = list(session.scalars(sa.select(Cell).where(Cell.dataset_id == dataset).order_by(Cell.id)))
    wrong = {cell.id: ("hem" if cell.source_label == "all" else "all", PROBABILITY) for cell in cells}
    run = finished_run(
        engine,
        Store(dataset, {}, ann, ben),
        wrong,
        parts=dict.fromkeys(wrong, part),
        recipe=make_recipe({"crop": 300}),
    )
    random = np.random.default_rng(7)
    for cell in cells:
        for method in list(METHODS)[:methods]:
            y, x = np.mgrid[:56, :56]
            at = random.uniform(18, 38, 2)
            spot = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / 120)
            save_heatmap(settings, run, method, cell.sha256, spot.astype(np.float32))
    return Ready(dataset, run, {cell.id: cell.source_label for cell in cells})
