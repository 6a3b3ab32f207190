"""What changed since a run: labels then and now, in numbers and cell by cell, and the way to a retrain."""

from functools import partial

import streamlit as st

import db
from allreview.cells.naming import class_title
from allreview.cells.thumbnails import thumbnail
from allreview.review.reading.withholding import withheld_cells
from allreview.review.record import changes as changing
from allreview.review.record import record_csv
from allreview.review.record.changes import ChangedCell, Changes
from allreview.training import runs
from allreview.ui import context, detail, run_view
from allreview.ui.words import PART_TITLES, class_badge, inert, when
from allreview.wording import listed, plural
from db.tables import PARTS

PAGE_SIZE = 20
_WIDTHS = (0.85, 1.5, 3.4, 1.3, 2.4)
_AFTER = "_changes_after"
_STYLE = """<style>
.st-key-changed { gap: 0 !important; }
.st-key-changed [class*="st-key-changed-"] { border-top: 1px solid rgba(128, 128, 128, 0.22); padding: 0.5rem 0; }
.st-key-changed img { width: 56px !important; min-width: 56px; height: 56px !important; object-fit: contain;
  background: #000; }
.st-key-changed [data-testid="stElementToolbar"] { display: none; }
.st-key-changed button[kind="tertiary"] { min-height: 1.4rem; padding: 0; justify-content: flex-start; }
.st-key-changed [data-testid="stMarkdownContainer"] { margin-bottom: 0; }
.st-key-changed p { margin-bottom: 0; overflow-wrap: anywhere; font-size: 0.92rem; line-height: 1.45; }
</style>"""


def changes(dataset_id: int, reviewer_id: int) -> None:
    """Choose a run; what a retrain of it would see differently."""
    with db.reading(context.engine()) as session:
        found = runs.list_runs(session, dataset_id=dataset_id, states=("finished",))
    if not found:
        st.info("No run is finished yet: train one first, then see here what reviewers changed since.")
        return
    st.html(_STYLE)
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with left:
        run = run_view.choose_run(found, "Since")
    with db.reading(context.engine()) as session:
        withheld = withheld_cells(session, reviewer_id)
        since = changing.changes_since(session, run.id, withheld)
    with right:
        run_view.retrain_button(run)
    st.markdown(_summary(since))
    if since.withheld:
        st.caption(
            f"{plural(since.withheld, 'cell')} that you have still to read in a blind worklist "
            f"{'is' if since.withheld == 1 else 'are'} left out here."
        )
    if since.cells:
        _matrix(since)
        _cells(run.id, run.classes, reviewer_id)


def _summary(since: Changes) -> str:
    """What a retrain would see, in a sentence or two."""
    if since.nothing:
        return "Nothing changed: a retrain would see the same labels."
    would = [
        (since.relabelled, "have another class"),
        (since.left_out, "be left out"),
        (since.taken_in, "be taken in again"),
        (since.new, "be new"),
    ]
    clauses = [f"{number:,} would {words}" for number, words in would if number]
    clauses[0] = clauses[0].replace(
        " would", f" {'cell' if clauses[0].startswith('1 ') else 'cells'} would", 1
    )
    said = f"**{plural(since.cells, 'cell has', 'cells have')} another label now.** " if since.cells else ""
    return f"{said}In a retrain {listed(clauses)}."


def _matrix(since: Changes) -> None:
    """From, to, and how many in which part."""
    rows = [
        {
            "Then": class_title(before),
            "Now": class_title(after),
            **{PART_TITLES[part]: by_part[part] for part in PARTS},
            "All": sum(by_part.values()),
        }
        for (before, after), by_part in since.moves.items()
    ]
    st.dataframe(rows, hide_index=True, width="content", key="changes-matrix")


def _cells(run_id: int, classes: list[str], reviewer_id: int) -> None:
    part, download = st.columns([3, 1], vertical_alignment="center")
    with part:
        chosen = st.pills(
            "Part",
            PARTS,
            format_func=PART_TITLES.__getitem__,
            key="changes-part",
            label_visibility="collapsed",
        )
    download.download_button(
        "Download as CSV",
        partial(_csv, run_id, reviewer_id),
        file_name=f"changed-since-run-{run_id}.csv",
        mime="text/csv",
        key="changes-csv",
        icon=":material/download:",
        on_click="ignore",
        width="stretch",
    )
    asked, places = st.session_state.get(_AFTER, (None, [0]))
    if asked != (run_id, chosen):
        places = [0]
        st.session_state[_AFTER] = ((run_id, chosen), places)
    with db.reading(context.engine()) as session:
        found = changing.changed_cells(
            session,
            run_id,
            part=chosen,
            after=places[-1],
            limit=PAGE_SIZE + 1,
            withheld=withheld_cells(session, reviewer_id),
        )
    if not found:
        st.info("No cell of this part changed.")
        return
    with st.container(key="changed"):
        for cell in found[:PAGE_SIZE]:
            _line(cell, classes)
    _pager(places, found)


def _line(cell: ChangedCell, classes: list[str]) -> None:
    with st.container(key=f"changed-{cell.cell_id}"):
        picture, name, labels, part, who = st.columns(_WIDTHS)
        data = thumbnail(context.settings(), cell.sha256, cell.path)
        picture.image(data, alt=f"Cell {cell.cell_id}", width=56)
        with name, st.container(gap=None):
            if st.button(f"Cell {cell.cell_id}", key=f"open-changed-{cell.cell_id}", type="tertiary"):
                detail.open_cell(cell.cell_id, run_id=None, test_predictions=False)
            subject = f"Subject {inert(cell.subject)}" if cell.subject else "No subject"
            st.markdown(f":gray[:small[{subject}]]")
        labels.markdown(f"{class_badge(cell.before, classes)} → {class_badge(cell.after, classes)}")
        part.markdown(PART_TITLES[cell.part])
        if cell.reviewer is not None and cell.changed_at is not None:
            who.markdown(f"{inert(cell.reviewer)}  \n:gray[:small[{when(cell.changed_at)}]]")


def _pager(places: list[int], found: list[ChangedCell]) -> None:
    more = len(found) > PAGE_SIZE
    if not more and len(places) == 1:
        return
    with st.container(horizontal=True, horizontal_alignment="center"):
        st.button(
            "Before", key="changes-before", on_click=_step, args=(places, None), disabled=len(places) == 1
        )
        st.button(
            "Next",
            key="changes-next",
            on_click=_step,
            args=(places, found[:PAGE_SIZE][-1].cell_id),
            disabled=not more,
        )


def _step(places: list[int], after: int | None) -> None:
    """To the page after a cell, or back to the one before."""
    if after is None:
        places.pop()
    else:
        places.append(after)


def _csv(run_id: int, reviewer_id: int) -> bytes:
    with db.reading(context.engine()) as session:
        hidden = withheld_cells(session, reviewer_id)
        return record_csv.changes_csv(changing.changed_cells(session, run_id, limit=None, withheld=hidden))
