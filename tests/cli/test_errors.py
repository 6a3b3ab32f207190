"""Errors are one line on stderr with the right exit status, whatever goes wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from tests.cli.commands import ROOT, command, process, refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("frob",), "No such command"),
        (("train", "--frob"), "No such option"),
        (("train", "--epochs", "many"), "--epochs"),
        (("train", "--epochs"), "requires an argument"),
        (("train", "--mode", "magic"), "--mode"),
        (("import",), "DIR"),
        (("show", "one"), "RUN"),
        (("show", 2**40), "RUN"),
        (("label", "1", "all"), "--reviewer"),
        (("queue", 1, "--limit", 0), "--limit"),
        (("show", 1), "There is no run 1"),
        (("stop", 1), "There is no run 1"),
        (("queue", 1), "There is no run 1"),
        (("predict", 1, "x.bmp"), "There is no run 1"),
        (("import", "/nowhere/at all"), "/nowhere/at all"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments: tuple[object, ...], words: str) -> None:
    assert words in refused(*arguments)


def test_the_real_program_says_the_same_without_traceback_or_box(home: Path) -> None:
    done = process("show", "1", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "There is no run 1. See the list of runs for their numbers.\n"


def test_a_setting_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLREVIEW_MAX_PIXELS", "many")
    assert "ALLREVIEW_MAX_PIXELS" in refused("runs")


def test_what_nobody_foresaw_is_one_line_with_the_details_in_a_log(
    home: Path, sqlite_engine: sa.Engine
) -> None:
    with db.writing(sqlite_engine) as session:
        session.execute(sa.text("alter table epoch_metrics rename to elsewhere"))
        session.execute(sa.text("alter table runs rename to lost"))
    result = command("runs", "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert str(home / "logs" / "cli.log") in result.stderr
    log = (home / "logs" / "cli.log").read_text()
    assert "Traceback" in log
    assert "no such table: runs" in log


def test_without_a_command_the_help_is_shown() -> None:
    result = command()
    assert result.exit_code == 2
    assert "Commands" in result.output


def test_help_loads_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom allreview.cli.app import app\n"
        "assert CliRunner().invoke(app, ['train', '--help']).exit_code == 0\n"
        "heavy = {'dbos', 'keras', 'tensorflow', 'sklearn', 'pandas', 'numpy', 'sqlalchemy', 'streamlit'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
