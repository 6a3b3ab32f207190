"""Review: what the desk shows, saves and refuses. Keys are tested in the browser."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

import db
from allreview.review.log.annotations import decide
from allreview.review.queues import queue_of
from allreview.review.reading import worklists
from allreview.review.reading.reasons import REASONS
from db.tables import Annotation, ReviewSession
from tests.factory import Store, entries_of, finished_run, small_store

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


@dataclass(frozen=True)
class Mistakes:
    """A store with a run; `cells` are those it is wrong about, as the queue has them, the last for testing."""

    store: Store
    run: int
    cells: list[int]


@pytest.fixture(autouse=True)
def looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """AppTest presses sooner than a person could have seen the cell; the browser tests keep the limit."""
    monkeypatch.setattr("allreview.ui.desk_keys._QUICKEST_MS", 0)
    # Runs made by hand have no model to explain: no worker is asked for heat maps here.
    monkeypatch.setattr("allreview.training.jobs.request_saliency", lambda *_: None)


def test_an_empty_store_and_a_store_without_runs(sqlite_engine: sa.Engine) -> None:
    assert any(button.label == "Load the synthetic demo set" for button in review_page().button)
    store = small_store(sqlite_engine)
    assert "who you are" in review_page().info[0].value
    assert "train a model first" in review_page(reviewer="Ann").info[0].value
    with db.reading(sqlite_engine) as session:
        entries = entries_of(session, store.cells["1"])
    worklists.create(
        sqlite_engine, dataset_id=store.dataset, name="By hand", strategy="filter", entries=entries
    )
    app = review_page(reviewer="Ann")
    assert any("By hand" in element.value for element in app.markdown)
    assert "No model is trained yet" in app.info[0].value


@pytest.fixture
def mistakes(sqlite_engine: sa.Engine) -> Mistakes:
    """Five cells a run is wrong about, one of subject 2 for testing."""
    store = small_store(sqlite_engine)
    cells = [*store.cells["1"], store.cells["2"][0]]
    run = finished_run(
        sqlite_engine,
        store,
        {cell: ("hem", 0.9 - place / 100) for place, cell in enumerate(cells)},
        parts={cells[-1]: "test"},
    )
    return Mistakes(store, run, cells)


def words(app: AppTest) -> str:
    """All that is said on the page, the status line too."""
    texts = [*app.markdown, *app.caption, *app.info, *app.warning, *app.success, *app.error]
    status = [str(element.proto.text) for element in app.get("progress")]
    return " ".join([*status, *(str(element.value) for element in texts)])


def test_a_sitting_from_start_to_redo(sqlite_engine: sa.Engine, mistakes: Mistakes) -> None:
    app = press(review_page(reviewer="Ann"), "Start reading")
    assert "0 of 4 read" in words(app)
    app.text_input(key="note-1").set_value("smudged").run()
    press(app, "Normal (hem)")
    assert "saved: Normal (hem)" in words(app)
    press(app, "Unsure")
    press(app, "Skip")
    assert log(sqlite_engine) == [("decision", "hem"), ("decision", "unsure")]
    press(app, "Undo")
    press(app, "Undo")
    press(app, "Undo")
    assert log(sqlite_engine)[2:] == [("undo", None), ("undo", None)]
    press(app, "Redo")
    assert log(sqlite_engine)[4:] == [("redo", "hem")]
    press(app, "Undo")
    assert app.text_input[0].value == "smudged"
    with db.reading(sqlite_engine) as session:
        first = session.scalars(sa.select(Annotation).order_by(Annotation.id)).first()
    assert first is not None
    assert (first.visible_run_id, first.comment) == (mistakes.run, "smudged")
    assert first.duration_ms is not None


def test_a_draft_outlives_the_page_and_goes_with_the_answer(
    sqlite_engine: sa.Engine, mistakes: Mistakes
) -> None:
    app = press(review_page(reviewer="Ann"), "Start reading")
    app.text_input(key="note-1").set_value("half a thou").run()
    app.button_group(key="reasons-1").set_value([REASONS[1]]).run()
    again = review_page(reviewer="Ann", sitting="1")
    assert again.text_input(key="note-1").value == "half a thou"
    assert again.button_group(key="reasons-1").value == [REASONS[1]]
    press(again, "Unusable")
    with db.reading(sqlite_engine) as session:
        (event,) = session.scalars(sa.select(Annotation)).all()
    assert (event.reason, event.comment) == (REASONS[1], "half a thou")


def test_a_conflict_shows_both_answers_and_overwrites_nothing(
    sqlite_engine: sa.Engine, mistakes: Mistakes
) -> None:
    app = press(review_page(reviewer="Ann"), "Start reading")
    for place, cell in enumerate(mistakes.cells[:2]):
        decide(sqlite_engine, cell_id=cell, label="hem", reviewer_id=mistakes.store.ben, seen=None)
        app.button_group[-1].set_value([REASONS[3]]).run()
        press(app, "ALL")
        assert "Ben said Normal (hem) while you were looking" in app.warning[0].value
        assert log(sqlite_engine) == [("decision", "hem")] * (place + 1)
        if place == 0:
            press(app, "Keep theirs")
            assert log(sqlite_engine) == [("decision", "hem")]
            assert not app.warning
    press(app, "Record ALL as well")
    assert log(sqlite_engine) == [("decision", "hem"), ("decision", "hem"), ("decision", "all")]
    with db.reading(sqlite_engine) as session:
        last = session.scalars(sa.select(Annotation).order_by(Annotation.id.desc())).first()
    assert last is not None
    assert (last.cell_id, last.reason) == (mistakes.cells[1], REASONS[3])


def test_two_who_ask_the_same_share_a_worklist_and_are_told(
    sqlite_engine: sa.Engine, mistakes: Mistakes
) -> None:
    ann = press(review_page(reviewer="Ann"), "Start reading")
    ben = press(review_page(reviewer="Ben"), "Start reading")
    assert "shared with Ann" in words(ben)
    for _ in range(3):
        press(ben, "Unsure")
    assert "Nothing is left for you: the last cell is on the desk of Ann." in words(ben)
    press(ann, "Leave")
    assert "1 of 4 cells left" in words(ann)
    assert "3 of 4 read" in words(ben.run())


def test_blind_sittings_say_nothing_of_what_is_hidden(sqlite_engine: sa.Engine, mistakes: Mistakes) -> None:
    app = review_page(reviewer="Ann")
    for toggle in app.toggle:
        toggle.set_value(True)
    app.run()
    press(app, "Start reading")
    said = words(app)
    assert "Hidden: the model's opinion, the source label, the subject and other reviewers' answers." in said
    for hidden in ("badge", "Model:", "Label:", "Subject", "Prediction", "differ", "%"):
        assert hidden not in said
    press(app, "Unsure")
    with db.reading(sqlite_engine) as session:
        (event,) = session.scalars(sa.select(Annotation)).all()
    assert (event.visible, event.visible_run_id) == ([], None)


def test_a_worklist_is_opened_by_its_address(sqlite_engine: sa.Engine, mistakes: Mistakes) -> None:
    with db.reading(sqlite_engine) as session:
        entries = queue_of(session, mistakes.run, parts=("train",))
    made = worklists.create(
        sqlite_engine,
        dataset_id=mistakes.store.dataset,
        name="Second look",
        strategy="misclassified",
        entries=entries,
        run_id=mistakes.run,
        readers=[mistakes.store.ann],
    )
    assert "0 of 4 read" in words(review_page(reviewer="Ann", worklist=str(made)))
    assert "Second look" in words(review_page(reviewer="Ann"))
    refused = review_page(reviewer="Ben", worklist=str(made))
    assert "is assigned to Ann" in refused.error[0].value
    assert "Second look" not in words(refused).replace(refused.error[0].value, "")


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


def test_a_decision_that_comes_too_soon_is_not_saved(
    sqlite_engine: sa.Engine, mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allreview.ui.desk_keys._QUICKEST_MS", 60_000)
    app = press(review_page(reviewer="Ann"), "Start reading")
    press(app, "ALL")
    assert "before the cell could be seen" in words(app)
    assert log(sqlite_engine) == []


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
