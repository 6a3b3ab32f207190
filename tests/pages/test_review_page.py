"""Review: what the desk shows, saves and refuses. Keys are tested in the browser."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

import db
from allreview.review.annotations import decide, reviewer_named
from allreview.settings import current_settings
from allreview.store import open_store
from db.tables import Annotation, ReviewSession
from tests.factory import finished_run, small_store

APP = str(Path(__file__).parent.parent.parent / "app.py")


def review_page(**query: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60)
    for name, value in query.items():
        app.query_params[name] = value
    app.run().switch_page("pages/review.py").run()
    assert not app.exception
    return app


def press(app: AppTest, label: str) -> AppTest:
    (button,) = [button for button in app.button if button.label == label]
    button.click().run()
    assert not app.exception
    return app


def log(engine: sa.Engine) -> list[tuple[str, str | None]]:
    with db.reading(engine) as session:
        rows = session.execute(sa.select(Annotation.kind, Annotation.label).order_by(Annotation.id))
        return [(kind, label) for kind, label in rows]


@pytest.fixture(autouse=True)
def looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """AppTest presses sooner than a person could have seen the cell; the browser tests keep the limit."""
    monkeypatch.setattr("allreview.ui.desk._QUICKEST_MS", 0)


def test_an_empty_store_and_a_store_without_runs(sqlite_engine: sa.Engine) -> None:
    assert any(button.label == "Load the synthetic demo set" for button in review_page().button)
    small_store(sqlite_engine)
    assert "who you are" in review_page().info[0].value
    assert "train a model first" in review_page(reviewer="Ann").info[0].value


@pytest.mark.real
def test_a_sitting_from_start_to_undo(trained) -> None:
    engine = open_store(current_settings())
    before = log(engine)
    app = press(review_page(reviewer="Ann", run=str(trained.run)), "Start reading")
    press(app, "Normal (hem)")
    press(app, "Unsure")
    press(app, "Skip")
    assert log(engine) == [*before, ("decision", "hem"), ("decision", "unsure")]
    press(app, "Undo")
    press(app, "Undo")
    assert log(engine)[-1] == ("undo", None)
    with db.reading(engine) as session:
        kept = session.scalars(sa.select(Annotation).order_by(Annotation.id.desc())).all()
    assert kept[1].visible_run_id == trained.run
    assert kept[1].duration_ms is not None


@pytest.mark.real
def test_a_conflict_shows_both_answers_and_overwrites_nothing(trained) -> None:
    engine = open_store(current_settings())
    app = press(review_page(reviewer="Ann", run=str(trained.run)), "Start reading")
    key = next(button.key for button in app.button if button.label == "Unsure")
    cell = int(key.rsplit("-", 1)[1])
    ben = reviewer_named(engine, "Ben")
    decide(engine, cell_id=cell, label="hem", reviewer_id=ben, seen=None)
    press(app, "ALL")
    assert "Ben said Normal (hem) while you were looking" in app.warning[0].value
    assert log(engine)[-1] == ("decision", "hem")
    press(app, "Keep theirs")
    assert log(engine)[-1] == ("decision", "hem")
    assert not app.warning


def test_a_decision_the_store_cannot_take_is_never_called_saved(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = small_store(sqlite_engine)
    finished_run(sqlite_engine, store, {store.cells["1"][0]: ("hem", 0.9)})
    app = press(review_page(reviewer="Ann"), "Start reading")
    with sqlite_engine.begin() as connection:
        connection.execute(sa.text("alter table annotations rename to gone"))
        connection.execute(sa.text("create view annotations as select * from gone"))
    press(app, "ALL")
    status = " ".join(str(element.proto.text) for element in app.get("progress"))
    assert "not saved: something went wrong" in status
    assert log(sqlite_engine) == []


@pytest.mark.real
def test_a_decision_that_comes_too_soon_is_not_saved(trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("allreview.ui.desk._QUICKEST_MS", 60_000)
    engine = open_store(current_settings())
    before = log(engine)
    app = press(review_page(reviewer="Ann", run=str(trained.run)), "Start reading")
    press(app, "ALL")
    assert log(engine) == before


def test_a_run_without_mistakes_has_nothing_to_read(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    finished_run(sqlite_engine, store, {store.cells["1"][0]: ("all", 0.9)})
    app = press(review_page(reviewer="Ann"), "Start reading")
    assert "Nothing is left to read" in app.error[0].value
    with db.reading(sqlite_engine) as session:
        assert session.scalar(sa.select(sa.func.count(ReviewSession.id))) == 0


@pytest.mark.parametrize("asked", ["999", "abc", "-1"])
def test_a_sitting_that_is_not_there_or_not_mine_is_ignored(sqlite_engine: sa.Engine, asked: str) -> None:
    store = small_store(sqlite_engine)
    finished_run(sqlite_engine, store, {store.cells["1"][0]: ("hem", 0.9)})
    app = review_page(reviewer="Ann", sitting=asked)
    assert any(button.label == "Start reading" for button in app.button)
