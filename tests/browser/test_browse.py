"""Data and Browse as a person uses them: an empty home, a folder of real cells, filters, a reload."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import settled

Snap = Callable[[Page, str], Path]


def import_folder(page: Page, app_url: str, folder: Path, name: str) -> None:
    page.goto(app_url)
    page.get_by_role("textbox", name="Folder or zip").fill(str(folder))
    page.get_by_role("textbox", name="Name of the dataset").first.fill(name)
    page.get_by_role("button", name="Import", exact=True).first.click()
    page.locator(".st-key-import-report").wait_for(timeout=120_000)


@pytest.mark.real
def test_import_browse_and_look_at_one_cell(
    app_url: str, page: Page, new_page: Callable[..., Page], cnmc: Path, snap: Snap
) -> None:
    page.goto(f"{app_url}/browse")
    expect(page.get_by_text("No cells yet")).to_be_visible()
    expect(page.get_by_role("link", name="Review")).to_be_visible()
    snap(page, "browse-empty")

    import_folder(page, app_url, cnmc, "C-NMC <b>ward</b>")
    expect(page.get_by_text("are kept together in every split").first).to_be_visible()
    snap(page, "data-report")

    page.get_by_text("Add a name").click()
    page.get_by_role("textbox", name="Your name").fill("  Anna Nowak ")
    page.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_function("location.search.includes('reviewer=Anna')")

    page.get_by_role("link", name="Browse").click()
    page.get_by_role("textbox", name="Find").fill("H3")
    page.get_by_role("textbox", name="Find").press("Enter")
    expect(page.locator(".st-key-gallery")).to_contain_text("Subject H3")
    snap(page, "browse")
    shown = page.locator(".st-key-gallery img").count()

    page.reload()
    expect(page.get_by_role("textbox", name="Find")).to_have_value("H3")
    settled(page)
    assert page.locator(".st-key-gallery img").count() == shown
    expect(page.get_by_role("combobox", name="You are")).to_have_value("Anna Nowak")

    page.locator(".st-key-gallery").get_by_role("button", name="Open").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("450 × 450 pixels")
    expect(dialog).to_contain_text("Nobody has labelled this cell here yet.")
    snap(page, "browse-detail")
    before = dialog.get_by_role("heading", name="Cell ").last.inner_text()
    dialog.locator(".st-key-others button").first.click()
    expect(dialog.get_by_role("heading", name="Cell ").last).not_to_have_text(before)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)

    small = new_page(width=1280, height=720)
    small.goto(f"{app_url}/browse?labels=Normal+(hem)")
    expect(small.locator(".st-key-gallery")).to_contain_text("Normal (hem)")
    expect(small.locator(".st-key-gallery")).not_to_contain_text("ALL")
    small.get_by_text("Counts per class").click()
    small.locator(".js-plotly-plot").nth(1).wait_for()
    small.get_by_text("Counts per class").scroll_into_view_if_needed()
    snap(small, "browse-counts-1280")


def test_the_demo_set_is_marked_everywhere(app_url: str, page: Page, snap: Snap) -> None:
    page.goto(f"{app_url}/browse")
    page.get_by_role("button", name="Load the synthetic demo set").click()
    page.locator(".st-key-gallery img").first.wait_for(timeout=180_000)
    for name in ("Data", "Browse"):
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.get_by_text("Synthetic demo cells: not patients")).to_be_visible()
        settled(page)
    snap(page, "browse-demo")
