"""A running app on a home folder of its own, and headless Chromium to use it as a person does."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "test-results"
STARTS_WITHIN_SECONDS = 60
expect.set_options(timeout=30_000)
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def app_url(home: Path, tmp_path: Path) -> Iterator[str]:
    """The address of an app that runs on this test's home; ended with everything it started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--server.headless=true", f"--server.port={port}", "--server.address=127.0.0.1"]
    log = tmp_path / "streamlit.log"
    with log.open("wb") as output:
        app = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", *options],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/_stcore/health", app, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(app.pid, signal.SIGTERM)
        try:
            app.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(app.pid, signal.SIGKILL)
            app.wait()
        _kill_all_of(home)


def _wait_until_up(address: str, app: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN_SECONDS
    while time.monotonic() < end:
        if app.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the app did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _kill_all_of(home: Path) -> None:
    """End what else runs on this home: a worker lives in a session of its own."""
    doomed = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get("ALLREVIEW_HOME") == str(home):
                process.kill()
                doomed.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    psutil.wait_procs(doomed, timeout=10)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Headless Chromium, started once for all browser tests."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine: install Debian's package `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, headless=True, args=list(CHROMIUM_ARGUMENTS)
        )
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages that share nothing, as two people at two computers: `new_page(width=1280, height=720)`."""
    contexts = []

    def open_page(width: int = 1440, height: int = 900) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """One person's browser, 1440 × 900."""
    return new_page()


@pytest.fixture
def snap() -> Callable[[Page, str], Path]:
    """Checks a page (settled, no traceback, no error box) and saves its picture to test-results/."""

    def save(page: Page, name: str) -> Path:
        settled(page)
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{name}.png"
        page.screenshot(path=path)
        return path

    return save


def settled(page: Page) -> None:
    """Wait until Streamlit has finished drawing, and fail on a traceback or an unexplained error."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')
    page.wait_for_function("Array.from(document.images).every(image => image.complete)")
    text = page.inner_text("body")
    for sign in ("Traceback", "Something went wrong", "Error running app"):
        assert sign not in text, f"{page.url} shows {sign!r}:\n{text[:2000]}"
