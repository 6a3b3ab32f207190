"""Everything known about one cell, in a dialog."""

import streamlit as st

import db
from allreview.cells.browsing import CellDetail, LogEntry, cell_detail
from allreview.cells.decoding import read_rgb
from allreview.cells.naming import class_title, shown
from allreview.errors import UserError
from allreview.places import cell_file
from allreview.review.reading.withholding import withheld_cells
from allreview.review.record import record_words
from allreview.review.saliency.overlays import picture as large_picture
from allreview.ui import context
from allreview.ui.errors import guarded
from allreview.ui.gallery import STRIP_WIDTH, alt_text, picture
from allreview.ui.words import PART_TITLES, inert, run_title, when
from allreview.wording import listed, percent, plural

OPEN_KEY = "_open_cell"
LARGE_SIDE = 450
_TAKEN_BACK = {"undo": "taken back", "revert": "reverted"}
OTHERS = 12


def open_cell(cell_id: int, *, run_id: int | None, test_predictions: bool) -> None:
    """Show the dialog of a cell."""
    st.session_state[OPEN_KEY] = cell_id
    _dialog(run_id, test_predictions)


@st.dialog("About this cell", width="large")
def _dialog(run_id: int | None, test_predictions: bool) -> None:
    with guarded():
        with db.reading(context.engine()) as session:
            detail = cell_detail(
                session,
                st.session_state[OPEN_KEY],
                run_id=run_id,
                test_predictions=test_predictions,
                others=OTHERS,
            )
            reviewer = context.current_reviewer()
            unread = reviewer is not None and detail.cell.cell_id in withheld_cells(session, reviewer.id)
        if detail.synthetic:
            st.badge("Synthetic", icon=":material/science:", color="orange")
        left, right = st.columns([2, 3], gap="medium")
        with left:
            _large(detail)
        with right:
            _facts(detail, unread=unread)
            _predictions(detail)
            _log(detail, reviewer.name if unread and reviewer else None)
        _others(detail)
        _files(detail)


def _large(detail: CellDetail) -> None:
    try:
        source = read_rgb(cell_file(detail.cell.path), context.settings().max_pixels)
    except UserError:
        st.image(picture(detail.cell), alt=alt_text(detail.cell), width="stretch")
        st.caption("The original image cannot be read; this is the small picture made at import.")
        return
    st.image(large_picture(source, LARGE_SIDE), alt=alt_text(detail.cell), width="stretch")


def _facts(detail: CellDetail, *, unread: bool) -> None:
    cell = detail.cell
    source = inert(class_title(cell.source_label))
    changed = f", imported as {source}" if cell.relabelled else ", as imported"
    label = f"Imported as {source}" if unread else f"**{inert(class_title(cell.current_label))}**{changed}"
    lines = [f"#### Cell {cell.cell_id}", label]
    if cell.subject:
        tied = [inert(name) for name in detail.group]
        together = f", kept together with {listed(tied)} (identical cells)" if tied else ""
        lines.append(f"Subject {inert(cell.subject)}{together}")
    else:
        lines.append("No subject known")
    fold = f", {inert(detail.fold.replace('_', ' '))}" if detail.fold else ""
    lines.append(f"{inert(detail.dataset)}{fold}, imported {when(detail.imported_at)}")
    lines.append(f"{detail.width} × {detail.height} pixels, {detail.size_bytes / 1000:,.0f} kB")
    st.markdown("\n\n".join(lines))


def _predictions(detail: CellDetail) -> None:
    if not detail.predictions:
        return
    st.markdown("**Predictions**")
    rows = []
    for each in detail.predictions:
        said = "Hidden: test cell" if each.hidden else class_title(each.label or "")
        sure = percent(each.probability) if each.probability is not None else ""
        part = PART_TITLES.get(each.part or "", "Not used")
        rows.append((run_title(each.run_id, each.recipe), part, said, sure))
    names = ("Run", "Part", "Predicted", "Certainty")
    st.dataframe({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


def _log(detail: CellDetail, only: str | None) -> None:
    """The cell's events; `only` names the one reviewer whose events may be seen."""
    st.markdown("**Decisions**")
    if only is not None:
        st.caption("What others said is not shown: you have still to read this cell in a blind worklist.")
    elif not detail.log:
        st.caption("Nobody has labelled this cell here yet.")
    for entry in detail.log:
        if only in (None, entry.reviewer):
            st.markdown(_entry(entry))


def _entry(entry: LogEntry) -> str:
    """One event in words, as Markdown."""
    who = f"{inert(entry.reviewer)}, {when(entry.created_at)}"
    notes = "".join(f"  \n{inert(note)}" for note in (entry.reason, entry.comment) if note)
    if entry.kind in _TAKEN_BACK:
        return f"{entry.sequence}. Decision {entry.about} {_TAKEN_BACK[entry.kind]} ({who}){notes}"
    said = inert(class_title(entry.label or ""))
    said = f"~~{said}~~ (taken back)" if entry.undone else f"**{said}**"
    if entry.kind == "redo":
        return f"{entry.sequence}. Decision {entry.about} brought back: {said} ({who})"
    marks = [
        words
        for words, holds in (
            ("final decision", entry.kind == "adjudication"),
            ("given a second time", entry.repeat),
            ("with others in one decision", entry.batch is not None),
        )
        if holds
    ]
    saw = record_words.seen(entry.visible, entry.visible_run_id)
    about = "; ".join([who, *marks, saw[:1].lower() + saw[1:]])
    return f"{entry.sequence}. {said} ({about}){notes}"


def _others(detail: CellDetail) -> None:
    if not detail.others:
        return
    count = plural(detail.others_total, "other cell")
    shown_of = f", the first {len(detail.others)}" if detail.others_total > len(detail.others) else ""
    st.markdown(f"**{count} of this subject**{shown_of}")
    with st.container(key="others"):
        grid = st.grid(min_column_width=STRIP_WIDTH, gap="xsmall")
        for row in detail.others:
            with grid.cell().container(gap="xxsmall"):
                st.image(picture(row), alt=alt_text(row), width="stretch")
                st.button(
                    class_title(row.current_label),
                    key=f"other-{row.cell_id}",
                    on_click=_move_to,
                    args=(row.cell_id,),
                    type="tertiary",
                    width="stretch",
                    help=f"Show cell {row.cell_id}",
                )


def _move_to(cell_id: int) -> None:
    st.session_state[OPEN_KEY] = cell_id


def _files(detail: CellDetail) -> None:
    with st.expander(f"{plural(len(detail.files), 'file')} and checksum"):
        for path, subject in detail.files:
            st.text(shown(path) + (f" (subject {subject})" if subject else ""))
        st.text(f"SHA-256 {detail.cell.sha256}")
