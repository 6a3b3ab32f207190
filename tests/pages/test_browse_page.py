"""The Browse page: cards, filters, blind test cells, and a cell's detail."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from PIL import Image
from streamlit.testing.v1 import AppTest

import db
from allreview.cells.importing import import_cells
from allreview.review.annotations import decide, reviewer_named
from allreview.review.reverting import undo
from allreview.settings import current_settings
from db.tables import Cell, Prediction, Recipe, Run, Snapshot, SnapshotCell, Subject

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


def found(app: AppTest) -> str:
    return next(
        element.value for element in app.markdown if element.value.endswith(("cells**", "cell**"))
    ).strip("*")


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
