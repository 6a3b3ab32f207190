"""A run whose worker is killed again and again ends as one that nobody disturbed."""

import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.cells.importing import import_cells
from allreview.recipe import make_recipe
from allreview.settings import current_settings
from allreview.training import jobs
from allreview.training.runs import RunRow
from db.tables import Prediction
from tests import workers
from tests.faults.test_worker_killed import EVERYTHING_ON

KILLS, KILLS_IN_FEATURES, EPOCHS = 10, 3, 100


@dataclass(frozen=True)
class Ended:
    """What there is to compare of a run that is over."""

    history: list[dict[str, float]]
    predictions: dict[int, dict[str, float]]
    metrics: dict
    best_epoch: int | None
    temperature: float | None


@pytest.fixture(autouse=True)
def with_weights(home: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Weights for the worker, and no worker left behind."""
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    yield
    workers.kill_workers(home)


def ended(engine: sa.Engine, run_id: int) -> Ended:
    run = workers.wait_until_over(engine, run_id)
    assert run.state == "finished"
    with db.reading(engine) as session:
        query = sa.select(Prediction.cell_id, Prediction.probabilities).where(Prediction.run_id == run_id)
        predictions = dict(session.execute(query).tuples().all())
    history = [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]
    return Ended(history, predictions, run.metrics, run.best_epoch, run.temperature)


def get(engine: sa.Engine, run_id: int) -> RunRow:
    return workers.wait_for(engine, run_id, lambda _: True)


def standing_moved(before: RunRow, run: RunRow) -> bool:
    """Whether a run has come on at all, in whatever stage."""
    return not run.unfinished or (run.stage, run.done) != (before.stage, before.done)


def epochs_moved(before: RunRow, run: RunRow) -> bool:
    """Whether a run has more epochs than before: it was resumed and trains."""
    return not run.unfinished or len(run.epochs) > len(before.epochs)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_change_nothing(sqlite_engine: sa.Engine, cnmc_few: Path) -> None:
    """The moments are random: while features are computed, in an epoch, between epochs, while files are written."""
    engine, settings = sqlite_engine, current_settings()
    dataset = import_cells(engine, settings, cnmc_few, dataset="C-NMC").dataset_id
    recipe = make_recipe({**EVERYTHING_ON, "epochs": EPOCHS, "image_size": 64, "batch_size": 32})
    undisturbed = jobs.submit(engine, settings, dataset_id=dataset, recipe=recipe)
    expected = ended(engine, undisturbed)
    workers.kill_workers(settings.root)

    shutil.rmtree(settings.features)  # so that kills find features half computed too
    run_id = jobs.submit(engine, settings, dataset_id=dataset, recipe=recipe)
    moments, before, fell = random.Random(3), get(engine, run_id), []
    for number in range(KILLS):
        moved = standing_moved if number < KILLS_IN_FEATURES else epochs_moved
        workers.wait_for(engine, run_id, lambda run, moved=moved, before=before: moved(before, run))
        time.sleep(moments.uniform(0, 1))
        assert workers.kill_workers(settings.root) == 1
        before = get(engine, run_id)
        fell.append((before.stage, len(before.epochs)))
        assert [row.epoch for row in before.epochs] == list(range(1, len(before.epochs) + 1))
        assert before.unfinished, f"over too early for {KILLS} kills: {fell}"
        jobs.resume_unfinished(engine, settings)
    found = ended(engine, run_id)
    assert [row["epoch"] for row in found.history] == list(range(1, EPOCHS + 1))
    assert found == expected, fell
    print(fell)  # noqa: T201 - shown with -s
