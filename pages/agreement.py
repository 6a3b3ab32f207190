"""Agreement: cells for several readers, how far they are, how well they agree, and where they do not."""

import streamlit as st

from allreview.ui import agreement_view, assigning, disagreement_view, frame, needs

frame.inside_app()
dataset = needs.require_dataset()
reviewer = needs.require_reviewer()
st.title("Agreement", anchor=False)
view = assigning.choose_view(dataset.id)
if view == "assign":
    assigning.assign_form(dataset, reviewer)
elif view == "worklists":
    assigning.worklist_cards(dataset, reviewer)
elif view == "figures":
    agreement_view.figures(dataset)
else:
    disagreement_view.disagreements(dataset, reviewer)
