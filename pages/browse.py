"""Browse: look at the cells, filtered and sorted, and at everything known about one of them."""

import streamlit as st

import db
from allreview.cells.browsing import count_cells, page_of_cells
from allreview.cells.summaries import labels_in_use, runs_with_predictions, subject_names
from allreview.ui import context, counts_view, detail, filters, frame, gallery, needs
from allreview.wording import plural

PAGE_SIZES = (24, 48, 96)


def main() -> None:
    """Filter bar, gallery, and the dialog of the cell that was opened."""
    frame.inside_app()
    dataset = needs.require_dataset()
    st.title("Browse", anchor=False)
    with db.reading(context.engine()) as session:
        choices = filters.Choices(
            classes=dataset.classes,
            labels=labels_in_use(session, dataset.id),
            subjects=subject_names(session, dataset.id),
            runs=runs_with_predictions(session, dataset.id),
        )
        wanted, sort = filters.filter_bar(choices)
        found = count_cells(session, dataset.id, wanted)
        page, per_page = _page_bar(found, (dataset.id, wanted, sort))
        rows = page_of_cells(session, dataset.id, wanted, sort, page, per_page)
    if rows:
        opened = gallery.gallery(rows, dataset.classes, with_run=wanted.run_id is not None)
        if opened is not None:
            detail.open_cell(opened, run_id=wanted.run_id, test_predictions=wanted.test_predictions)
    else:
        st.info("No cell matches. Loosen a filter, or clear them all.", icon=":material/filter_alt_off:")
        st.button("Clear all filters", on_click=filters.clear_filters, key="clear-filters-empty")
    counts_view.counts_view(dataset, wanted.run_id)


def _page_bar(found: int, asked: object) -> tuple[int, int]:
    """How many match, cells per page, and the page; a changed question starts at page 1."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{plural(found, 'cell')}**")
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
            before = st.session_state.get("_browsed")
            if before is not None and before != (asked, per_page):
                st.session_state["page"] = 1
            st.session_state["_browsed"] = (asked, per_page)
            page = st.pagination(pages, key="page", bind="query-params")
    return page, per_page


if __name__ == "__main__":
    main()
