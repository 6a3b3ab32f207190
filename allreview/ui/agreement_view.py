"""How well readers agree: figures with their intervals, calmly."""

from collections.abc import Sequence

import pandas as pd
import sqlalchemy as sa
import streamlit as st

import db
from allreview.cells.naming import class_title
from allreview.evaluation.figures import agreement_figure
from allreview.review.log.readings import own_answers, readings, units_of
from allreview.review.readers.agreement import (
    STRENGTHS,
    Agreement,
    Compared,
    Estimate,
    agreement_of,
    strength,
)
from allreview.review.readers.consensus import (
    MODEL,
    CellConsensus,
    Consensus,
    cells_of_test_part,
    consensus_of,
    held_out_probabilities,
    run_of,
)
from allreview.review.reading import worklists
from allreview.ui import context
from allreview.ui.assigning import SCOPE_KEY
from allreview.ui.figures import CHART
from allreview.wording import listed, percent, plural
from db.tables import Annotation, Dataset

EVERYTHING = 0
"""Stands for all readings of the dataset among the worklists."""


def choose_scope(dataset: Dataset) -> int | None:
    """Whose readings: of one worklist, or None for all of the dataset."""
    with db.reading(context.engine()) as session:
        found = worklists.rows(session, dataset.id, open_only=False)
    names = {EVERYTHING: "All readings of these cells"} | {
        row.id: row.name + (" (closed)" if row.closed_at else "")
        for row in found
        if row.readings_done and not row.adjudicates
    }
    context.begin_choice(SCOPE_KEY, {number: str(number) for number in names})
    chosen = st.selectbox("Readings", list(names), format_func=names.__getitem__, key=SCOPE_KEY)
    context.end_choice(SCOPE_KEY, str(chosen))
    return chosen or None


def figures(dataset: Dataset) -> None:
    """All figures of one set of readings."""
    left, right = st.columns([2, 3], vertical_alignment="bottom", gap="large")
    with left:
        worklist_id = choose_scope(dataset)
    with right.container(horizontal=True):
        with_dependent = st.toggle(
            "Also answers given with others' in view",
            key="with-dependent",
            help="Kappas take answers as given independently.",
        )
        classes_only = st.toggle(
            "Classes only",
            key="classes-only",
            help="Leaves out *unsure* and *unusable*, which count as answers.",
        )
    found, together = _asked(dataset.id, worklist_id, with_dependent, classes_only)
    _basis(found, with_dependent)
    if not found.shared:
        st.info(
            "No cell was read by two readers yet. Assign cells to two readers or more for each cell.",
            icon=":material/group:",
        )
        return
    _headline(found)
    _pairs(found)
    _each_reader(found, together)
    _how_to_read()


def consensus_by_cell(dataset: Dataset, worklist_id: int | None) -> dict[int, CellConsensus]:
    """What the readers say together of each cell; of test cells nothing, because the model has a voice in it."""
    _, together = _asked(dataset.id, worklist_id, True, False)
    with db.reading(context.engine()) as session:
        run_id = run_of(session, dataset_id=dataset.id, worklist_id=worklist_id)
        ids = [cell.cell_id for cell in together.cells]
        blind = cells_of_test_part(session, run_id, ids) if run_id is not None else set()
    return {cell.cell_id: cell for cell in together.cells if cell.cell_id not in blind}


def _asked(
    dataset_id: int, worklist_id: int | None, with_dependent: bool, classes_only: bool
) -> tuple[Agreement, Consensus]:
    with db.reading(context.engine()) as session:
        last_event = session.scalar(sa.select(sa.func.max(Annotation.id))) or 0
    store = context.settings().url
    return _computed(store, last_event, dataset_id, worklist_id, with_dependent, classes_only)


@st.cache_data(max_entries=20, show_spinner="Comparing readers…")
def _computed(
    store: str,
    last_event: int,
    dataset_id: int,
    worklist_id: int | None,
    with_dependent: bool,
    classes_only: bool,
) -> tuple[Agreement, Consensus]:
    """Computed anew for another store and after every event: both are part of the question."""
    with db.reading(context.engine()) as session:
        found = readings(session, dataset_id=dataset_id, worklist_id=worklist_id)
        units = units_of(session, {reading.cell_id for reading in found})
        run_id = run_of(session, dataset_id=dataset_id, worklist_id=worklist_id)
        answers = own_answers(found, with_dependent=with_dependent)
        ids = sorted({reading.cell_id for reading in answers})
        known = held_out_probabilities(session, context.settings(), run_id, ids) if run_id is not None else {}
    agreement = agreement_of(found, units, with_dependent=with_dependent, classes_only=classes_only)
    return agreement, consensus_of(answers, known)


def _basis(found: Agreement, with_dependent: bool) -> None:
    words = [
        f"{plural(len(found.readers), 'reader')}, {plural(found.readings, 'answer')} to {plural(found.cells, 'cell')}, "
        f"{found.shared:,} of them read by two or more."
    ]
    if found.dependent:
        fate = ("is" if found.dependent == 1 else "are") + (" counted" if with_dependent else " left out")
        words.append(f"{plural(found.dependent, 'answer')} given with others' answers in view {fate}.")
    if found.saw_prediction:
        words.append(
            f"{plural(found.saw_prediction, 'answer was', 'answers were')} given with the model's opinion in view, "
            "which makes readers more alike."
        )
    st.caption(" ".join(words))


def _headline(found: Agreement) -> None:
    fleiss = f"On the {plural(found.fleiss.cells, 'cell')} that {found.readers_per_cell} readers have read: it needs"
    for column, (title, estimate, help_, as_share) in zip(
        st.columns(3),
        (
            (
                "Krippendorff's alpha",
                found.krippendorff,
                "Agreement beyond chance of any number of readers, each of whom may have read some of the cells only.",
                False,
            ),
            ("Fleiss' kappa", found.fleiss, f"{fleiss} equally many answers to each cell.", False),
            (
                "Same answer",
                found.percent,
                "Of all pairs of answers to one cell, the share that is the same; chance is not taken off.",
                True,
            ),
        ),
        strict=True,
    ):
        column.metric(title, figure(estimate, as_share), help=help_)
        column.caption(_under(estimate, as_share))


def figure(estimate: Estimate, as_share: bool = False) -> str:
    """The value alone."""
    if estimate.value is None:
        return "–"
    return f"{100 * estimate.value:.1f} %" if as_share else f"{estimate.value:.2f}".replace("-", "−")


def with_interval(estimate: Estimate, as_share: bool = False) -> str:
    """'0.71 (0.60 to 0.80)'."""
    ends = _ends(estimate, as_share)
    return figure(estimate, as_share) + (f" ({ends})" if ends else "")


def _ends(estimate: Estimate, as_share: bool) -> str:
    if estimate.interval is None:
        return ""
    shown = [f"{100 * end:.1f}" if as_share else f"{end:.2f}" for end in estimate.interval]
    return " to ".join(shown).replace("-", "−")


def _under(estimate: Estimate, as_share: bool) -> str:
    ends = _ends(estimate, as_share)
    return f"95 %: {ends}" if ends else estimate.why or ""


def _pairs(found: Agreement) -> None:
    st.subheader("Pairs of readers", anchor=False)
    rows = [
        {
            "Readers": f"{pair.first} and {pair.second}",
            "Cells": pair.cells,
            "Same answer": with_interval(pair.percent, True),
            "Cohen's kappa": with_interval(pair.kappa),
            "Note": pair.kappa.why or "",
        }
        for pair in found.pairs
    ]
    if not any(row["Note"] for row in rows):
        rows = [{key: value for key, value in row.items() if key != "Note"} for row in rows]
    st.dataframe(pd.DataFrame(rows), hide_index=True, width="stretch", height="content")
    counts, chart = st.columns(2, gap="large")
    with counts:
        _what_they_said(found.pairs)
    drawn = [
        (f"{pair.first} and {pair.second}", pair.kappa.value, pair.kappa.interval)
        for pair in found.pairs
        if pair.kappa.value is not None
    ]
    if drawn:
        with chart:
            st.plotly_chart(agreement_figure(drawn), key="kappas", config=CHART, width="stretch")


def _what_they_said(pairs: Sequence[Compared]) -> None:
    names = [f"{pair.first} and {pair.second}" for pair in pairs]
    chosen = st.selectbox("What two readers said of the same cells", names, key="pair")
    pair = pairs[names.index(chosen)]
    titles = [class_title(name) for name in pair.confusion["labels"]]
    table = pd.DataFrame(
        pair.confusion["matrix"],
        index=pd.Index(titles, name=f"{pair.first} ↓ {pair.second} →"),
        columns=pd.Index(titles),
    )
    st.dataframe(table, width="stretch", height="content")


def _each_reader(found: Agreement, together: Consensus) -> None:
    st.subheader("Each reader", anchor=False)
    others = {row.first: row for row in found.against_others}
    themselves = {row.first: row for row in found.with_themselves}
    adjudicated = {row.first: row for row in found.against_adjudicated}
    rows = []
    for name in found.readers:
        row: dict[str, object] = {"Reader": name}
        row["With the majority of the others"] = _with(others.get(name))
        row["With themselves, a second time"] = _with(themselves.get(name))
        if adjudicated:
            row["With the adjudicated label"] = _with(adjudicated.get(name))
        if together.readers:
            row["Quality"] = _share(together.readers.get(name))
            row["Weight"] = _share(together.weights.get(name))
        rows.append(row)
    meaning = {
        "Quality": "By CROWDLAB: how likely an answer of this reader is right.",
        "Weight": "By CROWDLAB: how much the reader counts beside the others and the model.",
    }
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        width="stretch",
        height="content",
        column_config={name: st.column_config.TextColumn(help=words) for name, words in meaning.items()},
    )
    st.caption(_consensus_words(together))


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _with(compared: Compared | None) -> str:
    if compared is None:
        return "–"
    kappa = f", kappa {with_interval(compared.kappa)}" if compared.kappa.value is not None else ""
    return f"{figure(compared.percent, True)} of {compared.cells:,}{kappa}"


def _consensus_words(together: Consensus) -> str:
    if together.why is not None:
        return together.why
    both = [cell for cell in together.cells if cell.majority is not None and cell.label is not None]
    same = sum(cell.majority == cell.label for cell in both)
    decided = sum(cell.majority is None and cell.label is not None for cell in together.cells)
    words = f"CROWDLAB and the majority give the same label to {same:,} of {plural(len(both), 'cell')} with a majority"
    if decided:
        words += f"; CROWDLAB also gives one to {plural(decided, 'cell')} without a majority"
    return f"{words}. The model's own weight is {percent(together.weights[MODEL])}."


def _how_to_read() -> None:
    lower = ["0", *(f"{end:g}" for end, _ in STRENGTHS)]
    names = listed([f"{low} to {end:g} {name}" for low, (end, name) in zip(lower, STRENGTHS, strict=False)])
    with st.expander("How to read this"):
        st.markdown(
            f"""
Kappa and alpha say by how much agreement exceeds what chance would give: 0 is chance, 1 is full agreement. Landis and
Koch (1977) call {names}, and below 0 {strength(-1)}; they say themselves that the division is arbitrary, so take it as
a name and not as a verdict. Where nearly all cells are of one class, kappa is low although readers agree: read it with
the share of equal answers beside it.

Intervals are at 95 %, from resampling subjects (those that share identical cells together), because cells of one
subject resemble each other. *Unsure* and *unusable* count as answers of their own.

The majority of the others never contains the reader's own answer. CROWDLAB weighs readers by how they agree with each
other and with a model that was not trained on the cell; it knows classes only.

Cohen 1960; Fleiss 1971; Krippendorff 2011; Goh, Tkachenko and Mueller 2022.
"""
        )
