"""A worker that has grown starts afresh between two runs, and neither is lost or done twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from allreview.cells.importing import import_cells
from allreview.recipe import make_recipe
from allreview.settings import current_settings
from allreview.training import jobs
from tests import workers
from tests.cli.commands import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LIMITED = """
import psutil
from allreview.cli.app import app
from allreview.training import workflows
workflows._LARGEST_SHARE = 500e6 / psutil.virtual_memory().total
app(["worker"])
"""
"""A worker that may hold 500 MB: more than before it loads TensorFlow, less than after."""


def test_a_grown_worker_starts_afresh_before_the_next_run(
    sqlite_engine: sa.Engine, cnmc_few: Path, home: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    monkeypatch.setattr(jobs, "ensure_worker", lambda _settings: False)
    settings = current_settings()
    dataset = import_cells(sqlite_engine, settings, cnmc_few, dataset="C-NMC").dataset_id
    recipes = [make_recipe({"epochs": 2, "image_size": 64, "seed": seed}) for seed in (0, 1, 2)]
    ids = jobs.submit_all(sqlite_engine, settings, dataset, recipes)
    log = home / "worker.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", LIMITED], cwd=ROOT, env={**os.environ}, stdout=file, stderr=file
        )
        try:
            runs = [workers.wait_until_over(sqlite_engine, run_id) for run_id in ids]
            assert process.poll() is None  # the same process number throughout
        finally:
            process.kill()
            process.wait()
    assert [run.state for run in runs] == ["finished"] * 3
    assert all(len(run.epochs) == 2 for run in runs)
    assert log.read_text().count("the worker starts afresh") == 2
