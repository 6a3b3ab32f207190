"""A few real cells, and a run whose model was saved without being trained."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.cells.importing import import_cells
from allreview.recipe import make_recipe
from allreview.settings import current_settings
from db.tables import Run
from tests.factory import Store, finished_run

RECIPE = {"image_size": 64, "dense_units": 8}


@pytest.fixture(scope="session")
def few(cnmc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cells of each of 12 real subjects, half of them normal, in the published layout."""
    folder = tmp_path_factory.mktemp("few") / "cells"
    for label in ("all", "hem"):
        by_subject: dict[str, list[Path]] = {}
        for path in sorted((cnmc / "fold_0" / label).iterdir()):
            by_subject.setdefault(path.name.split("_")[1], []).append(path)
        for subject in sorted(by_subject)[:6]:
            for path in by_subject[subject][:2]:
                target = folder / path.relative_to(cnmc)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    return folder


@pytest.fixture(scope="session")
def saved_model(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """A function that puts a saved MobileNetV2 with an untrained head into a folder; gives its hash."""
    import keras

    from allreview.models.building import build_model
    from allreview.models.saving import save_model

    keras.utils.set_random_seed(0)
    recipe = make_recipe(RECIPE)
    model = build_model(recipe, ["all", "hem"], {"mobilenet_v2": next(weights.glob("mobilenet_v2*.h5"))})
    made = tmp_path_factory.mktemp("model")
    digest = save_model(made, model, recipe=recipe, classes=["all", "hem"], weights_hash="0" * 64)

    def put(folder: Path) -> str:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        return digest

    return put


@pytest.fixture
def run_with_model(sqlite_engine: sa.Engine, few: Path, saved_model: Callable[[Path], str]) -> int:
    """A finished run on the few cells: every cell predicted as `all`, and a model that can predict."""
    settings = current_settings()
    dataset = import_cells(sqlite_engine, settings, few, dataset="few").dataset_id
    with db.reading(sqlite_engine) as session:
        rows = session.execute(sa.text("select id, subject_id from cells order by id"))
        cells: dict[str, list[int]] = {}
        for cell, subject in rows:
            cells.setdefault(str(subject), []).append(cell)
    parts = {}
    for number, (_, ids) in enumerate(cells.items()):
        parts |= dict.fromkeys(ids, ("train", "train", "validation", "test")[number % 4])
    run = finished_run(
        sqlite_engine,
        Store(dataset, cells, 0, 0),
        {cell: ("all", 0.75) for ids in cells.values() for cell in ids},
        parts=parts,
        recipe=make_recipe(RECIPE),
    )
    digest = saved_model(settings.run_folder(run))
    with db.writing(sqlite_engine) as session:
        session.execute(sa.update(Run).where(Run.id == run).values(model_hash=digest))
    return run
