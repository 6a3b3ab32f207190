"""Browse: look at the cells as cards, select many of them, or catch them on the map."""

import streamlit as st

import db
from allreview.cells.browsing import Filters, Sort
from allreview.cells.counting import Found, found_cells
from allreview.cells.summaries import labels_in_use, runs_with_predictions, subject_names
from allreview.ui import (
    bulk,
    cell_map,
    context,
    counts_view,
    detail,
    filters,
    frame,
    gallery,
    needs,
    paging,
    select_grid,
    selection,
    to_read,
)
from allreview.ui.errors import guarded
from allreview.wording import plural
from db.tables import Dataset

LOOK_AGAIN_SECONDS = 1.0
CARDS, SELECT, MAP = "Cards", "Select", "Map"
VIEWS = (CARDS, SELECT, MAP)


def main() -> None:
    """Filter bar, the cells in the view that was chosen, and the dialog of the cell that was opened."""
    frame.inside_app()
    dataset = needs.require_dataset()
    view = _title_bar()
    with db.reading(context.engine()) as session:
        choices = filters.Choices(
            classes=dataset.classes,
            labels=labels_in_use(session, dataset.id),
            subjects=subject_names(session, dataset.id),
            runs=runs_with_predictions(session, dataset.id),
        )
    wanted, sort = filters.filter_bar(choices)
    selection.begin((dataset.id, wanted))
    bulk.drawn_anew()
    if view == MAP:
        _map(dataset, wanted, sort)
    else:
        _cells(dataset, wanted, sort, view)
    counts_view.counts_view(dataset, wanted.run_id)


def _title_bar() -> str:
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.title("Browse", anchor=False, width="content")
        return st.segmented_control(
            "View",
            VIEWS,
            default=CARDS,
            required=True,
            key="view",
            bind="query-params",
            label_visibility="collapsed",
        )


def _map(dataset: Dataset, wanted: Filters, sort: Sort) -> None:
    found = found_cells(context.engine(), dataset.id, wanted)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        _found(dataset, wanted, sort, found)
        colouring = cell_map.choose_colouring()
    cell_map.cell_map(dataset, wanted, colouring)


def _cells(dataset: Dataset, wanted: Filters, sort: Sort, view: str) -> None:
    found = found_cells(context.engine(), dataset.id, wanted)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        _found(dataset, wanted, sort, found)
        asked, page, pages = paging.page_bar(dataset, wanted, sort, found)
    rows = paging.cells_of_page(asked, page, pages, found).rows
    with_run = wanted.run_id is not None
    if not rows:
        st.info("No cell matches. Loosen a filter, or clear them all.", icon=":material/filter_alt_off:")
        st.button("Clear all filters", on_click=filters.clear_filters, key="clear-filters-empty")
    elif view == SELECT:
        select_grid.select_view(dataset, wanted, select_grid.tiles(rows, dataset.classes, with_run=with_run))
    else:
        opened = gallery.gallery(rows, dataset.classes, with_run=with_run)
        if opened is not None:
            detail.open_cell(opened, run_id=wanted.run_id, test_predictions=wanted.test_predictions)


def _found(dataset: Dataset, wanted: Filters, sort: Sort, found: Found) -> None:
    """How many match, and the way to read them."""
    with st.container(horizontal=True, vertical_alignment="center", width="content"):
        if found.number is None:
            st.markdown("**Counting…**" if found.counting else "**Cells**", width="content")
        else:
            about = "About " if found.counting else ""
            st.markdown(f"**{about}{plural(found.number, 'cell')}**", width="content")
        to_read.read_filter_button(dataset, wanted, sort, found)
        if found.counting:
            st.fragment(_wait_for_count, run_every=LOOK_AGAIN_SECONDS, key="counting")(dataset.id, wanted)


def _wait_for_count(dataset_id: int, wanted: Filters) -> None:
    with guarded():
        if not found_cells(context.engine(), dataset_id, wanted).counting:
            st.rerun()


if __name__ == "__main__":
    main()
