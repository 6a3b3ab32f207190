"""Compare: two runs on the same test cells, any number as the paper's table and curves, and the leak."""

import streamlit as st

import db
from allreview.training import runs
from allreview.ui import comparison_view, context, frame, leak_view, needs, table_view

VIEWS = {"two": "Two runs", "table": "As the paper's table", "curves": "Curves", "leak": "The leak"}

frame.inside_app()
dataset = needs.require_dataset()
st.title("Compare")
with db.reading(context.engine()) as session:
    finished = runs.list_runs(session, dataset_id=dataset.id, states=("finished",))
if not finished:
    st.info("No run is finished yet. Train one first: it appears here beside the paper's figures.")
    st.stop()
view = st.segmented_control(
    "View",
    list(VIEWS),
    format_func=VIEWS.__getitem__,
    default="two" if len(finished) > 1 else "table",
    required=True,
    key="compare_view",
    label_visibility="collapsed",
    persist_state="session",
)
if view == "two":
    if len(finished) < 2:
        st.info(
            "Two finished runs are needed. Correct some labels on Review, then retrain: both appear here."
        )
        st.stop()
    comparison_view.comparison(*comparison_view.choose_pair(finished))
elif view == "leak":
    leak_view.leak(finished)
elif view == "table":
    table_view.table(table_view.choose_runs(finished))
else:
    table_view.curves(table_view.choose_runs(finished))
