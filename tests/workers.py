"""Real worker processes in tests: started on a home of the test's own, followed, and killed."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import sqlalchemy as sa

import db
from allreview.review.queues import queue_of
from allreview.review.saliency import overlays
from allreview.settings import Settings
from allreview.training.runs import RunRow, get_run

PATIENCE = 240.0  # seconds; a worker loads TensorFlow first, on a machine that may be busy


def wait_for(
    engine: sa.Engine, run_id: int, reached: Callable[[RunRow], bool], patience: float = PATIENCE
) -> RunRow:
    """The run, once `reached` is true of it; fails with what is known when that takes too long."""
    end = time.monotonic() + patience
    while True:
        with db.reading(engine) as session:
            run = get_run(session, run_id)
        if reached(run):
            return run
        if time.monotonic() > end or (run.state == "failed"):
            raise AssertionError(
                f"run {run_id} is {run.state}, {run.stage}, {len(run.epochs)} epochs: {run.message}"
            )
        time.sleep(0.1)


def wait_until_over(engine: sa.Engine, run_id: int) -> RunRow:
    """The run, once it is finished or stopped and its folder is complete."""
    return wait_for(engine, run_id, lambda run: run.complete)


def wait_until_explained(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    """Wait for the heat maps at the head of the queue, which come after the run is over."""
    with db.reading(engine) as session:
        head = queue_of(session, run_id, parts=("train", "validation"), limit=200, settings=settings)
    wait_for(
        engine,
        run_id,
        lambda _run: not overlays.missing(settings, run_id, "gradcam", [entry.sha256 for entry in head]),
    )


def workers_of(home: Path) -> list[psutil.Process]:
    """The worker processes on this home."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("ALLREVIEW_HOME") == str(home)
            if mine and process.pid != os.getpid() and "worker" in process.cmdline():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def kill_workers(home: Path) -> int:
    """Kill them as `kill -9` does, and say how many there were."""
    doomed = workers_of(home)
    for process in doomed:
        process.kill()
    psutil.wait_procs(doomed, timeout=10)
    return len(doomed)
