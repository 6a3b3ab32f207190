"""From a key at the reading desk to the next cell drawn, with 10,000 cells in the browser's reach.

    python -m benchmarks.review_latency [--cells 10000] [--keys 60] [--pictures FOLDER] [--json]

Builds a store in a temporary home: drawn cells (or the pictures of a folder), a finished run that is wrong about
every cell, its heat maps and neighbours, and one worklist of all cells. Then starts the app and presses answers in
headless Chromium, looking at each cell for half a second. A cell counts as drawn when its picture and its heat are
decoded and painted. The same keys are pressed a second time where each reruns the whole page instead of the desk.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LOOKS_SECONDS = 0.5
START = """
import sys
from streamlit.web import bootstrap
if sys.argv[2] == "page":
    from allreview.ui import desk
    desk.desk = desk._desk
bootstrap.load_config_options({"server_headless": True, "server_port": int(sys.argv[1]), "server_address": "127.0.0.1"})
bootstrap.run("app.py", False, [], {})
"""
WATCH = """
() => {
    const host = [...document.querySelectorAll("*")].find(each => each.shadowRoot?.querySelector(".panes"));
    const panes = host.shadowRoot.querySelector(".panes");
    window.taken = [];
    let pressed = null;
    addEventListener("keydown", () => { pressed = performance.now(); }, { capture: true });
    new MutationObserver(() => requestAnimationFrame(() => {
        if (pressed !== null) window.taken.push(performance.now() - pressed);
        pressed = null;
    })).observe(panes, { attributes: true, attributeFilter: ["data-drawn"] });
}
"""


def main() -> None:
    """Build, drive twice, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=60)
    parser.add_argument("--pictures", type=Path, help="a folder of real cells, in any layout that is read")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALLREVIEW_HOME"] = str(Path(folder) / "home")
        os.environ.pop("ALLREVIEW_DATABASE_URL", None)
        _build(Path(folder), asked.cells, 2 * asked.keys + 20, asked.pictures)
        found: dict[str, Any] = {"cells": asked.cells, "keys": asked.keys}
        for reruns in ("desk", "page"):
            taken = _drive(reruns, asked.keys)
            found[f"{reruns}_median_ms"] = round(statistics.median(taken))
            found[f"{reruns}_p95_ms"] = round(statistics.quantiles(taken, n=20)[-1])
    found["ratio"] = round(found["page_median_ms"] / found["desk_median_ms"], 2)
    found["compares"] = (
        f"Key to next cell drawn, {asked.cells:,} cells: {found['desk_median_ms']} ms at the median, against "
        "a rerun of the whole page"
    )
    print(json.dumps(found) if asked.json else "\n".join(f"{key:16} {found[key]}" for key in found))


def _build(folder: Path, number: int, on_disk: int, pictures: Path | None) -> None:
    """A store of so many cells; those that will be looked at have files."""
    import numpy as np
    import sqlalchemy as sa

    import db
    from allreview.cells.importing import import_cells
    from allreview.recipe import Recipe
    from allreview.review import queues, rankings
    from allreview.review.log.annotations import reviewer_named
    from allreview.review.reading import worklists
    from allreview.review.saliency.overlays import save_heatmap
    from allreview.settings import current_settings
    from allreview.store import open_store
    from db.tables import Cell, CellFile, Prediction, Run, Snapshot, SnapshotCell, Subject
    from db.tables import Recipe as RecipeRow

    settings = current_settings()
    engine = open_store(settings)
    dataset = import_cells(engine, settings, pictures or _drawn(folder, on_disk), dataset="Desk").dataset_id
    with db.writing(engine) as session:
        subjects = list(session.scalars(sa.select(Subject.id).where(Subject.dataset_id == dataset)))
        there = session.scalar(sa.select(sa.func.count(Cell.id))) or 0
        for place in range(number - there):
            cell = Cell(
                dataset_id=dataset,
                sha256=f"{place:064x}",
                subject_id=subjects[place % len(subjects)] if subjects else None,
                source_label=("all", "hem")[place % 2],
                width=450,
                height=450,
                size_bytes=607_554,
            )
            session.add(cell)
        session.flush()
        cells = list(session.scalars(sa.select(Cell).order_by(Cell.id)))
        files = set(session.scalars(sa.select(CellFile.cell_id)))
        session.add_all(
            CellFile(dataset_id=dataset, cell_id=cell.id, path=f"/nowhere/{cell.id}.bmp")
            for cell in cells
            if cell.id not in files
        )
        recipe = Recipe()
        row = RecipeRow(hash=recipe.hash, body=recipe.model_dump())
        snapshot = Snapshot(dataset_id=dataset, hash="0" * 64)
        session.add_all([row, snapshot])
        session.flush()
        run = Run(
            dataset_id=dataset,
            recipe_id=row.id,
            snapshot_id=snapshot.id,
            classes=["all", "hem"],
            state="finished",
        )
        session.add(run)
        session.flush()
        for cell in cells:
            wrong = "hem" if cell.source_label == "all" else "all"
            sure = 0.99 if cell.id in files else 0.6
            session.add(SnapshotCell(snapshot_id=snapshot.id, cell_id=cell.id, label=wrong, part="train"))
            session.add(
                Prediction(
                    run_id=run.id,
                    cell_id=cell.id,
                    label=wrong,
                    probability=sure,
                    probabilities={wrong: sure, cell.source_label: 1 - sure},
                )
            )
    random = np.random.default_rng(1)
    hashes = sorted(cell.sha256 for cell in cells)
    known = [place for place, sha256 in enumerate(hashes) if not sha256.startswith("0" * 40)]
    near = rankings.Neighbours(
        hashes,
        random.choice(known, (len(hashes), 20)).astype(np.int32),
        np.full((len(hashes), 20), 0.9, dtype=np.float32),
        np.ones(len(hashes), dtype=np.float32),
        np.zeros((len(hashes), 2), dtype=np.float32),
    )
    rankings.save(settings.run_folder(run.id) / rankings.NEIGHBOURS, near)
    for cell in cells:
        if cell.id in files:
            y, x = np.mgrid[:224, :224]
            heat = np.exp(-((x - 112) ** 2 + (y - random.uniform(80, 140)) ** 2) / 2500)
            save_heatmap(settings, run.id, "gradcam_plus_plus", cell.sha256, heat.astype(np.float32))
    with db.reading(engine) as session:
        entries = queues.queue_of(session, run.id, parts=("train",), diverse=False, settings=settings)
    worklists.create(
        engine,
        dataset_id=dataset,
        name="All",
        strategy="misclassified",
        entries=entries,
        run_id=run.id,
        parts=("train",),
        readers=[reviewer_named(engine, "Ann")],
    )


def _drawn(folder: Path, number: int) -> Path:
    """So many drawn cells of twelve subjects."""
    import numpy as np

    from allreview.cells.drawing import draw_cell, subject_stain

    for place in range(number):
        random = np.random.default_rng(place)
        subject, label = place % 12, ("all", "hem")[place % 2]
        path = folder / "drawn" / label / f"{subject}" / f"{place}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        stain = subject_stain(np.random.default_rng(subject))
        draw_cell(random, stain, blast=label == "all").save(path)
    return folder / "drawn"


def _drive(reruns: str, keys: int) -> list[float]:
    """Milliseconds from each key to the next cell drawn."""
    from playwright.sync_api import sync_playwright

    with _app(reruns) as address, sync_playwright() as playwright:
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--no-first-run"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address}/review?reviewer=Ann&worklist=1")
        page.locator(".panes[data-drawn]").wait_for(timeout=60_000)
        page.evaluate(WATCH)
        for number in range(keys):
            time.sleep(LOOKS_SECONDS)
            page.keyboard.press("12"[number % 2])
            page.wait_for_function("count => window.taken.length > count", arg=number, timeout=20_000)
        taken = page.evaluate("window.taken")
        browser.close()
    return taken


@contextmanager
def _app(reruns: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = subprocess.Popen(
        [sys.executable, "-c", START, str(port), reruns],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/_stcore/health", timeout=1)
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        app.terminate()
        app.wait(10)


if __name__ == "__main__":
    main()
