"""Importing from a page: progress while it runs, a plain report afterwards."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import streamlit as st

import db
from allreview.cells.naming import class_title, shown
from allreview.cells.summaries import tied_subjects
from allreview.errors import UserError
from allreview.places import Place, place
from allreview.ui import context
from allreview.ui.words import inert
from allreview.wording import listed, plural

if TYPE_CHECKING:
    from allreview.cells.importing import ImportReport, Progress
    from allreview.cells.scanning import Rejected

REPORT_KEY = "_import_report"
SHOWN_GROUPS = 12


def demo_button(*, primary: bool = True) -> bool:
    """The button 'Load the synthetic demo set'; True when it was clicked."""
    return st.button(
        "Load the synthetic demo set",
        key="load-demo",
        type="primary" if primary else "secondary",
        icon=":material/science:",
        help="A few hundred drawn cells of some 20 made-up subjects. They stay marked as synthetic.",
    )


def load_demo() -> None:
    """Import the synthetic demo set, choose it, and draw the page again."""
    from allreview.cells.demo import import_demo

    with _progress("Drawing the demo cells") as report_progress:
        report = import_demo(context.engine(), context.settings(), progress=report_progress)
    _finish(report)


def import_path(source: str, dataset: str, labels: str, labels_file: IO[bytes] | None) -> None:
    """Import a folder or zip that lies on the server, choose the dataset, and draw the page again.

    Raises:
        UserError: nothing was named, or it cannot be imported.
    """
    if not source.strip():
        raise UserError("Give the path of a folder or zip file on the server.")
    with tempfile.TemporaryDirectory() as folder:
        csv = _csv(Path(folder), labels, labels_file)
        _import(place(source.strip()), dataset.strip() or None, csv)


def import_upload(upload: IO[bytes], name: str, dataset: str, labels_file: IO[bytes] | None) -> None:
    """Import an uploaded zip, choose the dataset, and draw the page again.

    Raises:
        UserError: it cannot be imported.
    """
    home = context.settings().root
    # Beside the store, not in /tmp: an upload can be larger than the memory that /tmp may live in.
    with tempfile.TemporaryDirectory(dir=home, prefix="upload-") as folder:
        archive = Path(folder) / "upload.zip"
        with archive.open("wb") as file:
            shutil.copyfileobj(upload, file, 1 << 20)
        csv = _csv(Path(folder), "", labels_file)
        _import(archive, dataset.strip() or Path(name).stem, csv)


def show_report() -> None:
    """What the last import of this tab did, in words; nothing when there was none."""
    report: ImportReport | None = st.session_state.get(REPORT_KEY)
    if report is None:
        return
    with st.container(border=True, key="import-report"):
        if report.added:
            st.success(
                f"{plural(report.added, 'new cell')} went into {inert(report.dataset)}.",
                icon=":material/check_circle:",
            )
        else:
            st.info(
                f"Nothing new: all of it was in {inert(report.dataset)} already."
                if not report.rejected
                else f"No new cell went into {inert(report.dataset)}.",
                icon=":material/info:",
            )
        classes = ", ".join(
            f"{inert(class_title(name))} {number:,}" for name, number in report.classes.items()
        )
        subjects = plural(report.subjects, "subject")
        st.write(f"It holds {plural(report.cells, 'cell')} of {subjects}. Classes: {classes}.")
        if report.duplicates:
            files = plural(report.duplicates, "file is", "files are")
            st.write(f"{files} identical to another and counted once.")
        with db.reading(context.engine()) as session:
            show_tied_subjects(tied_subjects(session, report.dataset_id))
        _show_rejected(report.rejected)
        if st.button("Close report", type="tertiary", key="close-report"):
            del st.session_state[REPORT_KEY]
            st.rerun()


def show_tied_subjects(groups: list[list[str]]) -> None:
    """Which subjects are kept together, one sentence each."""
    for names in groups[:SHOWN_GROUPS]:
        st.write(
            f"Subjects {listed([inert(name) for name in names])} share identical cells and are kept together "
            "in every split."
        )
    if len(groups) > SHOWN_GROUPS:
        st.write(f"So are the subjects of {plural(len(groups) - SHOWN_GROUPS, 'more group')}.")


def _show_rejected(rejected: Sequence["Rejected"]) -> None:
    if not rejected:
        return
    st.write(f"**{plural(len(rejected), 'file was', 'files were')} left out:**")
    st.dataframe(
        {"File": [shown(row.path) for row in rejected], "Why": [row.reason for row in rejected]},
        hide_index=True,
        height=min(38 * (len(rejected) + 1), 320),
        column_config={
            "File": st.column_config.TextColumn(width="medium"),
            "Why": st.column_config.TextColumn(width="large"),
        },
    )


def _import(source: Place, dataset: str | None, labels: Place | None) -> None:
    from allreview.cells.importing import import_cells

    with _progress("Reading the cells") as report_progress:
        report = import_cells(
            context.engine(),
            context.settings(),
            source,
            dataset=dataset,
            labels=labels,
            progress=report_progress,
        )
    _finish(report)


def _finish(report: "ImportReport") -> None:
    st.session_state[REPORT_KEY] = report
    context.choose_dataset(report.dataset_id)
    st.rerun()


def _csv(folder: Path, path: str, upload: IO[bytes] | None) -> Place | None:
    if upload is None:
        return place(path.strip()) if path.strip() else None
    written = folder / "labels.csv"
    written.write_bytes(upload.read())
    return written


@contextmanager
def _progress(words: str) -> Iterator["Progress"]:
    bar = st.progress(0.0, text=f"{words} …")

    def update(done: int, total: int, doing: str = words) -> None:
        bar.progress(
            min(done / total, 1.0) if total else 0.0,
            text=f"{doing}: {done:,}{f' of {total:,}' if total else ''}. Stay on this page.",
        )

    try:
        yield update
    finally:
        bar.empty()
