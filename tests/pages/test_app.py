"""The frame around the pages: who you are, which cells, and errors said in one sentence."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

import db
from allreview.review.log.annotations import reviewer_named
from allreview.settings import current_settings
from db.tables import Dataset, Reviewer

APP = str(Path(__file__).parent.parent.parent / "app.py")


def run_app() -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60).run()
    assert not app.exception
    return app


def add_dataset(engine: sa.Engine, name: str, *, synthetic: bool = False) -> int:
    with db.writing(engine) as session:
        dataset = Dataset(name=name, classes=["all", "hem"], synthetic=synthetic)
        session.add(dataset)
        session.flush()
        return dataset.id


def test_an_empty_store_offers_cells_and_no_choice_of_them(sqlite_engine: sa.Engine) -> None:
    app = run_app()
    assert app.title[0].value == "Data"
    assert [box.label for box in app.sidebar.selectbox] == ["You are"]
    assert any(button.label == "Load the synthetic demo set" for button in app.button)


def test_a_synthetic_dataset_is_marked_when_it_is_chosen(sqlite_engine: sa.Engine) -> None:
    add_dataset(sqlite_engine, "Real")
    demo = add_dataset(sqlite_engine, "Demo", synthetic=True)
    app = run_app()
    assert not app.warning
    app.sidebar.selectbox(key="dataset").select(demo).run()
    assert app.warning[0].value == "Synthetic demo cells: not patients"


def test_a_dataset_named_in_the_url_is_kept_over_a_reload(sqlite_engine: sa.Engine) -> None:
    add_dataset(sqlite_engine, "Real")
    demo = add_dataset(sqlite_engine, "Demo", synthetic=True)
    app = AppTest.from_file(APP, default_timeout=60)
    app.query_params["dataset"] = "Demo"
    app.run()
    assert app.sidebar.selectbox(key="dataset").value == demo


def test_a_new_reviewer_is_trimmed_and_chosen(sqlite_engine: sa.Engine) -> None:
    app = run_app()
    app.sidebar.text_input[0].set_value("  Anna   Nowak ")
    app.sidebar.button[0].click().run()
    assert not app.exception
    with db.reading(sqlite_engine) as session:
        assert session.scalars(sa.select(Reviewer.name)).all() == ["Anna Nowak"]
    assert app.sidebar.selectbox(key="reviewer").value == 1


def test_a_name_in_another_case_is_the_same_person(sqlite_engine: sa.Engine) -> None:
    reviewer_named(sqlite_engine, "Anna")
    app = run_app()
    app.sidebar.text_input[0].set_value("ANNA")
    app.sidebar.button[0].click().run()
    with db.reading(sqlite_engine) as session:
        assert session.scalars(sa.select(Reviewer.name)).all() == ["Anna"]
    assert app.sidebar.selectbox(key="reviewer").value == 1


def test_an_empty_name_is_refused_in_one_sentence(sqlite_engine: sa.Engine) -> None:
    app = run_app()
    app.sidebar.button[0].click().run()
    assert [error.value for error in app.sidebar.error] == ["A reviewer's name has 1 to 200 characters."]


def test_a_deactivated_reviewer_cannot_be_chosen(sqlite_engine: sa.Engine) -> None:
    reviewer_named(sqlite_engine, "Anna")
    ben = reviewer_named(sqlite_engine, "Ben")
    with db.writing(sqlite_engine) as session:
        session.get_one(Reviewer, ben).active = False
    assert run_app().sidebar.selectbox(key="reviewer").options == ["Anna"]


def test_a_store_that_cannot_be_opened_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ALLREVIEW_HOME", str(tmp_path / "file"))
    app = run_app()
    assert len(app.error) == 1
    assert "cannot be opened" in app.error[0].value


def test_a_page_run_without_the_app_starts_over_through_it(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first visitor of a new process may come by the address of a page."""
    add_dataset(sqlite_engine, "Real")
    app = run_app()
    folder = str(current_settings().root)
    monkeypatch.undo()  # what tests/pages/conftest.py spares the other tests
    monkeypatch.setenv("ALLREVIEW_HOME", folder)
    app.switch_page("pages/browse.py").run()
    assert app.title[0].value == "Browse"
    assert app.sidebar.selectbox(key="dataset").value == 1


def test_a_fault_is_logged_and_named_not_shown(sqlite_engine: sa.Engine, home: Path) -> None:
    with sqlite_engine.begin() as connection:
        connection.execute(sa.text("drop table cell_files"))
        connection.execute(sa.text("drop table subjects"))
    app = run_app()
    (error,) = app.error
    assert error.value.startswith("Something went wrong (")
    assert error.value.endswith("). Nothing you saved is lost.")
    number = error.value.split("(")[1].split(")")[0]
    log = (home / "logs" / "app.log").read_text()
    assert number in log
    assert "no such table" in log
