"""Several real workers on one store: one that is killed, Stop, and a cell that cannot be read."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import sqlalchemy as sa

import db
from allreview.cells.importing import import_cells
from allreview.recipe import make_recipe
from allreview.settings import Settings, current_settings
from allreview.training import feature_store, jobs, pipeline
from allreview.training.progress import RunProgress
from allreview.training.runs import RunRow, get_run
from allreview.training.snapshots import lines
from tests import workers
from tests.conftest import ROOT

# As many images as make several shards, of a size that takes a worker seconds.
RECIPE = make_recipe({"epochs": 2, "image_size": 160, "crop": 300, "rotation": 90, "views": 12})


@pytest.fixture(autouse=True)
def with_weights(home: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Weights for the workers, none of which is left behind."""
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    yield
    workers.kill_workers(home)


def start_worker(settings: Settings) -> psutil.Process:
    settings.logs.mkdir(parents=True, exist_ok=True)
    with (settings.logs / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "allreview", "worker", "--threads", "1"]
        return psutil.Process(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log).pid)


def start_two_workers(settings: Settings) -> dict[str, psutil.Process]:
    """Two workers by the ends of their names."""
    found = {}
    for number in (1, 2):
        found[f"-{number}"] = start_worker(settings)
        while not (settings.root / "workers" / f"{number}.lock").exists():
            time.sleep(0.05)
    return found


def submit(engine: sa.Engine, settings: Settings, cells: Path) -> int:
    dataset = import_cells(engine, settings, cells, dataset="C-NMC").dataset_id
    return jobs.submit(engine, settings, dataset_id=dataset, recipe=RECIPE)


def parts_of(settings: Settings, run_id: int, state: str) -> dict[str, str | None]:
    """The run's parts in this state of the job engine's, and who has them."""
    found = jobs._client(settings.url).list_workflows(
        workflow_id_prefix=f"run-{run_id}-features-", status=state, load_input=False, load_output=False
    )
    return {one.workflow_id: one.executor_id for one in found}


def wait_for_parts(settings: Settings, run_id: int, state: str, number: int) -> dict[str, str | None]:
    end = time.monotonic() + workers.PATIENCE
    while len(found := parts_of(settings, run_id, state)) < number:
        assert time.monotonic() < end, "nobody takes the parts"
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_what_a_killed_worker_left_is_taken_up_by_one_that_lives(
    engine: sa.Engine, cnmc_few: Path, tmp_path: Path
) -> None:
    """On SQLite and on PostgreSQL: the run finishes, with the features one worker would have computed."""
    settings = current_settings()
    by_name = start_two_workers(settings)
    run_id = submit(engine, settings, cnmc_few)
    begun = wait_for_parts(settings, run_id, "PENDING", 2)
    assert len(set(begun.values())) == 2  # both are at it
    with db.reading(engine) as session:
        assert get_run(session, run_id).stage == "features"
    train = jobs._client(settings.url).list_workflows(workflow_ids=[f"run-{run_id}"], load_input=False)[0]
    doomed = next(name for name in begun.values() if name and name != train.executor_id)
    killed = by_name[doomed[-2:]]
    while not writes_vectors(killed):
        time.sleep(0.01)
    killed.kill()
    killed.wait(10)
    run = workers.wait_until_over(engine, run_id)
    assert run.state == "finished"
    assert parts_of(settings, run_id, "PENDING") == {}
    assert "is dead" in (settings.logs / "worker.log").read_text()
    assert_same_features(engine, settings, run_id, tmp_path)


@pytest.mark.slow
def test_the_run_of_a_killed_worker_goes_on_with_one_that_lives(
    sqlite_engine: sa.Engine, cnmc_few: Path
) -> None:
    """The worker that waits for the parts is killed too, and nobody starts another."""
    settings = current_settings()
    by_name = start_two_workers(settings)
    run_id = submit(sqlite_engine, settings, cnmc_few)
    wait_for_parts(settings, run_id, "PENDING", 2)
    train = jobs._client(settings.url).list_workflows(workflow_ids=[f"run-{run_id}"], load_input=False)[0]
    holder = by_name[(train.executor_id or "")[-2:]]
    holder.kill()
    holder.wait(10)
    assert workers.wait_until_over(sqlite_engine, run_id).state == "finished"


def writes_vectors(worker: psutil.Process) -> bool:
    """Whether the worker is in the middle of a shard, some of which is on disk."""
    files = [Path(file.path) for file in worker.open_files() if file.path.endswith(".vectors")]
    return any(file.stat().st_size for file in files)


def assert_same_features(engine: sa.Engine, settings: Settings, run_id: int, tmp_path: Path) -> None:
    """No row is lost, and all are those that one process computes by itself."""
    plain = settings.model_copy(update={"home": tmp_path / "plain"})
    pipeline.compute_features(engine, plain, run_id)
    shelves = {one.path.name: one for one in feature_store.stored(plain.features)}
    shared = {one.path.name: one for one in feature_store.stored(settings.features)}
    assert len(shelves) > 1
    for name, one in shelves.items():
        assert shared[name].cells == one.cells
    run, cells = pipeline.load(engine, run_id)
    progress = RunProgress(engine, run_id)
    np.testing.assert_array_equal(
        pipeline.features_of(run.recipe, cells, settings, progress),
        pipeline.features_of(run.recipe, cells, plain, progress),
    )


@pytest.mark.slow
def test_stop_and_failure_reach_a_run_whose_work_is_shared(
    sqlite_engine: sa.Engine, cnmc_few: Path, tmp_path: Path
) -> None:
    """One worker, the way most people have it: Stop ends it within seconds, a cell that is gone with its sentence."""
    engine, settings = sqlite_engine, current_settings()
    start_worker(settings)
    cells = shutil.copytree(cnmc_few, tmp_path / "cells")  # one of them goes
    run_id = submit(engine, settings, cells)
    wait_for_parts(settings, run_id, "PENDING", 1)
    run = workers.wait_for(engine, run_id, lambda run: run.done > 0)
    assert run.stage == "features"
    assert run.total > run.done
    pressed = time.monotonic()
    jobs.stop(engine, run_id)
    run = workers.wait_until_over(engine, run_id)
    assert run.state == "stopped"
    assert time.monotonic() - pressed < 10
    assert parts_of(settings, run_id, "ENQUEUED") == {}

    with db.reading(engine) as session:
        snapshot = get_run(session, run_id)
        last = lines(session, snapshot.snapshot_id)[-1]
    Path(last.path).unlink()
    again = jobs.submit(engine, settings, dataset_id=snapshot.dataset_id, recipe=RECIPE)
    failed = wait_until_failed(engine, again)
    assert failed.message == f"'{last.path}' cannot be used: the file is gone."
    assert parts_of(settings, again, "ENQUEUED") == {}


def wait_until_failed(engine: sa.Engine, run_id: int) -> RunRow:
    end = time.monotonic() + workers.PATIENCE
    while True:
        with db.reading(engine) as session:
            run = get_run(session, run_id)
        if run.state == "failed":
            return run
        assert run.unfinished
        assert time.monotonic() < end
        time.sleep(0.1)
