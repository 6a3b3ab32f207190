"""Every command and option is in --help and in docs/command-line.md."""

import re

import pytest
import typer

from allreview.cli.app import app
from allreview.recipe import Recipe, allowed_values
from allreview.review.queues import STRATEGIES
from tests.cli.commands import ROOT, command

DOCS = (ROOT / "docs" / "command-line.md").read_text()
COMMANDS = typer.main.get_group(app).commands


def _section(name: str) -> str:
    return DOCS.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_the_commands_of_the_contract_are_there() -> None:
    assert set(COMMANDS) == {
        "import", "demo", "train", "runs", "show", "stop", "compare", "evaluate", "predict", "export", "queue",
        "label", "undo", "redo", "log", "revert", "restore", "report", "assign", "worklists", "agreement", "cache",
        "worker", "check",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_in_the_help_and_in_the_docs(name: str) -> None:
    told = command(name, "--help")
    assert told.exit_code == 0
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts if option[0] == "-"}
    section = _section(name)
    for option in options - {"--help", "-h"}:
        assert re.search(rf"{option}\b", told.stdout), option
        assert f"`{option}" in section, option
    documented = set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE))
    assert documented == options - {"--help", "-h"}
    arguments = [p.metavar or "?" for p in COMMANDS[name].params if p.opts[0][0] != "-"]
    assert all(argument in section for argument in arguments)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_the_list_of_commands(name: str) -> None:
    assert name in command("--help").stdout
    assert f"](#{name})" in DOCS


def test_every_setting_and_every_strategy_is_in_the_docs() -> None:
    for name, field in Recipe.model_fields.items():
        (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", _section("train"), re.MULTILINE)
        assert row.startswith(allowed_values(name) + "; default "), name
        assert row.endswith(f"| {field.description}"), name
    assert not [strategy for strategy in STRATEGIES if f"`{strategy}`" not in _section("queue")]
