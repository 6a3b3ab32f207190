"""A run on a disk that fills up: it fails with a sentence, leaves nothing half written, and works with more room."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from allreview.cells.importing import import_cells
from allreview.models.saving import load_model
from allreview.recipe import make_recipe
from allreview.settings import current_settings
from allreview.store import open_store
from allreview.training import jobs
from allreview.training.failures import DISK_FULL
from tests import workers


@pytest.fixture
def small_home(home: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home on a real disk of its own, with room for the store and the features but not for a model."""
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    home.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(home)]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"only root can make a small disk: {made.stderr.decode().strip()}")
    yield home
    workers.kill_workers(home)
    subprocess.run(["umount", "--lazy", str(home)], check=True)


@pytest.mark.slow
def test_a_full_disk_fails_the_run_and_a_new_one_works_with_more_room(
    small_home: Path, cnmc_few: Path
) -> None:
    settings = current_settings()
    engine = open_store(settings)
    dataset = import_cells(engine, settings, cnmc_few, dataset="C-NMC").dataset_id
    recipe = make_recipe({"epochs": 3, "image_size": 64})
    run_id = jobs.submit(engine, settings, dataset_id=dataset, recipe=recipe)
    run = workers.wait_until_over(engine, run_id)
    assert (run.state, run.message) == ("failed", DISK_FULL)
    left = [path.name for path in settings.run_folder(run_id).rglob("*") if path.is_file()]
    assert not [name for name in left if name.endswith((".keras", ".tmp"))], left
    assert {name for name in left if name.endswith(".h5")} <= {"best.weights.h5", "latest.weights.h5"}
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_home)], check=True)
    again = jobs.submit(engine, settings, dataset_id=dataset, recipe=recipe)
    assert workers.wait_until_over(engine, again).state == "finished"
    assert load_model(settings.run_folder(again)).classes == ["all", "hem"]
    engine.dispose()
