"""Submitting runs: the row and its place in the queue, together or not at all; one worker, not two."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe
from allreview.review.log.annotations import decide
from allreview.settings import Settings, current_settings
from allreview.training import jobs
from allreview.training.runs import get_run, list_runs
from allreview.training.slots import somebody_works, take_slot
from db.tables import Snapshot
from tests import workers
from tests.factory import Store, small_store


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ensure_worker", lambda _settings: False)


@pytest.fixture
def ready(engine: sa.Engine, settings: Settings, weights: Path, no_worker: None) -> tuple[Store, Settings]:
    """A small store and settings that find MobileNetV2's weights."""
    return small_store(engine), settings.model_copy(update={"weights": weights})


def queued(settings: Settings) -> list[str]:
    return sorted(status.workflow_id for status in jobs._client(settings.url).list_queued_workflows())


def test_a_run_and_its_place_in_the_queue_are_one_transaction(
    engine: sa.Engine, ready: tuple[Store, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings = ready
    run = jobs.submit(engine, settings, dataset_id=store.dataset, recipe=Recipe())
    assert queued(settings) == [f"run-{run}"]
    # The queue's insert fails: nothing of the run may stay.
    client = jobs._client(settings.url)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(client, "enqueue_in_transaction", fail)
    with pytest.raises(ZeroDivisionError):
        jobs.submit(engine, settings, dataset_id=store.dataset, recipe=Recipe(seed=5))
    with db.reading(engine) as session:
        assert [row.id for row in list_runs(session)] == [run]
        assert session.scalar(sa.select(sa.func.count(Snapshot.id))) == 1
    assert queued(settings) == [f"run-{run}"]


def test_runs_left_by_an_earlier_version_are_taken_over_once(
    engine: sa.Engine, ready: tuple[Store, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, settings = ready
    with monkeypatch.context() as before:
        before.setattr(jobs, "JOBS_VERSION", "0")
        old = jobs.submit(engine, settings, dataset_id=store.dataset, recipe=Recipe())
    new = jobs.submit(engine, settings, dataset_id=store.dataset, recipe=Recipe(seed=1))
    assert jobs.adopt_unfinished(settings) == [old]
    waiting = jobs._client(settings.url).list_queued_workflows()
    assert {status.workflow_id: status.app_version for status in waiting} == {
        f"run-{old}-steps-{jobs.JOBS_VERSION}": jobs.JOBS_VERSION,
        f"run-{new}": jobs.JOBS_VERSION,
    }
    assert jobs.adopt_unfinished(settings) == []


def test_a_retrain_names_parent_recipe_and_its_own_snapshot(
    engine: sa.Engine, ready: tuple[Store, Settings]
) -> None:
    store, settings = ready
    recipe = make_recipe({"epochs": "3", "crop": 300})
    parent = jobs.submit(engine, settings, dataset_id=store.dataset, recipe=recipe)
    decide(engine, cell_id=store.cells["1"][0], label="hem", reviewer_id=store.ann, seen=None)
    child = jobs.retrain(engine, settings, parent)
    with db.reading(engine) as session:
        before, after = get_run(session, parent), get_run(session, child)
    assert (after.parent_id, after.recipe) == (parent, recipe)
    assert before.snapshot_hash != after.snapshot_hash


def test_what_cannot_be_submitted_is_refused_in_words_and_leaves_nothing(
    engine: sa.Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_worker: None
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    store = small_store(engine)
    with pytest.raises(UserError, match="resnet50_weights_tf_dim_ordering_tf_kernels_notop"):
        jobs.submit(engine, settings, dataset_id=store.dataset, recipe=Recipe(backbone="resnet50"))
    scratch = Recipe(weights="none", mode="finetune")
    with pytest.raises(UserError, match="no dataset 99"):
        jobs.submit(engine, settings, dataset_id=99, recipe=scratch)
    with pytest.raises(UserError, match="no run 99"):
        jobs.retrain(engine, settings, 99)
    with pytest.raises(UserError, match="no run 99"):
        jobs.stop(engine, 99)
    with db.reading(engine) as session:
        assert list_runs(session) == []


def test_a_slot_is_held_by_one(home: Path) -> None:
    settings = current_settings()
    assert not somebody_works(settings)
    first, second = take_slot(settings), take_slot(settings)
    assert first is not None
    assert second is not None
    assert first[0] != second[0]
    assert somebody_works(settings)
    first[1].release()
    again = take_slot(settings)
    assert again is not None
    assert again[0] == first[0]
    again[1].release()
    second[1].release()


def test_many_who_want_a_worker_at_once_get_one(sqlite_engine: sa.Engine, home: Path) -> None:
    settings = current_settings()
    started: list[bool] = []
    threads = [
        threading.Thread(target=lambda: started.append(jobs.ensure_worker(settings))) for _ in range(6)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(started) == [False] * 5 + [True]
        assert len(workers.workers_of(home)) == 1
    finally:
        workers.kill_workers(home)
    assert jobs.ensure_worker(settings)
    workers.kill_workers(home)


@pytest.mark.real
def test_the_saved_model_says_what_the_store_says(trained) -> None:
    """The head trained on cached features and the whole network from the file agree on real cells."""
    import numpy as np

    from allreview.cells.decoding import read_rgb
    from allreview.evaluation.metrics import evaluate
    from allreview.models.saving import load_model
    from allreview.store import open_store
    from allreview.training.snapshots import lines
    from db.tables import Prediction

    settings = current_settings()
    engine = open_store(settings)
    with db.reading(engine) as session:
        run = get_run(session, trained.run)
        cells = [line for line in lines(session, run.snapshot_id) if line.part == "test"]
        stored = {
            row.cell_id: row
            for row in session.scalars(sa.select(Prediction).where(Prediction.run_id == trained.run))
        }
    model = load_model(settings.run_folder(trained.run))
    pixels = model.prepare([read_rgb(Path(cell.path), settings.max_pixels) for cell in cells])
    found = model.probabilities(pixels)
    kept = np.array([[stored[cell.cell_id].probabilities[name] for name in model.classes] for cell in cells])
    assert np.abs(found - kept).max() < 1e-3
    again = evaluate([cell.source_label for cell in cells], kept, model.classes)
    assert again["accuracy"] == pytest.approx(run.metrics["test"]["accuracy"])
    assert again["confusion"] == run.metrics["test"]["confusion"]


@pytest.mark.slow
@pytest.mark.real
def test_eight_classes_go_once_around(
    sqlite_engine: sa.Engine, pbc: Path, weights: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """480 blood cells of 8 classes, JPEG, no subjects: imported, trained, reviewed, retrained."""
    from allreview.cells.importing import import_cells
    from allreview.review.log.annotations import reviewer_named
    from allreview.review.queues import queue_of
    from allreview.review.reading import sittings, worklists

    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    engine, settings = sqlite_engine, current_settings()
    report = import_cells(engine, settings, pbc)
    assert (report.cells, report.subjects, len(report.classes)) == (480, 0, 8)
    recipe = make_recipe({"epochs": 12, "image_size": 64, "batch_size": 16})
    try:
        run_id = jobs.submit(engine, settings, dataset_id=report.dataset_id, recipe=recipe)
        run = workers.wait_until_over(engine, run_id)
        assert run.state == "finished"
        test = run.metrics["test"]
        assert len(test["per_class"]) == 8
        assert test["accuracy"] > 0.4  # chance is one in eight
        ann = reviewer_named(engine, "Ann")
        with db.reading(engine) as session:
            entries = queue_of(session, run_id, parts=("train", "validation"), limit=5)
        worklist = worklists.create(
            engine,
            dataset_id=report.dataset_id,
            name="Mistakes",
            strategy="misclassified",
            entries=entries,
            run_id=run_id,
        )
        sitting = sittings.start(engine, worklist_id=worklist, reviewer_id=ann)
        cell = sittings.upcoming(engine, sitting)[0]
        assert cell.predicted is not None
        decide(
            engine,
            cell_id=cell.cell_id,
            label=cell.predicted,
            reviewer_id=ann,
            seen=cell.last_event_id,
            session_id=sitting,
        )
        again = workers.wait_until_over(engine, jobs.retrain(engine, settings, run_id))
        assert (again.state, again.parent_id) == ("finished", run_id)
    finally:
        workers.kill_workers(home)
