"""AppTest runs of app.py, with its sidebar and guard, as a browser sees them."""

from typing import Any

import pytest
from streamlit.runtime.pages_manager import PagesManager


@pytest.fixture(autouse=True)
def _through_app_py(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run go through app.py.

    Before a process has met `st.navigation`, Streamlit runs the files in `pages/` on their own. A real process
    is in that state once (see `context.inside_app`); AppTest puts it back before every run.
    """
    made = PagesManager.__init__

    def make(self: PagesManager, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        PagesManager.uses_pages_directory = False

    monkeypatch.setattr(PagesManager, "__init__", make)
