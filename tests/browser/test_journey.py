"""Once around on real cells, as a person does it: clicks and keys in Chromium, a real worker behind."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

import db
from allreview.review.log.annotations import reviewer_named
from allreview.review.reading import worklists
from allreview.settings import current_settings
from allreview.store import open_store
from allreview.training.runs import get_run
from db.tables import Annotation, Reviewer, Run, SnapshotCell
from tests.browser.conftest import settled
from tests.browser.desk_store import ready_store

Snap = Callable[[Page, str], Path]
TRAINED_WITHIN_MS = 280_000


def say_who(page: Page, name: str) -> None:
    page.get_by_test_id("stSidebar").get_by_text(re.compile("Say who you are|Add a name")).click()
    page.get_by_role("textbox", name="Your name").fill(name)
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("combobox", name="You are")).to_have_value(name)


def go(page: Page, name: str) -> None:
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name, exact=True).click()
    expect(page).to_have_url(re.compile(f"/{name.lower()}(\\?|$)"))
    settled(page)


def quick_settings(page: Page, epochs: int, side: int = 96) -> None:
    """A small input, so that the whole journey takes a minute or two."""
    page.get_by_text("More settings").click()
    page.get_by_role("tab", name="Image and split").click()
    for label, value in (("Input side (pixels)", str(side)),):
        field = page.get_by_role("spinbutton", name=label)
        field.fill(value)
        field.press("Enter")
    slider = page.get_by_role("slider", name="Epochs")
    slider.focus()
    slider.press("Home")
    for _ in range(epochs - 1):
        slider.press("ArrowRight")
    settled(page)


def read_status(page: Page) -> str:
    return page.locator(".stProgress").first.inner_text()


def answer(page: Page, key: str, expected: str) -> str:
    """Press a key on the desk once the cell has been looked at; gives the status line it leads to."""
    page.wait_for_timeout(350)
    before = read_status(page)
    page.keyboard.press(key)
    page.wait_for_function(
        "before => document.querySelector('.stProgress').innerText !== before", arg=before, timeout=20_000
    )
    expect(page.locator(".stProgress").first).to_contain_text(expected)
    return read_status(page)


@pytest.fixture
def weights_set(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The app is started with the folder of pretrained weights."""
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    return weights


@pytest.mark.real
@pytest.mark.timeout(900)
def test_once_around_on_real_cells(
    weights_set: Path,
    app_url: str,
    page: Page,
    new_page: Callable[..., Page],
    cnmc: Path,
    snap: Snap,
) -> None:
    # Import a few hundred real cells by their path on the server.
    page.goto(app_url)
    page.get_by_role("textbox", name="Folder or zip").fill(str(cnmc))
    page.get_by_role("textbox", name="Name of the dataset").first.fill("C-NMC")
    page.get_by_role("button", name="Import", exact=True).first.click()
    page.locator(".st-key-import-report").wait_for(timeout=120_000)
    say_who(page, "Ada Weber")

    # Browse: they are all there.
    go(page, "Browse")
    expect(page.get_by_text("349 cells", exact=True)).to_be_visible()
    snap(page, "journey-browse")

    # Train, live; a reload and a second tab see the same run.
    go(page, "Train")
    quick_settings(page, 8, side=192)  # features take long enough for a reload in the middle
    snap(page, "journey-train-form")
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("button", name="Stop")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Computing features")).to_be_visible(timeout=120_000)
    snap(page, "journey-training")
    page.reload()
    expect(page.get_by_role("button", name="Stop")).to_be_visible(timeout=60_000)
    second_tab = new_page(width=1280, height=720)
    second_tab.goto(page.evaluate("location.href"))
    shown_run = second_tab.get_by_role("combobox", name="Run", exact=True)
    expect(shown_run).to_have_value(re.compile("^Run 1, MobileNetV2"), timeout=60_000)
    review = page.get_by_role("button", name="Review its mistakes")
    expect(review).to_be_visible(timeout=TRAINED_WITHIN_MS)
    expect(second_tab.get_by_role("button", name="Review its mistakes")).to_be_visible(timeout=60_000)
    second_tab.context.close()
    page.locator(".js-plotly-plot").nth(1).wait_for()
    snap(page, "journey-trained")

    # Review the mistakes, by keys.
    review.click()
    page.get_by_role("button", name="Start reading").click()
    expect(page.get_by_role("button", name="Skip")).to_be_visible()
    # The saliency of the queue's head is made as soon as the run is finished.
    expect(page.get_by_text("Preparing the saliency")).to_have_count(0, timeout=60_000)
    expect(page.locator(".pane")).to_have_count(2)
    expect(page.get_by_text("of the heat lies on the cell")).to_be_visible()
    snap(page, "journey-review")
    assert read_status(page).startswith("0 of ")
    answer(page, "1", "saved: ALL")
    answer(page, "2", "saved: Normal (hem)")
    answer(page, "u", "saved: Unsure")
    answer(page, "x", "saved: Unusable")
    assert answer(page, "s", "skipped").startswith("4 of ")
    answer(page, "z", "undone")
    assert answer(page, "z", "undone").startswith("3 of ")
    settled(page)
    page.get_by_role("textbox", name="Note").fill("smudged")
    page.get_by_role("textbox", name="Note").press("Tab")
    settled(page)
    page.get_by_role("button", name="Unusable").click()
    expect(page.locator(".stProgress").first).to_contain_text("4 of ")
    # Every method of saliency is there, made on demand where it was not made before.
    page.locator(".panes[data-drawn]").wait_for()
    page.keyboard.press("f")
    page.keyboard.press("h")
    expect(page.locator(".title", has_text="SmoothGrad")).to_be_visible()
    expect(page.get_by_text("Preparing the saliency")).to_be_visible()
    expect(page.get_by_text("Preparing the saliency")).to_have_count(0, timeout=90_000)
    expect(page.get_by_text("of the heat lies on the cell")).to_be_visible()
    snap(page, "journey-smoothgrad")
    # A reload in the middle comes back to the same cell.
    page.reload()
    expect(page.get_by_role("button", name="Skip")).to_be_visible(timeout=60_000)
    settled(page)
    assert read_status(page).startswith("4 of ")
    small = new_page(width=1280, height=720)
    small.goto(page.evaluate("location.href"))
    expect(small.get_by_role("button", name="Undo")).to_be_visible(timeout=60_000)
    snap(small, "journey-review-1280")
    assert small.get_by_role("button", name="Undo").bounding_box()["y"] < 700  # type: ignore[index]
    small.context.close()

    engine = open_store(current_settings())
    with db.reading(engine) as session:
        log = session.execute(
            sa.select(Annotation.kind, Annotation.label, Annotation.comment).order_by(Annotation.id)
        ).all()
        assert [(kind, label) for kind, label, _ in log] == [
            ("decision", "all"),
            ("decision", "hem"),
            ("decision", "unsure"),
            ("decision", "unusable"),
            ("undo", None),
            ("decision", "unusable"),
        ]
        assert log[-1].comment == "smudged"
        seen = session.scalars(sa.select(Annotation.visible_run_id).where(Annotation.kind == "decision"))
        assert set(seen) == {1}
        timed = session.scalars(sa.select(Annotation.duration_ms).where(Annotation.kind == "decision"))
        assert all(duration and duration >= 200 for duration in timed)

    # Correct and retrain, then see whether it helped.
    go(page, "Train")
    page.get_by_role("button", name="Retrain on current labels").click()
    shown_run = page.get_by_role("combobox", name="Run", exact=True)
    expect(shown_run).to_have_value(re.compile("^Run 2, MobileNetV2, retrain of run 1"), timeout=60_000)
    compare = page.get_by_role("button", name="Compare with its parent")
    expect(compare).to_be_visible(timeout=TRAINED_WITHIN_MS)
    compare.click()
    expect(page.get_by_text("Run 2 is a retrain of run 1.")).to_be_visible(timeout=60_000)
    page.locator(".js-plotly-plot").nth(1).wait_for()
    snap(page, "journey-compare")
    with db.reading(engine) as session:
        runs = session.scalars(sa.select(Run).order_by(Run.id)).all()
        assert [run.parent_id for run in runs] == [None, 1]
        assert runs[0].snapshot_id != runs[1].snapshot_id
        parts = []
        for run in runs:
            query = sa.select(SnapshotCell.cell_id, SnapshotCell.part)
            rows = session.execute(query.where(SnapshotCell.snapshot_id == run.snapshot_id)).all()
            parts.append({cell_id: part for cell_id, part in rows})  # noqa: C416
    assert parts[0] == parts[1]


@pytest.mark.real
def test_two_reviewers_at_once_lose_nothing(
    cnmc_few: Path, app_url: str, page: Page, new_page: Callable[..., Page], snap: Snap
) -> None:
    """Both look at the same cell from worklists of their own; the slower one is shown both answers."""
    engine, settings = open_store(current_settings()), current_settings()
    ready = ready_store(engine, settings, cnmc_few)
    ben = new_page(width=1280, height=720)
    for person, name, control in ((page, "Ann", 0.1), (ben, "Ben", 0.0)):
        worklist = worklists.join_or_create(
            engine,
            settings,
            run_id=ready.run,
            reviewer_id=reviewer_named(engine, name),
            control=control,
        )
        person.goto(f"{app_url}/review?reviewer={name}&worklist={worklist}")
        person.locator(".panes[data-drawn]").wait_for()
        settled(person)
    answer(page, "1", "saved: ALL")
    answer(ben, "2", "not saved")
    expect(ben.get_by_text("Ann said ALL while you were looking")).to_be_visible()
    expect(ben.locator(".panes[data-drawn]")).to_be_visible()
    snap(ben, "journey-conflict")
    ben.get_by_role("button", name="Record Normal (hem) as well").click()
    expect(ben.locator(".stProgress").first).to_contain_text("saved: Normal (hem)")
    with db.reading(engine) as session:
        log = session.execute(
            sa.select(Reviewer.name, Annotation.label, Annotation.sequence)
            .join(Reviewer, Reviewer.id == Annotation.reviewer_id)
            .order_by(Annotation.id)
        ).all()
    assert [tuple(row) for row in log] == [("Ann", "all", 1), ("Ben", "hem", 2)]


@pytest.mark.real
def test_test_cells_are_read_blind(cnmc_few: Path, app_url: str, page: Page) -> None:
    """A search of the page for the model's opinion or the source label finds nothing."""
    engine = open_store(current_settings())
    ready_store(engine, current_settings(), cnmc_few, part="test")
    page.goto(f"{app_url}/review")
    say_who(page, "Ada")
    for part in ("Validation cells", "Training cells", "Test cells"):
        page.get_by_role("button", name=part).click()
        settled(page)
    page.get_by_role("button", name="Start reading").click()
    expect(page.get_by_text("Test cell, read blind")).to_be_visible()
    settled(page)
    main = page.get_by_test_id("stMain").inner_text()
    assert "Model:" not in main
    assert "Label:" not in main
    assert "of the heat" not in main
    assert "The model says" not in main
    answer(page, "1", "saved: ALL")
    with db.reading(engine) as session:
        (decision,) = session.scalars(sa.select(Annotation)).all()
    assert decision.visible_run_id is None
    assert decision.visible == ["subject"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_once_around_on_the_demo_set_from_an_empty_home(
    weights_set: Path, app_url: str, page: Page, snap: Snap
) -> None:
    page.goto(f"{app_url}/train")
    page.get_by_role("button", name="Load the synthetic demo set").click()
    expect(page.get_by_role("button", name="Start training")).to_be_visible(timeout=180_000)
    expect(page.get_by_text("Synthetic demo cells: not patients")).to_be_visible()
    say_who(page, "Ada")
    quick_settings(page, 5)
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("button", name="Review its mistakes")).to_be_visible(timeout=TRAINED_WITHIN_MS)
    snap(page, "journey-demo-trained")
    page.get_by_role("button", name="Review its mistakes").click()
    page.get_by_role("button", name="Start reading").click()
    expect(page.get_by_role("button", name="Skip")).to_be_visible()
    expect(page.get_by_text("Synthetic demo cells: not patients")).to_be_visible()
    answer(page, "1", "saved: ALL")
    snap(page, "journey-demo-review")
    go(page, "Train")
    page.get_by_role("button", name="Retrain on current labels").click()
    expect(page.get_by_role("button", name="Compare with its parent")).to_be_visible(
        timeout=TRAINED_WITHIN_MS
    )


def test_missing_weights_are_one_clear_choice(app_url: str, page: Page, snap: Snap) -> None:
    """Neither a file nor a download: from scratch, or cancel; never silently random."""
    page.goto(f"{app_url}/train")
    page.get_by_role("button", name="Load the synthetic demo set").click()
    expect(page.get_by_role("button", name="Start training")).to_be_visible(timeout=180_000)
    page.get_by_role("button", name="Start training").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Train from scratch")).to_be_visible(timeout=30_000)
    expect(dialog).to_contain_text("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5")
    snap(page, "journey-no-weights")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)
    with db.reading(open_store(current_settings())) as session:
        assert session.scalar(sa.select(sa.func.count(Run.id))) == 0


@pytest.mark.real
@pytest.mark.timeout(600)
def test_after_training_everything_the_head_alone_is_retrained(
    weights_set: Path, app_url: str, page: Page, cnmc: Path, snap: Snap
) -> None:
    page.goto(app_url)
    page.get_by_role("textbox", name="Folder or zip").fill(str(cnmc))
    page.get_by_role("textbox", name="Name of the dataset").first.fill("C-NMC")
    page.get_by_role("button", name="Import", exact=True).first.click()
    page.locator(".st-key-import-report").wait_for(timeout=120_000)
    say_who(page, "Ada Weber")
    go(page, "Train")
    page.get_by_role("radio", name="Everything").click()
    quick_settings(page, 1, side=64)
    page.get_by_role("button", name="Start training").click()
    head_alone = page.get_by_role("button", name="Retrain its head on current labels")
    expect(head_alone).to_be_visible(timeout=TRAINED_WITHIN_MS)
    snap(page, "journey-trained-whole")
    head_alone.click()
    shown_run = page.get_by_role("combobox", name="Run", exact=True)
    expect(shown_run).to_have_value(re.compile("^Run 2, MobileNetV2, retrain of run 1"), timeout=60_000)
    expect(page.get_by_role("button", name="Compare with its parent")).to_be_visible(
        timeout=TRAINED_WITHIN_MS
    )
    snap(page, "journey-head-alone")
    with db.reading(open_store(current_settings())) as session:
        whole, head = session.scalars(sa.select(Run).order_by(Run.id)).all()
        recipes = [get_run(session, run.id).recipe for run in (whole, head)]
    assert (recipes[0].mode, recipes[1].mode) == ("finetune", "features")
    assert (head.parent_id, recipes[1].backbone_run) == (whole.id, whole.id)
