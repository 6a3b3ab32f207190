"""A run whose predictions are a mean over the ways a cell can lie says the same everywhere, and from the cache."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview.cells.drawing import draw_cell, subject_stain
from allreview.evaluation.calibration import tempered
from allreview.models.backbones import BACKBONES
from allreview.models.saving import load_model
from allreview.recipe import Recipe, make_recipe
from allreview.review import rankings
from allreview.review.saliency import overlays
from allreview.review.saliency.methods import heatmaps
from allreview.settings import current_settings
from allreview.training import explaining, features, inference, pipeline, ranking, snapshots
from allreview.training.evaluating import evaluate_run
from allreview.training.features import read_cell
from allreview.training.views import SYMMETRIES, CellImage
from db.tables import Cell, CellFile, Prediction
from tests.factory import Store, add_run, small_store

TEMPERATURE = 1.7
FEATURES = make_recipe(
    {
        "image_size": 64,
        "crop": 300,
        "epochs": 3,
        "learning_rate": 0.01,
        "quarter_turns": True,
        "test_time_augmentation": "symmetries",
    }
)
FINETUNE = FEATURES.model_copy(update={"mode": "finetune"})


def small_network(shape: tuple[int, int, int]) -> keras.Model:
    pixels = keras.Input(shape)
    seen = keras.layers.Conv2D(12, 5, strides=4, activation="relu")(pixels)
    return keras.Model(pixels, keras.layers.Conv2D(16, 3, activation="relu")(seen))


@pytest.fixture
def drawn(sqlite_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Twenty cells of ten subjects, with files. The backbone is a small one, and calibration divides by a temperature
    of its own."""
    network = replace(BACKBONES["mobilenet_v2"], graph=small_network, after_loading=None)
    monkeypatch.setitem(BACKBONES, "mobilenet_v2", network)
    weights = tmp_path / "small.weights.h5"
    small_network((64, 64, 3)).save_weights(weights)
    for module in (pipeline, ranking):
        monkeypatch.setattr(module, "weights_of", lambda *_: {"mobilenet_v2": weights})
    monkeypatch.setenv("ALLREVIEW_ENGINE", "tensorflow")
    monkeypatch.setattr(pipeline, "fit_temperature", lambda *_: TEMPERATURE)
    subjects = {f"{n}": ("all", 2) for n in range(1, 6)} | {f"H{n}": ("hem", 2) for n in range(1, 6)}
    store = small_store(sqlite_engine, subjects)
    with db.writing(sqlite_engine) as session:
        for cell in session.scalars(sa.select(Cell)):
            path = tmp_path / f"{cell.id}.bmp"
            random = np.random.default_rng(cell.id)
            draw_cell(random, subject_stain(random), blast=cell.source_label == "all").save(path)
            cell.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            session.execute(sa.update(CellFile).where(CellFile.cell_id == cell.id).values(path=str(path)))
    return store


def submitted(engine: sa.Engine, store: Store, recipe: Recipe) -> int:
    with db.writing(engine) as session:
        snapshot = snapshots.freeze(session, store.dataset, recipe)
        return add_run(session, snapshot.id, recipe, state="running").id


def said(engine: sa.Engine, run_id: int) -> dict[int, list[float]]:
    query = sa.select(Prediction.cell_id, Prediction.probabilities).where(Prediction.run_id == run_id)
    with db.reading(engine) as session:
        return {cell: [row["all"], row["hem"]] for cell, row in session.execute(query)}


def cells_of(engine: sa.Engine) -> dict[int, CellImage]:
    query = sa.select(Cell.id, Cell.sha256, CellFile.path).join(CellFile).order_by(Cell.id)
    with db.reading(engine) as session:
        return {number: CellImage(sha256, Path(path)) for number, sha256, path in session.execute(query)}


def check_it_says_the_same_everywhere(engine: sa.Engine, run_id: int, recipe: Recipe) -> None:
    stored, cells, settings = said(engine, run_id), cells_of(engine), current_settings()
    model = load_model(settings.run_folder(run_id))
    assert model.temperature == TEMPERATURE
    pixels = np.stack([read_cell(cell, recipe, 10**8) for cell in cells.values()])
    # The plain way: eight pictures of each cell, each through the network as it would be without a mean.
    each = [
        view.of(one, cell, recipe)
        for view in SYMMETRIES
        for one, cell in zip(pixels, cells.values(), strict=True)
    ]
    single: Any = model.of_one_way(model.inputs(np.stack(each)), training=False)
    single = np.asarray(single).reshape(8, len(cells), 2)
    assert single.std(axis=0).max() > 1e-3
    expected = tempered(single.mean(axis=0), TEMPERATURE)
    np.testing.assert_allclose([stored[number] for number in cells], expected, atol=1e-4)
    np.testing.assert_allclose(model.probabilities(pixels), expected, atol=1e-4)


def test_on_features_all_is_said_from_the_cache(sqlite_engine, drawn, monkeypatch):
    """What the first step computes is all that a run needs, and that another run with fewer views needs."""
    run_id = submitted(sqlite_engine, drawn, FEATURES)
    pipeline.compute_features(sqlite_engine, current_settings(), run_id)
    with monkeypatch.context() as patch:

        def refuse(*_):
            raise AssertionError("a cell went through the backbone")

        patch.setattr(features.FrozenBackbone, "__call__", refuse)
        patch.setattr(features, "read_cell", refuse)
        fewer = FEATURES.model_copy(update={"flip": False, "test_time_augmentation": "flip"})
        pipeline.compute_features(sqlite_engine, current_settings(), submitted(sqlite_engine, drawn, fewer))
        pipeline.fit(sqlite_engine, current_settings(), run_id)
        evaluate_run(sqlite_engine, current_settings(), run_id)
    check_it_says_the_same_everywhere(sqlite_engine, run_id, FEATURES)


def test_end_to_end_a_heat_map_and_neighbours_are_of_the_cell_as_it_lies(sqlite_engine, drawn):
    run_id = submitted(sqlite_engine, drawn, FINETUNE)
    pipeline.fit(sqlite_engine, current_settings(), run_id)
    evaluate_run(sqlite_engine, current_settings(), run_id)
    check_it_says_the_same_everywhere(sqlite_engine, run_id, FINETUNE)
    settings, number = current_settings(), drawn.cells["1"][0]
    explaining.explain_cells(sqlite_engine, settings, run_id, "gradcam", [number])
    cell, (p_all, p_hem) = cells_of(sqlite_engine)[number], said(sqlite_engine, run_id)[number]
    (new,) = inference.predict_files(settings, run_id, [cell.path])
    assert new["probabilities"] == pytest.approx({"all": p_all, "hem": p_hem}, abs=1e-4)
    model = load_model(settings.run_folder(run_id))
    pixels = read_cell(cell, FINETUNE, 10**8)[None]
    expected = heatmaps(model.of_one_way, model.inputs(pixels), [int(p_hem > p_all)], "gradcam")[0]
    found = overlays.load_heatmap(settings, run_id, "gradcam", cell.sha256)
    assert found is not None
    np.testing.assert_allclose(found, expected, atol=0.01)  # it is stored in 8 bits
    ranking.rank(sqlite_engine, settings, run_id)
    near = rankings.neighbours(settings, run_id)
    assert near is not None
    assert near.positions.shape == (20, 15)
