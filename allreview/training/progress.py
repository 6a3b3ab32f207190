"""What a running job writes for the pages to read, and what it reads: the wish to stop."""

import time

import sqlalchemy as sa

import db
from allreview.training.epochs import EpochRow, StopRequested
from db.tables import EpochMetric, Run
from db.types import now

_WRITE_EVERY = 0.3  # seconds between progress rows
_LOOK_EVERY = 0.2  # seconds between looks at the wish to stop


class RunProgress:
    """The link between a fit and the store: the hooks `training.fitting` calls, for one run."""

    def __init__(self, engine: sa.Engine, run_id: int) -> None:
        self.engine = engine
        self.run_id = run_id
        self._written = 0.0
        self._looked = 0.0

    def stage(self, name: str) -> None:
        """A new stage begins."""
        self._update(stage=name, done=0, total=0, rate=None, seconds_left=None, progress_at=now())

    def on_batch(
        self, done_batches: int, total_batches: int, images_per_second: float, seconds_left: float
    ) -> None:
        """So many of all are done; written at most a few times a second, and always at the end."""
        moment = time.monotonic()
        if moment - self._written < _WRITE_EVERY and done_batches < total_batches:
            return
        self._written = moment
        self._update(
            done=done_batches,
            total=total_batches,
            rate=images_per_second,
            seconds_left=seconds_left,
            progress_at=now(),
        )

    def on_images(self, done: int, total: int, images_per_second: float) -> None:
        """As `on_batch`, for work counted in images."""
        left = (total - done) / images_per_second if images_per_second > 0 else 0.0
        self.on_batch(done, total, images_per_second, left)

    def on_epoch(self, row: EpochRow) -> None:
        """An epoch is over. It is written under its number: one that is run again after a kill counts once."""
        with db.writing(self.engine) as session:
            session.merge(
                EpochMetric(
                    run_id=self.run_id,
                    epoch=row.epoch,
                    loss=row.loss,
                    accuracy=row.accuracy,
                    val_loss=row.val_loss,
                    val_accuracy=row.val_accuracy,
                    val_cross_entropy=row.val_cross_entropy,
                    learning_rate=row.learning_rate,
                    seconds=row.seconds,
                )
            )

    def check(self) -> None:
        """Raise `StopRequested` when somebody pressed Stop."""
        moment = time.monotonic()
        if moment - self._looked < _LOOK_EVERY:
            return
        self._looked = moment
        with db.reading(self.engine) as session:
            if session.scalar(sa.select(Run.stop_requested).where(Run.id == self.run_id)):
                raise StopRequested

    def _update(self, **values: object) -> None:
        with db.writing(self.engine) as session:
            session.execute(sa.update(Run).where(Run.id == self.run_id).values(**values))
