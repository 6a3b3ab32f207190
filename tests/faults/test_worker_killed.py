"""What happens to a run when its worker dies, and when somebody presses Stop."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.cells.importing import import_cells
from allreview.models.saving import load_model
from allreview.recipe import make_recipe
from allreview.settings import Settings, current_settings
from allreview.training import jobs
from allreview.training.attempts import MOST, begin_attempt
from allreview.training.runs import get_run
from db.tables import Prediction
from tests import workers

EPOCHS = 40


EVERYTHING_ON = {
    "imbalance": "augment", "rotation": 180, "stain": 0.1, "views": 2, "mixup": 0.2, "schedule": "cosine",
    "warmup_epochs": 2, "label_smoothing": 0.05,
}  # fmt: skip


def submit(engine: sa.Engine, settings: Settings, cells: Path) -> int:
    """A run of many short epochs on real cells, with a real worker."""
    dataset = import_cells(engine, settings, cells, dataset="C-NMC").dataset_id
    recipe = make_recipe({**EVERYTHING_ON, "epochs": EPOCHS, "image_size": 64, "batch_size": 16})
    return jobs.submit(engine, settings, dataset_id=dataset, recipe=recipe)


@pytest.fixture(autouse=True)
def with_weights(home: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Weights for the worker, and no worker left behind."""
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    yield
    workers.kill_workers(home)


def test_a_worker_killed_in_the_middle_of_a_fit_is_replaced_and_the_run_finishes_once(
    engine: sa.Engine, cnmc_few: Path
) -> None:
    """On SQLite and on PostgreSQL."""
    settings = current_settings()
    run_id = submit(engine, settings, cnmc_few)
    workers.wait_for(engine, run_id, lambda run: len(run.epochs) >= 5)
    assert workers.kill_workers(settings.root) == 1
    with db.reading(engine) as session:
        cut_off = get_run(session, run_id)
    assert cut_off.state == "running"
    assert 5 <= len(cut_off.epochs) < EPOCHS
    assert jobs.resume_unfinished(engine, settings)
    run = workers.wait_until_over(engine, run_id)
    assert run.state == "finished"
    assert [row.epoch for row in run.epochs] == list(range(1, EPOCHS + 1))
    # What was measured before the kill was not measured again.
    before = {row.epoch: row.loss for row in cut_off.epochs}
    assert {row.epoch: row.loss for row in run.epochs if row.epoch in before} == before
    assert run.started_at == cut_off.started_at
    assert run.temperature is not None
    assert run.machine["precision"] == "float32"
    with db.reading(engine) as session:
        predictions = session.scalar(sa.select(sa.func.count()).select_from(Prediction))
    assert predictions == sum(run.metrics[part]["n"] for part in ("train", "validation", "test"))
    assert not jobs.resume_unfinished(engine, settings)


def test_stop_ends_a_fit_at_once_and_keeps_the_best_weights(sqlite_engine: sa.Engine, cnmc_few: Path) -> None:
    """And a run that was stopped while it waited never starts."""
    engine, settings = sqlite_engine, current_settings()
    run_id = submit(engine, settings, cnmc_few)
    with db.reading(engine) as session:
        first = get_run(session, run_id)
    waiting = jobs.submit(engine, settings, dataset_id=first.dataset_id, recipe=first.recipe)
    assert jobs.stop(engine, waiting) == "stopped"
    workers.wait_for(engine, run_id, lambda run: len(run.epochs) >= 3)
    pressed = time.monotonic()
    assert jobs.stop(engine, run_id) == "running"
    run = workers.wait_until_over(engine, run_id)
    took = time.monotonic() - pressed
    assert run.state == "stopped"
    assert run.message is None
    assert 3 <= len(run.epochs) < EPOCHS
    assert took < 30  # it ends within a batch, and then the best model is saved
    assert run.best_epoch == min(run.epochs, key=lambda row: (row.val_cross_entropy, row.epoch)).epoch
    model = load_model(settings.run_folder(run_id))
    assert model.classes == ["all", "hem"]
    assert model.temperature == run.temperature
    kept = {path.name for path in settings.run_folder(run_id).iterdir()}
    assert {"model.weights.h5", "recipe.yaml", "history.csv", "snapshot.csv", "model-card.md"} <= kept
    assert "stopped by a person" in (settings.run_folder(run_id) / "model-card.md").read_text()
    time.sleep(2)
    with db.reading(engine) as session:
        over, never = get_run(session, run_id), get_run(session, waiting)
    assert (over.state, len(over.epochs)) == ("stopped", len(run.epochs))
    assert (never.state, never.started_at, never.epochs) == ("stopped", None, [])


def test_a_run_that_keeps_killing_its_worker_fails_with_a_sentence(
    sqlite_engine: sa.Engine, cnmc_few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a fifth kill by a kernel that is out of memory: nobody tries a sixth time."""
    settings = current_settings()
    with monkeypatch.context() as nobody:
        nobody.setattr(jobs, "ensure_worker", lambda _settings: False)
        run_id = submit(sqlite_engine, settings, cnmc_few)
    for _ in range(MOST):
        begin_attempt(settings.run_folder(run_id), "features, 0 epochs, 0 images")
    jobs.ensure_worker(settings)
    run = workers.wait_until_over(sqlite_engine, run_id)
    assert run.state == "failed"
    assert "ran out of memory" in (run.message or "")
