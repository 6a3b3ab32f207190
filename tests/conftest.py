"""Real parts for every test: a home folder of its own, SQLite and PostgreSQL stores, the real cells."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from filelock import FileLock

import db
from allreview.cells.importing import import_cells
from allreview.recipe import make_recipe
from allreview.review.log.annotations import decide, reviewer_named
from allreview.review.queues import queue_of
from allreview.settings import Settings, current_settings
from allreview.store import open_store
from allreview.training import jobs
from tests import postgres, workers

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("ALLREVIEW_SHARED", ROOT.parent / "shared"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ALLREVIEW_HOME, so that no test sees another's store or the developer's."""
    folder = tmp_path / "home"
    monkeypatch.setenv("ALLREVIEW_HOME", str(folder))
    for name in ("DATABASE_URL", "WEIGHTS", "MAX_PIXELS", "ARTEFACTS"):
        monkeypatch.delenv(f"ALLREVIEW_{name}", raising=False)
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a real PostgreSQL server of this test session's own."""
    with postgres.server() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_server(postgres_server: str) -> str:
    """The server again, with a migrated, empty database `migrated` that others are copied from."""
    _create_database(postgres_server, "migrated")
    made = db.engine_for(_database(postgres_server, "migrated"))
    db.migrate(made)
    made.dispose()
    return postgres_server


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file that others are copied from."""
    path = tmp_path_factory.mktemp("migrated") / "store.sqlite"
    made = db.engine_for(f"sqlite:///{path}")
    db.migrate(made)
    made.dispose()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings on an empty store; every test that uses this runs on SQLite and on PostgreSQL."""
    if request.param == "postgresql":
        migrated = "engine" in request.fixturenames
        server = request.getfixturevalue("migrated_server" if migrated else "postgres_server")
        name = f"t{uuid.uuid4().hex}"
        _create_database(server, name, template="migrated" if migrated else "template1")
        monkeypatch.setenv("ALLREVIEW_DATABASE_URL", _database(server, name))
    return current_settings()


def _create_database(server: str, name: str, template: str = "template1") -> None:
    with sa.create_engine(server, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text(f"create database {name} template {template}"))


def _database(server: str, name: str) -> str:
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def engine(settings: Settings, migrated_file: Path) -> Iterator[sa.Engine]:
    """A migrated, empty store: SQLite and PostgreSQL in turn."""
    if settings.database_url is None:
        _copy_file(migrated_file, settings)
    opened = open_store(settings)
    yield opened
    opened.dispose()


@pytest.fixture
def sqlite_engine(home: Path, migrated_file: Path) -> Iterator[sa.Engine]:
    """A migrated, empty SQLite store, for tests whose subject is not the store."""
    _copy_file(migrated_file, current_settings())
    opened = open_store(current_settings())
    yield opened
    opened.dispose()


def _copy_file(migrated: Path, settings: Settings) -> None:
    path = Path(sa.make_url(settings.url).database or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(migrated, path)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real cells; tests that need it are skipped where it is missing."""
    if not (SHARED / "data" / "cnmc2019").is_dir():
        pytest.skip(f"the real cells are not at {SHARED}; set ALLREVIEW_SHARED to where they are")
    return SHARED


@pytest.fixture(scope="session")
def cnmc(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight cells of each of the 53 real C-NMC subjects, in the published layout."""
    return _unpack(shared, shared_between_processes(tmp_path_factory) / "cnmc", 8)


@pytest.fixture(scope="session")
def cnmc_few(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells of each of the 53 real C-NMC subjects, in the published layout."""
    return _unpack(shared, shared_between_processes(tmp_path_factory) / "cnmc_few", 2)


def _unpack(shared: Path, folder: Path, per_subject: int) -> Path:
    program = str(shared / "data" / "unpack")
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            command = [sys.executable, program, f"{folder}.part", "--per-subject", str(per_subject)]
            subprocess.run(command, check=True, capture_output=True)
            Path(f"{folder}.part").rename(folder)
    return folder


@pytest.fixture(scope="session")
def pbc(shared: Path) -> Path:
    """480 real normal blood cells of 8 classes."""
    return shared / "data" / "pbc"


@pytest.fixture(scope="session")
def weights(shared: Path) -> Path:
    """A folder with MobileNetV2's ImageNet weights."""
    return shared / "weights"


@dataclass(frozen=True)
class Trained:
    """A home with real cells and two finished runs, the second a retrain after corrections."""

    home: Path
    dataset: int
    run: int
    retrain: int


@pytest.fixture(scope="session")
def trained_once(
    cnmc: Path,
    weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """Made once by a real worker process, whatever the number of test processes; tests take a copy with
    `trained`."""
    root = shared_between_processes(tmp_path_factory)
    made = root / "trained.json"
    with FileLock(root / "trained.lock"):
        if not made.exists():
            made.write_text(json.dumps(_train_twice(root / "trained" / "home", cnmc, weights)))
        dataset, run, retrain = json.loads(made.read_text())
    return Trained(root / "trained" / "home", dataset, run, retrain)


def shared_between_processes(factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of one test session have in common (pytest-xdist gives each a folder of
    its own within it)."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def _train_twice(home: Path, cells: Path, weights: Path) -> tuple[int, int, int]:
    """A dataset, a run, and a retrain after three corrections."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLREVIEW_HOME", str(home))
        patch.setenv("ALLREVIEW_WEIGHTS", str(weights))
        patch.delenv("ALLREVIEW_DATABASE_URL", raising=False)
        settings = current_settings()
        engine = open_store(settings)
        try:
            dataset = import_cells(engine, settings, cells, dataset="C-NMC").dataset_id
            recipe = make_recipe({"epochs": 6, "image_size": 96, "crop": 300})
            run = jobs.submit(engine, settings, dataset_id=dataset, recipe=recipe)
            workers.wait_until_over(engine, run)
            ann = reviewer_named(engine, "Ann")
            with db.reading(engine) as session:
                doubtful = queue_of(session, run, parts=("train",), limit=3)
            for entry in doubtful:
                decide(engine, cell_id=entry.cell_id, label=entry.predicted, reviewer_id=ann, seen=None)
            retrain = jobs.retrain(engine, settings, run)
            workers.wait_until_over(engine, retrain)
            workers.wait_until_explained(engine, settings, retrain)
        finally:
            workers.kill_workers(home)
            engine.dispose()
    return dataset, run, retrain


@pytest.fixture
def trained(
    trained_once: Trained, home: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trained]:
    """A copy of `trained_once` that is this test's own home."""
    shutil.copytree(trained_once.home, home, ignore=shutil.ignore_patterns("*.lock", "logs"))
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    yield replace(trained_once, home=home)
    workers.kill_workers(home)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests are marked by their folder."""
    for item in items:
        if "tests/browser" in str(item.path):
            item.add_marker(pytest.mark.browser)


def pytest_report_header() -> list[str]:
    chromium = shutil.which("chromium") or "not found"
    return [f"chromium: {chromium}", f"real cells: {SHARED if SHARED.is_dir() else 'not found'}"]
