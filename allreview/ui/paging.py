"""Turning pages: by their numbers on the screen, by the cells on them underneath.

The page after the one that is shown begins after its last cell, whatever was decided meanwhile; so no cell is passed
over. The same page drawn again begins with the same cell. Both ends are found from where they are, and a number in a
link by counting from the nearest of these.
"""

from dataclasses import dataclass
from typing import Literal

import streamlit as st

import db
from allreview.cells.browsing import Filters, Page, Place, Sort, cells_from
from allreview.cells.counting import Found
from allreview.ui import context
from db.tables import Dataset

PAGE_SIZES = (24, 48, 96)
_NEAR = 20
"""Pages. So near to the one that is shown, another is found from there."""
_PAGE, _ASKED, _SHOWN, _GO_TO = "page", "_browsed", "_page_shown", "_page_to_show"

Question = tuple[int, Filters, Sort, int]
Direction = Literal["at", "after", "before"]


@dataclass(frozen=True)
class _Shown:
    """The page that was drawn last. `more`: cells follow it, although by their number it is the last page."""

    asked: Question
    page: int
    first: Place
    last: Place
    more: bool


@dataclass(frozen=True)
class _Way:
    """One way to get to a page."""

    skip: int
    place: Place | None
    direction: Direction
    limit: int


def page_bar(dataset: Dataset, wanted: Filters, sort: Sort, found: Found) -> tuple[Question, int, int]:
    """Cells per page and the page; gives the question, the page and how many there are. A new question starts at 1."""
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
        asked = (dataset.id, wanted, sort, per_page)
        before = st.session_state.get(_ASKED)
        if before is not None and before != asked:
            st.session_state[_PAGE] = 1
            st.session_state.pop(_SHOWN, None)
        st.session_state[_ASKED] = asked
        if _GO_TO in st.session_state:
            st.session_state[_PAGE] = st.session_state.pop(_GO_TO)
        pages, shown = _pages(found, per_page), st.session_state.get(_SHOWN)
        if shown is not None and shown.asked == asked and shown.more:
            pages = max(pages, shown.page + 1)
        page = st.pagination(pages, key=_PAGE, bind="query-params")
    return asked, page, pages


def cells_of_page(asked: Question, page: int, pages: int, found: Found) -> Page:
    """The cells of the page. Where the page is not there any more, the nearest one is drawn instead."""
    dataset_id, wanted, sort, per_page = asked
    way = _way(asked, page, pages, found)
    with db.reading(context.engine()) as session:
        shown = cells_from(
            session, dataset_id, wanted, sort, way.place, way.limit, direction=way.direction, skip=way.skip
        )
        by_number_the_last = page >= _pages(found, per_page) and shown.last is not None
        more = by_number_the_last and bool(cells_from(session, dataset_id, wanted, sort, shown.last, 1).rows)
    before_the_first = way.direction == "before" and way.place is not None and len(shown.rows) < per_page
    if page > 1 and before_the_first:
        _go_to(1)
    if page > 1 and shown.first is None:
        _go_to(page - 1)
    if shown.first is None or shown.last is None:
        st.session_state.pop(_SHOWN, None)
    else:
        st.session_state[_SHOWN] = _Shown(asked, page, shown.first, shown.last, more)
    if more and page == pages:
        st.rerun()  # decisions took cells from pages before: there is one page more than by their number
    return shown


def _way(asked: Question, page: int, pages: int, found: Found) -> _Way:
    """The way to the page: from the one that is shown, where it is near, else from the nearer end."""
    per_page, shown = asked[-1], st.session_state.get(_SHOWN)
    from_first = _Way((page - 1) * per_page, None, "after", per_page)
    if page > 1 and shown is not None and shown.asked == asked and abs(page - shown.page) <= _NEAR:
        turned = page - shown.page
        if turned == 0:
            return _Way(0, shown.first, "at", per_page)
        if turned > 0:
            return _Way((turned - 1) * per_page, shown.last, "after", per_page)
        return _Way((-turned - 1) * per_page, shown.first, "before", per_page)
    if found.counting or not found.number:
        return from_first
    on_the_last = found.number - (pages - 1) * per_page
    if page == pages > 1 and on_the_last > 0:
        return _Way(0, None, "before", on_the_last)
    from_last = _Way(on_the_last + (pages - page - 1) * per_page, None, "before", per_page)
    return from_last if 0 < from_last.skip < from_first.skip else from_first


def _pages(found: Found, per_page: int) -> int:
    """How many pages there are; while that is not known, one more than the page that is asked for."""
    known = max(1, -(-(found.number or 0) // per_page))
    if not found.counting and found.number is not None:
        return known
    asked = st.session_state.get(_PAGE) or st.query_params.get(_PAGE, "1")
    return max(known, (int(asked) if str(asked).isdecimal() and len(str(asked)) < 8 else 1) + 1)


def _go_to(page: int) -> None:
    st.session_state[_GO_TO] = page
    st.rerun()
