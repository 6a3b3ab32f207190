"""The app's process stays as small as it was, however many pages somebody turns."""

from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from playwright.sync_api import Page, expect

from allreview.cells.importing import import_cells
from allreview.settings import current_settings
from tests.browser.conftest import settled

ROUNDS = 5
GROWTH_BYTES = 40e6


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_turning_pages_does_not_make_the_app_grow(
    sqlite_engine: sa.Engine, cnmc: Path, home: Path, app_url: str, page: Page
) -> None:
    import_cells(sqlite_engine, current_settings(), cnmc, dataset="C-NMC")
    app = _app_of(home)
    page.goto(f"{app_url}/browse?per_page=24")
    settled(page)
    held = []
    for _ in range(ROUNDS):
        pages = _turn_to_the_last(page)
        page.get_by_role("button", name="Page 1", exact=True).click()
        settled(page)
        held.append(app.memory_info().rss)
    assert pages > 10
    # The first round fills what is kept on purpose: the pictures of one session, compiled statements, modules.
    assert held[-1] - held[1] < GROWTH_BYTES, [round(each / 1e6) for each in held]


def _turn_to_the_last(page: Page) -> int:
    turned = 1
    following = page.get_by_role("button", name="Next page")
    while following.is_enabled():
        following.click()
        turned += 1
        expect(page.get_by_role("button", name=f"Page {turned}", exact=True)).to_have_attribute(
            "aria-current", "page"
        )
        settled(page)
    return turned


def _app_of(home: Path) -> psutil.Process:
    for process in psutil.process_iter(["cmdline", "environ"]):
        of_home = (process.info["environ"] or {}).get("ALLREVIEW_HOME") == str(home)
        if of_home and "streamlit" in (process.info["cmdline"] or []):
            return process
    raise AssertionError("the app does not run")
