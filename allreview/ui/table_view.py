"""Any number of runs: as the paper's Table I beside the paper's own rows, and as curves."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from allreview.evaluation.figures import histories_figure, precision_recall_figure, roc_figure
from allreview.evaluation.naming import NEW_PATIENT, SHARED_PATIENTS, new_patient_briefly
from allreview.evaluation.reports import run_reports
from allreview.evaluation.tables import PAPER_TABLE, Table, TableRow, as_csv, as_latex, table_one, table_rows
from allreview.training.runs import RunRow
from allreview.ui import context, run_view
from allreview.ui.figures import CHART
from allreview.ui.words import inert

_AT_FIRST = 4


def choose_runs(finished: list[RunRow]) -> list[RunRow]:
    """The runs to look at; the newest few at first."""
    by_id = {run.id: run for run in finished}
    known = [run_id for run_id in st.session_state.get("compared_runs", []) if run_id in by_id]
    st.session_state["compared_runs"] = known or list(by_id)[:_AT_FIRST]
    chosen = st.multiselect(
        "Runs",
        list(by_id),
        format_func=lambda run_id: run_view.title(by_id[run_id]),
        key="compared_runs",
        persist_state="session",
        placeholder="Choose runs",
    )
    if not chosen:
        st.info("Choose at least one run.")
        st.stop()
    return [by_id[run_id] for run_id in chosen]


def table(runs: list[RunRow]) -> None:
    """Table I, with the paper's rows first, to read and to take away."""
    labels, paper = st.columns([2, 1], vertical_alignment="bottom")
    with labels:
        on = run_view.judged_by()
    with_paper = paper.checkbox(
        "Beside the paper's own figures", True, key="with_paper", persist_state="session"
    )
    rows = table_rows(context.engine(), [run.id for run in runs], on)
    found = table_one(rows, with_paper=with_paper)
    st.dataframe(
        _frame(found, [*(PAPER_TABLE if with_paper else ()), *rows]),
        hide_index=True,
        width="stretch",
        height="content",
    )
    for note in found.notes:
        st.caption(inert(note))
    csv, latex, _ = st.columns([1, 1, 3])
    csv.download_button(
        "CSV",
        as_csv(found),
        "table.csv",
        "text/csv",
        key="table_csv",
        on_click="ignore",
        icon=":material/download:",
        width="stretch",
    )
    latex.download_button(
        "LaTeX",
        as_latex(found),
        "table.tex",
        "text/x-tex",
        key="table_latex",
        on_click="ignore",
        icon=":material/download:",
        width="stretch",
    )


def _frame(found: Table, rows: Sequence[TableRow]) -> pd.DataFrame:
    """The table with how each row's test cells were chosen in a column of its own, which is easier to read."""
    frame = pd.DataFrame(found.rows, columns=pd.Index(found.columns))
    frame[found.columns[0]] = [
        f"{row.model} ({'paper' if row.run is None else f'run {row.run}'})" for row in rows
    ]
    frame["Test cells"] = [_test_cells(row) for row in rows]
    expected = [new_patient_briefly(row.new_patient, shares_patients=row.shares_patients) for row in rows]
    frame.insert(2, NEW_PATIENT, expected)  # beside the accuracy it puts right
    return frame


def _test_cells(row: TableRow) -> str:
    if row.run is None:
        return "–"
    return SHARED_PATIENTS.capitalize() if row.shares_patients else row.split.capitalize()


def curves(runs: list[RunRow]) -> None:
    """ROC and precision-recall curves on the test cells, and the training histories, over one another."""
    reports = run_reports(context.engine(), [run.id for run in runs])
    left, right = st.columns(2, gap="medium")
    with left:
        st.plotly_chart(roc_figure(reports), key="compared-roc", config=CHART, width="stretch")
    with right:
        st.plotly_chart(
            precision_recall_figure(reports), key="compared-precision-recall", config=CHART, width="stretch"
        )
    histories = run_view.histories(runs)
    if histories:
        st.plotly_chart(histories_figure(histories), key="compared-histories", config=CHART, width="stretch")
    st.caption("Each run on its own test cells, by source labels. The camera on a chart saves it as SVG.")
