"""The Labels page: the log in lines, filters in the URL, taking back, changes since a run, reports."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

import db
from allreview.labels import in_force
from allreview.review.log import reverting
from allreview.review.log.annotations import decide, decide_many
from allreview.review.reading import sittings, worklists
from db.tables import Annotation, Reviewer
from tests.factory import Store, entries_of, finished_run, small_store

APP = str(Path(__file__).parent.parent.parent / "app.py")


@pytest.fixture
def store(sqlite_engine: sa.Engine) -> Store:
    return small_store(sqlite_engine)


def labels_page(**query: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60)
    for name, value in {"reviewer": "Ann", **query}.items():
        app.query_params[name] = value
    app.run().switch_page("pages/labels.py").run()
    assert not app.exception
    return app


def press(app: AppTest, label: str) -> AppTest:
    button = next(button for button in app.button if button.label == label)
    button.click().run()
    assert not app.exception
    return app


def text(app: AppTest) -> str:
    return "\n".join(element.value for element in app.markdown)


def what(app: AppTest) -> list[str]:
    """Who did what, in every line."""
    return [
        value.split("  \n")[0]
        for value in (e.value for e in app.markdown)
        if value.startswith(("**A", "**B"))
    ]


def standing(engine: sa.Engine) -> int:
    with db.reading(engine) as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Annotation).where(in_force())) or 0


def say(engine: sa.Engine, cell: int, label: str, reviewer: int, seen: int | None = None, **more) -> int:
    return decide(engine, cell_id=cell, label=label, reviewer_id=reviewer, seen=seen, **more)


def test_it_asks_who_looks_and_says_when_nothing_is_there(sqlite_engine: sa.Engine, store: Store) -> None:
    assert "who you are" in labels_page(reviewer="").info[0].value
    assert "Nobody has decided anything yet" in labels_page().info[0].value
    assert "No run is finished" in labels_page(view="changes").info[0].value
    assert "Nobody has sat" in labels_page(view="report").info[0].value


def test_lines_say_what_happened_and_are_filtered_by_the_url(sqlite_engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    first = say(
        sqlite_engine, cell, "hem", store.ann, reason="*Size*", duration_ms=61_000, visible=("subject",)
    )
    say(sqlite_engine, cell, "all", store.ben, seen=first, adjudicates=True)
    taken = say(sqlite_engine, store.cells["H1"][0], "unsure", store.ben)
    reverting.revert(sqlite_engine, reviewer_id=store.ann, annotation_ids=[taken], reason="slip")
    app = labels_page()
    assert what(app) == [
        "**Ann** reverted Ben’s Unsure",
        "**Ben**: ~~Normal (hem) → Unsure~~",
        "**Ben** adjudicated: Normal (hem) → ALL",
        "**Ann**: ALL → Normal (hem)",
    ]
    assert "**4 events** on 2 cells" in text(app)
    for said in (
        r"\*Size\*",
        "Saw the subject",
        "Took 1 min 01 s",
        "Taken back by Ann, just now",
        "What was visible",
    ):
        assert said in text(app) + "".join(caption.value for caption in app.caption), said
    assert what(labels_page(by=str(store.ben), kind="adjudication")) == [
        "**Ben** adjudicated: Normal (hem) → ALL"
    ]
    assert what(labels_page(cell=str(cell))) == what(app)[2:]
    assert len(what(labels_page(standing="yes"))) == 2
    assert what(labels_page(subject="H1", label="unsure")) == ["**Ben**: ~~Normal (hem) → Unsure~~"]
    assert "No event matches" in labels_page(to="2020-01-01", **{"from": "2019-01-01"}).info[0].value
    assert "No cell is known as" in labels_page(cell="nothing.bmp").error[0].value


def test_filters_go_into_the_url_and_are_cleared(sqlite_engine: sa.Engine, store: Store) -> None:
    say(sqlite_engine, store.cells["1"][0], "hem", store.ann)
    say(sqlite_engine, store.cells["1"][1], "hem", store.ben)
    app = labels_page(by=str(store.ben))
    assert what(app) == ["**Ben**: ALL → Normal (hem)"]
    app.selectbox(key="log_by").select(store.ann).run()
    assert app.query_params["by"] == str(store.ann)
    assert what(app) == ["**Ann**: ALL → Normal (hem)"]
    app.text_input(key="log_cell").input("99999").run()
    assert app.query_params["cell"] == "99999"
    app.text_input(key="log_cell").input("").run()
    press(app, "Show everything")
    assert "by" not in app.query_params
    assert app.selectbox(key="log_by").value is None


def test_pages_of_the_log(sqlite_engine: sa.Engine, store: Store) -> None:
    cells = [cell for some in store.cells.values() for cell in some]
    for cell in cells[:30]:
        say(sqlite_engine, cell, "unsure", store.ann)
    app = labels_page()
    assert len(what(app)) == 25
    press(app, "Older")
    assert len(what(app)) == 5
    assert app.query_params["before"] == "6"
    press(app, "Newer")
    assert len(what(app)) == 25
    press(app, "Older")
    app.selectbox(key="log_subject").select("1").run()  # another question starts at the newest
    assert (len(what(app)), "before" in app.query_params) == (4, False)


def test_a_batch_opens_and_is_taken_back_and_brought_back(sqlite_engine: sa.Engine, store: Store) -> None:
    cells = [cell for some in store.cells.values() for cell in some][:15]
    decide_many(sqlite_engine, cells=dict.fromkeys(cells), label="hem", reviewer_id=store.ben)
    app = labels_page()
    assert what(app) == ["**Ben**: Normal (hem), 15 cells in one decision"]
    press(app, "Show the 15")
    assert len(what(app)) == 13
    press(app, "Show all 15")
    assert len(what(app)) == 15
    assert "one batch" in text(app)
    press(app, "Show everything")
    press(app, "Revert…")
    assert "**15 answers** of Ben to 15 cells" in text(app)
    app.text_input(key="revert-reason").input("the wrong plate")
    press(app, "Revert 15 answers")
    assert standing(sqlite_engine) == 0
    app = labels_page()
    assert what(app)[0] == "**Ann** reverted 15 answers of Ben"
    assert "the wrong plate" in text(app)
    press(app, "Restore…")
    press(app, "Restore 15 answers")
    assert standing(sqlite_engine) == 15


def test_what_changed_meanwhile_is_said_and_nothing_is_reverted(
    sqlite_engine: sa.Engine, store: Store
) -> None:
    one, two = store.cells["1"][:2]
    decide_many(sqlite_engine, cells={one: None, two: None}, label="hem", reviewer_id=store.ben)
    app = labels_page()
    press(app, "Revert…")
    with db.reading(sqlite_engine) as session:
        first = session.scalar(sa.select(Annotation.id).order_by(Annotation.id))
    reverting.undo(sqlite_engine, annotation_id=first, reviewer_id=store.ben)
    press(app, "Revert 2 answers")
    assert "Somebody took back some of this" in app.error[0].value
    assert standing(sqlite_engine) == 1


def sitting_of(engine: sa.Engine, store: Store) -> int:
    """Ben's sitting over a blind worklist of four cells that Ann is to read too."""
    with db.reading(engine) as session:
        entries = entries_of(session, store.cells["1"])
    worklist = worklists.create(
        engine, dataset_id=store.dataset, name="Blind <b>twice</b>", strategy="chosen", entries=entries,
        parts=("train",), hidden=("others",), overlap=2, readers=(store.ann, store.ben),
    )  # fmt: skip
    sitting = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ben)
    for _ in range(4):
        (cell,) = sittings.upcoming(engine, sitting)
        sittings.answer(engine, sitting, cell, "hem", seen=cell.last_event_id)
    return sitting


def test_blindness_holds_in_the_log_the_changes_and_the_cells_dialog(
    sqlite_engine: sa.Engine, store: Store
) -> None:
    everything = [cell for some in store.cells.values() for cell in some]
    finished_run(sqlite_engine, store, dict.fromkeys(everything, ("all", 0.9)))
    sitting_of(sqlite_engine, store)
    own = say(sqlite_engine, store.cells["1"][0], "all", store.ann, seen=1)
    app = labels_page()
    assert what(app) == ["**Ann**: ALL, as before"]  # not 'Normal → ALL', which would tell
    assert "Others' answers to 4 cells that you have still to read" in app.caption[-1].value or any(
        "Others' answers to 4 cells" in caption.value for caption in app.caption
    )
    press(app, f"Cell {store.cells['1'][0]}")
    told = text(app) + "".join(caption.value for caption in app.caption)
    assert "What others said is not shown" in told
    assert "Ben" not in text(app)
    app = labels_page(view="changes")
    assert "Nothing changed" in text(app)
    assert "4 cells that you have still to read" in app.caption[0].value
    assert own


def test_a_sitting_is_taken_back_by_anybody(sqlite_engine: sa.Engine, store: Store) -> None:
    sitting = sitting_of(sqlite_engine, store)
    with db.writing(sqlite_engine) as session:
        session.add(Reviewer(name="Chris"))
    app = labels_page(reviewer="Chris", sitting=str(sitting))
    assert len(what(app)) == 4
    press(app, "Revert this sitting…")
    assert "**4 answers** of Ben to 4 cells" in text(app)
    press(app, "Revert 4 answers")
    assert standing(sqlite_engine) == 0


def test_what_changed_since_a_run(sqlite_engine: sa.Engine, store: Store) -> None:
    everything = [cell for some in store.cells.values() for cell in some]
    finished_run(
        sqlite_engine, store, dict.fromkeys(everything, ("all", 0.9)), parts={store.cells["2"][0]: "test"}
    )
    app = labels_page(view="changes")
    assert "Nothing changed" in text(app)
    say(sqlite_engine, store.cells["1"][0], "hem", store.ann)
    say(sqlite_engine, store.cells["2"][0], "unsure", store.ben)
    app = labels_page(view="changes")
    assert "**2 cells have another label now.**" in text(app)
    assert "1 cell would have another class and 1 would be left out" in text(app)
    (matrix,) = app.dataframe
    assert matrix.value.values.tolist() == [
        ["ALL", "Normal (hem)", 1, 0, 0, 1],
        ["ALL", "Unsure", 0, 0, 1, 1],
    ]
    assert f"Cell {store.cells['1'][0]}" in [button.label for button in app.button]
    app.button_group(key="changes-part").set_value("test").run()
    labels = [button.label for button in app.button]
    assert f"Cell {store.cells['1'][0]}" not in labels
    assert f"Cell {store.cells['2'][0]}" in labels
    assert "Retrain on current labels" in labels


def test_reports_can_be_chosen(sqlite_engine: sa.Engine, store: Store) -> None:
    sitting = sitting_of(sqlite_engine, store)
    app = labels_page(view="report", sitting=str(sitting))
    assert app.selectbox(key="report-sitting").value == sitting
    assert [button.label for button in app.get("download_button")] == ["Download as PDF", "Download as HTML"]
    app.button_group(key="report-of").set_value("worklist").run()
    assert not app.exception
    assert app.selectbox(key="report-worklist").options == ["1: Blind <b>twice</b>, read by Ben"]
