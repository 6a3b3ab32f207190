"""What a page says when something goes wrong: one sentence, never a traceback."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

import streamlit as st

from allreview.errors import UserError
from allreview.settings import current_settings
from allreview.ui.words import inert


@contextmanager
def guarded() -> Iterator[None]:
    """Run a page, a fragment or a dialog; an error becomes one sentence on the page.

    Streamlit's own control flow (`st.stop`, `st.rerun`) passes through. Put this inside every fragment
    and dialog: they rerun without the page around them.
    """
    try:
        yield
    except UserError as error:
        show_user_error(error)
    except Exception:
        st.error(f"Something went wrong ({log_error()}). Nothing you saved is lost.", icon=":material/error:")


def show_user_error(error: UserError) -> None:
    """The error's sentence, as it is: a file name in it cannot become a link or markup."""
    st.error(inert(str(error)), icon=":material/error:")


def log_error() -> str:
    """Write the traceback being handled to logs/app.log and give the number it stands under."""
    number = uuid.uuid4().hex[:8]
    _log(number)
    return number


def _log(number: str) -> None:
    """Write the traceback being handled under `number`; to stderr where the log cannot be written."""
    folder = current_settings().logs
    logger = logging.getLogger("allreview.app")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(Path(folder) / "app.log", maxBytes=5_000_000, backupCount=3, delay=True)
    except OSError:
        logger.exception("error %s", number)
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        logger.exception("error %s", number)
    finally:
        logger.removeHandler(handler)
        handler.close()
