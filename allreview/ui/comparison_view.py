"""Two runs side by side: figures, confusion matrices, and the cells whose verdict changed."""

import pandas as pd
import streamlit as st

from allreview.cells.naming import class_title
from allreview.cells.thumbnails import thumbnail
from allreview.evaluation.comparison import ChangedCell, Comparison, Judged, compare_runs, labels_changed
from allreview.evaluation.figures import confusion_figure, differences_figure, marked
from allreview.evaluation.metrics import Scores
from allreview.evaluation.naming import (
    FIGURE_TITLES,
    NEW_PATIENT,
    SHARED_PATIENTS,
    new_patient_briefly,
)
from allreview.evaluation.new_patients import NewPatient
from allreview.training.runs import RunRow
from allreview.ui import context, run_view
from allreview.ui.figures import CHART
from allreview.ui.words import class_badge, inert
from allreview.wording import percent, plural

COMPARED = (
    "accuracy",
    "balanced_accuracy",
    "weighted_f1",
    "macro_f1",
    "auroc",
    "average_precision",
    "brier",
    "ece",
)
_BETWEEN = "vs"
_PER_PAGE = 24


def choose_pair(finished: list[RunRow]) -> tuple[RunRow, RunRow]:
    """The earlier and the later run: a retrain and its parent where there is one, else the two newest."""
    by_id = {run.id: run for run in finished}
    left, right = st.columns(2)
    with right:
        later = run_view.choose_run(finished, "This run")
    others = [run.id for run in finished if run.id != later.id]
    with left:
        earlier = st.selectbox(
            "Against",
            others,
            index=others.index(later.parent_id) if later.parent_id in others else 0,
            format_func=lambda run_id: run_view.title(by_id[run_id]),
            key=f"{_BETWEEN}-{later.id}",
        )
    return by_id[earlier], later


def comparison(earlier: RunRow, later: RunRow) -> None:
    """Everything about the pair.

    Raises:
        UserError: they share no test cells.
    """
    found = compare_runs(context.engine(), earlier.id, later.id)
    _what_changed_between(earlier, later)
    on = run_view.judged_by()
    judged = found.current if on == "current" else found.source
    st.caption(_basis(found, on))
    table, chart_a, chart_b = st.columns([4, 3, 3], gap="medium")
    with table:
        _figures(judged, earlier, later, shared_patients=found.shared_patients)
    titles = {name: class_title(name) for name in found.classes}
    for column, scores, run in ((chart_a, judged.a, earlier), (chart_b, judged.b, later)):
        column.plotly_chart(
            confusion_figure(scores["confusion"], marked(f"Run {run.id}", run.shares_patients), titles),
            key=f"confusion-{on}-{run.id}",
            config=CHART,
            width="stretch",
        )
    _differences(found, judged, earlier, later)
    _changed_cells(found)


def _what_changed_between(earlier: RunRow, later: RunRow) -> None:
    labels = labels_changed(context.engine(), earlier.id, later.id)
    parts = [f"{plural(labels.changed, 'label')} changed"]
    if labels.left_out:
        parts.append(f"{plural(labels.left_out, 'cell')} left out as unsure or unusable")
    if labels.added:
        parts.append(f"{plural(labels.added, 'cell')} added")
    kin = f"is a retrain of run {earlier.id}" if later.parent_id == earlier.id else "was trained separately"
    words = f"Run {later.id} {kin}. Between the two: {', '.join(parts)}."
    if labels.changed + labels.left_out:
        words += (
            f" {labels.in_training or 'None'} of these in training cells, which is what a model learns from."
        )
    st.write(words)


def _basis(found: Comparison, on: str) -> str:
    whose = SHARED_PATIENTS if found.shared_patients else "of subjects neither run was trained on"
    words = f"On the same {plural(found.cells, 'test cell')}, {whose}, in %."
    if on == "current" and found.left_out:
        words += f" {plural(found.left_out, 'cell')} now unsure or unusable left out."
    return words


def _figures(judged: Judged, earlier: RunRow, later: RunRow, *, shared_patients: bool) -> None:
    rows = []
    for key in COMPARED:
        title = FIGURE_TITLES[key]
        before, after = judged.a.get(key), judged.b.get(key)
        rows.append((title, _share(before), _share(after), _difference(before, after)))
    for name in judged.b["per_class"]:
        before, after = _recall(judged.a, name), _recall(judged.b, name)
        rows.append(
            (f"Recall, {class_title(name)}", _share(before), _share(after), _difference(before, after))
        )
    both = (judged.new_patient_a, judged.new_patient_b)
    before, after = map(_share_right, both)
    rows.insert(1, (NEW_PATIENT, _share(before), _share(after), _difference(before, after)))
    table = pd.DataFrame(rows, columns=["Figure", f"Run {earlier.id}", f"Run {later.id}", "Change"])
    st.dataframe(table, hide_index=True, width="stretch", height="content")
    if all(both):
        shown = [new_patient_briefly(expected, shares_patients=shared_patients) for expected in both]
        st.caption(
            f"Of a new patient's cells, expect to be right: {shown[0]} by run {earlier.id}, {shown[1]} by "
            f"run {later.id}."
        )
    test = judged.mcnemar
    st.caption(
        f"Only run {earlier.id} is right on {plural(test.only_a_right, 'cell')}, only run {later.id} on "
        f"{plural(test.only_b_right, 'cell')} (McNemar's exact test: p = {test.p_value:.2g})."
    )


def _differences(found: Comparison, judged: Judged, earlier: RunRow, later: RunRow) -> None:
    """By how much the later run is better, with what chance among subjects could do."""
    figure = differences_figure(
        judged.differences, f"run {earlier.id}", f"run {later.id}", shared_patients=found.shared_patients
    )
    st.plotly_chart(figure, key=f"differences-{later.id}", config=CHART, width="stretch")


def _changed_cells(found: Comparison) -> None:
    st.subheader("Cells whose verdict changed", anchor=False)
    if not found.changed:
        st.write("None: both runs say the same of every test cell.")
        return
    counts = [f"{number} {outcome}" for outcome, number in found.outcomes.items() if number]
    st.write(f"{plural(len(found.changed), 'cell')}: {', '.join(counts)}.")
    pages = -(-len(found.changed) // _PER_PAGE)
    page = st.pagination(pages, key=f"changed-{found.run_a}-{found.run_b}") if pages > 1 else 1
    grid = st.grid(min_column_width=165, gap="xsmall", border=True)
    for cell in found.changed[(page - 1) * _PER_PAGE : page * _PER_PAGE]:
        with grid.cell():
            st.image(
                thumbnail(context.settings(), cell.sha256, cell.path or ""),
                alt=f"Cell {cell.cell_id}",
                width="stretch",
            )
            st.markdown(_card(cell, found.classes))


def _card(cell: ChangedCell, classes: list[str]) -> str:
    subject = f" · Subject {inert(cell.subject)}" if cell.subject else ""
    return "  \n".join(
        [
            f"{class_badge(cell.current_label, classes)} :small[{cell.outcome}]",
            f":small[{inert(class_title(cell.label_a))} {percent(cell.probability_a)} → "
            f"{inert(class_title(cell.label_b))} {percent(cell.probability_b)}]",
            f":gray[:small[Cell {cell.cell_id}{subject}]]",
        ]
    )


def _share_right(found: NewPatient | None) -> float | None:
    return None if found is None else found["accuracy"]


def _recall(scores: Scores, name: str) -> float | None:
    found = scores["per_class"].get(name)
    return found["recall"] if found else None


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _difference(before: float | None, after: float | None) -> str:
    return "–" if before is None or after is None else f"{100 * (after - before):+.1f}"
