"""Many cells at once, by mouse and keyboard: the grid, the lasso, one decision on all of them, and the way back.

Real pictures, and a run and its map made by hand: nothing is trained here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

import db
from allreview.cells.importing import import_cells
from allreview.review import rankings
from allreview.review.log.annotations import decide, reviewer_named
from allreview.settings import current_settings
from db.tables import Annotation, Cell, WorklistItem
from tests.browser.conftest import settled
from tests.factory import Store, finished_run

Snap = Callable[[Page, str], Path]
VISIBLE = ["others", "source_label", "subject"]


@dataclass(frozen=True)
class Cells:
    """The cells as imported, those of each class, the test cells, the run, and two reviewers."""

    all: list[int]
    of_class: dict[str, list[int]]
    test: set[int]
    run: int
    ann: int
    ben: int


@pytest.fixture
def cells(sqlite_engine: sa.Engine, cnmc_few: Path) -> Cells:
    """A run that is right about every cell; on its map the two classes lie far apart. Every fifth is a test cell."""
    report = import_cells(sqlite_engine, current_settings(), cnmc_few, dataset="C-NMC")
    ann, ben = reviewer_named(sqlite_engine, "Ann"), reviewer_named(sqlite_engine, "Ben")
    with db.reading(sqlite_engine) as session:
        rows = session.execute(sa.select(Cell.id, Cell.sha256, Cell.source_label).order_by(Cell.id)).all()
    store = Store(report.dataset_id, {}, ann, ben)
    test = {row.id for row in rows[::5]}
    run = finished_run(
        sqlite_engine,
        store,
        {row.id: (row.source_label, 0.9) for row in rows},
        parts=dict.fromkeys(test, "test"),
    )
    side = {"all": -10.0, "hem": 10.0}
    points = [[side[row.source_label] + place % 7 / 7, place % 11] for place, row in enumerate(rows)]
    drawn = rankings.CellMap([row.sha256 for row in rows], np.array(points, dtype=np.float32))
    rankings.save(current_settings().run_folder(run) / rankings.MAP, drawn)
    of_class = {name: [row.id for row in rows if row.source_label == name] for name in side}
    return Cells([row.id for row in rows], of_class, test, run, ann, ben)


def events(engine: sa.Engine) -> list[Annotation]:
    with db.reading(engine) as session:
        return list(session.scalars(sa.select(Annotation).order_by(Annotation.id)))


def selected(page: Page) -> set[int]:
    found = page.locator('.cell[aria-selected="true"]').all()
    return {int(element.get_attribute("data-cell") or 0) for element in found}


def says(page: Page, words: str) -> None:
    expect(page.locator(".st-key-bulk-bar")).to_contain_text(words)


def scrolled(page: Page) -> float:
    return page.get_by_test_id("stMain").evaluate("element => element.scrollTop")


def decide_as(page: Page, label: str) -> None:
    """Open the question; the page behind it stays where it is."""
    before = scrolled(page)
    page.get_by_role("combobox", name="Label").click()
    page.get_by_role("option", name=label, exact=True).click()
    button = page.get_by_role("button", name="Decide…")
    expect(button).to_be_enabled()
    button.click()
    page.get_by_role("dialog").wait_for()
    assert scrolled(page) == before


def drag(page: Page, first: int, last: int) -> None:
    """A frame from left above one tile to the middle of another."""
    start = page.locator(".cell").nth(first).bounding_box()
    end = page.locator(".cell").nth(last).bounding_box()
    assert start
    assert end
    page.mouse.move(start["x"] - 3, start["y"] + 10)
    page.mouse.down()
    page.mouse.move(end["x"] + end["width"] / 2, end["y"] + end["height"] / 2, steps=8)
    page.mouse.up()


def lasso_left_half(page: Page) -> None:
    box = page.locator(".js-plotly-plot .nsewdrag").bounding_box()
    assert box
    middle = (box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    radii = (box["width"] / 4 - 4, box["height"] / 2 - 4)
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)]
    way = [(middle[0] + x * radii[0], middle[1] + y * radii[1]) for x, y in corners]
    page.mouse.move(*way[0])
    page.mouse.down()
    for corner in way[1:]:
        page.mouse.move(*corner, steps=10)
    page.mouse.up()


@pytest.mark.real
def test_many_cells_at_once(
    app_url: str,
    new_page: Callable[..., Page],
    cells: Cells,
    sqlite_engine: sa.Engine,
    snap: Snap,
) -> None:
    """One app for both ways to select: it takes longer to start than to use."""
    select_decide_undo(app_url, new_page(), cells, sqlite_engine, snap)
    lasso_decide_undo(app_url, new_page(width=1280, height=720), cells, sqlite_engine, snap)


def select_decide_undo(app_url: str, page: Page, cells: Cells, sqlite_engine: sa.Engine, snap: Snap) -> None:
    page.goto(f"{app_url}/browse?view=Select&reviewer=Ann")
    tile = page.locator(".cell")
    expect(tile).to_have_count(48)
    grid = page.get_by_role("listbox")
    expect(grid).to_have_attribute("aria-multiselectable", "true")
    blind = page.locator(f'.cell[data-cell="{cells.all[5]}"]')
    expect(blind).to_contain_text("Test, read blind")
    expect(blind).not_to_contain_text("%")
    top = tile.first.bounding_box()

    tile.nth(2).click()
    says(page, "1 selected")
    tile.nth(4).click()
    assert selected(page) == {cells.all[4]}
    tile.nth(8).click(modifiers=["Shift"])
    assert selected(page) == set(cells.all[4:9])
    tile.nth(6).click(modifiers=["Control"])
    tile.nth(11).click(modifiers=["Control"])
    says(page, "5 selected")
    assert selected(page) == {cells.all[place] for place in (4, 5, 7, 8, 11)}
    assert tile.first.bounding_box() == top  # nothing moved

    page.keyboard.press("Escape")
    expect(page.locator(".st-key-bulk-bar")).to_contain_text("Click a cell to select it")
    page.keyboard.press("Control+a")
    says(page, "48 selected")
    page.keyboard.press("Escape")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    assert selected(page) == set(cells.all[1:3])
    says(page, "2 selected")

    drag(page, 3, 5)
    says(page, "3 selected")
    assert selected(page) == set(cells.all[3:6])
    page.get_by_role("button", name="Next page").click()
    expect(page.locator(f'.cell[data-cell="{cells.all[48]}"]')).to_be_visible()
    tile.first.click()
    says(page, "4 selected")
    page.get_by_role("button", name="Previous page").click()
    expect(page.locator(f'.cell[data-cell="{cells.all[0]}"]')).to_be_visible()
    assert selected(page) == set(cells.all[3:6])
    snap(page, "select")

    chosen = [*cells.all[3:6], cells.all[48]]
    earlier = decide(sqlite_engine, cell_id=chosen[0], label="hem", reviewer_id=cells.ben, seen=None)
    decide_as(page, "Unusable")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Label 4 cells as Unusable?")
    expect(dialog).to_contain_text("1 of them was decided before: 1 as Normal (hem) by Ben.")
    snap(page, "select-dialog")
    meanwhile = decide(sqlite_engine, cell_id=chosen[1], label="unsure", reviewer_id=cells.ben, seen=None)
    dialog.get_by_role("button", name="Label 4 cells").click()
    expect(dialog).to_contain_text("Nothing was saved.")
    expect(dialog).to_contain_text(f"Cell {chosen[1]}: Ben said Unsure")
    assert [event.id for event in events(sqlite_engine)] == [earlier, meanwhile]
    snap(page, "select-refused")
    dialog.get_by_role("button", name="Label 4 cells").click()
    expect(dialog).to_have_count(0)
    says(page, "4 cells saved as Unusable")
    expect(page.locator(f'.cell[data-cell="{chosen[0]}"]')).to_contain_text("Unusable")
    snap(page, "select-saved")

    page.get_by_role("button", name="Undo").click()
    says(page, "Taken back: 4 cells as Unusable")
    says(page, "4 selected")
    settled(page)
    assert selected(page) == set(chosen[:3])

    log = events(sqlite_engine)
    assert [(event.cell_id, event.kind, event.label, event.reviewer_id) for event in log] == [
        (chosen[0], "decision", "hem", cells.ben),
        (chosen[1], "decision", "unsure", cells.ben),
        *[(cell, "decision", "unusable", cells.ann) for cell in chosen],
        *[(cell, "undo", None, cells.ann) for cell in chosen],
    ]
    decisions, undos = log[2:6], log[6:]
    assert len({event.batch for event in decisions} | {event.batch for event in undos}) == 2
    assert [event.undoes_id for event in undos] == [event.id for event in decisions]
    assert [event.supersedes_id for event in decisions] == [earlier, meanwhile, None, None]
    for event in decisions:
        is_test = event.cell_id in cells.test
        assert sorted(event.visible or []) == sorted(VISIBLE + ([] if is_test else ["prediction"]))
        assert event.visible_run_id == (None if is_test else cells.run)

    page.get_by_role("button", name="Read the 4 selected").click()
    page.wait_for_url("**/review?**")
    settled(page)
    with db.reading(sqlite_engine) as session:
        query = sa.select(WorklistItem.cell_id).order_by(WorklistItem.position)
        assert list(session.scalars(query)) == chosen


def lasso_decide_undo(app_url: str, page: Page, cells: Cells, sqlite_engine: sa.Engine, snap: Snap) -> None:
    earlier = len(events(sqlite_engine))
    page.goto(f"{app_url}/browse?view=Map&reviewer=Ann")
    page.locator(".js-plotly-plot .nsewdrag").wait_for(timeout=120_000)
    settled(page)
    caught = cells.of_class["all"]
    lasso_left_half(page)
    says(page, f"{len(caught)} selected")
    expect(page.locator(".st-key-map-side .cell")).to_have_count(24)
    snap(page, "map-lasso")

    left_out = page.locator(".st-key-map-side .cell").first
    dropped = int(left_out.get_attribute("data-cell") or 0)
    left_out.click()
    says(page, f"{len(caught) - 1} selected")
    assert dropped in caught

    decide_as(page, "Unusable")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Label {len(caught) - 1} cells as Unusable?")
    expect(dialog).to_contain_text("This changes the label of all of them.")
    dialog.get_by_role("button", name=f"Label {len(caught) - 1} cells").click()
    says(page, f"{len(caught) - 1} cells saved as Unusable")
    settled(page)
    snap(page, "map-saved")
    decided = set(caught) - {dropped}
    saved = events(sqlite_engine)[earlier:]
    assert {(event.cell_id, event.kind, event.label) for event in saved} == {
        (cell, "decision", "unusable") for cell in decided
    }
    assert len(saved) == len(decided)
    assert len({event.batch for event in saved}) == 1

    page.get_by_role("button", name="Undo").click()
    says(page, f"Taken back: {len(caught) - 1} cells as Unusable")
    settled(page)
    undos = events(sqlite_engine)[earlier + len(saved) :]
    assert {(event.cell_id, event.kind) for event in undos} == {(cell, "undo") for cell in decided}
    assert len({event.batch for event in undos}) == 1
    says(page, f"{len(decided)} selected")
