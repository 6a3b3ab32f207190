"""The bar above the gallery: which cells, in which order. Every choice lives in the URL."""

from dataclasses import dataclass
from typing import Any

import streamlit as st

from allreview.cells.browsing import Filters, Sort
from allreview.cells.naming import class_title
from allreview.cells.summaries import RunChoice
from allreview.ui.words import PART_TITLES, run_title

SORTS = {
    Sort.IMPORTED: "As imported",
    Sort.SUBJECT: "By subject",
    Sort.LAST_LABELLED: "Last labelled first",
    Sort.MOST_CONFIDENT: "Most certain first",
    Sort.LEAST_CONFIDENT: "Least certain first",
}
NEED_A_RUN = (Sort.MOST_CONFIDENT, Sort.LEAST_CONFIDENT)
LABELLED = {"any": "Any", "labelled": "Labelled here", "not labelled": "Not yet"}
RELABELLED = {"any": "Any", "changed": "Changed", "unchanged": "Unchanged"}
VERDICTS = {"any": "Any", "right": "Right", "wrong": "Wrong"}
NO_RUN = 0

DEFAULTS: dict[str, Any] = {
    "find": "",
    "labels": [],
    "subjects": [],
    "labelled": "any",
    "relabelled": "any",
    "parts": [],
    "verdict": "any",
    "certainty": (0, 100),
}
"""The filters' widgets, by key, and the values that do not restrict."""


@dataclass(frozen=True)
class Choices:
    """What there is to choose from in one dataset."""

    classes: list[str]
    labels: list[str]
    subjects: list[str]
    runs: list[RunChoice]


def filter_bar(choices: Choices) -> tuple[Filters, Sort]:
    """Draw the bar and say what it asks for."""
    widths = [2.6, 2.6, 2.6, 1.9, 2.3] if choices.runs else [3.8, 3.9, 1.9, 2.3]
    columns = st.columns(widths, vertical_alignment="bottom")
    find, labels, more, order = *columns[:2], *columns[-2:]
    text = find.text_input(
        "Find",
        key="find",
        bind="query-params",
        icon=":material/search:",
        placeholder="Subject or file name",
    )
    chosen_labels = labels.multiselect(
        "Class",
        choices.labels,
        format_func=class_title,
        key="labels",
        bind="query-params",
        placeholder="All classes",
        help="The label a cell has now: the reviewers' if there is one, else the one it came with.",
    )
    run_id = None
    if choices.runs:
        with columns[2]:
            run_id = _run_choice(choices.runs)
    with more:
        restricting = _restricting(run_id)
        label = f"Filters ({restricting})" if restricting else "Filters"
        with st.popover(label, icon=":material/tune:", width="stretch", key="more-filters"):
            filters = _more_filters(choices, run_id, text, chosen_labels)
    with order:
        sort = _sort_choice(run_id)
    return filters, sort


def clear_filters() -> None:
    """Set every filter back to what does not restrict. For `on_click`."""
    for key, value in DEFAULTS.items():
        st.session_state[key] = value


def _run_choice(runs: list[RunChoice]) -> int | None:
    titles = {run.run_id: run_title(run.run_id, run.recipe) for run in runs}
    chosen = st.selectbox(
        "Predictions",
        [*titles, NO_RUN],
        format_func=lambda run_id: titles.get(run_id, "None"),
        key="predictions",
        bind="query-params",
        help="The run whose predictions and parts (training, validation, test) are shown.",
    )
    return chosen or None


def _restricting(run_id: int | None) -> int:
    """How many of the filters inside the popover restrict."""
    keys = ["subjects", "labelled", "relabelled"] + (["parts", "verdict", "certainty"] if run_id else [])
    return sum(_value(key) != DEFAULTS[key] for key in keys)


def _value(key: str) -> Any:
    value = st.session_state.get(key, DEFAULTS[key])
    return DEFAULTS[key] if value is None else value


def _more_filters(choices: Choices, run_id: int | None, text: str, labels: list[str]) -> Filters:
    subjects = st.multiselect(
        "Subject", choices.subjects, key="subjects", bind="query-params", placeholder="All subjects"
    )
    labelled = _one_of("Labelled by a reviewer", LABELLED, "labelled")
    relabelled = _one_of("Label since import", RELABELLED, "relabelled")
    of_run: dict[str, Any] = _run_filters() if run_id is not None else {}
    st.button("Clear all filters", on_click=clear_filters, key="clear-filters", type="tertiary")
    return Filters(
        labels=tuple(labels),
        subjects=tuple(subjects),
        labelled=labelled,
        relabelled=relabelled,
        run_id=run_id,
        text=text,
        **of_run,
    )


def _run_filters() -> dict[str, Any]:
    parts = st.pills(
        "Part",
        list(PART_TITLES),
        selection_mode="multi",
        format_func=PART_TITLES.__getitem__,
        key="parts",
        bind="query-params",
    )
    verdict = _one_of("Prediction", VERDICTS, "verdict")
    low, high = st.slider(
        "Certainty of the prediction", 0, 100, (0, 100), format="%d %%", key="certainty", bind="query-params"
    )
    shown = st.toggle(
        "Show predictions of test cells",
        key="test_predictions",
        help="Test cells are read blind, so that the test figures stay honest.",
    )
    return {
        "parts": tuple(parts),
        "verdict": verdict,
        "confidence": (low / 100, high / 100),
        "test_predictions": shown,
    }


def _one_of(label: str, titles: dict[str, str], key: str) -> Any:
    return st.segmented_control(
        label,
        list(titles),
        default="any",
        required=True,
        format_func=titles.__getitem__,
        key=key,
        bind="query-params",
        width="stretch",
    )


def _sort_choice(run_id: int | None) -> Sort:
    options = [sort for sort in Sort if run_id is not None or sort not in NEED_A_RUN]
    return st.selectbox(
        "Order", options, format_func=SORTS.__getitem__, key="order", bind="query-params", filter_mode=None
    )
