"""Compare: two runs on the same test cells."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

from allreview.evaluation.naming import SHARED_PATIENTS
from allreview.recipe import make_recipe
from tests.factory import finished_run, small_store

APP = str(Path(__file__).parent.parent.parent / "app.py")


def compare_page(**query: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run().switch_page("pages/compare.py").run()
    assert not app.exception
    return app


def test_an_empty_store_and_a_single_run(sqlite_engine: sa.Engine) -> None:
    assert any(button.label == "Load the synthetic demo set" for button in compare_page().button)
    store = small_store(sqlite_engine)
    ones, twos = store.cells["1"], store.cells["2"]
    predictions = dict.fromkeys(ones, ("all", 0.9)) | dict.fromkeys(twos, ("hem", 0.7))
    parts = dict.fromkeys(ones, "test") | dict.fromkeys(twos, "validation")
    finished_run(sqlite_engine, store, predictions, parts=parts)
    table = compare_page().dataframe[0].value
    assert table["Models"].tolist()[0] == "ResNet50 (paper)"
    assert table["Test Accuracy"].tolist() == ["98.25", "96.06", "91.12", "82.74", "100.00"]


def test_verdicts_that_changed_are_shown_with_their_outcome(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    first, second = store.cells["1"][:2]
    parts = {first: "test", second: "test"}
    finished_run(sqlite_engine, store, {first: ("hem", 0.9), second: ("all", 0.8)}, parts=parts)
    finished_run(sqlite_engine, store, {first: ("all", 0.7), second: ("all", 0.8)}, parts=parts)
    app = compare_page()
    words = " ".join(element.value for element in app.markdown)
    assert "trained separately" in words
    assert "became right" in words
    assert app.dataframe[0].value.iloc[0].tolist() == ["Accuracy", "50.0", "100.0", "+50.0"]


def test_what_to_expect_of_a_new_patient_stands_beside_accuracy(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine, {str(n): ("all", 2) for n in range(1, 7)} | {"H1": ("hem", 2)})
    labels = {cell: "hem" if name == "H1" else "all" for name, found in store.cells.items() for cell in found}
    parts = dict.fromkeys(labels, "test") | dict.fromkeys(store.cells["6"], "validation")
    wrong = {cell: ("hem" if cell in store.cells["1"] else label, 0.8) for cell, label in labels.items()}
    finished_run(sqlite_engine, store, wrong, parts=parts)
    finished_run(sqlite_engine, store, {cell: (label, 0.8) for cell, label in labels.items()}, parts=parts)
    app = compare_page()
    row = app.dataframe[0].value.iloc[1].tolist()
    assert row == ["A new patient's cells right", "83.3", "100.0", "+16.7"]
    assert any("expect to be right: 83 %" in caption.value for caption in app.caption)
    view(app, "table")
    column = app.dataframe[0].value["A new patient's cells right"].tolist()
    assert [cell[:4] for cell in column[-2:]] == ["100 ", "83 %"]


def run_both_ways(engine: sa.Engine) -> None:
    """One recipe split both ways: right on three of four test cells apart, on all of them shared."""
    store = small_store(engine)
    labelled = {
        cell: "hem" if name.startswith("H") else "all"
        for name, found in store.cells.items()
        for cell in found
    }
    parts = {cell: "validation" if place % 4 == 0 else "test" for place, cell in enumerate(labelled)}
    for split in ("leak_group", "image"):
        said = {
            cell: (label if split == "image" or cell % 4 else "hem" if label == "all" else "all", 0.8)
            for cell, label in labelled.items()
        }
        recipe = make_recipe({"split": split})
        finished_run(engine, store, said, parts=parts, recipe=recipe, series="s" * 36)


def view(app: AppTest, name: str) -> AppTest:
    app.segmented_control(key="compare_view").set_value(name).run()
    assert not app.exception
    assert not app.error
    return app


def test_the_leak_is_told_in_points(sqlite_engine: sa.Engine) -> None:
    run_both_ways(sqlite_engine)
    app = view(compare_page(), "leak")
    words = " ".join(element.value for element in app.markdown)
    assert "**+" in words
    assert "points" in words
    table = app.dataframe[0].value
    assert any(SHARED_PATIENTS in column for column in table.columns)
    assert table["Difference"].iloc[0].startswith("+")


def test_without_a_recipe_trained_both_ways_the_page_says_how(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    cells = store.cells["1"]
    finished_run(sqlite_engine, store, {cells[0]: ("all", 0.9)}, parts={cells[0]: "test"})
    app = AppTest.from_file(APP, default_timeout=60).run().switch_page("pages/compare.py").run()
    assert "Both, to see the leak" in view(app, "leak").info[0].value


def test_any_runs_as_the_papers_table_and_as_curves(sqlite_engine: sa.Engine) -> None:
    run_both_ways(sqlite_engine)
    app = view(compare_page(), "table")
    table = app.dataframe[0].value
    names = ["ResNet50 (paper)", "EfficientNetB3 (paper)", "VGG16 (paper)", "AlexNet (paper)"]
    assert table["Models"].tolist() == [*names, "MobileNetV2 (run 2)", "MobileNetV2 (run 1)"]
    assert table["Test cells"].tolist()[4:] == [SHARED_PATIENTS.capitalize(), "Split by leak group"]
    app.checkbox(key="with_paper").uncheck().run()
    assert len(app.dataframe[0].value) == 2
    view(app, "curves")


def test_runs_that_share_no_test_cell_are_refused_in_words(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    for cell in store.cells["1"][:2]:
        finished_run(sqlite_engine, store, {cell: ("all", 0.9)}, parts={cell: "test"})
    assert "share no test cell" in compare_page().error[0].value


@pytest.mark.real
def test_a_retrain_beside_its_parent(trained) -> None:
    app = compare_page()
    words = " ".join(element.value for element in app.markdown)
    kin = f"Run {trained.retrain} is a retrain of run {trained.run}."
    assert f"{kin} Between the two: 3 labels changed. 3 of these in training cells" in words
    assert "of subjects neither run was trained on" in " ".join(element.value for element in app.caption)
