"""Train: the form, the split before anything starts, and what a run shows."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

import db
from allreview.evaluation.naming import SHARED_PATIENTS
from allreview.recipe import Recipe, make_recipe
from allreview.recipes import as_yaml, named_settings
from allreview.settings import current_settings
from allreview.store import open_store
from allreview.training import jobs, snapshots
from allreview.training.runs import list_runs
from db.tables import Run
from tests.factory import finished_run, small_store

APP = str(Path(__file__).parent.parent.parent / "app.py")


def train_page(**query: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run().switch_page("pages/train.py").run()
    assert not app.exception
    return app


def text_of(app: AppTest) -> str:
    return " ".join(
        element.value for kind in (app.markdown, app.caption, app.info, app.error) for element in kind
    )


@pytest.fixture
def no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the page; no process is started for them."""
    monkeypatch.setattr(jobs, "ensure_worker", lambda _settings: False)


def test_an_empty_store_says_where_cells_come_from(sqlite_engine: sa.Engine) -> None:
    app = train_page()
    assert any(button.label == "Load the synthetic demo set" for button in app.button)
    assert not any(button.label == "Start training" for button in app.button)


def test_the_split_is_shown_before_anything_starts(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    app = train_page()
    table = app.dataframe[0].value
    with db.reading(sqlite_engine) as session:
        counts = snapshots.preview(session, store.dataset, Recipe())
    assert table.loc["Test", "ALL"] == counts["test", "all"]
    assert int(table.to_numpy().sum()) == 40
    assert "No runs yet" in text_of(app)


def test_too_few_subjects_are_said_in_one_sentence(sqlite_engine: sa.Engine) -> None:
    small_store(sqlite_engine, {"1": ("all", 3), "H1": ("hem", 3)})
    app = train_page()
    assert len(app.warning) == 1
    assert app.button(key="start_training").disabled


def test_alexnet_has_no_choice_of_weights(sqlite_engine: sa.Engine) -> None:
    small_store(sqlite_engine)
    app = train_page()
    app.selectbox(key="recipe-backbone").select("alexnet").run()
    assert not app.exception
    assert "trained from scratch" in text_of(app)


def test_start_enqueues_one_run_by_the_recipe_chosen(
    sqlite_engine: sa.Engine, weights: Path, monkeypatch: pytest.MonkeyPatch, no_worker: None
) -> None:
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    small_store(sqlite_engine)
    app = train_page()
    app.slider(key="recipe-epochs").set_value(7).run()
    app.button(key="start_training").click().run()
    assert not app.exception
    with db.reading(sqlite_engine) as session:
        (run,) = list_runs(session)
    assert (run.state, run.recipe.epochs, run.recipe.backbone) == ("queued", 7, "mobilenet_v2")
    assert any(button.label == "Stop" for button in app.button)
    app.button(key=f"stop-{run.id}").click().run()
    with db.reading(sqlite_engine) as session:
        assert list_runs(session)[0].state == "stopped"


def test_missing_weights_ask_and_never_start_by_themselves(
    sqlite_engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_worker: None
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    small_store(sqlite_engine)
    app = train_page()
    app.button(key="start_training").click().run()
    assert not app.exception
    assert any(button.label == "Train from scratch" for button in app.button)
    with db.reading(sqlite_engine) as session:
        assert list_runs(session) == []
    app.button(key="from_scratch").click().run()
    with db.reading(sqlite_engine) as session:
        (run,) = list_runs(session)
    assert (run.recipe.weights, run.recipe.mode) == ("none", "finetune")


def test_several_heads_are_for_frozen_networks_only(
    sqlite_engine: sa.Engine, weights: Path, no_worker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    small_store(sqlite_engine)
    app = train_page()
    heads = app.number_input(key="recipe-heads")
    assert heads.label == "Heads side by side"
    assert heads.value == named_settings("quick")["heads"]
    app.button(key="start_training").click().run()
    app.segmented_control(key="recipe-mode").set_value("finetune").run()
    assert not app.exception
    assert not any(box.key == "recipe-heads" for box in app.number_input)
    app.button(key="start_training").click().run()
    assert not app.exception
    with db.reading(sqlite_engine) as session:
        whole, frozen = [run.recipe for run in list_runs(session)]
    assert (frozen.mode, frozen.n_heads) == ("features", 5)
    assert (whole.mode, whole.n_heads) == ("finetune", 1)


def started(engine: sa.Engine, app: AppTest) -> list[Recipe]:
    """The recipes of the runs that pressing Start makes, in order."""
    app.button(key="start_training").click().run()
    assert not app.exception
    with db.reading(engine) as session:
        return [run.recipe for run in reversed(list_runs(session))]


@pytest.fixture
def ready(
    sqlite_engine: sa.Engine, weights: Path, monkeypatch: pytest.MonkeyPatch, no_worker: None
) -> sa.Engine:
    """A small store, MobileNetV2's weights, and no worker."""
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    small_store(sqlite_engine)
    return sqlite_engine


def test_a_named_recipe_fills_the_form_and_keeps_the_backbone(ready: sa.Engine) -> None:
    app = train_page()
    app.selectbox(key="named_recipe").select("paper").run()
    assert started(ready, app) == [make_recipe(named_settings("paper"))]


def test_what_is_chosen_under_more_settings_is_what_runs(ready: sa.Engine) -> None:
    app = train_page()
    app.slider(key="recipe-rotation").set_value(90).run()
    app.checkbox(key="recipe-crop-on").check().run()
    app.checkbox(key="recipe-patience-on").check().run()
    app.selectbox(key="recipe-schedule").select("cosine").run()
    (recipe,) = started(ready, app)
    assert (recipe.rotation, recipe.crop, recipe.patience, recipe.schedule) == (90, 300, 5, "cosine")


def test_a_contradiction_is_one_sentence_and_nothing_can_be_started(ready: sa.Engine) -> None:
    app = train_page()
    app.number_input(key="recipe-warmup_epochs").set_value(30).run()
    assert "warmup" in app.error[0].value
    assert not any(button.key == "start_training" for button in app.button)


def test_both_ways_are_two_runs_and_say_what_is_shared(ready: sa.Engine) -> None:
    app = train_page()
    app.selectbox(key="testing").select("both").run()
    assert SHARED_PATIENTS in text_of(app)
    assert [recipe.split for recipe in started(ready, app)] == ["leak_group", "image"]


def test_folds_are_one_run_each(ready: sa.Engine) -> None:
    app = train_page()
    app.selectbox(key="testing").select("cross_validation").run()
    app.number_input(key="testing-folds").set_value(3).run()
    assert [(recipe.folds, recipe.fold) for recipe in started(ready, app)] == [(3, 0), (3, 1), (3, 2)]


def test_a_dataset_without_folds_of_its_own_says_so(ready: sa.Engine) -> None:
    app = train_page()
    app.selectbox(key="testing").select("dataset_folds").run()
    assert "no folds of its own" in app.warning[0].value


def test_a_mean_of_two_models_is_two_runs_and_their_mean(ready: sa.Engine) -> None:
    app = train_page()
    app.selectbox(key="recipe-partner").select("alexnet").run()
    app.segmented_control(key="recipe-combine").set_value("average").run()
    recipes = started(ready, app)
    assert [recipe.backbones for recipe in recipes] == [
        ("mobilenet_v2",),
        ("alexnet",),
        ("mobilenet_v2", "alexnet"),
    ]
    assert {(recipe.weights, recipe.mode) for recipe in recipes} == {("none", "finetune")}


def test_figures_of_shared_patients_are_never_shown_without_the_mark(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    cells = [cell for found in store.cells.values() for cell in found]
    run = finished_run(
        sqlite_engine,
        store,
        {cell: ("all", 0.5 + place / 100) for place, cell in enumerate(cells)},
        parts=dict.fromkeys(cells, "test"),
        recipe=Recipe(split="image"),
    )
    app = train_page(run=str(run))
    assert SHARED_PATIENTS in app.warning[0].value.lower()
    for section in ("Curves", "Subjects", "All figures"):
        app.segmented_control(key=f"section-{run}").set_value(section).run()
        assert not app.exception
        assert not app.error
    assert SHARED_PATIENTS in text_of(app).lower()
    assert "patients shared" in app.selectbox(key="run").options[0]


@pytest.mark.parametrize(
    ("state", "message", "expected"),
    [
        ("failed", "The disk is full.", "The disk is full."),
        ("stopped", None, "Stopped on request. No epoch was completed."),
    ],
)
def test_how_a_run_ended_is_said(
    sqlite_engine: sa.Engine, state: str, message: str | None, expected: str
) -> None:
    run = finished_run(sqlite_engine, small_store(sqlite_engine), {})
    with db.writing(sqlite_engine) as session:
        found = session.get_one(Run, run)
        found.state, found.message = state, message
    assert expected in text_of(train_page())


@pytest.mark.real
def test_a_finished_run_shows_its_figures_and_ways_on(trained) -> None:
    app = train_page(run=str(trained.run))
    assert app.selectbox(key="run").value == trained.run
    assert [metric.label for metric in app.metric] == ["Accuracy", "Balanced accuracy", "Weighted F1"]
    labels = [button.label for button in app.button]
    assert "Review its mistakes" in labels
    assert "Retrain on current labels" in labels
    assert "subjects the model never saw" in text_of(app)
    assert "Of a new patient's cells, expect" in text_of(app)
    assert any(caption.value.startswith("95 %: ") for caption in app.caption)
    assert not any(button.label == "Retrain its head on current labels" for button in app.button)
    app.segmented_control(key=f"section-{trained.run}").set_value("Files").run()
    assert not app.exception
    assert "not a diagnostic device" in text_of(app)
    newest = train_page()
    assert newest.selectbox(key="run").value == trained.retrain
    assert any(button.label == "Compare with its parent" for button in newest.button)
    with db.reading(open_store(current_settings())) as session:
        run = list_runs(session)[-1]
    assert newest.metric[0].value != "–"
    assert run.metrics["test"]["n"] > 0


def test_a_run_that_trained_everything_offers_its_head(
    sqlite_engine: sa.Engine, no_worker: None, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    store = small_store(sqlite_engine)
    said = {cell: ("all", 0.8) for found in store.cells.values() for cell in found}
    recipe = make_recipe({"mode": "finetune", "rotation": 90})
    parts = dict.fromkeys(store.cells["1"], "test") | dict.fromkeys(store.cells["2"], "validation")
    whole = finished_run(sqlite_engine, store, said, parts=parts, recipe=recipe)
    app = train_page(run=str(whole))
    labels = [button.label for button in app.button]
    assert "Retrain everything" in labels
    app.button(key=f"retrain-head-{whole}").click().run()
    assert not app.exception
    with db.reading(sqlite_engine) as session:
        newest = list_runs(session)[0]
    assert (newest.parent_id, newest.recipe.backbone_run, newest.recipe.mode) == (whole, whole, "features")


def test_cells_read_in_company_stand_apart(sqlite_engine: sa.Engine) -> None:
    subjects = {f"{n}": ("all", 6) for n in range(1, 8)} | {f"H{n}": ("hem", 6) for n in range(1, 6)}
    store = small_store(sqlite_engine, subjects)
    said, parts = {}, {}
    for place, (name, cells) in enumerate(store.cells.items()):
        label, other = ("hem", "all") if name.startswith("H") else ("all", "hem")
        said |= {cell: (other if number == 0 else label, 0.7) for number, cell in enumerate(cells)}
        parts |= dict.fromkeys(cells, "test" if place % 2 else "validation")
    run = finished_run(sqlite_engine, store, said, parts=parts)
    app = train_page(run=str(run))
    headline = [metric.value for metric in app.metric]
    app.segmented_control(key=f"section-{run}").set_value("Subjects").run()
    assert not app.exception
    assert "no figure of single cells" in text_of(app)
    assert app.dataframe[-1].value["Test (95 %)"].tolist()[0].startswith("100.0 %")
    assert [metric.value for metric in app.metric] == headline


def test_a_recipe_file_fills_the_form_unless_it_needs_another_run(sqlite_engine: sa.Engine) -> None:
    small_store(sqlite_engine)
    app = train_page()
    uploads = {"head": make_recipe({"mode": "finetune"}).of_its_head(7), "whole": make_recipe({"epochs": 7})}
    refused = {}
    for name, recipe in uploads.items():
        file = (f"{name}.yaml", as_yaml(recipe).encode(), "application/yaml")
        app.file_uploader(key="recipe_file").set_value(file).run()
        assert not app.exception
        refused[name] = [error.value for error in app.error]
    assert refused["whole"] == []
    assert "retrain its head" in refused["head"][0]
    assert app.slider(key="recipe-epochs").value == 7
