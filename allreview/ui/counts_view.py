"""How many cells of each class, by subject and by part, as charts."""

import streamlit as st

from allreview.cells.counting import counts_of
from allreview.cells.naming import class_title
from allreview.ui import context
from allreview.ui.words import PART_TITLES
from db.tables import Dataset


def counts_view(dataset: Dataset, run_id: int | None) -> None:
    """An expander with the counts of the whole dataset; nothing is counted or drawn until it is opened."""
    with st.expander(
        "Counts per class, subject and part", icon=":material/bar_chart:", on_change="rerun"
    ) as shown:
        if not shown.open:
            return
        from allreview.evaluation.figures import counts_figure

        with st.spinner("Counting…", show_time=True):
            found = counts_of(context.engine(), dataset.id, run_id)
        st.caption("All cells of the dataset by their current label, whatever the filters.")
        by_part = [(PART_TITLES[part], label, n) for part, label, n in sorted(found.by_part, key=_part_order)]
        by_subject = [(subject or "No subject", label, number) for subject, label, number in found.by_subject]
        by_class = [("All cells", label, number) for label, number in found.by_class]
        labels = [label for label, _ in found.by_class]
        classes = [*dataset.classes, *(label for label in labels if label not in dataset.classes)]
        titles = {label: class_title(label) for label in classes}
        left, right = st.columns(2)
        left.plotly_chart(counts_figure(by_class, "Per class", classes, titles), key="counts-class")
        if by_part:
            right.plotly_chart(
                counts_figure(by_part, "Per part of the run", classes, titles), key="counts-part"
            )
        st.plotly_chart(counts_figure(by_subject, "Per subject", classes, titles), key="counts-subject")


def _part_order(counted: tuple[str, str, int]) -> int:
    return list(PART_TITLES).index(counted[0])
