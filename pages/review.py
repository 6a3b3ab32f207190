"""Review: one cell at a time, a key each; every decision is saved before the page says so."""

import streamlit as st

import db
from allreview.ui import context, desk, frame, needs

frame.inside_app()
dataset = needs.require_dataset()
reviewer = needs.require_reviewer()

sitting_id = desk.open_sitting(dataset.id, reviewer.id)
if sitting_id is not None:
    desk.desk(sitting_id, dataset.id, reviewer.id)
    st.stop()

st.title("Review")
with db.reading(context.engine()) as session:
    finished = desk.reviewable_runs(session, dataset.id)
if not finished:
    st.info("There is nothing to review yet: train a model first, then read the cells it got wrong.")
    st.page_link("pages/train.py", label="Go to Train", icon=":material/model_training:")
    st.stop()
desk.setup(finished, dataset.id, reviewer.id)
