"""An averaged ensemble's run: it waits for its members, refuses what is no use, and is the mean of the rest."""

import threading
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.models.building import build_model
from allreview.models.saving import TrainedModel, load_model, save_model
from allreview.recipe import Recipe, make_recipe
from allreview.settings import current_settings
from allreview.training import averaging
from allreview.training.epochs import StopRequested
from db.tables import Run
from tests.factory import Store, add_run, finished_run, small_store

RECIPE = make_recipe(
    {
        "backbone": "alexnet",
        "partner": "mobilenet_v2",
        "combine": "average",
        "weights": "none",
        "mode": "finetune",
        "image_size": 64,
    }
)
CLASSES = ["all", "hem"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two saved models from scratch, by backbone."""
    folders = {}
    for recipe in RECIPE.members:
        model = build_model(recipe, CLASSES, {})
        kernel = np.random.default_rng(1).normal(0, 1, (256, 2))
        model.get_layer("probabilities").set_weights([kernel, np.zeros(2)])
        folders[recipe.backbone] = tmp_path_factory.mktemp(recipe.backbone)
        save_model(folders[recipe.backbone], model, recipe=recipe, classes=CLASSES, weights_hash=None)
    return folders


@pytest.fixture
def store(sqlite_engine: sa.Engine) -> Store:
    return small_store(sqlite_engine)


def member_runs(engine: sa.Engine, store: Store, shares: tuple[float, float] = (0.9, 0.5)) -> list[int]:
    """Finished runs of RECIPE's members on one snapshot, each with one probability of `all` for every cell."""
    cells = [cell for found in store.cells.values() for cell in found]
    runs = [
        finished_run(engine, store, dict.fromkeys(cells, ("all", share)), recipe=recipe)
        for recipe, share in zip(RECIPE.members, shares, strict=True)
    ]
    with db.writing(engine) as session:
        snapshot = session.get_one(Run, runs[0]).snapshot_id
        session.execute(sa.update(Run).where(Run.id == runs[1]).values(snapshot_id=snapshot))
    return runs


def ensemble_run(engine: sa.Engine, members: list[int], recipe: Recipe = RECIPE) -> int:
    with db.writing(engine) as session:
        snapshot = session.get_one(Run, members[0]).snapshot_id
        return add_run(session, snapshot, recipe, members=members, state="running").id


def change(engine: sa.Engine, run_id: int, **values: object) -> None:
    with db.writing(engine) as session:
        session.execute(sa.update(Run).where(Run.id == run_id).values(**values))


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every pause of the waiting run."""
    pauses: list[float] = []
    monkeypatch.setattr(averaging, "_LOOK_EVERY", 0.05)
    sleep = averaging.time.sleep
    monkeypatch.setattr(averaging.time, "sleep", lambda seconds: (pauses.append(seconds), sleep(seconds)))
    return pauses


@pytest.mark.slow
def test_the_saved_model_is_the_mean_of_the_members(sqlite_engine, store, models, home):
    settings = current_settings()
    members = member_runs(sqlite_engine, store)
    for run_id, recipe in zip(members, RECIPE.members, strict=True):
        settings.run_folder(run_id).parent.mkdir(parents=True, exist_ok=True)
        settings.run_folder(run_id).symlink_to(models[recipe.backbone])
        change(sqlite_engine, run_id, weights_hash="ab" * 32)
    run_id = ensemble_run(sqlite_engine, members[::-1])  # whatever order they are listed in
    averaging.average(sqlite_engine, settings, run_id)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    parts = [load_model(folder).probabilities(pixels) for folder in models.values()]
    loaded: TrainedModel = load_model(settings.run_folder(run_id))
    np.testing.assert_allclose(loaded.probabilities(pixels), np.mean(parts, axis=0), atol=1e-6)
    with db.reading(sqlite_engine) as session:
        run = session.get_one(Run, run_id)
        assert len(run.model_hash or "") == len(run.weights_hash or "") == 64
        assert run.weights_hash != "ab" * 32


def test_it_waits_until_the_last_member_is_finished(sqlite_engine, store, home, patience):
    members = member_runs(sqlite_engine, store)
    change(sqlite_engine, members[1], state="running")
    run_id = ensemble_run(sqlite_engine, members)
    threading.Timer(0.4, change, (sqlite_engine, members[1]), {"state": "finished"}).start()
    with pytest.raises(UserError, match=f"run {members[0]}, cannot be used: There is no trained model"):
        averaging.average(sqlite_engine, current_settings(), run_id)
    assert 1 <= len(patience) < 30
    with db.reading(sqlite_engine) as session:
        run = session.get_one(Run, run_id)
        assert (run.stage, run.done, run.total) == ("members", 2, 2)


def test_stop_ends_the_wait(sqlite_engine, store, home, patience):
    members = member_runs(sqlite_engine, store)
    change(sqlite_engine, members[0], state="queued")
    run_id = ensemble_run(sqlite_engine, members)
    threading.Timer(0.3, change, (sqlite_engine, run_id), {"stop_requested": True}).start()
    with pytest.raises(StopRequested):
        averaging.average(sqlite_engine, current_settings(), run_id)
    assert patience


@pytest.mark.parametrize(
    ("state", "message", "words"),
    [
        ("stopped", None, r"run 2 \(MobileNetV2\), was stopped: train the ensemble again"),
        (
            "failed",
            "The disk is full.",
            r"run 2 \(MobileNetV2\), failed \(The disk is full\): put that right",
        ),
    ],
)
def test_a_member_that_has_no_model_ends_it_in_words(sqlite_engine, store, home, state, message, words):
    members = member_runs(sqlite_engine, store)
    assert members == [1, 2]
    change(sqlite_engine, members[0], state="queued")
    change(sqlite_engine, members[1], state=state, message=message)
    run_id = ensemble_run(sqlite_engine, members)
    with pytest.raises(UserError, match=words):
        averaging.average(sqlite_engine, current_settings(), run_id)


def test_members_of_another_recipe_or_snapshot_are_refused(sqlite_engine, store, home):
    members = member_runs(sqlite_engine, store)
    cells = [cell for found in store.cells.values() for cell in found]
    elsewhere = finished_run(
        sqlite_engine, store, dict.fromkeys(cells, ("all", 0.7)), recipe=RECIPE.members[1]
    )
    for wrong in ([members[0], elsewhere], [members[0], members[0]]):
        run_id = ensemble_run(sqlite_engine, wrong)
        with pytest.raises(UserError, match="not trained by its recipe on its cells"):
            averaging.average(sqlite_engine, current_settings(), run_id)


def test_probabilities_are_the_mean_of_the_stored_ones(sqlite_engine, store):
    members = member_runs(sqlite_engine, store, shares=(0.9, 0.5))
    run_id = ensemble_run(sqlite_engine, members)
    cells = store.cells["H1"][::-1] + store.cells["1"]
    found = averaging.probabilities(sqlite_engine, run_id, cells)
    assert (found.shape, found.dtype) == ((len(cells), 2), np.float32)
    np.testing.assert_allclose(found, np.tile([0.7, 0.3], (len(cells), 1)), atol=1e-6)
    with pytest.raises(UserError, match=r"no prediction for 1 of the cells"):
        averaging.probabilities(sqlite_engine, run_id, [*cells, 999])
