"""The leak: how much better a model looks when the patients it is tested on were in its training."""

import pandas as pd
import streamlit as st

from allreview.evaluation.figures import in_points, leak_figure
from allreview.evaluation.naming import FIGURE_TITLES, SHARED_PATIENTS, model_title, new_patient_in_words
from allreview.evaluation.reports import Report, System, series_report
from allreview.training.runs import RunRow
from allreview.ui import context
from allreview.ui.figures import CHART, with_interval
from allreview.ui.words import when

_SHOWN = ("accuracy", "balanced_accuracy", "weighted_f1", "auroc")


def leak(finished: list[RunRow]) -> None:
    """A series that was split both ways, as one chart and one sentence."""
    both = _both_ways(finished)
    if not both:
        st.info(
            "No recipe has been tested both ways yet. On Train, choose *Both, to see the leak* under *Tested on*: it "
            "trains once with test patients kept out of training and once with images split at random, as in the paper."
        )
        return
    series = st.selectbox(
        "Trained both ways",
        list(both),
        format_func=both.__getitem__,
        key="leak_series",
        persist_state="session",
    )
    found = series_report(context.engine(), series)
    if found.unfinished:
        st.caption(f"{len(found.unfinished)} of its runs are not finished and not counted.")
    for place, system in enumerate(found.systems):
        _system(system, f"{series}-{place}")


def _system(system: System, key: str) -> None:
    if system.leak is None:
        return
    st.markdown(
        f"What patients shared between training and test add to the accuracy: **{in_points(system.leak['accuracy'])}**."
        " For a new patient, expect the figures of the split that keeps patients apart."
    )
    for report in system.by_split.values():
        if not report.shares_patients:
            st.markdown(new_patient_in_words(report.new_patient, shares_patients=False))
    st.plotly_chart(leak_figure(system), key=f"leak-{key}", config=CHART, width="stretch")
    rows = []
    for name in _SHOWN:
        row = {"Figure": FIGURE_TITLES[name]}
        for report in system.by_split.values():
            scores = dict(report.scores)
            row[_split(report)] = with_interval(scores, name)
        row["Difference"] = in_points(system.leak[name]) if name in system.leak else "–"
        rows.append(row)
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch", height="content")


def _split(report: Report) -> str:
    split = report.split.capitalize()
    return f"{split}; {SHARED_PATIENTS}" if report.shares_patients else split


def _both_ways(finished: list[RunRow]) -> dict[str, str]:
    """The series with runs of both ways to split, newest first, by what they are called."""
    splits: dict[str, set[bool]] = {}
    titles: dict[str, str] = {}
    for run in finished:
        if run.series is not None:
            splits.setdefault(run.series, set()).add(run.recipe.shares_patients)
            titles.setdefault(run.series, f"{model_title(run.recipe)}, started {when(run.created_at)}")
    return {series: titles[series] for series, ways in splits.items() if len(ways) == 2}
