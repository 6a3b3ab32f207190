"""Every named recipe on every backbone, and both ensembles, from import to heat maps on real cells.

A worker process trains from scratch, and MobileNetV2 from its real weights. The other backbones' pretrained
weights are not to be had offline, so for frozen backbones the steps run here, on files of the published format
that the test saves itself.
"""

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from hashlib import md5
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import sqlalchemy as sa
from keras.src.legacy.saving import legacy_h5_format

import db
from allreview.cells.importing import import_cells
from allreview.models import pretrained
from allreview.models.saving import load_model
from allreview.recipe import BACKBONE_NAMES, Recipe, make_recipe
from allreview.recipes import NAMED, from_text, named_settings
from allreview.settings import Settings, current_settings
from allreview.store import open_store
from allreview.training import averaging, evaluating, explaining, jobs, keeping, pipeline
from allreview.training.runs import RunRow, get_run
from allreview.training.snapshots import lines
from db.tables import Prediction, Run
from tests import workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

SHORT = {"image_size": 64, "epochs": 2, "batch_size": 16, "crop": 300}
SCRATCH = {"weights": "none", "mode": "finetune"}
ENSEMBLE = {"backbone": "resnet50", "partner": "efficientnet_b3"}
APPLICATIONS = {
    "resnet50": keras.applications.ResNet50,
    "efficientnet_b3": keras.applications.EfficientNetB3,
    "vgg16": keras.applications.VGG16,
}
RECIPES: dict[str, tuple[str, dict[str, str]]] = {}
for _name in NAMED:
    RECIPES |= {
        f"{_name} {backbone}": (_name, {**SCRATCH, "backbone": backbone}) for backbone in BACKBONE_NAMES
    }
    RECIPES[f"{_name} pretrained"] = (_name, {"backbone": "mobilenet_v2"})
    for _combine in ("concatenate", "average"):
        RECIPES[f"{_name} {_combine}"] = (_name, {**SCRATCH, **ENSEMBLE, "combine": _combine})


def recipe_of(key: str) -> Recipe:
    name, values = RECIPES[key]
    return make_recipe({**named_settings(name), **SHORT, **values})


@pytest.fixture(scope="module")
def cells(cnmc_few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells of each of the 28 subjects of fold 0."""
    folder = tmp_path_factory.mktemp("fold_0")
    shutil.copytree(cnmc_few / "fold_0", folder / "fold_0")
    return folder


@pytest.fixture(scope="module")
def worked(
    cells: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[sa.Engine, Settings, dict[str, int]]]:
    """All runs, done by one worker process, by their names in RECIPES."""
    home = tmp_path_factory.mktemp("every_recipe") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLREVIEW_HOME", str(home))
        patch.setenv("ALLREVIEW_WEIGHTS", str(weights))
        patch.delenv("ALLREVIEW_DATABASE_URL", raising=False)
        settings = current_settings()
        engine = open_store(settings)
        try:
            dataset = import_cells(engine, settings, cells, dataset="C-NMC").dataset_id
            ids = jobs.submit_all(engine, settings, dataset, [recipe_of(key) for key in RECIPES])
            for run_id in ids:
                workers.wait_for(engine, run_id, lambda run: not run.unfinished, patience=900)
            yield engine, settings, dict(zip(RECIPES, ids, strict=True))
        finally:
            workers.kill_workers(home)
            engine.dispose()


@pytest.mark.parametrize("key", RECIPES)
def test_a_worker_brings_every_recipe_to_its_end(
    worked: tuple[sa.Engine, Settings, dict[str, int]], key: str
) -> None:
    engine, settings, runs = worked
    run = check(engine, settings, runs[key])
    assert run.recipe == recipe_of(key)
    if run.recipe.members:
        # The members are the very runs of single backbones that were asked for beside it.
        name = key.split(maxsplit=1)[0]
        assert run.members == [runs[f"{name} resnet50"], runs[f"{name} efficientnet_b3"]]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """A weights folder with files of the published names and format; their numbers are random."""
    folder = tmp_path_factory.mktemp("published")
    for name, application in APPLICATIONS.items():
        model = application(include_top=False, weights=None, input_shape=(64, 64, 3))
        with h5py.File(folder / pretrained.WEIGHT_FILES[name].name, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    real = pretrained.WEIGHT_FILES["mobilenet_v2"].name
    shutil.copy(weights / real, folder / real)
    return folder


@pytest.mark.parametrize(
    "values",
    [*({"backbone": name} for name in APPLICATIONS), ENSEMBLE, {**ENSEMBLE, "combine": "average"}],
    ids=str,
)
def test_frozen_backbones_from_files_of_the_published_format(
    sqlite_engine: sa.Engine,
    cells: Path,
    published: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, str],
) -> None:
    """The worker's steps one after the other, in this process: their files would fail the MD5 check elsewhere."""
    ours = {
        name: replace(file, md5=md5((published / file.name).read_bytes()).hexdigest())
        for name, file in pretrained.WEIGHT_FILES.items()
    }
    monkeypatch.setattr(pretrained, "WEIGHT_FILES", ours)
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(published))
    monkeypatch.setattr(jobs, "ensure_worker", lambda _settings: False)
    settings = current_settings()
    dataset = import_cells(sqlite_engine, settings, cells, dataset="C-NMC").dataset_id
    recipe = make_recipe({**named_settings("paper"), **SHORT, **values})
    run_id = jobs.submit(sqlite_engine, settings, dataset_id=dataset, recipe=recipe)
    with db.reading(sqlite_engine) as session:
        members = get_run(session, run_id).members
    for number in (*members, run_id):
        work_through(sqlite_engine, settings, number, averaged=number == run_id and bool(members))
        check(sqlite_engine, settings, number)


def work_through(engine: sa.Engine, settings: Settings, run_id: int, *, averaged: bool) -> None:
    if averaged:
        averaging.average(engine, settings, run_id)
    else:
        pipeline.compute_features(engine, settings, run_id)
        pipeline.fit(engine, settings, run_id)
    evaluating.evaluate_run(engine, settings, run_id)
    keeping.keep(engine, settings, run_id)
    explaining.explain_run(engine, settings, run_id)
    with db.writing(engine) as session:
        session.execute(sa.update(Run).where(Run.id == run_id).values(state="finished"))


def check(engine: sa.Engine, settings: Settings, run_id: int) -> RunRow:
    """A finished run: sane figures, a model that says what the store says, and a whole folder."""
    with db.reading(engine) as session:
        run = get_run(session, run_id)
        cells = lines(session, run.snapshot_id)
        stored = {
            row.cell_id: row.probabilities
            for row in session.scalars(sa.select(Prediction).where(Prediction.run_id == run_id))
        }
    assert (run.state, run.message) == ("finished", None)
    assert len(run.epochs) == (0 if run.members else 2)
    assert all(np.isfinite([row[name] for row in run.history for name in ("loss", "val_loss")]))
    assert stored.keys() == {cell.cell_id for cell in cells}
    for part in ("train", "validation", "test"):
        scores = run.metrics[part]
        assert scores["n"] == sum(cell.part == part for cell in cells) > 0
        assert 0 <= scores["accuracy"] <= 1
        assert sum(map(sum, scores["confusion"]["matrix"])) == scores["n"]
    assert run.metrics["split"]["test_cells_of_trained_subjects"] == 0
    folder = settings.run_folder(run_id)
    model = load_model(folder)
    assert model.classes == ["all", "hem"]
    assert (run.temperature or 1.0) == model.temperature
    _same_as_stored(model, folder, stored, {cell.sha256: cell.cell_id for cell in cells})
    assert from_text((folder / "recipe.yaml").read_text()) == run.recipe
    assert (folder / "history.csv").is_file() == (not run.members)
    for name in ("confusion", "roc", "precision-recall", "reliability", "subjects"):
        assert (folder / "figures" / f"{name}.html").is_file()
    card = (folder / "model-card.md").read_text()
    assert f"run {run_id}" in card.splitlines()[0]
    assert "not a diagnostic device" in card
    assert list((folder / "saliency" / "gradcam_plus_plus").glob("*.png"))
    assert not list(folder.rglob("*.part"))
    return run


def _same_as_stored(model, folder: Path, stored: dict[int, dict[str, float]], ids: dict[str, int]) -> None:
    """The saved model, and its weights in a graph built anew, say of a few cells what was stored of them."""
    from allreview.cells.decoding import read_rgb

    with (folder / "snapshot.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:4]
    pixels = model.prepare([read_rgb(Path(row["path"]), 10**8) for row in rows])
    expected = [[stored[ids[row["sha256"]]][name] for name in model.classes] for row in rows]
    np.testing.assert_allclose(model.probabilities(pixels), expected, atol=2e-4)
    again = keras.models.clone_model(model.model)
    again.load_weights(folder / "model.weights.h5")
    np.testing.assert_allclose(np.asarray(again(model.inputs(pixels), training=False)), expected, atol=2e-4)
