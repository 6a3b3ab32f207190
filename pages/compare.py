"""Compare: two runs on the same test cells, and what the corrections changed."""

import streamlit as st

import db
from allreview.training import runs
from allreview.ui import comparison_view, context, frame, needs

frame.inside_app()
dataset = needs.require_dataset()
st.title("Compare")
with db.reading(context.engine()) as session:
    finished = runs.list_runs(session, dataset_id=dataset.id, states=("finished",))
if len(finished) < 2:
    st.info("Two finished runs are needed. Correct some labels on Review, then retrain: both appear here.")
    st.stop()
comparison_view.comparison(*comparison_view.choose_pair(finished))
