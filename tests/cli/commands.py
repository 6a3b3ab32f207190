"""Running commands in tests: in this process, or as the real program."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from allreview.cli.app import app

ROOT = Path(__file__).parents[2]


def command(*arguments: object) -> Result:
    """Run one command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="allreview")


def succeed(*arguments: object) -> Any:
    """What the command prints with --json; it must succeed."""
    result = command(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    """The one line with which the command refuses its input; it must leave with 2 and print nothing else."""
    result = command(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr.strip()


def process(*arguments: object, timeout: float = 240.0) -> subprocess.CompletedProcess[str]:
    """Run one command as people do, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "allreview", *map(str, arguments)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
