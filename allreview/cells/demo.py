"""The synthetic demo set: cells nobody has, drawn so that the tool can be tried without patient data.

Twenty subjects, eleven with leukaemia and nine without, 16 cells each, in the C-NMC layout. About 6 % of the
files lie in the wrong class's folder on purpose; `wrong_labels.csv` (`path,true_label`, paths from its own
folder) tells which. Subjects 3 and 7 share a few identical files, so a leak group of two is there to see.
"""

import csv
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from allreview.cells.drawing import Stain, draw_cell, subject_stain
from allreview.cells.importing import ImportReport, Progress, import_cells
from allreview.settings import Settings

DATASET = "Synthetic demo"
SEED = 20190
LEUKAEMIA_SUBJECTS = tuple(str(number) for number in range(1, 12))
NORMAL_SUBJECTS = tuple(f"H{number}" for number in range(1, 10))
IMAGES_PER_SUBJECT = 4
CELLS_PER_IMAGE = 4
WRONG_SHARE = 0.06
SHARED_SUBJECTS = ("3", "7")
SHARED_CELLS = 4


@dataclass(frozen=True)
class DemoCell:
    """One file of the demo set: `label` is where it lies, `true_label` how it was drawn."""

    subject: str
    image: int
    cell: int
    true_label: str
    label: str

    @property
    def path(self) -> str:
        """Below the demo's folder."""
        name = f"UID_{self.subject}_{self.image}_{self.cell}_{self.label}.bmp"
        return f"cells/fold_0/{self.label}/{name}"


def import_demo(engine: sa.Engine, settings: Settings, progress: Progress | None = None) -> ImportReport:
    """Draw the demo set under `uploads/demo/`, unless it is there, and import it as 'Synthetic demo'.

    Raises:
        UserError: a dataset of that name exists and holds real cells.
    """
    folder = settings.uploads / "demo"
    if not folder.is_dir():
        draw_demo(folder, progress)
    return import_cells(
        engine, settings, folder / "cells", dataset=DATASET, synthetic=True, progress=progress
    )


def draw_demo(folder: Path, progress: Progress | None = None) -> None:
    """Draw every cell of the demo set and `wrong_labels.csv`; `folder` appears whole or not at all."""
    cells = demo_cells()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".drawing-"))
    try:
        for label in ("all", "hem"):
            (partial / "cells" / "fold_0" / label).mkdir(parents=True)
        stains = {subject: subject_stain(random) for subject, random in _subject_randoms()}
        with ThreadPoolExecutor(os.cpu_count() or 1, "demo") as pool:
            drawn = pool.map(lambda cell: _draw_file(partial, cell, stains[cell.subject]), cells)
            for done, _ in enumerate(drawn, start=1):
                if progress:
                    progress(done, len(cells), "Drawing the demo cells")
        _copy_shared(partial, cells)
        _write_wrong_labels(partial, cells)
        partial.chmod(0o755)
        if not folder.is_dir():
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def demo_cells() -> list[DemoCell]:
    """All cells of the demo set, always the same, with the wrong labels given out."""
    cells = [
        DemoCell(subject, image, cell, label, label)
        for label, subjects in (("all", LEUKAEMIA_SUBJECTS), ("hem", NORMAL_SUBJECTS))
        for subject in subjects
        for image in range(1, IMAGES_PER_SUBJECT + 1)
        for cell in range(1, CELLS_PER_IMAGE + 1)
    ]
    # Cells of the two tied subjects keep their labels: their copies would contradict them.
    eligible = [index for index, cell in enumerate(cells) if cell.subject not in SHARED_SUBJECTS]
    random = np.random.default_rng(SEED)
    for index in random.choice(eligible, round(WRONG_SHARE * len(cells)), replace=False):
        cell = cells[index]
        cells[index] = replace(cell, label="hem" if cell.true_label == "all" else "all")
    return cells


def _subject_randoms() -> Iterator[tuple[str, np.random.Generator]]:
    for number, subject in enumerate((*LEUKAEMIA_SUBJECTS, *NORMAL_SUBJECTS)):
        yield subject, np.random.default_rng([SEED, number])


def _draw_file(folder: Path, cell: DemoCell, stain: Stain) -> None:
    number = (*LEUKAEMIA_SUBJECTS, *NORMAL_SUBJECTS).index(cell.subject)
    random = np.random.default_rng([SEED, number, cell.image, cell.cell])
    draw_cell(random, stain, blast=cell.true_label == "all").save(folder / cell.path, "BMP")


def _copy_shared(folder: Path, cells: list[DemoCell]) -> None:
    """The same pictures once more under the second subject, as the published C-NMC set has them."""
    first, second = SHARED_SUBJECTS
    for cell in [cell for cell in cells if cell.subject == first][:SHARED_CELLS]:
        copy = replace(cell, subject=second, image=IMAGES_PER_SUBJECT + 1)
        shutil.copyfile(folder / cell.path, folder / copy.path)


def _write_wrong_labels(folder: Path, cells: list[DemoCell]) -> None:
    with open(folder / "wrong_labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "true_label"))
        writer.writerows((cell.path, cell.true_label) for cell in cells if cell.label != cell.true_label)
