"""Work that is shared out among the workers of a store: taking a part of it, and waiting for all parts."""

import time
from collections.abc import Sequence

import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.settings import Settings
from allreview.training import jobs, pipeline
from allreview.training.epochs import StopRequested
from allreview.training.features import Lacking, lacking_features
from allreview.training.progress import RunProgress
from allreview.training.runs import get_run
from allreview.training.shards import Shard
from allreview.training.snapshots import lines
from db.tables import Run

_LOOK_EVERY = 0.25  # seconds between looks at the parts, and at the wish to stop
_TELL_EVERY = 1.0  # seconds between words to the pages
_DECLINE_AFTER = 5.0  # seconds


def compute_shard(engine: sa.Engine, settings: Settings, run_id: int, shard: Shard) -> None:
    """Compute what the cache lacks of a shard's cells by now.

    Where this machine would compute them in other numbers, it leaves them alone; but not at once, or it would take
    one shard after another away from machines that can.

    Raises:
        StopRequested: somebody pressed Stop, or the run is over.
        UserError: as `features.cached_features`.
    """
    progress = RunProgress(engine, run_id)

    def check() -> None:
        progress.check()
        _require_running(engine, run_id)

    check()
    with db.reading(engine) as session:
        run = get_run(session, run_id, with_epochs=False)
        cells = lines(session, run.snapshot_id, (shard.first, shard.last))
    alone = run.recipe.alone(shard.backbone)
    lacking = lacking_features(
        pipeline.wanted_features(run.recipe, cells), alone, pipeline.weights_of(alone, settings), settings
    )
    if any((found.engine, found.precision) != (shard.engine, shard.precision) for _, found in lacking.views):
        _pause(_DECLINE_AFTER, check)
        return
    lacking.compute(progress=lambda *_: None, check=check)


def follow_features(engine: sa.Engine, settings: Settings, run_id: int, parts: Sequence[str]) -> None:
    """Wait until a run's shards are over, and tell the pages how far they are. `parts` are their workflows' ids.

    Raises:
        StopRequested: somebody pressed Stop.
        UserError: a shard failed; with its sentence.
    """
    run, cells = pipeline.load(engine, run_id)
    lacking = lacking_features(
        pipeline.wanted_features(run.recipe, cells),
        run.recipe,
        pipeline.weights_of(run.recipe, settings),
        settings,
    )
    progress = RunProgress(engine, run_id)
    progress.stage("features")
    counted = _Counted(lacking, progress)
    _follow(settings, parts, progress, counted.tell)


def follow_folds(engine: sa.Engine, settings: Settings, run_id: int, parts: Sequence[str]) -> None:
    """Wait until a run's folds are over; as `follow_features`."""
    progress = RunProgress(engine, run_id)
    _follow(settings, parts, progress, lambda over: progress.on_batch(over, len(parts), 0.0, 0.0))


class _Counted:
    """How many features there are by now, from what the files grow by."""

    def __init__(self, lacking: Lacking, progress: RunProgress) -> None:
        self._lacking, self._progress = lacking, progress
        self._started, self._rows, self._left = time.monotonic(), lacking.rows, lacking.left
        self.tell(0)

    def tell(self, _over: int) -> None:
        computed = min(self._lacking.rows - self._rows, self._left)
        done = self._lacking.total - self._left + computed
        seconds = time.monotonic() - self._started
        self._progress.on_images(done, self._lacking.total, computed / seconds if computed > 0 else 0.0)


def _follow(settings: Settings, parts: Sequence[str], progress: RunProgress, tell) -> None:
    waiting, told = list(parts), time.monotonic()
    try:
        while waiting:
            over = jobs.outcomes(settings, waiting)
            for part in list(over):
                sentence = over[part]
                waiting.remove(part)
                if sentence is not None:
                    raise UserError(sentence)
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                tell(len(parts) - len(waiting))
            _pause(_LOOK_EVERY if waiting else 0.0, progress.check)
    finally:
        if waiting:
            jobs.give_up(settings, waiting)


def _require_running(engine: sa.Engine, run_id: int) -> None:
    with db.reading(engine) as session:
        if session.scalar(sa.select(Run.state).where(Run.id == run_id)) != "running":
            raise StopRequested


def _pause(seconds: float, check) -> None:
    until = time.monotonic() + seconds
    check()
    while time.monotonic() < until:
        time.sleep(0.1)
        check()
