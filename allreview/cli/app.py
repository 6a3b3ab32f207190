"""The commands, put together, and the one place where their errors become a line and an exit status.

Exit status: 0 success, 1 something went wrong (or is not in order, for `check`), 2 bad input, 130 Ctrl-C.
"""

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from allreview.cli import (
    agreeing,
    caching,
    comparing,
    data,
    exporting,
    operating,
    output,
    recording,
    reviewing,
    scoring,
    training,
)
from allreview.errors import UserError

BAD_INPUT = 2
INTERRUPTED = 130


class Commands(TyperGroup):
    """Typer's group, with errors said in one line on stderr."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command and leave with its exit status."""
        # TensorFlow reads it when it is loaded, also in a worker started from here.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            status = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except UserError as error:
            output.say(str(error))
            status = BAD_INPUT
        except typer.TyperException as error:
            _say_usage(error)
            status = BAD_INPUT
        except Exception as error:
            _say_unexpected(error)
            status = 1
        status = status if isinstance(status, int) else 0
        if status == INTERRUPTED:
            output.say("Interrupted.")
        sys.exit(status)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Review single-cell images for acute lymphoblastic leukaemia, and train on the result.",
    epilog="Everything lies under ALLREVIEW_HOME (default: ./data).",
)

app.command("import")(data.import_)
app.command()(data.demo)
app.command()(training.train)
app.command()(training.runs)
app.command()(training.show)
app.command()(training.stop)
app.command()(comparing.compare)
app.command()(scoring.evaluate)
app.command()(scoring.predict)
app.command()(exporting.export)
app.command()(reviewing.queue)
app.command()(reviewing.label)
app.command()(reviewing.undo)
app.command()(recording.redo)
app.command()(recording.log)
app.command()(recording.revert)
app.command()(recording.restore)
app.command()(recording.report)
app.command()(agreeing.assign)
app.command()(agreeing.worklists)
app.command()(agreeing.agreement)
app.command()(caching.cache)
app.command()(operating.worker)
app.command()(operating.check)


def _say_usage(error: typer.TyperException) -> None:
    message = " ".join(error.format_message().split())
    if not message:  # no command was given, and the help was printed instead
        return
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "allreview"
    end = "" if message.endswith((".", "?")) else "."
    output.say(f"{message}{end} See '{command} --help'.")


def _say_unexpected(error: Exception) -> None:
    """One line for people; the traceback goes to the log."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    try:
        path = output.settings().logs / "cli.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        record = logging.LogRecord(
            "allreview.cli",
            logging.ERROR,
            __file__,
            0,
            "%s",
            (" ".join(sys.argv),),
            (type(error), error, error.__traceback__),
        )
        handler.emit(record)
        handler.close()
        where = f" The details are in {path}."
    except (OSError, UserError):
        where = ""
    output.say(f"Something unexpected went wrong ({type(error).__name__}: {first}).{where}")
