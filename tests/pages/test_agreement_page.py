"""Agreement: assigning cells, how far readers are, how well they agree, and settling what they do not."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest

import db
from allreview.review.log.annotations import decide, reviewer_named
from allreview.review.reading import sittings, worklists
from db.tables import Annotation, Worklist
from tests.factory import Store, entries_of, finished_run, small_store

APP = str(Path(__file__).parent.parent.parent / "app.py")


def agreement_page(view: str | None = None, **query: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60)
    for name, value in {"reviewer": "Ann", **query}.items():
        app.query_params[name] = value
    app.run().switch_page("pages/agreement.py").run()
    assert not app.exception
    if view is not None:
        app.segmented_control(key="agreement_view").set_value(view).run()
        assert not app.exception
    return app


def words(app: AppTest) -> str:
    return " ".join(element.value for kind in (app.markdown, app.caption, app.info) for element in kind)


@pytest.fixture
def store(sqlite_engine: sa.Engine) -> Store:
    return small_store(sqlite_engine)


def study(engine: sa.Engine, store: Store, *, finished: bool = True) -> int:
    """Ann and Ben read the first two cells of each subject blind; they differ on every fifth. Ben may not be done."""
    cells = [cell for found in store.cells.values() for cell in found[:2]]
    with db.reading(engine) as session:
        entries = entries_of(session, cells)
    made = worklists.create(
        engine,
        dataset_id=store.dataset,
        name="Study *1*",
        strategy="filter",
        entries=entries,
        hidden={"others", "prediction"},
        overlap=2,
        readers=[store.ann, store.ben],
    )
    for reviewer in (store.ann, store.ben):
        sitting = sittings.start(engine, worklist_id=made, reviewer_id=reviewer)
        for place, cell in enumerate(cells):
            if reviewer == store.ben and not finished and place == len(cells) - 1:
                break
            label = "all" if place < 12 else "hem"
            if reviewer == store.ben and place % 5 == 0:
                label = "unsure"
            decide(
                engine,
                cell_id=cell,
                label=label,
                reviewer_id=reviewer,
                seen=None,
                session_id=sitting,
                visible={"source_label", "subject"},
                independent=True,
            )
    return made


def test_who_is_asking_must_be_known(store: Store) -> None:
    app = AppTest.from_file(APP, default_timeout=60).run().switch_page("pages/agreement.py").run()
    assert "who you are" in app.info[0].value


def test_cells_are_assigned_and_readers_followed(sqlite_engine: sa.Engine, store: Store) -> None:
    predictions = {cell: ("hem", 0.9) for subject in "1234" for cell in store.cells[subject]}
    predictions |= dict.fromkeys(store.cells["5"], ("all", 0.9))
    run = finished_run(sqlite_engine, store, predictions)
    app = agreement_page()  # without a worklist the page begins with making one
    app.multiselect(key="assign-readers").set_value([store.ann]).run()
    assert app.number_input(key="assign-overlap").value == 2
    assert "Each cell cannot have 2 readers when 1 is chosen" in app.info[0].value
    assert app.button(key="assign").disabled
    app.multiselect(key="assign-readers").set_value([store.ann, store.ben]).run()
    hidden = {name: app.toggle(key=f"assign-hide-{name}-True").value for name in ("others", "subject")}
    assert hidden == {"others": True, "subject": False}
    app.number_input(key="assign-limit").set_value(8).run()
    app.button(key="assign").click().run()
    assert not app.exception
    with db.reading(sqlite_engine) as session:
        (made,) = session.scalars(sa.select(Worklist)).all()
        (row,) = worklists.rows(session, store.dataset)
    assert (made.run_id, made.overlap, made.repeat_rate, made.created_by) == (run, 2, 0.05, store.ann)
    assert sorted(made.hidden) == ["others", "prediction", "source_label"]
    assert (row.cells, set(row.readers)) == (8, {store.ann, store.ben})
    assert app.segmented_control(key="agreement_view").value == "worklists"
    assert ":small[Ann :gray[read 0, 8 left]] · :small[Ben :gray[read 0, 8 left]]" in words(app)
    app.button(key=f"close-{row.id}").click().run()
    with db.reading(sqlite_engine) as session:
        assert worklists.rows(session, store.dataset) == []


def test_a_queue_without_cells_is_refused_in_words(sqlite_engine: sa.Engine, store: Store) -> None:
    finished_run(sqlite_engine, store, {store.cells["1"][0]: ("all", 0.9)})
    app = agreement_page()
    app.button(key="assign").click().run()
    assert "Nothing is left to read" in app.error[0].value
    app.pills(key="assign-parts").set_value([]).run()
    assert "at least one kind of cells" in app.info[0].value


def test_the_figures_and_who_gave_them(sqlite_engine: sa.Engine, store: Store) -> None:
    made = study(sqlite_engine, store)
    app = agreement_page("figures", readings_of=str(made))
    said = words(app)
    assert "2 readers, 40 answers to 20 cells, 20 of them read by two or more." in said
    pairs, confusion, readers = (element.value for element in app.dataframe)
    assert pairs.iloc[0][["Readers", "Cells"]].tolist() == ["Ann and Ben", 20]
    assert pairs.iloc[0]["Same answer"].startswith("80.0 % (")
    assert confusion.to_numpy().sum() == 20
    assert readers["Reader"].tolist() == ["Ann", "Ben"]
    assert "there is only the majority" in said
    assert [metric.label for metric in app.metric] == ["Krippendorff's alpha", "Fleiss' kappa", "Same answer"]
    app.toggle(key="classes-only").set_value(True).run()
    assert app.metric[2].value == "100.0 %"


def test_without_two_readers_the_page_says_what_to_do(store: Store) -> None:
    assert "two readers or more" in agreement_page("figures").info[0].value


def test_disagreements_are_shown_and_the_majority_recorded(sqlite_engine: sa.Engine, store: Store) -> None:
    study(sqlite_engine, store)
    cell = store.cells["1"][0]
    with db.reading(sqlite_engine) as session:
        seen = session.scalar(sa.select(sa.func.max(Annotation.id)).where(Annotation.cell_id == cell))
    app = agreement_page("disagreements")
    assert "4 cells, the most evenly divided first; 0 with a majority." in words(app)
    assert ":small[Ann] :orange-badge[ALL]  \n:small[Ben] :gray-badge[Unsure]" in words(app)
    third = reviewer_named(sqlite_engine, "Cleo")
    decide(sqlite_engine, cell_id=cell, label="all", reviewer_id=third, seen=seen)
    app = agreement_page("disagreements")
    app.button(key="record-majorities").click().run()
    assert "Saved: the majority is the label of 1 cell." in app.success[0].value
    assert "3 cells" in words(app)
    app.button(key="undo-majorities").click().run()
    assert "4 cells" in words(app)
    assert not app.success


def test_adjudicating_opens_the_desk(sqlite_engine: sa.Engine, store: Store) -> None:
    made = study(sqlite_engine, store)
    app = agreement_page("disagreements", readings_of=str(made))
    app.button(key="adjudicate").click().run()
    assert not app.exception
    with db.reading(sqlite_engine) as session:
        worklist = session.scalars(sa.select(Worklist).order_by(Worklist.id.desc()).limit(1)).one()
        assert (worklist.name, worklist.adjudicates) == ("Adjudication of Study *1*", True)


def test_who_still_reads_blind_is_told_nothing_of_others_answers(
    sqlite_engine: sa.Engine, store: Store
) -> None:
    made = study(sqlite_engine, store, finished=False)
    for scope in (str(made), "0"):
        app = agreement_page("disagreements", reviewer="Ben", readings_of=scope)
        assert "stay hidden from you until you have read all" in app.info[0].value
        assert not [button for button in app.button if button.key in ("adjudicate", "record-majorities")]
        assert "Unsure" not in words(app)
    assert "4 cells" in words(agreement_page("disagreements", reviewer="Ann", readings_of=str(made)))
