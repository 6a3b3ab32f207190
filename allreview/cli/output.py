"""What commands print: JSON or tables on stdout, everything else on stderr."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import typer

from allreview.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from allreview.settings import Settings


class Progress(Protocol):
    """Told how many steps are done, of how many (0: not known), and, where that changes, what is being done."""

    def __call__(self, done: int, total: int, doing: str = "", /) -> None: ...


_WIDE = 240
"""Columns of a table that is not printed on a terminal: paths stay whole for grep."""
MOST_LISTED = 20


def settings() -> "Settings":
    """The settings of this process.

    Raises:
        UserError: an ALLREVIEW_* variable has a value that cannot be used.
    """
    from pydantic import ValidationError

    from allreview.settings import current_settings

    try:
        return current_settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"ALLREVIEW_{str(first['loc'][0]).upper()}"
        raise UserError(f"The setting {name} cannot be used: {first['msg']}.") from None


def say(line: str) -> None:
    """One line on stderr, with bytes that are no text written as \\udcXX."""
    shown = " ".join(line.splitlines()).encode("utf-8", "backslashreplace").decode()
    typer.echo(shown, err=True)


def emit(document: Any) -> None:
    """One JSON document on stdout: plain ASCII, so any encoding will do. Moments are ISO 8601."""
    text = json.dumps(document, indent=2, allow_nan=False, default=lambda value: value.isoformat())
    typer.echo(text)


def line(text: str) -> None:
    """One line for people on stdout."""
    typer.echo(text.encode("utf-8", "backslashreplace").decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[str] = ()) -> None:
    """A table for people on stdout; the columns in `numbers` are aligned right, None is a dash."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = _console()
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in set(numbers) else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text("–" if value is None else str(value)) for value in row))
    console.print(made)


def listed(lines: Sequence[str]) -> None:
    """The first lines of a list for people, and how many there are more."""
    for text in lines[:MOST_LISTED]:
        line(f"  {text}")
    if len(lines) > MOST_LISTED:
        line(f"  … and {len(lines) - MOST_LISTED:,} more (--json lists all)")


@contextmanager
def progress(words: str) -> Iterator[Progress]:
    """A progress bar on stderr while the block runs; nothing where stderr is no terminal."""
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, shown = bar.add_task(words, total=None), words

        def update(done: int, total: int, doing: str = "") -> None:
            nonlocal task, shown
            if (doing or words) != shown:  # another thing has its own pace: the time left is counted anew
                bar.remove_task(task)
                task, shown = bar.add_task(doing or words, total=None), doing or words
            bar.update(task, completed=done, total=total or None)

        yield update


@contextmanager
def quiet_libraries(log: Path) -> Iterator[None]:
    """While the block runs, what libraries write to stdout and stderr, from C++ too, goes to a log file.

    `sys.stderr` stays ours: TensorFlow's lines come from C++, which knows only the file descriptors.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    ours, is_real = sys.stderr, _descriptor(sys.stderr) == 2
    with open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
        try:
            if is_real:
                sys.stderr = os.fdopen(
                    kept[1], "w", encoding=ours.encoding, errors="backslashreplace", closefd=False
                )
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            with redirect_stdout(file):
                yield
        finally:
            sys.stderr.flush()
            sys.stderr = ours
            for descriptor, saved in zip((1, 2), kept, strict=True):
                os.dup2(saved, descriptor)
                os.close(saved)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def percent(share: float | None) -> str:
    """A share as people read it; a dash when it is not defined. Nothing uncertain is rounded to certainty."""
    if share is None:
        return "–"
    if 0.9995 <= share < 1:
        return "> 99.9%"
    if 0 < share < 0.0005:
        return "< 0.1%"
    return f"{share:.1%}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """'1 cell', '4,353 cells'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


@lru_cache(maxsize=1)
def _console() -> "Console":
    from rich.console import Console

    # Built lazily and kept: its file is looked up at each print, so redirection still holds.
    return Console(
        markup=False,
        emoji=False,
        highlight=False,
        width=None if sys.stdout.isatty() else _WIDE,
    )
