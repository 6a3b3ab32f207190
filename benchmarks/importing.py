"""An import against the plain way: one loop that opens, hashes, shrinks, saves and inserts file by file.

    python -m benchmarks.importing [--cells 2000] [--rounds 3] [--pictures FOLDER] [--json]

Draws cells as BMP files of 450 x 450 pixels in the layout of C-NMC (or takes the pictures of a folder), and imports
them by turns in both ways, each time into an empty home, with the files in the system's cache. The plain way uses one
thread, Pillow's own defaults for a WebP thumbnail of the same size, and one commit at the end. Then the import is
repeated, which reads and hashes every file again and adds nothing. Medians of the rounds are given; where a machine
is busy, seconds of processor time a cell say more than cells a second.
"""

import argparse
import hashlib
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDE = 160
DISTINCT = 48  # drawing takes longer than importing: each drawing is used again with another first pixel


def main() -> None:
    """Draw, import by turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=Path, help="a folder of real cells, in any layout that is read")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    os.environ.pop("ALLREVIEW_DATABASE_URL", None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = asked.pictures or _drawn(folder / "drawn", asked.cells)
        found = _compare(folder, pictures.resolve(), asked.rounds)
    print(json.dumps(found) if asked.json else "\n".join(f"{key:22} {found[key]}" for key in found))


def _compare(folder: Path, pictures: Path, rounds: int) -> dict[str, Any]:
    from allreview.cells.scanning import scan_folder

    files = [candidate.path for candidate in scan_folder(pictures).candidates]
    for path in files:
        path.read_bytes()
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "import": [], "repeat": []}
    for turn in range(rounds):
        home = folder / f"home-{turn}"
        taken["plain"].append(_timed(_plain, files, folder / f"plain-{turn}"))
        taken["import"].append(_timed(_import, pictures, home))
        taken["repeat"].append(_timed(_import, pictures, home))
    pairs = zip(taken["plain"], taken["import"], strict=True)
    found: dict[str, Any] = {
        "compares": "an import into an empty home with a plain loop in one thread that opens, hashes, shrinks, "
        "saves and inserts each file, on the same files",
        "ratio": round(statistics.median(p / i for (p, _), (i, _) in pairs), 2),
        "files": len(files),
        "cores": os.cpu_count(),
    }
    for way, times in taken.items():
        seconds = statistics.median(each for each, _ in times)
        found[f"{way}_seconds"] = round(seconds, 2)
        found[f"{way}_cells_per_second"] = round(len(files) / seconds)
        found[f"{way}_cpu_ms_per_cell"] = round(
            1000 * statistics.median(used for _, used in times) / len(files), 2
        )
    return found


def _timed(work: Callable[..., None], *given: Any) -> tuple[float, float]:
    """Seconds on the clock, and seconds of processor time in all threads."""
    started, used = time.perf_counter(), time.process_time()
    work(*given)
    return time.perf_counter() - started, time.process_time() - used


def _import(pictures: Path, home: Path) -> None:
    os.environ["ALLREVIEW_HOME"] = str(home)
    from allreview.cells.importing import import_cells
    from allreview.settings import current_settings
    from allreview.store import open_store

    settings = current_settings()
    engine = open_store(settings)
    report = import_cells(engine, settings, pictures, dataset="cells")
    engine.dispose()
    assert not report.rejected, report.rejected[0]


def _plain(files: list[Path], folder: Path) -> None:
    from PIL import Image, ImageOps

    folder.mkdir()
    store = sqlite3.connect(folder / "store.sqlite")
    store.execute(
        "create table cells (path text primary key, sha256 text, label text, width int, height int)"
    )
    for path in files:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        ImageOps.pad(image, (SIDE, SIDE)).save(folder / f"{sha256}.webp", "WEBP")
        store.execute(
            "insert into cells values (?, ?, ?, ?, ?)",
            (str(path), sha256, path.parent.name, image.width, image.height),
        )
    store.commit()
    store.close()


def _drawn(folder: Path, number: int) -> Path:
    """So many files, no two alike, of twelve subjects."""
    import numpy as np

    from allreview.cells.drawing import draw_cell, subject_stain

    drawn = []
    for place in range(min(DISTINCT, number)):
        stain = subject_stain(np.random.default_rng(place % 12))
        drawn.append(draw_cell(np.random.default_rng(place), stain, blast=place % 2 == 0))
    for place in range(number):
        label, image = ("all", "hem")[place % 2], drawn[place % len(drawn)].copy()
        image.putpixel((image.width // 2, image.height // 2), tuple(place.to_bytes(3, "big")))
        path = folder / "fold_0" / label / f"UID_{place % 12}_{place}_1_{label}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


if __name__ == "__main__":
    main()
