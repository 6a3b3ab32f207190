"""The worker process: takes what is enqueued, looks after what others left, and leaves when there is nothing to do."""

import logging
import os
import signal
import threading
import time

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig

import db
from allreview import artefacts
from allreview.settings import Settings
from allreview.store import open_store
from allreview.training.jobs import (
    APPLICATION,
    JOBS_VERSION,
    SALIENCY_QUEUE,
    SHARED_QUEUE,
    TRAINING_QUEUE,
    adopt_unfinished,
    unfinished_of_others,
)
from allreview.training.slots import living, take_slot, taken_over
from allreview.training.threads import tell_libraries
from allreview.training.workflows import NOT_COPIED, idle_seconds
from db.tables import Run

log = logging.getLogger("allreview.worker")

_POLL_SECONDS = 0.1  # somebody pressed Retrain and looks on
_SALIENCY_POLL_SECONDS = 0.1  # somebody sits before the cell
_SALIENCY_TOGETHER = 2  # so that a fast method need not wait behind a slow one
_SHARED_POLL_SECONDS = 0.2
_LOOK_AFTER_SECONDS = 3.0
_SLOT_PATIENCE = 3.0  # another process may be looking at the lock for an instant
_COPY_AGAIN_SECONDS = 60.0


def work(settings: Settings, *, leave_when_idle: bool = False) -> int:
    """Work until told to stop (SIGTERM, SIGINT), or until idle if so asked; returns the exit status.

    With `leave_when_idle` only the first slot will do: a second worker started by the app leaves at once.
    """
    tell_libraries(settings)
    slot = _wait_for_slot(settings, only_first=leave_when_idle)
    if slot is None:
        return 0
    name, _lock = slot
    engine = open_store(settings)
    config: DBOSConfig = {
        "name": APPLICATION,
        "system_database_url": settings.url,
        "executor_id": name,
        "application_version": JOBS_VERSION,
        "log_level": "WARNING",
        "enable_otlp": False,
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(TRAINING_QUEUE, worker_concurrency=1, polling_interval_sec=_POLL_SECONDS)
    DBOS.register_queue(
        SALIENCY_QUEUE, worker_concurrency=_SALIENCY_TOGETHER, polling_interval_sec=_SALIENCY_POLL_SECONDS
    )
    DBOS.register_queue(SHARED_QUEUE, worker_concurrency=1, polling_interval_sec=_SHARED_POLL_SECONDS)
    if living(settings) == 1:
        for run_id in adopt_unfinished(settings):
            log.info("run %s was left by an earlier version and goes on", run_id)
    threading.Thread(target=_look_after_the_dead, args=(settings, name), daemon=True).start()
    log.info("worker %s is ready", name)
    told = threading.Event()
    if settings.artefacts:
        threading.Thread(target=_copy_again, args=(settings, engine, told), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    patience = settings.worker_idle_minutes * 60 if leave_when_idle else float("inf")
    while not told.wait(1.0):
        if idle_seconds() > patience and not _busy(engine):
            log.info("worker %s leaves: nothing to do", name)
            break
    # A run in progress is left where it is; the next worker picks it up at the epoch.
    os._exit(0)


def _wait_for_slot(settings: Settings, *, only_first: bool):
    until = time.monotonic() + _SLOT_PATIENCE
    while True:
        slot = take_slot(settings, only_first=only_first)
        if slot is not None or time.monotonic() > until:
            return slot
        time.sleep(0.1)


def _look_after_the_dead(settings: Settings, name: str) -> None:
    """Every few seconds, have the living go on with what workers that were killed left unfinished.

    Their slots are held meanwhile, so a new worker comes either before, and is handed the work, or after. Of two that
    look at once one gets the lock.
    """
    while True:
        time.sleep(_LOOK_AFTER_SECONDS)
        try:
            for other in unfinished_of_others(settings, name):
                with taken_over(settings, other) as dead:
                    if dead and DBOS._recover_pending_workflows([other]):
                        log.info("worker %s is dead; what it left unfinished is taken up", other)
        except Exception as error:  # the store may be away for a while
            log.warning("cannot look after other workers: %s", error)


def _copy_again(settings: Settings, engine: sa.Engine, told: threading.Event) -> None:
    """Now and then copy what could not be copied before."""
    while not told.is_set():
        try:
            _note_copied(engine, artefacts.mirror_left(settings))
        except Exception as error:
            log.error("folders of runs are not copied", exc_info=error)
        told.wait(_COPY_AGAIN_SECONDS)


def _note_copied(engine: sa.Engine, run_ids: list[int]) -> None:
    if run_ids:
        with db.writing(engine) as session:
            session.execute(
                sa.update(Run).where(Run.id.in_(run_ids), Run.message == NOT_COPIED).values(message=None)
            )


def _busy(engine: sa.Engine) -> bool:
    with db.reading(engine) as session:
        return bool(session.scalar(sa.select(sa.exists().where(Run.state.in_(("queued", "running"))))))
