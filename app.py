"""The app: opens the store, draws the frame, and runs the page that was chosen."""

from pathlib import Path

import streamlit as st

from allreview.errors import UserError
from allreview.ui import context, frame, layout
from allreview.ui.errors import guarded, show_user_error

ROOT = Path(__file__).parent
PAGES = (
    ("pages/data.py", "Data", ":material/folder_open:"),
    ("pages/browse.py", "Browse", ":material/grid_view:"),
    ("pages/train.py", "Train", ":material/model_training:"),
    ("pages/review.py", "Review", ":material/rate_review:"),
    ("pages/labels.py", "Labels", ":material/history:"),
    ("pages/agreement.py", "Agreement", ":material/group:"),
    ("pages/compare.py", "Compare", ":material/compare_arrows:"),
)


def main() -> None:
    """Draw the app once, as Streamlit does on every interaction."""
    pictures = ROOT / "allreview" / "ui"
    icon = (pictures / "icon.svg").read_text()
    st.set_page_config(page_title="allreview", page_icon=icon, layout="wide")
    st.logo(str(pictures / "logo.svg"), icon_image=str(pictures / "icon.svg"), size="large")
    page = st.navigation([st.Page(path, title=title, icon=icon) for path, title, icon in PAGES])
    try:
        context.engine()
    except UserError as error:
        show_user_error(error)
        st.stop()
    with guarded(), frame.drawn():
        layout.sidebar()
        layout.synthetic_banner()
        page.run()


if __name__ == "__main__":
    main()
