"""Pages live inside the app, also when somebody opens one by its own address first."""

import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import streamlit as st

_APP = Path(__file__).resolve().parents[2] / "app.py"
_inside: ContextVar[bool] = ContextVar("inside the app", default=False)


@contextmanager
def drawn() -> Iterator[None]:
    """The app's frame is drawn: a page run within this block is inside the app."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


def inside_app() -> None:
    """Call first in every page.

    Until the app has run once in a server's life, Streamlit takes `pages/` for scripts of their own and
    runs the one in the address without sidebar and without a check of the store. Then the app is run here,
    and it runs the page.
    """
    if not _inside.get():
        runpy.run_path(str(_APP), run_name="__main__")
        st.stop()
