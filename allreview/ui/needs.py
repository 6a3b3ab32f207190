"""What a page cannot do without: cells, and somebody who looks at them. Else it says how to get them, and stops."""

import streamlit as st

from allreview.ui import context
from allreview.ui.importer import demo_button, load_demo
from db.tables import Dataset, Reviewer


def require_dataset() -> Dataset:
    """The chosen dataset. Without one the page says how to get cells, and stops there."""
    found = context.current_dataset()
    if found is not None:
        return found
    with st.container(border=True, key="empty-state"):
        st.subheader("No cells yet", anchor=False)
        st.write("Import your own cells, or look around with synthetic ones.")
        with st.container(horizontal=True, vertical_alignment="center"):
            st.page_link("pages/data.py", label="Import cells", icon=":material/folder_open:")
            clicked = demo_button()
        if clicked:
            load_demo()
    st.stop()


def require_reviewer() -> Reviewer:
    """Who sits at the screen. Without a name the page asks for it, and stops there."""
    found = context.current_reviewer()
    if found is not None:
        return found
    st.info("Say who you are in the sidebar first: every decision carries a name.", icon=":material/person:")
    st.stop()
