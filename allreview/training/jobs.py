"""Submitting, stopping and following runs, and keeping a worker alive.

A run's row and its place in the job engine's queue are written in one transaction. Nothing here loads Keras.
"""

import hashlib
import os
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.models.pretrained import availability
from allreview.recipe import Recipe, make_recipe
from allreview.settings import Settings
from allreview.training import snapshots
from allreview.training.slots import somebody_works
from db.tables import Dataset, Run
from db.tables import Recipe as RecipeRow
from db.types import now

if TYPE_CHECKING:
    from dbos import DBOSClient

APPLICATION = "allreview"
JOBS_VERSION = "1"
"""The job engine hands unfinished work only to a worker of the same version: change it with the steps."""
TRAINING_QUEUE = "training"
SALIENCY_QUEUE = "saliency"
TRAIN = "train"
EXPLAIN = "explain"

_ROOT = Path(__file__).resolve().parents[2]
_starting = threading.Lock()
_started: dict[Path, "subprocess.Popen[bytes]"] = {}
"""The last worker this process started, by home: it needs seconds until it can be seen holding its slot."""


def submit(
    engine: sa.Engine,
    settings: Settings,
    *,
    dataset_id: int,
    recipe: Recipe,
    parent_id: int | None = None,
) -> int:
    """Freeze a snapshot, enqueue a run of `recipe` on it and return the run's id.

    Raises:
        UserError: no such dataset, too little data, or the recipe's pretrained weights are not to be had.
    """
    if recipe.weights == "imagenet":
        found = availability(recipe.backbone, settings, probe=True)
        if found.kind not in ("file", "download"):
            raise UserError(found.sentence)
    client = _client(settings.url)
    with db.writing(engine) as session:
        dataset = session.get(Dataset, dataset_id)
        if dataset is None:
            raise UserError(f"There is no dataset {dataset_id}.")
        snapshot = snapshots.freeze(session, dataset_id, recipe, parent_id)
        row = session.scalar(sa.select(RecipeRow).where(RecipeRow.hash == recipe.hash))
        if row is None:
            row = RecipeRow(hash=recipe.hash, body=recipe.model_dump())
            session.add(row)
            session.flush()
        run = Run(
            dataset_id=dataset_id,
            recipe_id=row.id,
            snapshot_id=snapshot.id,
            parent_id=parent_id,
            classes=list(dataset.classes),
        )
        session.add(run)
        session.flush()
        client.enqueue_in_transaction(
            session,
            {
                "workflow_name": TRAIN,
                "queue_name": TRAINING_QUEUE,
                "workflow_id": f"run-{run.id}",
                "app_version": JOBS_VERSION,
            },
            run.id,
        )
        run_id = run.id
    ensure_worker(settings)
    return run_id


def retrain(engine: sa.Engine, settings: Settings, parent_id: int) -> int:
    """Run the parent's recipe again on the labels as they are now; returns the new run's id.

    Raises:
        UserError: no such run, or as `submit`.
    """
    with db.reading(engine) as session:
        found = session.execute(
            sa.select(Run.dataset_id, RecipeRow.body)
            .join(RecipeRow, RecipeRow.id == Run.recipe_id)
            .where(Run.id == parent_id)
        ).one_or_none()
    if found is None:
        raise UserError(f"There is no run {parent_id}.")
    dataset_id, body = found
    return submit(engine, settings, dataset_id=dataset_id, recipe=make_recipe(body), parent_id=parent_id)


def stop(engine: sa.Engine, run_id: int) -> str:
    """Ask a run to stop and return its state: `stopped` at once when it had not begun, else as it is.

    Raises:
        UserError: there is no such run.
    """
    with db.writing(engine) as session:
        run = session.get(Run, run_id, with_for_update=True)
        if run is None:
            raise UserError(f"There is no run {run_id}.")
        if run.state == "queued":
            run.state = "stopped"
            run.finished_at = now()
        if run.state in ("queued", "running", "stopped"):
            run.stop_requested = True
        return run.state


def request_saliency(settings: Settings, run_id: int, method: str, cell_ids: list[int]) -> None:
    """Ask the worker for heat maps of these cells; asking again while it is at it changes nothing."""
    key = hashlib.sha256(repr((run_id, method, cell_ids)).encode()).hexdigest()[:24]
    _client(settings.url).enqueue(
        {
            "workflow_name": EXPLAIN,
            "queue_name": SALIENCY_QUEUE,
            "deduplication_id": key,
            "duplication_policy": "return-existing",
            "app_version": JOBS_VERSION,
        },
        run_id,
        method,
        cell_ids,
    )
    ensure_worker(settings)


def ensure_worker(settings: Settings) -> bool:
    """Start a worker process when none is alive; True if one was started. It outlives this process and
    leaves by itself when it has had nothing to do for `settings.worker_idle_minutes`."""
    with _starting:
        last = _started.get(settings.root)
        if (last is not None and last.poll() is None) or somebody_works(settings):
            return False
        settings.logs.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "ALLREVIEW_HOME": str(settings.root)}
        if settings.weights:
            environment["ALLREVIEW_WEIGHTS"] = str(settings.weights.expanduser().resolve())
        with open(settings.logs / "worker.log", "ab") as log:
            _started[settings.root] = subprocess.Popen(
                [sys.executable, "-m", "allreview", "worker", "--leave-when-idle"],
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return True


def resume_unfinished(engine: sa.Engine, settings: Settings) -> bool:
    """Start a worker if runs wait or were cut off and nobody works on them."""
    with db.reading(engine) as session:
        waiting = session.scalar(sa.select(sa.exists().where(Run.state.in_(("queued", "running")))))
    return bool(waiting) and ensure_worker(settings)


@lru_cache(maxsize=4)
def _client(url: str) -> "DBOSClient":
    """The job engine's client, its tables made when missing. Imported here: it takes a second."""
    from dbos import DBOSClient, run_dbos_database_migrations

    run_dbos_database_migrations(url)
    return DBOSClient(system_database_url=url, application_name=APPLICATION)
