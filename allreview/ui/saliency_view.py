"""The cell and its saliency side by side, drawn from heat maps the worker made ahead of the reviewer."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st
from PIL import Image

import db
from allreview.cells.decoding import read_rgb
from allreview.cells.thumbnails import placeholder
from allreview.errors import UserError
from allreview.review import overlays
from allreview.review.sittings import DeskCell
from allreview.training import jobs, runs
from allreview.ui import context
from allreview.ui.errors import guarded
from allreview.wording import percent

AHEAD = 16
"""So many cells of the queue are explained ahead; more are asked for when half of them are left."""
_SIDE = 640
MAGNIFIED = 1.5
MAGNIFICATIONS = {1.0: "1 ×", 1.5: "1.5 ×", 2.0: "2 ×"}
_METHOD_KEY = "saliency_method"
_OPACITY_KEY = "saliency_opacity"


@dataclass(frozen=True)
class Shown:
    """What the reviewer wants to see over the cell."""

    method: str
    opacity: float


def magnification() -> float:
    """How much larger than life the cell is drawn, kept from cell to cell."""
    chosen = st.segmented_control(
        "Magnification",
        list(MAGNIFICATIONS),
        format_func=MAGNIFICATIONS.__getitem__,
        default=MAGNIFIED,
        required=True,
        key="magnification",
        persist_state="session",
        width="stretch",
        help="The same for every cell, so that sizes can be compared. A cell that would not fit is shown at 1 ×.",
    )
    return chosen


def choose() -> Shown:
    """Method and opacity, kept from cell to cell."""
    method = st.selectbox(
        "Saliency",
        list(overlays.METHODS),
        index=list(overlays.METHODS).index("gradcam_plus_plus"),
        format_func=overlays.METHODS.__getitem__,
        key=_METHOD_KEY,
        persist_state="session",
        help="Where the model looked to reach its answer. It shows what mattered to the model only.",
    )
    opacity = st.slider("Opacity", 0, 100, 60, 5, key=_OPACITY_KEY, persist_state="session", format="%d %%")
    return Shown(method, opacity / 100)


def cell_picture(cell: DeskCell, factor: float) -> None:
    """The cell as it was imported; a grey square and a sentence where its file cannot be read."""
    try:
        st.image(_picture(cell.path, cell.sha256, factor), width="stretch")
    except UserError as error:
        st.image(placeholder(), width="stretch")
        st.caption(str(error))


def nothing(sentence: str) -> None:
    """An empty pane of the same shape, so that nothing jumps."""
    st.image(_dark(), width="stretch", caption=sentence)


def pane(run_id: int, cells: list[DeskCell], shown: Shown, factor: float) -> None:
    """The overlay of the first cell; while its heat map is being made, looks again every half second."""
    cell = cells[0]
    ready = not _missing(run_id, shown.method, cells[:1])
    waiting = None if ready else 0.5
    st.fragment(_pane, run_every=waiting, key=f"saliency-{run_id}-{cell.cell_id}-{shown.method}-{ready}")(
        run_id, cells, shown, factor, ready
    )


def _pane(run_id: int, cells: list[DeskCell], shown: Shown, factor: float, was_ready: bool) -> None:
    with guarded():
        cell = cells[0]
        _ask_ahead(run_id, shown.method, cells)
        settings = context.settings()
        heatmap = overlays.load_heatmap(settings, run_id, shown.method, cell.sha256)
        if heatmap is None:
            nothing("Preparing the saliency of this cell…")
            return
        try:
            image = _image(cell.path, settings.max_pixels)
        except UserError:
            nothing("The image of this cell cannot be read.")
            return
        crop = _crop(run_id)
        drawn = overlays.overlay(image, heatmap, crop=crop, opacity=shown.opacity)
        on_cell = overlays.share_on_cell(image, heatmap, crop=crop)
        st.image(
            overlays.picture(drawn.crop(overlays.view_box(image, factor)), _SIDE),
            width="stretch",
            caption=f"{percent(on_cell)} of the heat lies on the cell",
        )
        if not was_ready:
            st.rerun(scope="app")


def _ask_ahead(run_id: int, method: str, cells: list[DeskCell]) -> None:
    """Ask the worker once for what is missing, before the reviewer gets there."""
    seen = [cell for cell in cells if not cell.blind]
    missing = _missing(run_id, method, seen)
    if not missing or (len(missing) < len(seen) / 2 and missing[0] is not seen[0]):
        return
    asked: set[tuple[int, str, int]] = st.session_state.setdefault("saliency-asked", set())
    new = [cell.cell_id for cell in missing if (run_id, method, cell.cell_id) not in asked]
    if new:
        asked.update((run_id, method, cell_id) for cell_id in new)
        jobs.request_saliency(context.settings(), run_id, method, new)


def _missing(run_id: int, method: str, cells: list[DeskCell]) -> list[DeskCell]:
    absent = set(overlays.missing(context.settings(), run_id, method, [cell.sha256 for cell in cells]))
    return [cell for cell in cells if cell.sha256 in absent]


@st.cache_data(max_entries=200, show_spinner=False)
def _picture(path: str, sha256: str, factor: float) -> bytes:
    image = _image(path, context.settings().max_pixels)
    return overlays.picture(image.crop(overlays.view_box(image, factor)), _SIDE)


@st.cache_data(max_entries=1000, show_spinner=False)
def _crop(run_id: int) -> int | None:
    with db.reading(context.engine()) as session:
        return runs.get_run(session, run_id, with_epochs=False).recipe.crop


@st.cache_data(max_entries=1, show_spinner=False)
def _dark() -> bytes:
    return overlays.picture(Image.new("RGB", (450, 450), (24, 24, 28)), _SIDE)


def _image(path: str, max_pixels: int) -> Image.Image:
    return read_rgb(Path(path), max_pixels)
