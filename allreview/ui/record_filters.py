"""The bar above the log: which events. Every choice lives in the URL, by hand (`bind` forbids `st.switch_page`)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import streamlit as st

from allreview.cells.finding import find_cell
from allreview.cells.naming import class_title
from allreview.cells.summaries import subject_names
from allreview.labels import NOT_CLASSES
from allreview.review.record.entries import Log, LogFilters
from allreview.review.record.record_words import KINDS
from allreview.ui.words import viewers_zone
from db.tables import Dataset

FILTERS = ("cell", "subject", "by", "sitting", "kind", "label", "from", "to", "standing", "batch")
"""The filters' names in the URL."""
_KEY = "log_"


def filter_bar(log: Log, dataset: Dataset) -> LogFilters:
    """Draw the bar and say what it asks for.

    Raises:
        UserError: the cell that was typed is none, or more than one.
    """
    find, subject, by, sitting, more = st.columns([2.4, 1.8, 2, 2.6, 1.5], vertical_alignment="bottom")
    with find:
        cell = _text("cell", "Cell", "Number, file, SHA-256")
    with subject:
        chosen = LogFilters(subject=_one_of("subject", "Subject", subject_names(log.session, dataset.id)))
    with by:
        names = log.reviewers()
        chosen = replace(chosen, reviewer_id=_one_of("by", "Reviewer", list(names), names.__getitem__))
    with sitting:
        sittings = {each.id: f"{each.id}: {each.reviewer}, {each.worklist}" for each in log.sittings()}
        chosen = replace(
            chosen, session_id=_one_of("sitting", "Sitting", list(sittings), sittings.__getitem__)
        )
    restricting = sum(_value(name) not in (None, False, ()) for name in ("kind", "label", "span", "standing"))
    with (
        more,
        st.popover(
            f"Filters ({restricting})" if restricting else "Filters", icon=":material/tune:", width="stretch"
        ),
    ):
        chosen = _more(chosen, dataset)
    chosen = replace(chosen, batch=st.query_params.get("batch"))
    if cell.strip():
        chosen = replace(chosen, cell_id=find_cell(log.session, cell, dataset.id).id)
    return chosen


def clear() -> None:
    """Take every filter away. For `on_click`."""
    for name in (*FILTERS, "span"):
        st.session_state.pop(_KEY + name, None)
        st.query_params.pop(name, None)


def only_batch(batch: str) -> None:
    """Ask for the events of one batch, whatever else was asked. For `on_click`."""
    clear()
    st.query_params["batch"] = batch


def _more(chosen: LogFilters, dataset: Dataset) -> LogFilters:
    kind = _one_of("kind", "What happened", list(KINDS), KINDS.__getitem__)
    label = _one_of("label", "Answer", [*dataset.classes, *NOT_CLASSES], class_title)
    since, until = _span()
    st.session_state.setdefault(_KEY + "standing", st.query_params.get("standing") == "yes")
    standing = st.toggle("Only answers in force", key=_KEY + "standing")
    remember("standing", "yes" if standing else None)
    st.button("Clear all filters", key="log-clear", on_click=clear, type="tertiary")
    return replace(chosen, kind=kind, label=label, since=since, until=until, only_in_force=standing)


def _span() -> tuple[datetime | None, datetime | None]:
    """The chosen days, from the first moment of the first to the last of the last, in the viewer's zone."""
    key = _KEY + "span"
    asked: list[Any] = []
    if key not in st.session_state:
        found = [_day(st.query_params.get(name)) for name in ("from", "to")]
        asked = [day for day in found if day is not None]
    days: Any = st.date_input("Between", asked, key=key, format="YYYY-MM-DD", help="Two days, both included.")
    first, last = (days[0], days[-1]) if days else (None, None)
    remember("from", first.isoformat() if first else None)
    remember("to", last.isoformat() if last else None)
    if first is None or last is None:
        return None, None
    zone = viewers_zone()
    end = datetime.combine(last + timedelta(days=1), time(), zone) - timedelta(microseconds=1)
    return datetime.combine(first, time(), zone).astimezone(UTC), end.astimezone(UTC)


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None


def _text(name: str, label: str, placeholder: str) -> str:
    key = _KEY + name
    st.session_state.setdefault(key, st.query_params.get(name, ""))
    value = st.text_input(label, key=key, icon=":material/search:", placeholder=placeholder, max_chars=500)
    remember(name, value or None)
    return value


def _one_of(name: str, label: str, options: Sequence[Any], title: Callable[[Any], str] = str) -> Any:
    """One of the options, or None for all; the URL holds it as text."""
    key = _KEY + name
    if key not in st.session_state:
        asked = st.query_params.get(name)
        st.session_state[key] = next((option for option in options if str(option) == asked), None)
    if st.session_state[key] not in options:
        st.session_state[key] = None
    chosen = st.selectbox(
        label, options, index=None, format_func=title, key=key, placeholder="All", filter_mode="contains"
    )
    remember(name, None if chosen is None else str(chosen))
    return chosen


def remember(name: str, text: str | None) -> None:
    """Write a choice into the URL, so that a reload keeps it."""
    if text is None:
        st.query_params.pop(name, None)
    elif st.query_params.get(name) != text:
        st.query_params[name] = text


def _value(name: str) -> Any:
    return st.session_state.get(_KEY + name)
