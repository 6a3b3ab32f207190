"""Heat maps of a run's queue and on demand, by a small network on drawn cells."""

import hashlib
from pathlib import Path

import keras
import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview.cells.decoding import read_rgb
from allreview.cells.drawing import draw_cell, subject_stain
from allreview.errors import UserError
from allreview.models.saving import load_model, save_model
from allreview.recipe import Recipe
from allreview.review.queues import queue_of
from allreview.review.saliency import overlays
from allreview.review.saliency.methods import heatmaps
from allreview.settings import Settings, current_settings
from allreview.training import explaining, workflows
from db.tables import Cell, CellFile, Run
from tests.factory import Store, finished_run, small_store

RECIPE = Recipe(image_size=64, crop=300)


@pytest.fixture
def drawn(sqlite_engine: sa.Engine, tmp_path: Path) -> Store:
    """Six cells with files, three of each class."""
    store = small_store(sqlite_engine, {"1": ("all", 3), "H1": ("hem", 3)})
    with db.writing(sqlite_engine) as session:
        for cell in session.scalars(sa.select(Cell)):
            path = tmp_path / f"{cell.id}.bmp"
            stain = subject_stain(np.random.default_rng(cell.id))
            draw_cell(np.random.default_rng(cell.id), stain, blast=cell.source_label == "all").save(path)
            cell.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            session.execute(sa.update(CellFile).where(CellFile.cell_id == cell.id).values(path=str(path)))
    return store


@pytest.fixture
def run(sqlite_engine: sa.Engine, drawn: Store) -> int:
    """A run that is wrong about each cell, the less sure the later the cell; its network's weights are drawn."""
    wrong = {"1": "hem", "H1": "all"}
    cells = [(cell, wrong[subject]) for subject in drawn.cells for cell in drawn.cells[subject]]
    predictions = {cell: (label, 0.95 - 0.05 * place) for place, (cell, label) in enumerate(cells)}
    number = finished_run(sqlite_engine, drawn, predictions, recipe=RECIPE)
    _save_network(current_settings().run_folder(number))
    return number


def _save_network(folder: Path) -> None:
    pixels = keras.Input((RECIPE.image_size, RECIPE.image_size, 3))
    kernels = [keras.initializers.GlorotNormal(seed=seed) for seed in (1, 2)]
    convolution = keras.layers.Conv2D(8, 5, strides=4, activation="relu")
    classes = keras.layers.Dense(2, activation="softmax")
    model = keras.Model(pixels, classes(keras.layers.GlobalAveragePooling2D()(convolution(pixels))))
    for layer, drawn_by in ((convolution, kernels[0]), (classes, kernels[1])):
        kernel, bias = layer.get_weights()
        kernel = np.asarray(drawn_by(kernel.shape))
        # Every feature speaks for each class, the one more, the other less: no map is cold.
        layer.set_weights([np.abs(kernel) if layer is classes else kernel, bias])
    save_model(folder, model, recipe=RECIPE, classes=["all", "hem"], weights_hash=None)


def _head(engine: sa.Engine, run: int, settings: Settings) -> list[tuple[int, str, str]]:
    with db.reading(engine) as session:
        head = queue_of(session, run, parts=("train", "validation"), settings=settings)
    return [(entry.cell_id, entry.sha256, entry.predicted) for entry in head]


def test_the_head_of_the_queue_is_explained_by_both_methods(
    sqlite_engine: sa.Engine, run: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explaining, "HEAD", 4)
    settings = current_settings()
    explaining.explain_run(sqlite_engine, settings, run)
    head = _head(sqlite_engine, run, settings)
    assert len(head) == 6
    trained = load_model(settings.run_folder(run))
    for method in ("gradcam", "gradcam_plus_plus"):
        made = {path.stem for path in (settings.run_folder(run) / "saliency" / method).iterdir()}
        assert made == {sha for _, sha, _ in head[:4]}
        for cell, sha, predicted in head[:4]:
            pixels = trained.prepare([read_rgb(tmp_path / f"{cell}.bmp", settings.max_pixels)])
            target = trained.classes.index(predicted)
            (alone,) = heatmaps(trained.model, trained.inputs(pixels), [target], method)
            kept = overlays.load_heatmap(settings, run, method, sha)
            assert kept is not None
            assert kept.max() == 1
            np.testing.assert_allclose(kept, alone, atol=0.01)


def test_a_changed_or_missing_file_holds_up_no_other_cell(
    sqlite_engine: sa.Engine, run: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = current_settings()
    head = _head(sqlite_engine, run, settings)
    (gone, gone_sha, _), (changed, changed_sha, _), *others = head
    (tmp_path / f"{gone}.bmp").unlink()
    (tmp_path / f"{others[0][0]}.bmp").rename(tmp_path / "kept.bmp")
    (tmp_path / f"{changed}.bmp").rename(tmp_path / f"{others[0][0]}.bmp")
    (tmp_path / "kept.bmp").rename(tmp_path / f"{changed}.bmp")
    explaining.explain_cells(sqlite_engine, settings, run, "gradcam", [cell for cell, _, _ in head])
    left_out = overlays.missing(settings, run, "gradcam", [sha for _, sha, _ in head])
    assert left_out == [gone_sha, changed_sha, others[0][1]]
    assert "the file is gone" in caplog.text
    assert "not the one that was imported" in caplog.text


def test_what_is_there_is_not_made_again(sqlite_engine: sa.Engine, run: int) -> None:
    settings = current_settings()
    (first, sha, _), (second, other, _) = _head(sqlite_engine, run, settings)[:2]
    overlays.save_heatmap(settings, run, "gradcam", sha, np.full((64, 64), 0.5))
    explaining.explain_cells(sqlite_engine, settings, run, "gradcam", [first, second])
    kept = overlays.load_heatmap(settings, run, "gradcam", sha)
    assert kept is not None
    assert set(np.unique(kept)) == {np.float32(128 / 255)}
    assert overlays.load_heatmap(settings, run, "gradcam", other) is not None


def test_a_model_that_was_missing_is_looked_for_again(sqlite_engine: sa.Engine, run: int) -> None:
    settings = current_settings()
    ((cell, sha, _), *_) = _head(sqlite_engine, run, settings)
    model = settings.run_folder(run) / "model.keras"
    model.rename(model.with_suffix(".away"))
    with pytest.raises(UserError, match="no trained model"):
        explaining.explain_cells(sqlite_engine, settings, run, "gradcam", [cell])
    model.with_suffix(".away").rename(model)
    explaining.explain_cells(sqlite_engine, settings, run, "gradcam", [cell])
    assert not overlays.missing(settings, run, "gradcam", [sha])


def test_a_run_that_cannot_be_explained_stays_finished(sqlite_engine: sa.Engine, run: int) -> None:
    (current_settings().run_folder(run) / "model.json").unlink()
    workflows.explain_step(run)
    with db.reading(sqlite_engine) as session:
        assert session.get_one(Run, run).state == "finished"
