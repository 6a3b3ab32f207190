"""Labels: every event of the log, taking decisions back, what changed since a run, and reports to print."""

import streamlit as st

from allreview.ui import changes_view, frame, needs, record_view, report_view

VIEWS = {"log": "Every decision", "changes": "Changes since a run", "report": "Reports"}

frame.inside_app()
dataset = needs.require_dataset()
reviewer = needs.require_reviewer()
st.title("Labels", anchor=False)
view = record_view.choose_view(VIEWS)
if view == "changes":
    changes_view.changes(dataset.id, reviewer.id)
elif view == "report":
    report_view.reports(dataset.id, reviewer.id)
else:
    record_view.record(dataset, reviewer.id)
