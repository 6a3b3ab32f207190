"""Two machines that share a PostgreSQL store, cells in object storage and artefacts there, and no folder."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview import artefacts
from allreview.cells.importing import import_cells
from allreview.places import place
from allreview.recipe import make_recipe
from allreview.review import rankings
from allreview.review.queues import queue_of
from allreview.review.saliency import overlays
from allreview.settings import Settings, current_settings
from allreview.training import jobs
from allreview.training.runs import get_run
from tests import workers
from tests.objects.conftest import Bucket

RECIPE = make_recipe({"epochs": 3, "image_size": 64, "crop": 300})


@dataclass(frozen=True)
class Site:
    """A machine that has trained a run, and one that has seen nothing yet; both on one store."""

    here: Settings
    there: Settings
    run: int
    address: str


@pytest.fixture
def site(
    engine: sa.Engine,
    settings: Settings,
    bucket: Bucket,
    cnmc_few: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    monkeypatch.setenv("ALLREVIEW_ARTEFACTS", f"{bucket.address}/allreview")
    here = current_settings()
    address = bucket.put_folder(cnmc_few, "C-NMC")
    dataset = import_cells(engine, here, place(address)).dataset_id
    run = jobs.submit(engine, here, dataset_id=dataset, recipe=RECIPE)
    try:
        workers.wait_until_over(engine, run)
        wait_until_copied(here, run)
        yield Site(here, here.model_copy(update={"home": tmp_path / "there"}), run, address)
    finally:
        workers.kill_workers(here.root)
        workers.kill_workers(tmp_path / "there")


def wait_until_copied(settings: Settings, run: int) -> None:
    from allreview.store import open_store

    def copied(_run: object) -> bool:
        artefacts._listings.clear()
        target = artefacts._run(settings, run)
        return "map.npz" in artefacts.files_in(target) and bool(
            artefacts.files_in(target / "saliency" / "gradcam")
        )

    workers.wait_for(open_store(settings), run, copied)


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)
def test_a_machine_reads_and_retrains_what_another_one_trained(
    site: Site, engine: sa.Engine, cnmc_few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from allreview.models.saving import load_model, load_model_of
    from allreview.training.features import cached_features
    from allreview.training.pipeline import cell_images, load, weights_of

    here, there, run = site.here, site.there, site.run
    with db.reading(engine) as session:
        row = get_run(session, run)
        head = queue_of(session, run, parts=("train", "validation"), limit=2, settings=there)
    assert (row.state, row.message) == ("finished", None)
    assert head

    # The model, what helps a reviewer, heat maps, and the files that people take away.
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    expected = load_model(here.run_folder(run)).probabilities(pixels)
    assert load_model_of(there, run).probabilities(pixels) == pytest.approx(expected)
    assert rankings.out_of_fold(there, run) is not None
    assert rankings.map_points(session, there, run).sha256
    assert overlays.missing(there, run, "gradcam", [entry.sha256 for entry in head]) == []
    artefacts.obtain_folder(there, run)
    for name in ("predictions.csv", "model-card.md", "figures/roc.html"):
        assert (there.run_folder(run) / name).read_bytes() == (here.run_folder(run) / name).read_bytes()

    # Features: equal to those of the files on a disk, and not computed twice.
    _, lines = load(engine, run)
    cells = cell_images(lines)
    files = weights_of(RECIPE, there)
    reports: list[tuple[int, int, float]] = []

    def features(settings: Settings, images: list) -> np.ndarray:
        reports.clear()
        return cached_features(
            images,
            RECIPE,
            files,
            settings,
            progress=lambda *report: reports.append(report),
            check=lambda: None,
        )

    shared = features(there, cells)
    assert [report[:2] for report in reports] == [(len(cells), len(cells))]
    alone = Settings(home=tmp_path / "alone", artefacts=None)
    local = [
        type(cell)(cell.sha256, cnmc_few / str(cell.path).removeprefix(site.address + "/")) for cell in cells
    ]
    assert np.array_equal(features(alone, local), shared)
    assert len(reports) > 1

    # A worker of the other machine retrains, without a file of the first.
    workers.kill_workers(here.root)
    shutil.rmtree(here.root)
    monkeypatch.setenv("ALLREVIEW_HOME", str(there.home))
    again = jobs.retrain(engine, current_settings(), run)
    assert workers.wait_until_over(engine, again).state == "finished"
    log = (there.logs / "worker.log").read_text()
    assert "Traceback" not in log
