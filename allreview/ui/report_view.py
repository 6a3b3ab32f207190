"""Choosing a sitting, or a worklist, and taking its report home: as one HTML file or as PDF."""

from datetime import tzinfo
from functools import partial

import streamlit as st

import db
from allreview.review.record.entries import Log, Sitting
from allreview.review.reports.session_report import SessionReport, report_of
from allreview.review.reports.session_report_html import html_report
from allreview.review.reports.session_report_pdf import pdf_report
from allreview.ui import context, record_filters
from allreview.ui.words import viewers_zone, when
from allreview.wording import listed

WHOLE = {"sitting": "One sitting", "worklist": "A worklist, all its sittings"}


def reports(dataset_id: int, reviewer_id: int) -> None:
    """Choose what to report; two buttons that make the report when they are pressed."""
    with db.reading(context.engine()) as session:
        sittings = Log(session, dataset_id, reviewer_id).sittings()
    if not sittings:
        st.info(
            "Nobody has sat over a worklist yet: read some cells on Review, and report here what was read."
        )
        return
    st.markdown(
        "A report lists every cell with its answer, reason and time, the readers' pace and agreement, and has a line "
        "to sign on. It never holds a prediction."
    )
    whole = st.segmented_control(
        "Of", list(WHOLE), format_func=WHOLE.__getitem__, default="sitting", required=True, key="report-of"
    )
    asked = _choose_worklist(sittings) if whole == "worklist" else _choose_sitting(sittings)
    name = "-".join(str(part) for pair in asked.items() for part in pair).replace("_id", "")
    with st.container(horizontal=True):
        _download("Download as PDF", "pdf", "application/pdf", name, asked, reviewer_id, kind="primary")
        _download("Download as HTML", "html", "text/html", name, asked, reviewer_id, kind="secondary")


def _choose_sitting(sittings: list[Sitting]) -> dict[str, int]:
    titles = {
        each.id: f"{each.id}: {each.reviewer}, {each.worklist}, {when(each.started_at)}"
        + ("" if each.ended_at else ", still open")
        for each in sittings
    }
    return {"session_id": _one_of("sitting", "Sitting", titles)}


def _choose_worklist(sittings: list[Sitting]) -> dict[str, int]:
    readers: dict[int, list[str]] = {}
    names: dict[int, str] = {}
    for each in sittings:
        names[each.worklist_id] = each.worklist
        if each.reviewer not in readers.setdefault(each.worklist_id, []):
            readers[each.worklist_id].append(each.reviewer)
    titles = {
        number: f"{number}: {name}, read by {listed(readers[number])}" for number, name in names.items()
    }
    return {"worklist_id": _one_of("worklist", "Worklist", titles)}


def _one_of(name: str, label: str, titles: dict[int, str]) -> int:
    """One of the titles; the first, or what the URL names."""
    key = f"report-{name}"
    if st.session_state.get(key) not in titles:
        asked = st.query_params.get(name)
        st.session_state[key] = next(
            (number for number in titles if str(number) == asked), next(iter(titles))
        )
    chosen = st.selectbox(
        label, list(titles), format_func=titles.__getitem__, key=key, filter_mode="contains"
    )
    record_filters.remember(name, str(chosen))
    return chosen


def _download(
    label: str, suffix: str, mime: str, name: str, asked: dict[str, int], reviewer_id: int, *, kind: str
) -> None:
    st.download_button(
        label,
        partial(_made, suffix, asked, reviewer_id, viewers_zone()),
        file_name=f"report-{name}.{suffix}",
        mime=mime,
        key=f"report-{suffix}",
        icon=":material/download:",
        type="primary" if kind == "primary" else "secondary",
        on_click="ignore",
    )


def _made(suffix: str, asked: dict[str, int], reviewer_id: int, zone: tzinfo) -> bytes:
    with db.reading(context.engine()) as session:
        report: SessionReport = report_of(session, **asked, viewer_id=reviewer_id, zone=zone)
    if suffix == "pdf":
        return pdf_report(report, context.settings())
    return html_report(report, context.settings()).encode()
