"""Submitting, stopping and following runs, and keeping a worker alive.

A run's row and its place in the job engine's queue are written in one transaction. Nothing here loads Keras.
"""

import hashlib
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.artefacts import available
from allreview.errors import UserError
from allreview.models.pretrained import availability
from allreview.recipe import BackboneName, Recipe, make_recipe
from allreview.settings import Settings
from allreview.training import snapshots
from allreview.training.retraining import head_of_run, recipe_of, require_lineage
from allreview.training.runs import KEEP
from allreview.training.slots import somebody_works
from db.tables import Dataset, Run, Snapshot
from db.tables import Recipe as RecipeRow
from db.types import now

if TYPE_CHECKING:
    from dbos import DBOSClient, EnqueueOptions

APPLICATION = "allreview"
JOBS_VERSION = "9"
"""The job engine hands unfinished work only to a worker of the same version: change it with the steps."""
TRAINING_QUEUE = "training"
SALIENCY_QUEUE = "saliency"
SHARED_QUEUE = "shared"
TRAIN = "train"
EXPLAIN = "explain"
PART = "part"

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
        UserError: as `submit_all`.
    """
    return submit_all(engine, settings, dataset_id, [recipe], parent_id)[0]


def submit_all(
    engine: sa.Engine,
    settings: Settings,
    dataset_id: int,
    recipes: Sequence[Recipe],
    parent_id: int | None = None,
) -> list[int]:
    """Enqueue one run of each recipe, all in one transaction, and return their ids in the same order.

    Several runs share a `series`. The members of an averaged ensemble are enqueued before it, unless there is
    a run of the same recipe on the same snapshot already; they are no part of the series.

    Raises:
        UserError: no such dataset, too little data, or a recipe's pretrained weights are not to be had. Then
            nothing is enqueued.
    """
    _require_weights(recipes, settings)
    for recipe in recipes:
        require_lineage(engine, recipe, parent_id)
    client = _client(settings.url)
    with db.writing(engine) as session:
        dataset = session.get(Dataset, dataset_id)
        if dataset is None:
            raise UserError(f"There is no dataset {dataset_id}.")
        submission = _Submission(session, client, settings, dataset)
        series = str(uuid.uuid4()) if len(recipes) > 1 else None
        run_ids = [submission.add(recipe, parent_id, series) for recipe in recipes]
    ensure_worker(settings)
    return run_ids


def _require_weights(recipes: Sequence[Recipe], settings: Settings) -> None:
    needed: dict[BackboneName, None] = {
        name: None
        for recipe in recipes
        if recipe.weights == "imagenet" and recipe.backbone_run is None
        for name in recipe.backbones
    }
    for name in needed:
        found = availability(name, settings, probe=True)
        if found.kind not in ("file", "download"):
            raise UserError(found.sentence)


class _Submission:
    """Rows of one transaction: runs with their snapshots, recipes and places in the queue."""

    def __init__(self, session: Session, client: "DBOSClient", settings: Settings, dataset: Dataset) -> None:
        self._session = session
        self._client = client
        self._settings = settings
        self._dataset = dataset

    def add(self, recipe: Recipe, parent_id: int | None, series: str | None) -> int:
        """A run of the recipe on its own new snapshot, after its members."""
        snapshot = snapshots.freeze(self._session, self._dataset.id, recipe, parent_id)
        members = [
            self._reusable(member, snapshot) or self._run(member, snapshot, self._before(member, parent_id))
            for member in recipe.members
        ]
        return self._run(recipe, snapshot, parent_id, series=series, members=members)

    def _run(
        self,
        recipe: Recipe,
        snapshot: Snapshot,
        parent_id: int | None,
        *,
        series: str | None = None,
        members: list[int] | None = None,
    ) -> int:
        run = Run(
            dataset_id=self._dataset.id,
            recipe_id=self._recipe_row(recipe).id,
            snapshot_id=snapshot.id,
            parent_id=parent_id,
            series=series,
            members=members or [],
            classes=list(self._dataset.classes),
        )
        self._session.add(run)
        self._session.flush()
        self._client.enqueue_in_transaction(self._session, _place_in_queue(run.id, f"run-{run.id}"), run.id)
        return run.id

    def _recipe_row(self, recipe: Recipe) -> RecipeRow:
        row = self._session.scalar(sa.select(RecipeRow).where(RecipeRow.hash == recipe.hash))
        if row is None:
            row = RecipeRow(hash=recipe.hash, body=recipe.model_dump())
            self._session.add(row)
            self._session.flush()
        return row

    def _reusable(self, recipe: Recipe, snapshot: Snapshot) -> int | None:
        """A run of this very recipe and snapshot that has a model or will have one."""
        runs = self._session.scalars(
            sa.select(Run)
            .join(RecipeRow, RecipeRow.id == Run.recipe_id)
            .where(RecipeRow.hash == recipe.hash, Run.snapshot_id == snapshot.id, ~Run.stop_requested)
            .where(Run.state.in_(("finished", "running", "queued")))
            .order_by(Run.id)
        )
        found = [run for run in runs if run.classes == list(self._dataset.classes)]
        kept = [run.id for run in found if run.state != "finished" or self._has_model(run)]
        return min(kept, default=None)

    def _has_model(self, run: Run) -> bool:
        return bool(available(self._settings, run.id, ["model.keras"]))

    def _before(self, member: Recipe, parent_id: int | None) -> int | None:
        """The run of the same backbone among the members of the parent: what the member is a retrain of."""
        parent = self._session.get(Run, parent_id) if parent_id is not None else None
        for run_id in parent.members if parent else ():
            body = self._session.scalar(
                sa.select(RecipeRow.body).join(Run, Run.recipe_id == RecipeRow.id).where(Run.id == run_id)
            )
            if body is not None and make_recipe(body).backbone == member.backbone:
                return run_id
        return None


def retrain(engine: sa.Engine, settings: Settings, parent_id: int, *, head_only: bool = False) -> int:
    """Run the parent's recipe again on the labels as they are now; returns the new run's id.

    With `head_only`, of a run that trained everything: only a new head, on what its backbone sees.

    Raises:
        UserError: no such run, or as `submit`.
    """
    with db.reading(engine) as session:
        dataset_id = session.scalar(sa.select(Run.dataset_id).where(Run.id == parent_id))
        recipe = recipe_of(session, parent_id)
    if dataset_id is None or recipe is None:
        raise UserError(f"There is no run {parent_id}.")
    if head_only:
        recipe = head_of_run(recipe, parent_id)
    return submit(engine, settings, dataset_id=dataset_id, recipe=recipe, parent_id=parent_id)


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


def adopt_unfinished(settings: Settings) -> list[int]:
    """Give the runs that an earlier version of the steps left unfinished to this one; returns their ids.

    The job engine hands work only to workers of its own version, so after an upgrade nobody would take them. The
    steps of a run find what is done already, so it goes on where it was. Only for when no other worker lives.
    """
    client = _client(settings.url)
    left = client.list_workflows(name=TRAIN, status=["ENQUEUED", "PENDING"])
    adopted = []
    for workflow in left:
        if workflow.app_version == JOBS_VERSION or not workflow.input:
            continue
        run_id = workflow.input["args"][0]
        # Enqueued before the old one is given up: a kill in between leaves both, and the next start one of them.
        client.enqueue(_place_in_queue(run_id, f"run-{run_id}-steps-{JOBS_VERSION}"), run_id)
        client.cancel_workflow(workflow.workflow_id)
        adopted.append(run_id)
    return adopted


def outcomes(settings: Settings, parts: Sequence[str]) -> dict[str, str | None]:
    """Those of these shared parts that are over, each with the sentence that says why it failed, if it did."""
    found = _client(settings.url).list_workflows(workflow_ids=list(parts), load_input=False)
    return {
        one.workflow_id: one.output if one.status == "SUCCESS" else None
        for one in found
        if one.status not in ("ENQUEUED", "DELAYED", "PENDING")
    }


def give_up(settings: Settings, parts: Sequence[str]) -> None:
    """Have nobody take up these shared parts any more; who is at one of them sees that the run is over."""
    _client(settings.url).cancel_workflows(list(parts))


def unfinished_of_others(settings: Settings, worker: str) -> set[str]:
    """The names of other workers that have begun something and not ended it."""
    found = _client(settings.url).list_workflows(
        status="PENDING", app_version=JOBS_VERSION, load_input=False, load_output=False
    )
    return {one.executor_id for one in found if one.executor_id} - {worker}


def _place_in_queue(run_id: int, workflow_id: str) -> "EnqueueOptions":
    return {
        "workflow_name": TRAIN,
        "queue_name": TRAINING_QUEUE,
        "workflow_id": workflow_id,
        "app_version": JOBS_VERSION,
        # Runs of one transaction may be of the same instant; an ensemble must come after its members.
        "priority": run_id,
    }


def resume_unfinished(engine: sa.Engine, settings: Settings) -> bool:
    """Start a worker if runs wait, or were cut off before their folder was complete, and nobody works on them."""
    left = sa.or_(Run.state.in_(("queued", "running")), Run.stage == KEEP)
    with db.reading(engine) as session:
        waiting = session.scalar(sa.select(sa.exists().where(left)))
    return bool(waiting) and ensure_worker(settings)


@lru_cache(maxsize=4)
def _client(url: str) -> "DBOSClient":
    """The job engine's client, its tables made when missing. Imported here: it takes a second."""
    from dbos import DBOSClient, run_dbos_database_migrations

    run_dbos_database_migrations(url)
    return DBOSClient(system_database_url=url, application_name=APPLICATION)
