"""What a finished run found: figures with their intervals, curves, subjects, and the files to take away."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from allreview import artefacts
from allreview.cells.naming import class_title
from allreview.evaluation import reports
from allreview.evaluation.figures import (
    confusion_figure,
    marked,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    subjects_figure,
)
from allreview.evaluation.naming import FIGURE_TITLES, SHARED_PATIENTS, new_patient_in_words
from allreview.evaluation.reports import Report
from allreview.training.runs import RunRow
from allreview.ui import company_view, context
from allreview.ui.figures import chart, interval, share, span, with_interval
from allreview.wording import plural

_HEADLINE = ("accuracy", "balanced_accuracy", "weighted_f1")


def results(run: RunRow) -> None:
    """Headline, then one section at a time: only what is looked at is computed."""
    test = run.metrics.get("test", {})
    if run.shares_patients:
        st.warning(
            f"{SHARED_PATIENTS.capitalize()}: the model knows patients it is tested on. "
            "For a new patient, expect less."
        )
    for column, key in zip(st.columns(len(_HEADLINE)), _HEADLINE, strict=True):
        column.metric(FIGURE_TITLES[key], share(test.get(key)), help=None)
        found = interval(test, key)
        column.caption(f"95 %: {found}" if found else "Too few subjects for an interval")
    st.markdown(new_patient_in_words(_new_patient(run, test), shares_patients=run.shares_patients))
    st.caption(_basis(run, test))


def _new_patient(run: RunRow, test: dict[str, Any]) -> Mapping[str, Any] | None:
    """As kept with the run; runs of before did not keep it."""
    if "new_patient" in test:
        return test["new_patient"]
    return _new_patient_of_before(run.id, str(context.engine().url))


@st.cache_data(max_entries=200, show_spinner=False)
def _new_patient_of_before(run_id: int, store: str) -> Mapping[str, Any] | None:
    """From the predictions of a finished run, which stay; `store` tells its number from that in another store."""
    return reports.run_report(context.engine(), run_id).new_patient


def _basis(run: RunRow, test: dict[str, Any]) -> str:
    whose = (
        "of patients that are in training too" if run.shares_patients else "of subjects the model never saw"
    )
    words = (
        f"On {plural(test.get('n', 0), 'test cell')} {whose}, by their source labels; intervals from resampling "
        f"subjects. Validation accuracy {share(run.metrics.get('validation', {}).get('accuracy'))}"
    )
    return words + (f", best epoch {run.best_epoch}." if run.best_epoch else ".")


def sections(run: RunRow) -> None:
    """Confusion, curves, subjects, every figure and files."""
    drawn: dict[str, Callable[[RunRow], None]] = {
        "Confusion": _confusion,
        "Curves": _curves,
        "Subjects": _subjects,
        "All figures": _all_figures,
        "Files": _files,
    }
    chosen = st.segmented_control(
        "Show",
        list(drawn),
        default="Confusion",
        required=True,
        key=f"section-{run.id}",
        label_visibility="collapsed",
        width="stretch",
    )
    drawn[chosen](run)


def _confusion(run: RunRow) -> None:
    test = run.metrics.get("test", {})
    if test.get("confusion"):
        titles = {name: class_title(name) for name in run.classes}
        chart(
            confusion_figure(test["confusion"], marked("Test cells", run.shares_patients), titles),
            f"confusion-{run.id}",
        )


def _curves(run: RunRow) -> None:
    report = _report(run)
    first, second = st.columns(2)
    with first:
        chart(roc_figure([report]), f"roc-{run.id}")
    with second:
        chart(precision_recall_figure([report]), f"pr-{run.id}")
    chart(reliability_figure(report), f"reliability-{run.id}")
    before = report.uncalibrated
    if before is not None and run.temperature is not None:
        st.caption(
            f"Probabilities are calibrated on cells that were left out of training (temperature {run.temperature:.2f}"
            f"). Without, the expected calibration error would be {share(before['ece'])} instead of "
            f"{share(report.figures['ece'])}."
        )


def _subjects(run: RunRow) -> None:
    report = _report(run)
    if not report.per_subject:
        st.write("The test cells of this run have no subjects.")
        return
    chart(subjects_figure(report), f"subjects-{run.id}")
    blast = class_title(report.positive)
    table = pd.DataFrame(
        [
            {
                "Subject": row.subject,
                "Label": class_title(row.label),
                "Cells": row.cells,
                "Accuracy": share(row.accuracy),
                f"Called {blast}": share(row.share_positive),
                "95 %": span(row.share_positive_interval),
            }
            for row in report.per_subject
        ]
    )
    st.dataframe(table, hide_index=True, width="stretch")
    st.subheader("Cells read in their company", anchor=False)
    company_view.in_company(run)


def _all_figures(run: RunRow) -> None:
    columns: dict[str, dict[str, Any]] = {
        "Test": run.metrics.get("test", {}),
        "Test, current labels": run.metrics.get("test", {}).get("current", {}),
        "Validation": run.metrics.get("validation", {}),
    }
    rows = []
    for key, name in FIGURE_TITLES.items():
        row = {"Figure": name}
        for title, scores in columns.items():
            row[title] = with_interval(scores, key)
        rows.append(row)
    for name in run.classes:
        for key in ("precision", "recall", "f1"):
            row = {"Figure": f"{'F1' if key == 'f1' else key.capitalize()}, {class_title(name)}"}
            for title, scores in columns.items():
                row[title] = share(scores.get("per_class", {}).get(name, {}).get(key))
            rows.append(row)
    table = pd.DataFrame(rows)
    st.dataframe(table, hide_index=True, width="stretch", height="content")
    note = "In brackets the 95 % interval from resampling subjects. Of the last two, lower is better."
    st.caption(f"{_mark(run)}{note}".replace("the last two", "Brier score and calibration error"))


_FILES = {
    "model-card.md": "Model card",
    "recipe.yaml": "Recipe (YAML)",
    "history.csv": "History (CSV)",
    "predictions.csv": "Predictions (CSV)",
    "snapshot.csv": "Cells, labels and split (CSV)",
    "model.keras": "Model (Keras)",
    "model.weights.h5": "Weights (HDF5)",
}


def _files(run: RunRow) -> None:
    settings = context.settings()
    card = settings.run_folder(run.id) / "model-card.md"
    if run.complete:
        artefacts.obtain_if_can(settings, run.id, [card.name])
    left, right = st.columns([1, 2], gap="medium")
    with left:
        if not run.complete:
            st.info("The files are still being written.")
        for name in artefacts.available(settings, run.id, list(_FILES)) if run.complete else ():
            _download(run.id, name, _FILES[name])
    with right, st.container(height=460, border=True):
        if not run.complete:
            st.write("The model card is still being written.")
        elif card.is_file():
            st.markdown(card.read_text(encoding="utf-8"))
        else:
            st.write("This run has no model card.")


def _download(run_id: int, name: str, title: str) -> None:
    """A button whose file is read, and got from another machine, when it is pressed."""
    settings = context.settings()

    def read() -> bytes:
        artefacts.obtain(settings, run_id, [name])
        return (settings.run_folder(run_id) / name).read_bytes()

    st.download_button(
        title,
        read,
        file_name=f"run-{run_id}-{name}",
        key=f"{name}-{run_id}",
        on_click="ignore",
        width="stretch",
        icon=":material/download:",
    )


def _report(run: RunRow) -> Report:
    return reports.run_report(context.engine(), run.id)


def _mark(run: RunRow) -> str:
    return f"{SHARED_PATIENTS.capitalize()}. " if run.shares_patients else ""
