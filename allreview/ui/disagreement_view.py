"""Cells on which readers disagree: everyone's answers, and settling them."""

import streamlit as st

import db
from allreview.cells.naming import class_title
from allreview.cells.thumbnails import thumbnail
from allreview.review.log import reverting
from allreview.review.readers.adjudication import (
    Dispute,
    Disputes,
    disputes,
    make_worklist,
    record_majorities,
)
from allreview.review.readers.consensus import CellConsensus
from allreview.ui import agreement_view, context
from allreview.ui.assigning import read_on_desk
from allreview.ui.errors import guarded
from allreview.ui.gallery import CARD_WIDTH
from allreview.ui.words import class_badge, inert
from allreview.wording import percent, plural
from db.tables import Dataset, Reviewer

_PER_PAGE = 24
_RECORDED = "majorities-recorded"


def disagreements(dataset: Dataset, reviewer: Reviewer) -> None:
    """The disputed cells, what everybody said of each, and the two ways to settle them."""
    left, _ = st.columns([2, 3])
    with left:
        worklist_id = agreement_view.choose_scope(dataset)
    with db.reading(context.engine()) as session:
        found = disputes(session, dataset_id=dataset.id, worklist_id=worklist_id, viewer_id=reviewer.id)
    _what_is_missing(found)
    _undo(reviewer)
    if not found.cells:
        if not found.withheld:
            st.info("The readers disagree on no cell that is not settled.", icon=":material/check:")
        return
    st.write(
        f"{plural(len(found.cells), 'cell')}, the most evenly divided first; "
        f"{len(found.with_majority):,} with a majority."
    )
    _settle(found, dataset, reviewer, worklist_id)
    together = _crowdlab(dataset, worklist_id)
    pages = -(-len(found.cells) // _PER_PAGE)
    page = st.pagination(pages, key="dispute-page") if pages > 1 else 1
    with st.container(key="gallery"):
        grid = st.grid(min_column_width=CARD_WIDTH + 40, gap="xsmall", border=True)
        for dispute in found.cells[(page - 1) * _PER_PAGE : page * _PER_PAGE]:
            with grid.cell().container(gap="xxsmall"):
                _card(dispute, dataset, together.get(dispute.cell.cell_id))


def _what_is_missing(found: Disputes) -> None:
    if found.withheld:
        st.info(
            "You are still reading cells without seeing what others say, so their answers to "
            f"{plural(found.withheld, 'cell')} stay hidden from you until you have read all or the worklist is closed.",
            icon=":material/visibility_off:",
        )
    if found.waiting:
        st.caption(f"Not counted: {plural(found.waiting, 'cell')} that not everybody has read yet.")


def _settle(found: Disputes, dataset: Dataset, reviewer: Reviewer, worklist_id: int | None) -> None:
    majority = found.with_majority
    with st.container(horizontal=True, vertical_alignment="center"):
        adjudicate = st.button(
            "Adjudicate this cell"
            if len(found.cells) == 1
            else f"Adjudicate these {len(found.cells):,} cells",
            type="primary",
            key="adjudicate",
            icon=":material/gavel:",
            help="Makes a worklist of them and opens it. You see what the readers said, but neither the model's "
            "opinion nor the source label. Your answer outranks theirs.",
        )
        record = bool(majority) and st.button(
            f"Record the majority as label of {plural(len(majority), 'cell')}",
            key="record-majorities",
            help="As adjudications, all together; they can be undone together.",
        )
    if adjudicate:
        with guarded():
            made = make_worklist(
                context.engine(),
                found.cells,
                dataset_id=dataset.id,
                worklist_id=worklist_id,
                reviewer_id=reviewer.id,
            )
            read_on_desk(made)
    if record:
        with guarded():
            batch = record_majorities(context.engine(), majority, reviewer_id=reviewer.id)
            st.session_state[_RECORDED] = (batch, len(majority), reviewer.id)
            st.rerun()


def _undo(reviewer: Reviewer) -> None:
    """What was just recorded, and a button that takes it back."""
    if _RECORDED not in st.session_state:
        return
    batch, number, who = st.session_state[_RECORDED]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.success(f"Saved: the majority is the label of {plural(number, 'cell')}.", icon=":material/check:")
        if who == reviewer.id and st.button("Undo", key="undo-majorities"):
            del st.session_state[_RECORDED]
            with guarded():
                reverting.undo_batch(context.engine(), batch=batch, reviewer_id=reviewer.id)
                st.rerun()


def _crowdlab(dataset: Dataset, worklist_id: int | None) -> dict[int, CellConsensus]:
    """CROWDLAB's labels, when asked for: who adjudicates should not know the model's opinion, and it is in there."""
    if not st.toggle(
        "Show CROWDLAB's labels",
        key="show-crowdlab",
        help="They weigh readers by their skill, with the model as one voice more. Of test cells they stay hidden.",
    ):
        return {}
    return agreement_view.consensus_by_cell(dataset, worklist_id)


def _card(dispute: Dispute, dataset: Dataset, together: CellConsensus | None) -> None:
    cell = dispute.cell
    st.image(
        thumbnail(context.settings(), cell.sha256, cell.path), alt=f"Cell {cell.cell_id}", width="stretch"
    )
    said = [
        f":small[{inert(name)}] {class_badge(label, dataset.classes)}"
        for name, label in sorted(dispute.answers.items())
    ]
    st.markdown("  \n".join([*said, _summary(dispute, together)]))


def _summary(dispute: Dispute, together: CellConsensus | None) -> str:
    label, subject = dispute.majority, dispute.cell.subject
    words = f"Majority: {inert(class_title(label))}" if label else "No majority"
    if subject:
        words += f" · Subject {inert(subject)}"
    if together is None or together.label is None or together.quality is None:
        return f":gray[:small[{words}]]"
    crowd = f"CROWDLAB: {inert(class_title(together.label))} {percent(together.quality)}"
    return f":gray[:small[{words}]]  \n:gray[:small[{crowd}]]"
