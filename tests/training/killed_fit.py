"""Run by a test in a process of its own: a fit that is killed while epoch 3 is being reported."""

import os
import signal
import sys
from pathlib import Path

from allreview.training import callbacks
from allreview.training.epochs import EpochRow
from allreview.training.fitting import fit_head
from tests.training.test_fitting import RECIPE, Hooks, vectors


class Killed(Hooks):
    def on_epoch(self, row: EpochRow) -> None:
        print(row, flush=True)  # noqa: T201
        if row.epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    callbacks.SECONDS_BETWEEN_BACKUPS = 0
    fit_head(RECIPE, *vectors(), 2, Path(sys.argv[1]), Killed())
