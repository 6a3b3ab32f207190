"""Browse: look at the cells as cards, select many of them, or catch them on the map."""

import streamlit as st

import db
from allreview.cells.browsing import Filters, Sort, count_cells, page_of_cells
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
    select_grid,
    selection,
    to_read,
)
from allreview.wording import plural
from db.tables import Dataset

PAGE_SIZES = (24, 48, 96)
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
    with db.reading(context.engine()) as session:
        found = count_cells(session, dataset.id, wanted)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        _found(dataset, wanted, sort, found)
        colouring = cell_map.choose_colouring()
    cell_map.cell_map(dataset, wanted, colouring)


def _cells(dataset: Dataset, wanted: Filters, sort: Sort, view: str) -> None:
    with db.reading(context.engine()) as session:
        found = count_cells(session, dataset.id, wanted)
        page, per_page = _page_bar(dataset, wanted, sort, found)
        rows = page_of_cells(session, dataset.id, wanted, sort, page, per_page)
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


def _page_bar(dataset: Dataset, wanted: Filters, sort: Sort, found: int) -> tuple[int, int]:
    """How many match, cells per page, and the page; a changed question starts at page 1."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        _found(dataset, wanted, sort, found)
        with st.container(horizontal=True, vertical_alignment="center", width="content"):
            per_page = st.segmented_control(
                "Cells per page",
                PAGE_SIZES,
                default=PAGE_SIZES[1],
                required=True,
                key="per_page",
                bind="query-params",
                label_visibility="collapsed",
                help="Cells per page",
            )
            pages = max(1, -(-found // per_page))
            asked, before = (dataset.id, wanted, sort), st.session_state.get("_browsed")
            if before is not None and before != (asked, per_page):
                st.session_state["page"] = 1
            st.session_state["_browsed"] = (asked, per_page)
            page = st.pagination(pages, key="page", bind="query-params")
    return page, per_page


def _found(dataset: Dataset, wanted: Filters, sort: Sort, found: int) -> None:
    """How many match, and the way to read them."""
    with st.container(horizontal=True, vertical_alignment="center", width="content"):
        st.markdown(f"**{plural(found, 'cell')}**", width="content")
        to_read.read_filter_button(dataset, wanted, sort, found)


if __name__ == "__main__":
    main()
