"""A run's test cells read in their company: apart from the figures of single cells."""

import streamlit as st

from allreview.cells.naming import class_title
from allreview.evaluation.figures import confusion_figure
from allreview.evaluation.naming import FIGURE_TITLES, IN_COMPANY, in_company_in_words, new_patient_in_words
from allreview.evaluation.reports import company_report
from allreview.training.runs import RunRow
from allreview.ui import context
from allreview.ui.figures import chart, with_interval

_SHOWN = ("accuracy", "balanced_accuracy", "weighted_f1", "auroc")


def in_company(run: RunRow) -> None:
    """Figures and confusion matrix, or why there are none."""
    found = company_report(context.engine(), run.id)
    if found is None:
        st.write(in_company_in_words(None))
        return
    st.write(IN_COMPANY)
    scores = dict(found.scores)
    st.dataframe(
        [{"In company": FIGURE_TITLES[name], "Test (95 %)": with_interval(scores, name)} for name in _SHOWN],
        hide_index=True,
        width="stretch",
    )
    st.markdown(new_patient_in_words(found.new_patient, shares_patients=False))
    titles = {name: class_title(name) for name in found.classes}
    chart(
        confusion_figure(found.figures["confusion"], "Test cells, in company", titles),
        f"company-{run.id}",
    )
