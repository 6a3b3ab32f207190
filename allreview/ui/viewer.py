"""The viewer: the cell and its saliency with zoom, pan, brightness, contrast and opacity, all in the browser.

A component of ours (`components/viewer.*`). It also listens for the keys that Streamlit's buttons cannot have, and
holds the sheet of all keys. What it is given is in the page's source, so it is never given what is hidden.
"""

import base64
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st
from streamlit.components.v2 import component

from allreview.ui import desk_help

REASONS_BOX = "desk-reasons"
METHODS_BOX = "desk-methods"
NOTE_BOX = "desk-note"
REDO_BOX = "desk-redo"
"""Keys of the containers whose buttons and field the viewer's keys press and reach."""
TURN_FIELD = "note-"
"""With the turn's number, the key of the field that is drawn last of what belongs to the turn."""

STANDARD_ZOOM = 1.5
_BELOW = 340
"""Pixels of the window that the rest of the desk needs, so that the answers are in sight."""

_COMPONENT = Path(__file__).parent / "components"


@dataclass(frozen=True)
class Heat:
    """One saliency pane: the method's title, its heat as a transparent PNG or None, and a sentence."""

    title: str
    layer: str | None
    note: str


@dataclass(frozen=True)
class Shown:
    """What the viewer draws. `turn` tells cells apart; `reference` is the side that fills a pane at 1 ×."""

    turn: int
    picture: str | None
    width: int
    height: int
    reference: int
    standard_zoom: float
    note: str = ""
    empty: str = ""
    heat: tuple[Heat, ...] = ()


def data_uri(picture: bytes, kind: str = "png") -> str:
    """The picture within the page itself: nothing that names a file."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def viewer(shown: Shown, help_sheet: desk_help.Sheet) -> None:
    """Draw the cell; a later call with the same component changes it in place."""
    _component()(
        key="viewer",
        data={
            **asdict(shown),
            "help": help_sheet,
            "below": _BELOW,
            "method_keys": desk_help.METHOD_KEYS.lower(),
            "method_buttons": f".st-key-{METHODS_BOX} button[aria-pressed]",
            "reason_buttons": f".st-key-{REASONS_BOX} button[aria-pressed]",
            "turn_field": f".st-key-{TURN_FIELD}",
            "redo_button": f".st-key-{REDO_BOX} button",
            "note_field": f".st-key-{NOTE_BOX}",
        },
    )


@st.cache_resource(show_spinner=False)
def _component():
    return component(
        "allreview_viewer",
        html=(_COMPONENT / "viewer.html").read_text(encoding="utf-8"),
        css=(_COMPONENT / "viewer.css").read_text(encoding="utf-8"),
        js=(_COMPONENT / "viewer.js").read_text(encoding="utf-8"),
    )
