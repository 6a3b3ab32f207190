"""The reading desk in a real browser, on real cells: keys, undo, reloads, two readers, blind cells, a closed tab."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

import db
from allreview.review.log.annotations import decide, reviewer_named
from allreview.review.queues import queue_of
from allreview.review.reading import worklists
from allreview.review.reading.reasons import REASONS
from allreview.settings import current_settings
from allreview.store import open_store
from db.tables import Annotation, ReviewSession, Subject
from tests.browser.conftest import settled
from tests.browser.desk_store import PROBABILITY, Ready, ready_store

Snap = Callable[[Page, str], Path]
LOOKED_MS = 100
"""The desk refuses keys within 200 ms of drawing a cell; the picture reaches the browser a little later."""

WATCH = """
async () => {
    const until = async (check) => {
        for (let waited = 0; waited < 20_000; waited += 10) {
            const found = check();
            if (found) return found;
            await new Promise((done) => setTimeout(done, 10));
        }
        throw new Error("nothing came: " + document.body.innerText);
    };
    const drawn = () => {
        const host = [...document.querySelectorAll(".st-key-viewer *")].find((each) => each.shadowRoot);
        return host?.shadowRoot.querySelector(".panes")?.dataset.drawn;
    };
    const said = () => document.querySelector(".stProgress").innerText;
    window.came = (before, refusal) => until(() => {
        const turn = drawn();
        if (turn ? turn !== before : document.querySelector(".st-key-finish_sitting")) return "drawn";
        return said().includes(refusal) ? "refused" : null;
    });
    await until(() => !said().includes("not saved"));
    return drawn();
}
"""

WHOLE_DOM = """
() => {
    const found = [];
    const visit = (node) => {
        if (node.nodeType === Node.TEXT_NODE) { found.push(node.textContent); return; }
        if (node.nodeType !== Node.ELEMENT_NODE && node.nodeType !== Node.DOCUMENT_FRAGMENT_NODE) return;
        if (node.matches?.("style, script, dialog, .st-key-desk-answers")) return;
        for (const one of node.attributes || []) {
            if (!one.value.startsWith("data:")) found.push(`${one.name}=${one.value}`);
        }
        if (node.shadowRoot) visit(node.shadowRoot);
        node.childNodes.forEach(visit);
    };
    visit(document.documentElement);
    return [location.href, document.title, JSON.stringify(localStorage), ...found].join("\\n");
}
"""


@pytest.fixture
def engine(home: Path) -> Iterator[sa.Engine]:
    """The store the app of this test runs on."""
    opened = open_store(current_settings())
    yield opened
    opened.dispose()


@pytest.fixture
def ready(engine: sa.Engine, cnmc_few: Path) -> Ready:
    """A hundred real cells, all of them mistakes of a run."""
    return ready_store(engine, current_settings(), cnmc_few)


def worklist_of(engine: sa.Engine, ready: Ready, number: int, **settings) -> tuple[int, list[int]]:
    """A worklist of so many cells for Ann and Ben, and its cells in order."""
    with db.reading(engine) as session:
        entries = queue_of(session, ready.run, limit=number)
    made = worklists.create(
        engine,
        dataset_id=ready.dataset,
        name="Mistakes of run 1",
        strategy="misclassified",
        entries=entries,
        run_id=ready.run,
        parts=("train",),
        **settings,
    )
    return made, [entry.cell_id for entry in entries]


def sit_down(page: Page, app_url: str, worklist: int, name: str = "Ann") -> None:
    page.goto(f"{app_url}/review?reviewer={name}&worklist={worklist}")
    page.locator(".panes[data-drawn]").wait_for()
    settled(page)


def turn(page: Page) -> str | None:
    return page.locator(".panes").get_attribute("data-drawn")


def status(page: Page) -> str:
    return page.locator(".stProgress").first.inner_text()


def press(page: Page, key: str, *, last: bool = False) -> None:
    """Look at the cell, press a key, and wait for the next cell (or for the end of the queue).

    A key that came too soon, because the machine is slow, was refused: it is pressed once more.
    """
    before = page.evaluate(WATCH)
    page.wait_for_timeout(LOOKED_MS)
    page.keyboard.press(key)
    if _came(page, before, "not saved") == "refused":
        page.wait_for_timeout(500)
        page.keyboard.press(key)
        _came(page, before, "-")
    assert page.locator(".st-key-finish_sitting").count() == int(last), status(page)


def _came(page: Page, before: str | None, refusal: str) -> str:
    return page.evaluate("([before, refusal]) => window.came(before, refusal)", [before, refusal])


def log(engine: sa.Engine) -> list[tuple]:
    with db.reading(engine) as session:
        query = sa.select(
            Annotation.cell_id, Annotation.kind, Annotation.label, Annotation.reason, Annotation.comment
        )
        return [tuple(row) for row in session.execute(query.order_by(Annotation.id))]


@pytest.mark.real
@pytest.mark.parametrize("number", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_a_queue_read_by_keyboard_alone(
    engine: sa.Engine, request: pytest.FixtureRequest, app_url: str, page: Page, snap: Snap, number: int
) -> None:
    """Answers, reasons, notes, undo, redo, skips and a reload in the middle: the log is exactly what was done."""
    folder = request.getfixturevalue("cnmc" if number > 100 else "cnmc_few")
    ready = ready_store(engine, current_settings(), folder, methods=2)
    worklist, cells = worklist_of(engine, ready, number)
    sit_down(page, app_url, worklist)
    expected: list[tuple] = []
    skipped = []
    for place, cell in enumerate(cells):
        key, label = (("1", "all"), ("2", "hem"), ("u", "unsure"), ("x", "unusable"))[place % 4]
        reason = note = None
        if place % 10 == 3:
            page.keyboard.press("Shift+4")
            page.keyboard.press("Shift+1")
            reason = f"{REASONS[0]}; {REASONS[3]}"
            expect(
                page.locator(
                    ".st-key-desk-reasons [aria-checked=true], .st-key-desk-reasons [aria-pressed=true]"
                )
            ).to_have_count(2)
        if place % 10 == 4:
            note = f"looked twice at {place}: x, u, z"
            page.keyboard.press("n")
            page.keyboard.type(note)
            page.keyboard.press("Enter")
        if place == number // 2:
            if note is None:
                page.keyboard.press("n")
                page.keyboard.type("kept")
                page.keyboard.press("Enter")
                note = "kept"
            settled(page)
            page.reload()
            page.locator(".panes[data-drawn]").wait_for()
            expect(page.get_by_role("textbox", name="Note")).to_have_value(note)
        if place % 25 == 5:
            press(page, "s")
            press(page, "z")
            press(page, "s", last=place == number - 1)
            skipped.append(cell)
            continue
        press(page, key, last=place == number - 1)
        expected.append((cell, "decision", label, reason, note))
        if place % 25 == 7 and place < number - 1:
            press(page, "z")
            expected.append((cell, "undo", None, None, None))
            press(page, "y")
            expected.append((cell, "redo", label, reason, note))
        if place % 25 == 8 and place < number - 1:
            press(page, "z")
            expected.append((cell, "undo", None, None, None))
            press(page, "1")
            expected.append((cell, "decision", "all", reason, note))
    expect(page.get_by_text(f"but the {len(skipped)} you skipped")).to_be_visible()
    snap(page, f"desk-skipped-{number}")
    page.get_by_role("button", name="skipped").click()
    page.locator(".panes[data-drawn]").wait_for()
    settled(page)
    for cell in skipped:
        press(page, "2", last=cell == skipped[-1])
        expected.append((cell, "decision", "hem", None, None))
    expect(page.get_by_text(f"All {number} cells of this queue are read.")).to_be_visible()
    snap(page, f"desk-end-{number}")
    assert log(engine) == expected
    with db.reading(engine) as session:
        took = session.scalars(sa.select(Annotation.duration_ms).where(Annotation.kind == "decision")).all()
        assert all(each is not None and each >= 200 for each in took)


@pytest.mark.real
def test_two_readers_of_one_worklist_never_get_the_same_cell(
    engine: sa.Engine, ready: Ready, app_url: str, new_page: Callable[..., Page], snap: Snap
) -> None:
    worklist, cells = worklist_of(engine, ready, 6)
    pages = [new_page(), new_page(width=1280, height=720)]
    for page, name in zip(pages, ("Ann", "Ben"), strict=True):
        sit_down(page, app_url, worklist, name)
    ann, ben = pages
    press(ann, "1")
    expect(ann.locator(".stProgress").first).to_contain_text("shared with Ben")
    for rounds in range(2):
        seen = [page.locator(".picture").first.get_attribute("src") for page in pages]
        assert seen[0] != seen[1]
        press(ann, "2")
        press(ben, "2", last=rounds == 1)
    expect(ben.get_by_text("the last cell is on the desk of Ann")).to_be_visible()
    snap(ben, "desk-others-hold")
    press(ann, "u", last=True)
    for page in pages:
        expect(page.get_by_text("All 6 cells of this queue are read.")).to_be_visible()
    read = [cell for cell, *_ in log(engine)]
    assert sorted(read) == sorted(cells)


@pytest.mark.real
def test_a_blind_cell_gives_nothing_away(
    engine: sa.Engine, ready: Ready, app_url: str, page: Page, snap: Snap
) -> None:
    """Text, attributes, address and what the browser keeps have neither prediction, label, subject nor answers."""
    worklist, cells = worklist_of(
        engine, ready, 4, hidden=("prediction", "source_label", "subject", "others"), overlap=2
    )
    ben = reviewer_named(engine, "Ben")
    for cell in cells:
        decide(engine, cell_id=cell, label="hem", reviewer_id=ben, seen=None, comment="clearly lymphoid")
    with db.reading(engine) as session:
        subjects = list(session.scalars(sa.select(Subject.name)))
    sit_down(page, app_url, worklist)
    for _ in range(2):
        expect(page.get_by_text("Read blind", exact=True)).to_be_visible()
        said = page.evaluate(WHOLE_DOM)
        for word in (
            "ALL",
            "hem",
            "Normal",
            "Ben",
            "lymphoid",
            "UID_",
            "istakes",
            "Model:",
            "Label:",
            "on the cell",
        ):
            assert not re.search(rf"\b{re.escape(word)}", said), word
        assert f"{PROBABILITY:.2f}"[2:] + "\N{NO-BREAK SPACE}%" not in said
        assert not re.search(rf"ubject (?:{'|'.join(subjects)})\b", said)
        snap(page, "desk-blind")
        press(page, "u")
    with db.reading(engine) as session:
        saw = session.execute(
            sa.select(Annotation.visible, Annotation.visible_run_id).where(Annotation.session_id.is_not(None))
        ).all()
    assert [tuple(row) for row in saw] == [([], None)] * 2


@pytest.mark.real
@pytest.mark.slow
def test_a_browser_that_is_closed_right_after_a_key_leaves_nothing_half_done(
    engine: sa.Engine, ready: Ready, app_url: str, new_page: Callable[..., Page]
) -> None:
    worklist, cells = worklist_of(engine, ready, 6)
    for delay in (0, 15, 60):
        page = new_page()
        sit_down(page, app_url, worklist)
        page.wait_for_timeout(300)
        page.keyboard.press("1")
        page.wait_for_timeout(delay)
        page.context.close()
        time.sleep(1)
        events = log(engine)
        assert all((kind, label) == ("decision", "all") for _, kind, label, *_ in events)
        decided = [cell for cell, *_ in events]
        assert decided == cells[: len(decided)]
    page = new_page()
    sit_down(page, app_url, worklist)
    assert status(page).startswith(f"{len(decided)} of 6 read")
    press(page, "2")
    assert log(engine)[-1][:3] == (cells[len(decided)], "decision", "hem")
    with db.reading(engine) as session:
        assert session.scalar(sa.select(sa.func.count(ReviewSession.id))) == 1


@pytest.mark.real
@pytest.mark.slow
def test_the_view_is_the_reviewers_and_stays(
    engine: sa.Engine, ready: Ready, app_url: str, page: Page, new_page: Callable[..., Page], snap: Snap
) -> None:
    """View keys change no answer; they stay from cell to cell and over a reload; a held key answers once."""
    worklist, cells = worklist_of(engine, ready, 8)
    sit_down(page, app_url, worklist)
    expect(page.locator(".zoom")).to_have_text("1.5 ×")
    for key in ("+", "+", "-", "b", "b", "Shift+B", "k", ".", "ArrowLeft"):
        page.keyboard.press(key)
    expect(page.locator(".zoom")).to_have_text("1.88 ×")
    expect(page.locator(".brightness")).to_have_text("110 %")
    expect(page.locator(".contrast")).to_have_text("110 %")
    assert page.locator(".opacity").input_value() == "70"
    page.keyboard.press("d")
    expect(page.locator(".pane")).to_have_count(3)
    page.keyboard.press("o")
    expect(page.locator(".pane")).to_have_count(2)
    snap(page, "desk-over")
    page.keyboard.press("o")
    page.keyboard.press("g")
    expect(page.locator(".pane")).to_have_count(4)
    snap(page, "desk-four-panes")
    assert log(engine) == []

    press(page, "1")
    for _ in range(2):
        expect(page.locator(".zoom")).to_have_text("1.88 ×")
        expect(page.locator(".pane")).to_have_count(4)
        settled(page)
        page.reload()
        page.locator(".panes[data-drawn]").wait_for()

    page.wait_for_timeout(400)
    before = turn(page)
    page.keyboard.down("2")
    for _ in range(25):
        page.wait_for_timeout(40)
        page.keyboard.down("2")  # what a held key sends
    page.keyboard.up("2")
    expect(page.locator(".stProgress").first).to_contain_text("2 of 8 read")
    assert turn(page) != before

    page.keyboard.press("?")
    expect(page.locator("dialog[open]")).to_contain_text("Undo the last answer or skip")
    snap(page, "desk-keys")
    page.keyboard.press("1")
    page.keyboard.press("?")
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.keyboard.press("0")
    expect(page.locator(".zoom")).to_have_text("1.5 ×")
    settled(page)
    assert [cell for cell, *_ in log(engine)] == cells[:2]

    small = new_page(width=1280, height=720)
    small.goto(page.evaluate("location.href"))
    small.locator(".panes[data-drawn]").wait_for()
    settled(small)
    for name in ("ALL", "Unusable", "Redo", "More than one cell"):
        box = small.get_by_role("button", name=name).first.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 720
    snap(small, "desk-1280")
