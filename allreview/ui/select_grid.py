"""A grid of cells to select from, with the mouse and with the keyboard."""

import base64
import functools
import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from allreview.cells.browsing import CellRow, Filters
from allreview.cells.naming import class_title, shown
from allreview.ui import bulk, context, detail, selection
from allreview.ui.errors import guarded
from allreview.ui.gallery import picture
from allreview.ui.words import class_colour
from allreview.wording import percent
from db.tables import Dataset

TILE = 112
HINT = (
    "Click a cell to select it, Ctrl-click to add one, Shift-click for a range, or drag a frame around several. "
    "A double click opens it."
)
_DRAWN = "_grid_drawn_"
_FILES = Path(__file__).parent / "components"
_COMPONENT = component(
    "select_grid",
    html='<div class="grid" role="listbox" aria-multiselectable="true"></div>',
    css=(_FILES / "select_grid.css").read_text(),
    js=(_FILES / "select_grid.js").read_text(),
)

Tile = dict[str, Any]


def select_view(dataset: Dataset, wanted: Filters, cells: list[Tile]) -> None:
    """The cells of a page to select from, and the bar with what to do with them; a click reruns no more than this."""
    st.fragment(_view, key="select-view")(dataset, wanted, cells)


def _view(dataset: Dataset, wanted: Filters, cells: list[Tile]) -> None:
    with guarded():
        bulk.reload_if_changed()
        opened = select_grid(cells, key="select-grid", label="Cells of this page")
        bulk.bulk_bar(dataset, wanted, hint=HINT)
        if opened is not None:
            detail.open_cell(opened, run_id=wanted.run_id, test_predictions=wanted.test_predictions)


def tiles(rows: Sequence[CellRow], classes: Sequence[str], *, with_run: bool) -> list[Tile]:
    """What the grid shows of each cell, as the component reads it."""
    settings = context.settings()
    return [_tile(row, classes, with_run, picture(row, settings)) for row in rows]


def select_grid(
    cells: list[Tile], *, key: str, label: str, toggles: bool = False, tile: int = TILE
) -> int | None:
    """The grid; the id of the cell that was opened in this rerun (double click, Enter), else None.

    Args:
        key: tells grids apart.
        label: what the grid shows, for those who cannot see it.
        toggles: whether a plain click adds and removes a cell, instead of selecting it alone.
        tile: least width of a cell in pixels.
    """
    now = selection.current()
    shown_ids = [cell["id"] for cell in cells]
    token = _token(now.revision, shown_ids)
    drawn = st.session_state.get(_DRAWN + key)
    if drawn is None or drawn[0] != token:
        # Handed over once: were it handed over after every click, the whole grid would be sent after every click.
        drawn = (token, [cell for cell in now.cells if cell in set(shown_ids)])
        st.session_state[_DRAWN + key] = drawn
    result = _COMPONENT(
        key=key,
        data={
            "name": key,
            "label": label,
            "cells": cells,
            "token": token,
            "selected": drawn[1],
            "revision": now.revision,
            "toggles": toggles,
            "tile": tile,
        },
        on_picked_change=functools.partial(_take_over, key, frozenset(shown_ids)),
        on_opened_change=lambda: None,
    )
    opened = result.get("opened")
    return opened if opened in shown_ids else None


def _take_over(key: str, known: Collection[int]) -> None:
    """What the browser says is selected becomes the selection, if it knew what the page knew."""
    said = st.session_state[key].get("picked") or {}
    if said.get("revision") != selection.current().revision:
        return
    selection.picked(
        [cell for cell in said["cells"] if cell in known],
        [cell for cell in said["picked"] if cell in known],
        everywhere=said["everywhere"],
    )


def _token(revision: int, shown_ids: Sequence[int]) -> str:
    return f"{revision}-{hashlib.sha256(repr(shown_ids).encode()).hexdigest()[:16]}"


def _tile(row: CellRow, classes: Sequence[str], with_run: bool, thumbnail: bytes) -> Tile:
    label, subject = class_title(row.current_label), _subject(row)
    was = f", was {class_title(row.source_label)}" if row.relabelled else ""
    said, sure = _said(row) if with_run else ("", "")
    spoken = [f"Cell {row.cell_id}", label + was, f"{said} {sure}".strip(), subject]
    return {
        "id": row.cell_id,
        "src": f"data:image/webp;base64,{base64.b64encode(thumbnail).decode()}",
        "alt": ", ".join(words for words in spoken if words),
        "title": "\n".join(words for words in spoken if words),
        "label": label,
        "colour": class_colour(row.current_label, classes),
        "said": said,
        "sure": sure,
        "wrong": with_run and row.wrong,
        "subject": subject,
    }


def _said(row: CellRow) -> tuple[str, str]:
    """The prediction in words and its certainty; a sign, besides the colour, tells right from wrong."""
    if row.predicted is None or row.probability is None:
        return "Test, read blind" if row.part == "test" else "No prediction", ""
    sign = "✗ " if row.wrong else "✓ " if row.predicted == row.current_label else ""
    return sign + class_title(row.predicted), percent(row.probability)


def _subject(row: CellRow) -> str:
    return f"Subject {shown(row.subject)}" if row.subject else "No subject"
