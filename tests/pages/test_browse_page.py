"""The Browse page: cards, filters, blind test cells, a cell's detail, and one decision on many cells.

The grid and the lasso need a browser: `tests/browser/test_select_and_map.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from PIL import Image
from streamlit.testing.v1 import AppTest

import db
from allreview.cells.importing import import_cells
from allreview.review.log.annotations import decide, reviewer_named
from allreview.review.log.reverting import undo
from allreview.settings import current_settings
from db.tables import (
    Annotation,
    Cell,
    Prediction,
    Recipe,
    Run,
    Snapshot,
    SnapshotCell,
    Subject,
    Worklist,
    WorklistItem,
)

APP = str(Path(__file__).parent.parent.parent / "app.py")
PARTS = {"1": "train", "2": "test", "H3": "validation"}


@pytest.fixture
def cells(sqlite_engine: sa.Engine, tmp_path: Path) -> list[int]:
    """Thirty cells of three subjects and a run that calls every one of them ALL, with 90 %."""
    for number in range(30):
        label, subject = [("all", "1"), ("all", "2"), ("hem", "H3")][number % 3]
        path = tmp_path / "mine" / "fold_0" / label / f"UID_{subject}_1_{number}_{label}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (8 * number, 90, 120)).save(path)
    report = import_cells(sqlite_engine, current_settings(), tmp_path / "mine")
    with db.writing(sqlite_engine) as session:
        recipe = Recipe(hash="r", body={"backbone": "resnet50"})
        snapshot = Snapshot(dataset_id=report.dataset_id, hash="s")
        session.add_all([recipe, snapshot])
        session.flush()
        run = Run(
            dataset_id=report.dataset_id,
            recipe_id=recipe.id,
            snapshot_id=snapshot.id,
            classes=["all", "hem"],
            state="finished",
        )
        session.add(run)
        session.flush()
        found = session.execute(sa.select(Cell.id, Cell.source_label, Subject.name).join(Subject)).all()
        for cell_id, label, subject in found:
            part = PARTS[subject]
            session.add(SnapshotCell(snapshot_id=snapshot.id, cell_id=cell_id, label=label, part=part))
            said = {"label": "all", "probability": 0.9, "probabilities": {"all": 0.9, "hem": 0.1}}
            session.add(Prediction(run_id=run.id, cell_id=cell_id, **said))
    return sorted(row.id for row in found)


def browse() -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60).run()
    app.switch_page("pages/browse.py").run()
    assert not app.exception
    return app


def cards(app: AppTest) -> list[str]:
    return [element.value for element in app.markdown if "-badge[" in element.value]


def selecting(engine: sa.Engine, cells: Sequence[int]) -> tuple[AppTest, int]:
    """The page in its Select view with these cells selected, and who sits at it."""
    ann = reviewer_named(engine, "Ann")
    app = browse()
    app.selectbox(key="reviewer").set_value(ann)
    app.button_group(key="view").set_value("Select").run()
    select(app, cells)
    return app, ann


def select(app: AppTest, cells: Sequence[int]) -> None:
    app.session_state["_selection"] = replace(app.session_state["_selection"], cells=tuple(cells))
    app.run()
    assert not app.exception


def events(engine: sa.Engine) -> list[tuple[int, str, str | None]]:
    with db.reading(engine) as session:
        query = sa.select(Annotation.cell_id, Annotation.kind, Annotation.label).order_by(Annotation.id)
        return [tuple(row) for row in session.execute(query)]


def said(app: AppTest) -> str:
    return "\n".join(element.value for element in app.markdown)


def found(app: AppTest, *words: str) -> str:
    ends = tuple(f"{word}**" for word in words or ("cells", "cell"))
    return next(element.value for element in app.markdown if element.value.endswith(ends)).strip("*")


def test_an_empty_store_says_what_to_do(sqlite_engine: sa.Engine) -> None:
    app = browse()
    assert app.subheader[0].value == "No cells yet"
    assert [button.label for button in app.main.button] == ["Load the synthetic demo set"]
    assert not cards(app)


def test_cards_say_class_prediction_and_subject(cells: list[int]) -> None:
    app = browse()
    assert found(app) == "30 cells"
    assert len(cards(app)) == 30
    text = "\n".join(cards(app))
    assert text.count(":material/close:") == 10
    assert text.count("Test cell, read blind") == 10
    assert text.count("Subject H3") == 10
    assert "hem]" not in text


def test_filters_narrow_and_clear(cells: list[int]) -> None:
    app = browse()
    app.multiselect(key="labels").set_value(["hem"]).run()
    assert found(app) == "10 cells"
    app.button_group(key="verdict").set_value("right").run()
    assert found(app) == "0 cells"
    assert "No cell matches" in app.info[0].value
    app.button(key="clear-filters-empty").click().run()
    assert found(app) == "30 cells"
    app.text_input(key="find").set_value("H3").run()
    assert found(app) == "10 cells"


def test_test_cells_stay_blind_until_asked_for(cells: list[int]) -> None:
    app = browse()
    app.button_group(key="parts").set_value(["test"]).run()
    assert found(app) == "10 cells"
    assert all("%" not in card for card in cards(app))
    app.toggle(key="test_predictions").set_value(True).run()
    assert all("ALL 90\N{NO-BREAK SPACE}%" in card for card in cards(app))


def test_a_changed_question_starts_at_the_first_page(cells: list[int]) -> None:
    app = browse()
    app.button_group(key="per_page").set_value(24).run()
    app.session_state["page"] = 2
    app.run()
    assert len(cards(app)) == 6
    app.selectbox(key="order").set_value("subject").run()
    assert app.session_state["page"] == 1
    assert len(cards(app)) == 24


def test_detail_tells_who_decided_what(sqlite_engine: sa.Engine, cells: list[int]) -> None:
    anna = reviewer_named(sqlite_engine, "Anna <b>N</b>")
    first = decide(sqlite_engine, cell_id=cells[0], label="hem", reviewer_id=anna, seen=None)
    taken_back = undo(sqlite_engine, annotation_id=first, reviewer_id=anna)
    decide(
        sqlite_engine,
        cell_id=cells[0],
        label="unsure",
        reviewer_id=anna,
        seen=taken_back,
        comment="![x](http://tracker/x.png)",
    )
    app = browse()
    card = next(text for text in cards(app) if "Unsure" in text)
    assert "was ALL" in card
    app.button(key=f"open-{cells[0]}").click().run()
    assert not app.exception
    text = "\n".join(element.value for element in app.markdown)
    assert "**Unsure**, imported as ALL" in text
    assert "1. ~~Normal (hem)~~ (taken back) (Anna \\<b\\>N\\</b\\>" in text
    assert "2. Decision 1 taken back" in text
    assert "3. **Unsure**" in text
    assert r"!\[x\](http" in text
    table = app.dataframe[0].value
    assert table.iloc[0].to_dict() == {
        "Run": "Run 1, ResNet50",
        "Part": "Training",
        "Predicted": "ALL",
        "Certainty": "90\N{NO-BREAK SPACE}%",
    }


def test_detail_moves_on_to_another_cell_of_the_subject(cells: list[int]) -> None:
    app = browse()
    app.button(key=f"open-{cells[0]}").click().run()
    assert f"#### Cell {cells[0]}" in "\n".join(element.value for element in app.markdown)
    other = next(b.key for b in app.button if b.key and b.key.startswith("other-"))
    app.button(key=other).click().run()
    assert app.session_state["_open_cell"] == int(other.removeprefix("other-"))


def test_one_decision_on_many_cells_and_back(sqlite_engine: sa.Engine, cells: list[int]) -> None:
    ben = reviewer_named(sqlite_engine, "Ben")
    decide(sqlite_engine, cell_id=cells[1], label="hem", reviewer_id=ben, seen=None)
    app, ann = selecting(sqlite_engine, cells[:3])
    assert "**3 selected**" in said(app)
    assert app.button(key="decide-selected").disabled
    app.selectbox(key="bulk-label").set_value("unsure").run()
    app.text_input(key="bulk-note").set_value("one smear").run()
    app.button(key="decide-selected").click().run()
    assert "This changes the label of all of them." in said(app)
    assert "**1 of them was decided before:** 1 as Normal (hem) by Ben." in said(app)
    assert len(events(sqlite_engine)) == 1

    app.button(key="bulk-confirm").click().run()
    assert not app.exception
    saved = [(cell, "decision", "unsure") for cell in cells[:3]]
    assert events(sqlite_engine) == [(cells[1], "decision", "hem"), *saved]
    with db.reading(sqlite_engine) as session:
        written = session.scalars(sa.select(Annotation).where(Annotation.reviewer_id == ann)).all()
    assert len({event.batch for event in written}) == 1
    assert {event.comment for event in written} == {"one smear"}
    assert "3 cells saved as Unsure" in said(app)
    assert "selected**" not in said(app)

    app.button(key="bulk-undo").click().run()
    taken_back = [(cell, "undo", None) for cell in cells[:3]]
    assert events(sqlite_engine) == [(cells[1], "decision", "hem"), *saved, *taken_back]
    assert "Taken back: 3 cells as Unsure" in said(app)
    assert "**3 selected**" in said(app)  # for the answer that should have been given

    app.button(key="bulk-redo").click().run()
    assert events(sqlite_engine)[-3:] == [(cell, "redo", "unsure") for cell in cells[:3]]
    assert "3 cells saved as Unsure" in said(app)


def test_nothing_is_written_over_an_answer_that_came_meanwhile(
    sqlite_engine: sa.Engine, cells: list[int]
) -> None:
    app, _ = selecting(sqlite_engine, cells[:3])
    app.selectbox(key="bulk-label").set_value("unsure").run()
    app.button(key="decide-selected").click().run()
    ben = reviewer_named(sqlite_engine, "Ben")
    decide(sqlite_engine, cell_id=cells[2], label="hem", reviewer_id=ben, seen=None)
    app.button(key="bulk-confirm").click().run()
    assert events(sqlite_engine) == [(cells[2], "decision", "hem")]
    assert "**3 selected**" in said(app)
    assert "saved as" not in said(app)


def test_who_decides_is_asked_for(sqlite_engine: sa.Engine, cells: list[int]) -> None:
    app = browse()
    app.button_group(key="view").set_value("Select").run()
    select(app, cells[:2])
    assert "To decide, say who you are in the sidebar." in said(app)
    assert "decide-selected" not in [button.key for button in app.button]


def test_another_question_lets_the_selection_go_and_another_page_does_not(
    sqlite_engine: sa.Engine, cells: list[int]
) -> None:
    app, _ = selecting(sqlite_engine, cells[:3])
    app.button_group(key="per_page").set_value(24).run()
    app.session_state["page"] = 2
    app.run()
    assert "**3 selected**" in said(app)
    app.text_input(key="find").set_value("H3").run()
    assert "selected**" not in said(app)


def test_a_filter_becomes_a_worklist(sqlite_engine: sa.Engine, cells: list[int]) -> None:
    reviewer_named(sqlite_engine, "Ann")
    app = browse()
    app.multiselect(key="labels").set_value(["hem"]).run()
    app.button(key="read-filter").click().run()
    assert app.query_params["worklist"] == "1"
    with db.reading(sqlite_engine) as session:
        worklist = session.get_one(Worklist, 1)
        items = session.scalars(sa.select(WorklistItem.cell_id).order_by(WorklistItem.position)).all()
        hem = session.scalars(sa.select(Cell.id).where(Cell.source_label == "hem").order_by(Cell.id)).all()
    assert (worklist.name, worklist.strategy, worklist.run_id, worklist.parts) == (
        "Normal (hem)",
        "filter",
        1,
        ["validation"],
    )
    assert list(items) == list(hem)


def test_a_run_without_a_map_says_so(cells: list[int]) -> None:
    app = browse()
    app.button_group(key="view").set_value("Map").run()
    assert "has no map of its cells" in app.info[0].value
    app.selectbox(key="predictions").set_value(0).run()
    assert "choose a run under Predictions" in app.info[0].value


def shown_cells(app: AppTest) -> list[int]:
    opens = [button.key for button in app.main.button if button.key and button.key.startswith("open-")]
    return [int(key.removeprefix("open-")) for key in opens]


def turn_to(app: AppTest, page: int) -> list[int]:
    app.session_state["page"] = page
    app.run()
    assert not app.exception
    return shown_cells(app)


def test_pages_are_turned_from_cell_to_cell_whatever_is_decided_meanwhile(
    sqlite_engine: sa.Engine, cells: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allreview.ui.paging.PAGE_SIZES", (4, 8))
    monkeypatch.setattr("allreview.cells.walking.FEW", 0)
    ann = reviewer_named(sqlite_engine, "Ann")
    app = browse()
    app.multiselect(key="labels").set_value(["all"])
    app.button_group(key="per_page").set_value(4).run()
    with db.reading(sqlite_engine) as session:
        blasts = list(session.scalars(sa.select(Cell.id).where(Cell.source_label == "all").order_by(Cell.id)))
    assert shown_cells(app) == blasts[:4]
    for cell in blasts[:3]:
        decide(sqlite_engine, cell_id=cell, label="hem", reviewer_id=ann, seen=None)
    assert turn_to(app, 2) == blasts[4:8]  # counting from the first cell would pass over three
    app.run()
    assert shown_cells(app) == blasts[4:8]
    assert turn_to(app, 4) == blasts[12:16]
    assert turn_to(app, 3) == blasts[8:12]
    assert turn_to(app, 2) == blasts[4:8]
    assert turn_to(app, 1) == [blasts[3], *blasts[4:7]]
    assert turn_to(app, 2) == blasts[7:11]
    for cell in blasts[3:7]:
        decide(sqlite_engine, cell_id=cell, label="hem", reviewer_id=ann, seen=None)
    assert turn_to(app, 4) == blasts[15:19]  # by their number, 13, this is the last but for one cell
    assert turn_to(app, 5) == blasts[19:]
    for cell in blasts[8:]:
        decide(sqlite_engine, cell_id=cell, label="hem", reviewer_id=ann, seen=None)
    app.run()
    assert (shown_cells(app), app.session_state["page"]) == ([blasts[7]], 1)


def test_pages_can_be_turned_before_the_cells_are_counted(
    sqlite_engine: sa.Engine, cells: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[Callable[[], None]] = []
    monkeypatch.setattr("allreview.cells.counting.AT_ONCE", 10)
    monkeypatch.setattr("allreview.cells.counting._in_background", waiting.append)
    app = browse()
    assert found(app, "Counting…") == "Counting…"
    assert len(cards(app)) == 30
    app.button_group(key="per_page").set_value(24).run()
    assert turn_to(app, 2) == cells[24:]
    assert turn_to(app, 3) == cells[24:]  # there is no third
    assert app.session_state["page"] == 2
    waiting.pop()()
    app.run()
    assert found(app) == "30 cells"
    assert shown_cells(app) == cells[24:]
