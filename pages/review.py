"""Review: one cell at a time, a key each; every decision is saved before the page says so."""

import streamlit as st

from allreview.ui import desk, desk_setup, frame, needs

frame.inside_app()
dataset = needs.require_dataset()
reviewer = needs.require_reviewer()

sitting = desk_setup.open_sitting(dataset.id, reviewer.id)
if sitting is not None:
    desk.desk(sitting)
    st.stop()

st.title("Review")
desk_setup.setup(dataset.id, reviewer)
