"""The app: opens the store, draws the frame, and runs the page that was chosen."""

from pathlib import Path

import streamlit as st

from allreview.errors import UserError
from allreview.ui import context, frame, layout
from allreview.ui.errors import guarded, show_user_error

ROOT = Path(__file__).parent
PAGES = (
    ("data", "Data", ":material/folder_open:"),
    ("browse", "Browse", ":material/grid_view:"),
    ("train", "Train", ":material/model_training:"),
    ("review", "Review", ":material/rate_review:"),
    ("compare", "Compare", ":material/compare_arrows:"),
)


def main() -> None:
    """Draw the app once, as Streamlit does on every interaction."""
    pictures = ROOT / "allreview" / "ui"
    icon = (pictures / "icon.svg").read_text()
    st.set_page_config(page_title="allreview", page_icon=icon, layout="wide")
    st.logo(str(pictures / "logo.svg"), icon_image=str(pictures / "icon.svg"), size="large")
    page = st.navigation(
        [st.Page(f"pages/{name}.py", title=title, icon=icon) for name, title, icon in PAGES if _exists(name)]
    )
    try:
        context.engine()
    except UserError as error:
        show_user_error(error)
        st.stop()
    with guarded(), frame.drawn():
        layout.sidebar()
        layout.synthetic_banner()
        page.run()


def _exists(name: str) -> bool:
    return (ROOT / "pages" / f"{name}.py").is_file()


if __name__ == "__main__":
    main()
