"""Features of cells by two worker processes with one core each, against one worker process with one core.

    python -m benchmarks.scale_out [--backbone mobilenet_v2] [--cells 1200] [--pictures FOLDER] [--rounds 3] [--json]

Both are real workers on one store, on PostgreSQL where its server is installed and on SQLite otherwise, each pinned to
a core of its own and computing with one thread. Each round computes the features of a run twice, from nothing: once
while the second worker is held still (SIGSTOP), and once with both; every other round the other way round. The time
is that of the run's features, from when a worker begins with them until the fit begins, so it has everything in it
that handing out costs. Both workers have computed before: loading TensorFlow and compiling the network are not in it.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

import db
from allreview.cells.importing import import_cells
from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe
from allreview.settings import Settings, current_settings
from allreview.store import open_store
from allreview.training import jobs
from allreview.training.runs import RunRow, get_run
from benchmarks import throwaway_postgresql

ROOT = Path(__file__).parent.parent
PATIENCE = 1800.0
LOOK = 0.25  # seconds between two looks: whoever looks all the time takes a worker's core
PART_DONE = b"a part of features took"


def main() -> None:
    """Start two workers, compute in rounds, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ("mobilenet_v2", "resnet50", "efficientnet_b3", "vgg16")
    parser.add_argument("--backbone", choices=names, default="mobilenet_v2")
    parser.add_argument("--cells", type=int, default=1200)
    parser.add_argument("--pictures", type=Path, help="a folder of real cells, in any layout that is read")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("This needs two cores.")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o755)
        os.environ["ALLREVIEW_HOME"] = str(Path(folder) / "home")
        os.environ.pop("ALLREVIEW_DATABASE_URL", None)
        try:
            urls = stack.enter_context(throwaway_postgresql.server(Path(folder), ["scale_out"]))
            os.environ["ALLREVIEW_DATABASE_URL"] = urls[0]
        except SystemExit:
            pass  # PostgreSQL's server is not installed
        try:
            found = measure(Path(folder), asked, cores)
        except UserError as error:
            raise SystemExit(str(error)) from None
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{found['compares']}: {found['ratio']:.2f} times as fast")
    print(f"  two workers {found['seconds']} s, one worker {found['plain_seconds']} s, on {found['store']}")


def measure(folder: Path, asked: argparse.Namespace, cores: list[int]) -> dict[str, Any]:
    """What the rounds took, in seconds, and how they compare."""
    settings = current_settings()
    engine = open_store(settings)
    pictures = asked.pictures or _drawn(folder / "drawn", asked.cells)
    imported = import_cells(engine, settings, pictures, dataset="Scale out")
    recipe = make_recipe({"backbone": asked.backbone, "epochs": 1})
    both: list[float] = []
    alone: list[float] = []
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(settings, core)) for core in cores]
        done, images = [False], 0
        while not all(done):
            images, _ = _features(engine, settings, imported.dataset_id, recipe)
            done = [PART_DONE in log.read_bytes() for _, log in workers]
            if not any(done):
                raise SystemExit("So few cells are not shared out.")
        for number in range(asked.rounds):
            for seconds in (both, alone) if number % 2 else (alone, both):
                with _held(engine, workers[1][0]) if seconds is alone else ExitStack():
                    images, took = _features(engine, settings, imported.dataset_id, recipe)
                seconds.append(round(took, 2))
    return {
        "ratio": statistics.median(one / two for one, two in zip(alone, both, strict=True)),
        "compares": f"{asked.backbone} features of {images} images by two workers with one core each against one "
        "worker with one core",
        "seconds": both,
        "plain_seconds": alone,
        "images_per_second": images / statistics.median(both),
        "plain_images_per_second": images / statistics.median(alone),
        "images": images,
        "store": engine.dialect.name,
        "cores": os.cpu_count(),
    }


@contextmanager
def _worker(settings: Settings, core: int) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """A worker pinned to a core, and its log."""
    settings.logs.mkdir(parents=True, exist_ok=True)
    path = settings.logs / f"core{core}.log"
    with open(path, "ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "allreview", "worker", "--threads", "1"],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    os.sched_setaffinity(worker.pid, {core})
    try:
        _until(lambda: b"is ready" in path.read_bytes(), "start", worker)
        yield worker, path
    finally:
        worker.send_signal(signal.SIGCONT)
        worker.terminate()
        worker.wait(30)


@contextmanager
def _held(engine: sa.Engine, worker: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Keep a worker from doing anything, at a moment when it holds nothing that others wait for."""
    while True:
        worker.send_signal(signal.SIGSTOP)
        if _free(engine):
            break
        worker.send_signal(signal.SIGCONT)
        time.sleep(0.03)
    try:
        yield
    finally:
        worker.send_signal(signal.SIGCONT)


def _free(engine: sa.Engine) -> bool:
    """Whether the store can be written to at once. PostgreSQL's other rows can be, whoever holds one."""
    if engine.dialect.name != "sqlite":
        return True
    probe = sa.create_engine(engine.url, connect_args={"timeout": 0.3}, isolation_level="AUTOCOMMIT")
    try:
        with probe.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.exec_driver_sql("ROLLBACK")
    except OperationalError:
        return False
    finally:
        probe.dispose()
    return True


def _features(engine: sa.Engine, settings: Settings, dataset_id: int, recipe: Recipe) -> tuple[int, float]:
    """How many images a run from nothing computes, and the seconds its features take."""
    shutil.rmtree(settings.features, ignore_errors=True)
    run_id = jobs.submit(engine, settings, dataset_id=dataset_id, recipe=recipe)
    images = 0

    def at(reached: Callable[[RunRow], bool]) -> float:
        def look() -> bool:
            nonlocal images
            with db.reading(engine) as session:
                run = get_run(session, run_id, with_epochs=False)
            if run.state == "failed":
                raise SystemExit(run.message)
            images = run.total if run.stage == "features" else images
            return reached(run)

        _until(look, "compute")
        return time.perf_counter()

    started = at(lambda run: run.stage == "features")
    ended = at(lambda run: run.stage != "features")
    jobs.stop(engine, run_id)
    at(lambda run: run.complete)
    return images, ended - started


def _until(reached: Callable[[], bool], word: str, worker: "subprocess.Popen[bytes] | None" = None) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        if time.monotonic() > end or (worker is not None and worker.poll() is not None):
            raise SystemExit(f"The worker does not {word}.")
        time.sleep(LOOK)


def _drawn(folder: Path, number: int) -> Path:
    """So many drawn cells of 24 subjects, half of them with leukaemia."""
    import numpy as np

    from allreview.cells.drawing import draw_cell, subject_stain

    for place in range(number):
        subject = place % 24
        label = ("all", "hem")[subject % 2]
        path = folder / label / f"{subject}" / f"{place}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        stain = subject_stain(np.random.default_rng(subject))
        draw_cell(np.random.default_rng(1000 + place), stain, blast=label == "all").save(path)
    return folder


if __name__ == "__main__":
    main()
