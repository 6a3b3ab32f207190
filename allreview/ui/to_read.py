"""From what Browse shows to the reading desk: any filter and any selection becomes a worklist."""

from collections.abc import Sequence

import streamlit as st

import db
from allreview.cells.browsing import Filters, Sort
from allreview.cells.counting import Found, found_cells
from allreview.review import chosen
from allreview.review.queues import QueueEntry
from allreview.review.reading import worklists
from allreview.ui import context
from allreview.wording import plural
from db.tables import Dataset

WORKLIST_KEY = "worklist"
_KEPT = (context.DATASET_KEY, context.REVIEWER_KEY)
_ICON = ":material/menu_book:"


def read_filter_button(dataset: Dataset, wanted: Filters, sort: Sort, found: Found) -> None:
    """The button that makes a worklist of the cells found, and opens it."""
    if wanted.test_predictions:
        found = found_cells(context.engine(), dataset.id, chosen.blind(wanted))
    clicked = st.button(
        _title(found),
        key="read-filter",
        icon=_ICON,
        disabled=found.number == 0,
        help=f"Makes a worklist of them, in this order, and opens it on Review. A worklist holds "
        f"{chosen.LIMIT:,} cells at most; test cells are read blind.",
    )
    if clicked:
        with db.reading(context.engine()) as session:
            entries = chosen.entries_of_filter(session, dataset.id, wanted, sort)
        _open(dataset, chosen.name_in_words(wanted), entries, wanted)


def _title(found: Found) -> str:
    if found.number is None:
        return "Read these cells"
    if found.number == 1:
        return "Read this cell"
    shown = min(found.number, chosen.LIMIT)
    return f"Read the first {shown:,} cells" if found.number > shown else f"Read these {shown:,} cells"


def read_cells_button(dataset: Dataset, wanted: Filters, cells: Sequence[int]) -> None:
    """The button that makes a worklist of the selected cells, and opens it."""
    shown = min(len(cells), chosen.LIMIT)
    which = f"the first {shown:,}" if len(cells) > shown else f"the {shown:,}"
    title = "Read the selected cell" if shown == 1 else f"Read {which} selected"
    if st.button(title, key="read-selected", icon=_ICON):
        with db.reading(context.engine()) as session:
            entries = chosen.entries_of_cells(session, cells, run_id=wanted.run_id)
        _open(dataset, f"{plural(len(entries), 'selected cell')}", entries, wanted)


def _open(dataset: Dataset, name: str, entries: list[QueueEntry], wanted: Filters) -> None:
    reviewer = context.current_reviewer()
    worklist_id = worklists.create(
        context.engine(),
        dataset_id=dataset.id,
        name=name,
        strategy=chosen.STRATEGY,
        entries=entries,
        reviewer_id=reviewer.id if reviewer else None,
        run_id=wanted.run_id,
        parts=sorted({entry.part for entry in entries if entry.part}),
    )
    kept = {key: st.query_params[key] for key in _KEPT if key in st.query_params}
    st.switch_page("pages/review.py", query_params=kept | {WORKLIST_KEY: str(worklist_id)})
