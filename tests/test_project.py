"""What the committed files promise one another: locks, documentation, pages, imports."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from allreview.settings import Settings

ROOT = Path(__file__).parent.parent

# In two parts each, so that this file does not hold what it looks for.
INDEX_HOSTS = ["pypi." + "org", "python" + "hosted.org", "registry." + "npmjs.org"]
HEAVY = {"keras", "tensorflow", "tf_keras_vis", "sklearn", "openvino"}


def _requirements(name: str) -> list[Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def _versions(pins: list[Requirement]) -> dict[str, set[str]]:
    """The pinned versions by name; more than one where the lock distinguishes Python versions."""
    found: dict[str, set[str]] = {}
    for pin in pins:
        found.setdefault(canonicalize_name(pin.name), set()).update(one.version for one in pin.specifier)
    return found


def _project_files() -> list[Path]:
    """Every file that is committed, or would be."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def _modules_in_architecture() -> list[str]:
    """The names in the first column of the module table of docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.split("| module |")[1].split("\n\n")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines()[1:]]
    return [name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize(
    ("asked", "locked"),
    [("requirements.in", "requirements.txt"), ("requirements-dev.in", "requirements-dev.txt")],
)
def test_every_dependency_is_pinned_to_a_version_we_accept(asked: str, locked: str) -> None:
    pins = _requirements(locked)
    assert not [str(pin) for pin in pins if [one.operator for one in pin.specifier] != ["=="]]
    versions = _versions(pins)
    for wanted in _requirements(asked):
        pinned = versions.get(canonicalize_name(wanted.name), set())
        assert pinned, f"{wanted.name} of {asked} is not in {locked}: run make lock"
        assert all(wanted.specifier.contains(version) for version in pinned), (
            f"{wanted} is pinned to {pinned}"
        )


def test_the_tools_want_no_other_version_than_the_app() -> None:
    app, tools = (
        _versions(_requirements("requirements.txt")),
        _versions(_requirements("requirements-dev.txt")),
    )
    shared = app.keys() & tools.keys()
    assert shared
    assert not {name: (app[name], tools[name]) for name in shared if not tools[name] <= app[name]}


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_every_setting_is_documented(field: str) -> None:
    assert f"ALLREVIEW_{field.upper()}" in (ROOT / "README.md").read_text()


def test_every_page_is_registered() -> None:
    pages = {path.name for path in (ROOT / "pages").glob("*.py") if not path.name.startswith("_")}
    tree = ast.parse((ROOT / "app.py").read_text())
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    registered = {Path(text).name for text in strings if isinstance(text, str) and text.startswith("pages/")}
    assert pages
    assert pages == registered


@pytest.mark.parametrize("name", _modules_in_architecture())
def test_every_module_of_the_architecture_exists(name: str) -> None:
    assert (ROOT / name).exists() or (ROOT / "allreview" / name).exists()


def test_the_architecture_names_the_modules() -> None:
    assert {"db/tables.py", "db/migrations/", "cells/importing.py"} <= set(_modules_in_architecture())


def test_no_file_names_a_package_index() -> None:
    """Lock files and settings must work with whichever index the machine that installs uses."""
    files = _project_files()
    assert ROOT / "pyproject.toml" in files
    texts = {path: path.read_bytes().decode(errors="ignore") for path in files}
    assert not [
        f"{path.relative_to(ROOT)}: {host}"
        for path, text in texts.items()
        for host in INDEX_HOSTS
        if host in text
    ]


def test_the_app_opens_without_the_heavy_libraries() -> None:
    """Keras, TensorFlow and scikit-learn take seconds to load; they belong to the worker."""
    code = "import json, sys, app; print(json.dumps(sorted(name.partition('.')[0] for name in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "streamlit" in loaded
    assert not loaded & HEAVY
