"""Following runs from the terminal: their progress on stderr, until they end or Ctrl-C is pressed."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

import db
from allreview.cli import output
from allreview.cli.run_views import model_words, split_words
from allreview.settings import Settings
from allreview.training import jobs
from allreview.training.runs import STAGES, get_run

if TYPE_CHECKING:
    from allreview.training.runs import RunRow
    from db.tables import EpochMetric

_POLL_SECONDS = 0.5
_RESUME_SECONDS = 5.0
_FUTILE_STARTS = 3  # a worker that dies this often before the run moves on will not live


def follow_all(engine: sa.Engine, settings: Settings, run_ids: Sequence[int]) -> "list[RunRow]":
    """Follow the runs one after the other, an ensemble's members before it; the runs as they are then.

    After Ctrl-C the rest is not waited for.
    """
    with _ctrl_c() as enough:
        for run_id, title in _order(engine, run_ids):
            if title:
                output.say(title)
            _follow(engine, settings, run_id, enough)
            if enough.is_set():
                break
    with db.reading(engine) as session:
        return [get_run(session, run_id) for run_id in run_ids]


def _order(engine: sa.Engine, run_ids: Sequence[int]) -> list[tuple[int, str]]:
    """The runs to follow in the order they are worked on, each with a title where there are several."""
    found: dict[int, str] = {}
    with db.reading(engine) as session:
        for number, run_id in enumerate(run_ids, start=1):
            run = get_run(session, run_id, with_epochs=False)
            for member in (get_run(session, one, with_epochs=False) for one in run.members):
                if member.unfinished:
                    found.setdefault(
                        member.id, f"Run {member.id}, a member of run {run_id}: {model_words(member)}."
                    )
            which = (
                f"Run {run_id}, {number} of {len(run_ids)}: {model_words(run)}, {split_words(run.recipe)}."
            )
            found[run_id] = which if len(run_ids) > 1 or run.members else ""
    return list(found.items())


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Set when Ctrl-C is pressed. An exception raised wherever the program happens to be can be lost, in a finalizer
    or in a library that catches everything; this cannot."""
    pressed = threading.Event()
    before = signal.signal(signal.SIGINT, lambda _number, _frame: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _follow(engine: sa.Engine, settings: Settings, run_id: int, enough: threading.Event) -> None:
    """Show the run's progress until it ends and its folder is complete, or until it is enough.

    On a terminal a bar moves; elsewhere each epoch is one line.
    """
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
    )
    watched = _Watch(engine, settings, run_id)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"Run {run_id}", total=None, figures="")
        while True:
            run = watched.look()
            _draw(bar, task, run)
            if not console.is_terminal:
                for row in watched.news(run):
                    output.say(f"Run {run_id}, epoch {row.epoch} of {run.recipe.epochs}: {_figures(row)}")
            if run.complete or enough.wait(_POLL_SECONDS):
                return


class _Watch:
    """The looks at one run, a worker kept alive between them."""

    def __init__(self, engine: sa.Engine, settings: Settings, run_id: int) -> None:
        self.engine = engine
        self.settings = settings
        self.run_id = run_id
        self._resumed_at = time.monotonic()
        self._started = 0
        self._told = 0

    def look(self) -> "RunRow":
        with db.reading(self.engine) as session:
            run = get_run(session, self.run_id)
        moment = time.monotonic()
        if not run.complete and moment - self._resumed_at > _RESUME_SECONDS:
            self._resumed_at = moment
            self._started += jobs.resume_unfinished(self.engine, self.settings)
            if self._started == _FUTILE_STARTS:
                output.say(f"The worker does not stay alive: see {self.settings.logs / 'worker.log'}.")
        return run

    def news(self, run: "RunRow") -> "list[EpochMetric]":
        """The epochs that were not there at the last look."""
        new = run.epochs[self._told :]
        self._told = len(run.epochs)
        return new


def _draw(bar: Progress, task: TaskID, run: "RunRow") -> None:
    words = f"Run {run.id}: waiting for the worker"
    if run.state == "running":
        words = f"Run {run.id}: {STAGES.get(run.stage or '', 'Starting').lower()}"
        if run.stage == "fit" and run.epochs:
            words += f", epoch {min(len(run.epochs) + 1, run.recipe.epochs)} of {run.recipe.epochs}"
    figures = _figures(run.epochs[-1]) if run.epochs else ""
    if run.rate:
        figures += f"  {run.rate:,.0f} images/s"
    bar.update(task, description=words, completed=run.done, total=run.total or None, figures=figures.strip())


def _figures(row: "EpochMetric") -> str:
    return (
        f"loss {row.loss:.4f}, accuracy {row.accuracy:.1%}, "
        f"validation loss {row.val_loss:.4f}, accuracy {row.val_accuracy:.1%}"
    )
