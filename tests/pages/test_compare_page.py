"""Compare: two runs on the same test cells."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

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
