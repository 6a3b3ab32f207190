"""The jobs as durable workflows of steps: what a worker does with what it is handed.

A step that was finished is never run again; one that was cut off is. Whatever goes wrong ends as a sentence
in the run's row, with the traceback in the worker's log only.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID

import db
from allreview import artefacts
from allreview.errors import UserError
from allreview.settings import current_settings
from allreview.store import open_store
from allreview.training import failures
from allreview.training.attempts import MOST, begin_attempt, end_attempts
from allreview.training.epochs import StopRequested
from allreview.training.jobs import EXPLAIN, PART, SHARED_QUEUE, TRAIN
from allreview.training.runs import KEEP
from allreview.training.shards import Shard
from db.tables import EpochMetric, Run
from db.types import now

log = logging.getLogger("allreview.worker")

NOT_COPIED = "Its files are not at ALLREVIEW_ARTEFACTS yet; the worker tries again."
"""A run's message while that is so."""

_LARGEST_SHARE = 0.25  # of the machine's memory that the worker may hold when a run begins
_last_work = time.monotonic()


def idle_seconds() -> float:
    """How long ago this process last began or ended a job."""
    return time.monotonic() - _last_work


def _touch() -> None:
    global _last_work  # noqa: PLW0603 - one clock for the process
    _last_work = time.monotonic()


def _start_afresh_if_grown() -> None:
    """Replace this process by a new one of the same kind when it holds much memory from earlier runs.

    TensorFlow never gives back the graph of an end-to-end fit (measured: 60 MB for AlexNet, 190 MB for MobileNetV2),
    and a night of cross-validation would fill the machine. The job engine hands the new process what this one had
    begun.
    """
    held, whole = psutil.Process().memory_info().rss, psutil.virtual_memory().total
    if held > _LARGEST_SHARE * whole:
        log.info("the worker starts afresh: it holds %.1f GB", held / 1e9)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@DBOS.workflow(name=TRAIN)
def train(run_id: int) -> None:
    """One run, from features, or from the members of an average, to its ranking. Then it is finished; its folder is
    completed, and heat maps and map are made, while people look at it already."""
    _touch()
    _start_afresh_if_grown()
    kind = begin(run_id)
    if kind is None:
        return
    state, message = "finished", None
    if kind != "over":
        first = (average_step,) if kind == "average" else (features_step, fit_step)
        try:
            for step in (*first, evaluate_step, rank_step):
                parts = _timed(step, run_id)
                if parts:
                    _share_out(step, run_id, parts)
        except Exception as error:
            state, message = _verdict(error)
            if state == "failed":
                log.error("run %s failed", run_id, exc_info=error)
        if state == "stopped":
            keep_stopped_step(run_id)
        _touch()  # the run is over, but the worker is not idle
        conclude(run_id, state, message)
    if state == "finished":
        for step in (keep_step, explain_step, map_step):
            _timed(step, run_id)
    _touch()


def _timed(step: Callable[..., Any], run_id: int, **how: Any) -> Any:
    """Do a step, and note in the log how long it took."""
    started = time.perf_counter()
    found = step(run_id, **how)
    log.info("run %s: %s took %.2f s", run_id, _name(step), time.perf_counter() - started)
    return found


def _name(step: Callable[..., Any]) -> str:
    return step.__name__.removesuffix("_step")


def _share_out(step: Callable[..., Any], run_id: int, parts: list[Any]) -> None:
    """Let all workers do the parts of a step, this one too, and then the step itself, for what is left of it."""
    ids = [f"{DBOS.workflow_id}-{_name(step)}-{number}" for number in range(len(parts))]
    for workflow_id, arguments in zip(ids, parts, strict=True):
        with SetWorkflowID(workflow_id):
            DBOS.enqueue_workflow(SHARED_QUEUE, part, run_id, _name(step), arguments)
    log.info("run %s: %s in %d parts", run_id, _name(step), len(parts))
    _timed(_FOLLOW[_name(step)], run_id, parts=ids)
    _timed(step, run_id, alone=True)


@DBOS.workflow(name=PART, max_recovery_attempts=MOST)
def part(run_id: int, of: str, arguments: Any) -> str | None:
    """A part of a step, and the sentence that says why it could not be done."""
    _touch()
    started = time.perf_counter()
    try:
        _PARTS[of](run_id, arguments)
        log.info("run %s: a part of %s took %.2f s", run_id, of, time.perf_counter() - started)
    except StopRequested:
        pass
    except Exception as error:
        log.error("a part of %s of run %s failed", of, run_id, exc_info=error)
        return failures.sentence(error)
    finally:
        _touch()
    return None


@DBOS.workflow(name=EXPLAIN)
def explain(run_id: int, method: str, cell_ids: list[int]) -> None:
    """Heat maps somebody is waiting for."""
    _touch()
    try:
        heatmaps_step(run_id, method, cell_ids)
    except Exception as error:
        log.error("saliency of run %s failed", run_id, exc_info=error)
    _touch()


@DBOS.step()
def begin(run_id: int) -> str | None:
    """Mark the run as running, and say whether it is a `fit` or an `average` of other runs.

    `over` when it is finished already, and another worker left what comes after that; None when it was stopped
    before it began.
    """
    with db.writing(_engine()) as session:
        run = session.get(Run, run_id, with_for_update=True)
        if run is not None and run.state == "finished":
            return "over"
        if run is None or run.state not in ("queued", "running"):
            return None
        run.state = "running"
        run.started_at = run.started_at or now()
        return "average" if run.members else "fit"


def _attempt(run_id: int, step: str) -> None:
    """Count that this step of the run begins (again) from where the run has come to."""
    with db.reading(_engine()) as session:
        counted = step.startswith("features")
        done = session.scalar(sa.select(Run.done).where(Run.id == run_id)) if counted else 0
        epochs = session.scalar(sa.select(sa.func.count()).where(EpochMetric.run_id == run_id))
    begin_attempt(current_settings().run_folder(run_id), f"{step}, {epochs} epochs, {done} images")


def _obtain_fit(run_id: int) -> None:
    """Another machine's worker may have made the fit, and left the rest of the run to this one."""
    if not (current_settings().run_folder(run_id) / "model.json").is_file():
        artefacts.obtain_folder(current_settings(), run_id)


@DBOS.step()
def average_step(run_id: int) -> None:
    from allreview.training import averaging

    averaging.average(_engine(), current_settings(), run_id)
    artefacts.mirror(current_settings(), run_id)


@DBOS.step()
def features_step(run_id: int, alone: bool = False) -> list[Shard]:
    """Compute the features that are not known, or say in which parts to share that out."""
    _attempt(run_id, "features")
    from allreview.training import pipeline

    return pipeline.compute_features(_engine(), current_settings(), run_id, share=not alone)


@DBOS.step()
def features_part(run_id: int, shard: Shard) -> None:
    from allreview.training import sharing

    sharing.compute_shard(_engine(), current_settings(), run_id, shard)


@DBOS.step()
def features_follow(run_id: int, parts: list[str]) -> None:
    _attempt(run_id, "features in parts")
    from allreview.training import sharing

    sharing.follow_features(_engine(), current_settings(), run_id, parts)


@DBOS.step()
def fit_step(run_id: int) -> None:
    _attempt(run_id, "fit")
    from allreview.training import pipeline

    pipeline.fit(_engine(), current_settings(), run_id)
    artefacts.mirror(current_settings(), run_id)


@DBOS.step()
def evaluate_step(run_id: int) -> None:
    _attempt(run_id, "evaluate")
    from allreview.training import evaluating

    _obtain_fit(run_id)
    evaluating.evaluate_run(_engine(), current_settings(), run_id)


@DBOS.step()
def keep_step(run_id: int) -> None:
    """The run's folder, which nobody waits for. The run stands as it is where that cannot be written."""
    from allreview.training import keeping

    message = None
    try:
        _obtain_fit(run_id)
        keeping.keep(_engine(), current_settings(), run_id)
    except Exception as error:
        message = f"Its files are not complete. {failures.sentence(error)}"
        log.error("the folder of run %s is not complete", run_id, exc_info=error)
    if artefacts.mirror(current_settings(), run_id) is not None:
        message = message or NOT_COPIED
    with db.writing(_engine()) as session:
        session.execute(sa.update(Run).where(Run.id == run_id).values(stage=None, message=message))


@DBOS.step()
def keep_stopped_step(run_id: int) -> None:
    """What a stopped run has so far. It is stopped all the same where that cannot be written."""
    from allreview.training import keeping

    try:
        keeping.keep(_engine(), current_settings(), run_id, state="stopped")
    except Exception as error:
        log.error("the folder of run %s is not complete", run_id, exc_info=error)
    artefacts.mirror(current_settings(), run_id)


@DBOS.step()
def rank_step(run_id: int, alone: bool = False) -> list[int]:
    """What helps a reviewer find mistakes, or the folds of it to share out. The run is as good without it."""
    from allreview.training import ranking

    try:
        folds = [] if alone else ranking.folds_to_share(_engine(), current_settings(), run_id)
        if not folds:
            ranking.rank(_engine(), current_settings(), run_id)
        return folds
    except StopRequested:
        raise
    except Exception as error:
        log.error("the cells of run %s are not ranked", run_id, exc_info=error)
        return []


@DBOS.step()
def rank_part(run_id: int, fold: int) -> None:
    from allreview.training import ranking

    ranking.judge_fold(_engine(), current_settings(), run_id, fold)


@DBOS.step()
def rank_follow(run_id: int, parts: list[str]) -> None:
    """Wait for the folds. What went wrong with one goes wrong again in `rank_step`, or doesn't."""
    from allreview.training import sharing

    try:
        sharing.follow_folds(_engine(), current_settings(), run_id, parts)
    except UserError as error:
        log.error("a fold of run %s was not shared out: %s", run_id, error)


@DBOS.step()
def map_step(run_id: int) -> None:
    """The map comes when the run is over: its libraries alone take many seconds to load."""
    from allreview.training import ranking

    try:
        ranking.draw_map(current_settings(), run_id)
    except Exception as error:
        log.error("the map of run %s is not drawn", run_id, exc_info=error)
    artefacts.mirror(current_settings(), run_id)


@DBOS.step()
def explain_step(run_id: int) -> None:
    """Heat maps come when the run is over: nobody should wait for them to read its figures."""
    from allreview.training import explaining

    try:
        explaining.explain_run(_engine(), current_settings(), run_id)
    except Exception as error:
        log.error("the head of the queue of run %s is not explained", run_id, exc_info=error)
    artefacts.mirror(current_settings(), run_id)


@DBOS.step()
def heatmaps_step(run_id: int, method: str, cell_ids: list[int]) -> None:
    from allreview.training import explaining

    explaining.explain_cells(_engine(), current_settings(), run_id, method, cell_ids)
    artefacts.mirror(current_settings(), run_id)


@DBOS.step()
def conclude(run_id: int, state: str, message: str | None) -> None:
    """The run's verdict. Stop is an end like any other, not an error.

    A finished run stays in the stage `KEEP` until its folder is complete.
    """
    end_attempts(current_settings().run_folder(run_id))
    stage = KEEP if state == "finished" else None
    with db.writing(_engine()) as session:
        session.execute(
            sa.update(Run)
            .where(Run.id == run_id)
            .values(
                state=state, message=message, finished_at=now(), stage=stage, rate=None, seconds_left=None
            )
        )


_PARTS: dict[str, Callable[[int, Any], None]] = {"features": features_part, "rank": rank_part}
_FOLLOW: dict[str, Callable[..., None]] = {"features": features_follow, "rank": rank_follow}


def _engine() -> sa.Engine:
    return open_store(current_settings())


def _verdict(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, StopRequested):
        return "stopped", None
    return "failed", failures.sentence(error)
