"""What the viewer is given of a cell: its picture, and its heat maps, which the worker makes ahead of the reviewer."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
import streamlit as st
from PIL import Image

import db
from allreview.cells.decoding import decode_rgb, read_bytes
from allreview.errors import UserError
from allreview.places import cell_file
from allreview.review.reading.desk_cells import DeskCell
from allreview.review.saliency import overlays
from allreview.training import jobs, runs
from allreview.ui import context
from allreview.ui.desk_help import METHOD_KEYS
from allreview.ui.viewer import METHODS_BOX, STANDARD_ZOOM, Heat, Shown, data_uri
from allreview.wording import percent
from db.tables import Cell

AHEAD = 16
"""So many cells of the queue are explained ahead; more are asked for when half of them are left."""
MOST = 3
"""Methods side by side."""
_PREFETCHED = 2
_GREATEST_SIDE = 2000
_CHOICE = "saliency"
_DEFAULT = ("gradcam_plus_plus",)


@dataclass(frozen=True)
class _Picture:
    """A cell as the viewer draws it, or the sentence that says why it cannot be drawn."""

    uri: str | None
    width: int = 450
    height: int = 450
    zoom: float = 1.0
    problem: str = ""


def chosen_methods() -> list[str]:
    """The methods that are shown, before their buttons are drawn; kept in the URL."""
    if _CHOICE not in st.session_state:
        asked = st.query_params.get(_CHOICE)
        named = asked.split(",") if asked is not None else _DEFAULT
        st.session_state[_CHOICE] = [name for name in named if name in overlays.METHODS][:MOST]
    return [name for name in overlays.METHODS if name in st.session_state[_CHOICE]]


def choose_methods() -> None:
    """A button for every method, with its key."""
    keys = dict(zip(overlays.METHODS, METHOD_KEYS, strict=False))
    with st.container(key=METHODS_BOX):
        st.pills(
            "Saliency",
            list(overlays.METHODS),
            selection_mode="multi",
            format_func=lambda method: f"{overlays.METHODS[method]} :gray[{keys[method]}]",
            key=_CHOICE,
            persist_state="session",
            on_change=_remember_methods,
            help="Where the model looked to reach its answer. It shows what mattered to the model only. "
            f"At most {MOST} side by side.",
        )


def _remember_methods() -> None:
    chosen = st.session_state[_CHOICE] = st.session_state[_CHOICE][-MOST:]
    st.query_params[_CHOICE] = ",".join(chosen)


def shown(turn: int, cell: DeskCell, dataset_id: int, run_id: int | None, methods: Sequence[str]) -> Shown:
    """Everything the viewer draws of the cell. Of a cell whose prediction is hidden there is no heat."""
    picture = _picture(cell.path, cell.sha256)
    empty, heat = "", ()
    if not cell.shows("prediction"):
        empty = "Saliency is hidden: this cell is read blind."
    elif run_id is None:
        empty = "This queue belongs to no run, so there is no saliency."
    elif not methods:
        empty = ""
    else:
        heat = tuple(_heat(cell, run_id, method) for method in methods)
    return Shown(
        turn=turn,
        picture=picture.uri,
        width=picture.width,
        height=picture.height,
        reference=max(_reference(dataset_id), 1),
        standard_zoom=picture.zoom,
        note=picture.problem,
        empty=empty,
        heat=heat,
    )


def waiting(cell: DeskCell, run_id: int | None, methods: Sequence[str]) -> bool:
    """Whether a heat map of this cell is still being made."""
    if run_id is None or not cell.shows("prediction"):
        return False
    return any(overlays.missing(context.settings(), run_id, method, [cell.sha256]) for method in methods)


def ask_ahead(run_id: int | None, methods: Sequence[str], cells: Sequence[DeskCell]) -> None:
    """Ask the worker once for what is missing, before the reviewer gets there."""
    seen = [cell for cell in cells if cell.shows("prediction")]
    if run_id is None or not seen:
        return
    for method in methods:
        missing = _missing(run_id, method, seen)
        if not missing or (len(missing) < len(seen) / 2 and missing[0] is not seen[0]):
            continue
        asked: set[tuple[int, str, int]] = st.session_state.setdefault("saliency-asked", set())
        new = [cell.cell_id for cell in missing if (run_id, method, cell.cell_id) not in asked]
        if new:
            asked.update((run_id, method, cell_id) for cell_id in new)
            jobs.request_saliency(context.settings(), run_id, method, new)


def prefetch(run_id: int | None, methods: Sequence[str], cells: Sequence[DeskCell]) -> None:
    """Prepare the pictures of the next cells, so that a key need not wait for them."""
    for cell in cells[1 : 1 + _PREFETCHED]:
        _picture(cell.path, cell.sha256)
        if run_id is not None and cell.shows("prediction"):
            for method in methods:
                _heat(cell, run_id, method)


def _heat(cell: DeskCell, run_id: int, method: str) -> Heat:
    title = overlays.METHODS[method]
    if overlays.missing(context.settings(), run_id, method, [cell.sha256]):
        return Heat(title, None, "Preparing the saliency of this cell…")
    layer, on_cell = _layer(run_id, method, cell.sha256, cell.path, _crop(run_id))
    if layer is None:
        return Heat(title, None, "The saliency of this cell cannot be read.")
    return Heat(title, layer, f"{percent(on_cell)} of the heat lies on the cell")


def _missing(run_id: int, method: str, cells: Sequence[DeskCell]) -> list[DeskCell]:
    absent = set(overlays.missing(context.settings(), run_id, method, [cell.sha256 for cell in cells]))
    return [cell for cell in cells if cell.sha256 in absent]


@st.cache_data(max_entries=200, show_spinner=False)
def _layer(run_id: int, method: str, sha256: str, path: str, crop: int | None) -> tuple[str | None, float]:
    heatmap = overlays.load_heatmap(context.settings(), run_id, method, sha256)
    image = _image(path, sha256)
    if heatmap is None or image is None:
        return None, 0.0
    layer = overlays.picture(overlays.heat_layer(image, heatmap, crop=crop), _GREATEST_SIDE)
    return data_uri(layer), overlays.share_on_cell(image, heatmap, crop=crop)


@st.cache_data(max_entries=200, show_spinner=False)
def _picture(path: str, sha256: str) -> _Picture:
    image = _image(path, sha256)
    if image is None:
        return _Picture(None, problem="The image of this cell is gone, or is not what was imported.")
    return _Picture(
        data_uri(overlays.picture(image, _GREATEST_SIDE)), image.width, image.height, _standard_zoom(image)
    )


def _image(path: str, sha256: str) -> Image.Image | None:
    """The cell as it was imported, or None: never the picture of another cell, nor a name that tells something."""
    try:
        data = read_bytes(cell_file(path))
        if hashlib.sha256(data).hexdigest() == sha256:
            return decode_rgb(data, context.settings().max_pixels)
    except UserError:
        pass
    return None


def _standard_zoom(image: Image.Image) -> float:
    """Cells in a black frame are drawn larger, all alike, because size is a sign; one that would not fit is not."""
    box = overlays.view_box(image, STANDARD_ZOOM)
    return STANDARD_ZOOM if box != (0, 0, image.width, image.height) else 1.0


@st.cache_data(max_entries=1000, show_spinner=False)
def _crop(run_id: int) -> int | None:
    with db.reading(context.engine()) as session:
        return runs.get_run(session, run_id, with_epochs=False).recipe.crop


@st.cache_data(max_entries=100, ttl=600, show_spinner=False)
def _reference(dataset_id: int) -> int:
    """The side that fills a pane: the dataset's largest, unless one picture is far larger than the others.

    The same for all cells, so that sizes can be compared.
    """
    query = sa.select(
        sa.func.max(Cell.width), sa.func.max(Cell.height), sa.func.avg(Cell.width), sa.func.avg(Cell.height)
    ).where(Cell.dataset_id == dataset_id)
    with db.reading(context.engine()) as session:
        width, height, *usual = session.execute(query).one()
    return round(min(max(width, height), 2 * max(float(value) for value in usual)))
