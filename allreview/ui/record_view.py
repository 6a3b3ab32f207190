"""The log on the page: a line for every event or batch, newest first, and taking answers back."""

from dataclasses import replace
from datetime import datetime
from functools import partial

import streamlit as st

import db
from allreview.cells.thumbnails import thumbnail
from allreview.errors import UserError
from allreview.review.record import record_csv, record_words
from allreview.review.record.entries import Entry, Log, LogFilters, Page
from allreview.ui import context, detail, record_filters, reverting_view
from allreview.ui.errors import show_user_error
from allreview.ui.words import inert, viewers_zone, when
from allreview.wording import plural
from db.tables import Dataset
from db.types import now

PAGE_SIZE = 25
OPENED_SHOWS = 12
"""Events of a batch that are shown when its line is opened."""
WIDTHS = (0.85, 1.4, 4.2, 2.5, 2.1, 0.95)
_OPENED = "_log_opened"
_ASKED = "_log_asked"
_STYLE = """<style>
.st-key-log { gap: 0 !important; }
.st-key-log [class*="st-key-line-"] { border-top: 1px solid rgba(128, 128, 128, 0.22); padding: 0.5rem 0; }
.st-key-log [class*="st-key-line-of-"] { padding-left: 2.5rem; }
.st-key-log img { width: 56px !important; min-width: 56px; height: 56px !important; object-fit: contain;
  background: #000; }
.st-key-log [data-testid="stElementToolbar"] { display: none; }
.st-key-log button[kind="tertiary"] { min-height: 1.4rem; padding: 0; justify-content: flex-start; text-align: left; }
.st-key-log [data-testid="stMarkdownContainer"] { margin-bottom: 0; }
.st-key-log [data-testid="stCaptionContainer"] { margin-bottom: 0.35rem; }
.st-key-log p { margin-bottom: 0; overflow-wrap: anywhere; font-size: 0.92rem; line-height: 1.45; }
</style>"""


def choose_view(views: dict[str, str]) -> str:
    """Which part of the page to show; kept in the URL."""
    key = "labels_view"
    if st.session_state.get(key) not in views:
        st.session_state[key] = st.query_params.get("view") if st.query_params.get("view") in views else "log"
    chosen = st.segmented_control(
        "View",
        list(views),
        format_func=views.__getitem__,
        required=True,
        key=key,
        label_visibility="collapsed",
    )
    record_filters.remember("view", None if chosen == "log" else chosen)
    return chosen or "log"


def record(dataset: Dataset, reviewer_id: int) -> None:
    """Filters, counts and one page of the log."""
    st.html(_STYLE)
    reverting_view.said()
    with db.reading(context.engine()) as session:
        log = Log(session, dataset.id, reviewer_id)
        try:
            filters = record_filters.filter_bar(log, dataset)
        except UserError as error:
            show_user_error(error)
            return
        place = _place(filters)
        page = log.page(filters, size=PAGE_SIZE, folded=filters.batch is None, **place)
        _above(log, filters, reviewer_id)
        _lines(log, page, filters, reviewer_id)
    _pager(page)


def _place(filters: LogFilters) -> dict[str, int]:
    """Where the page starts, as the URL says; at the newest where another question is asked than before."""
    before = st.session_state.get(_ASKED)
    if before is not None and before != filters:
        _go(None, None)
    st.session_state[_ASKED] = filters
    for name in ("before", "after"):
        text = st.query_params.get(name, "")
        if text.isascii() and text.isdecimal() and len(text) < 10:
            return {name: int(text)}
    return {}


def _go(before: int | None, after: int | None) -> None:
    record_filters.remember("before", None if before is None else str(before))
    record_filters.remember("after", None if after is None else str(after))


def _above(log: Log, filters: LogFilters, reviewer_id: int) -> None:
    """What was found, and what can be done with all of it."""
    totals = log.totals(filters)
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        said = f"**{plural(totals.events, 'event')}** on {plural(totals.cells, 'cell')}"
        if filters.batch is not None:
            said += ", one batch"
        st.markdown(said, width="content")
        with st.container(horizontal=True, vertical_alignment="center", width="content"):
            if filters != LogFilters():
                st.button(
                    "Show everything", key="log-everything", on_click=record_filters.clear, type="tertiary"
                )
            if filters.session_id is not None:
                reverting_view.revert_button(
                    log.dataset_id, reviewer_id, "Revert this sitting…", session_id=filters.session_id
                )
            with st.popover("Download", icon=":material/download:"):
                _downloads(log, filters, reviewer_id)
    if log.withheld:
        cells = plural(len(log.withheld), "cell")
        st.caption(
            f"Others' answers to {cells} that you have still to read in a blind worklist are not shown."
        )


def _downloads(log: Log, filters: LogFilters, reviewer_id: int) -> None:
    st.download_button(
        "These events as CSV",
        partial(_events_csv, log.dataset_id, filters, reviewer_id),
        file_name="events.csv",
        mime="text/csv",
        key="log-events-csv",
        on_click="ignore",
        width="stretch",
    )
    st.download_button(
        "Current label of every cell as CSV",
        partial(_labels_csv, log.dataset_id, reviewer_id),
        file_name="labels.csv",
        mime="text/csv",
        key="log-labels-csv",
        on_click="ignore",
        width="stretch",
    )


def _events_csv(dataset_id: int, filters: LogFilters, reviewer_id: int) -> bytes:
    with db.reading(context.engine()) as session:
        return record_csv.events_csv(Log(session, dataset_id, reviewer_id), filters)


def _labels_csv(dataset_id: int, reviewer_id: int) -> bytes:
    with db.reading(context.engine()) as session:
        return record_csv.labels_csv(Log(session, dataset_id, reviewer_id))


def _lines(log: Log, page: Page, filters: LogFilters, reviewer_id: int) -> None:
    if not page.entries:
        nothing = "Nobody has decided anything yet: decisions made on Review appear here."
        st.info(
            nothing if filters == LogFilters() else "No event matches. Loosen a filter, or show everything."
        )
        return
    with st.container(key="log"):
        heads = ("", "Cell", "What", "What was visible", "When", "")
        for column, head in zip(st.columns(WIDTHS), heads, strict=True):
            column.caption(head or " ")
        for entry in page.entries:
            _line(entry, log.dataset_id, reviewer_id)
            if entry.events > 1 and st.session_state.get(_OPENED) == entry.batch:
                _opened(log, entry, filters, reviewer_id)


def _line(entry: Entry, dataset_id: int, reviewer_id: int, *, within: bool = False) -> None:
    """One event or batch. `within`: an event of a batch whose own line stands above."""
    batch = entry.events > 1
    with st.container(key=f"line-{'of-' if within else ''}{entry.id}"):
        picture, cell, what, visible, moment, act = st.columns(WIDTHS)
        with picture:
            data = thumbnail(context.settings(), entry.sha256, entry.path)
            st.image(data, alt=f"Cell {entry.cell_id}", width=56)
        with cell, st.container(gap=None):
            _cell(entry, batch)
        what.markdown(_what(entry))
        visible.markdown(_visible(entry))
        moment.markdown(_moment(entry))
        with act:
            if not within:
                _action(entry, dataset_id, reviewer_id)


def _cell(entry: Entry, batch: bool) -> None:
    if batch:
        opened = st.session_state.get(_OPENED) == entry.batch
        label = f"Hide the {entry.events:,}" if opened else f"Show the {entry.events:,}"
        st.button(
            label, key=f"open-{entry.id}", type="tertiary", on_click=_toggle, args=(entry.batch,),
            icon=":material/expand_less:" if opened else ":material/expand_more:",
        )  # fmt: skip
        return
    if st.button(
        f"Cell {entry.cell_id}", key=f"cell-{entry.id}", type="tertiary", help="Show all about this cell"
    ):
        detail.open_cell(entry.cell_id, run_id=None, test_predictions=False)
    st.markdown(_small(f"Subject {entry.subject}" if entry.subject else "No subject"))


def _toggle(batch: str) -> None:
    st.session_state[_OPENED] = None if st.session_state.get(_OPENED) == batch else batch


def _opened(log: Log, line: Entry, filters: LogFilters, reviewer_id: int) -> None:
    """The first events of a batch, below its line."""
    assert line.batch is not None
    page = log.page(replace(filters, batch=line.batch), size=OPENED_SHOWS, folded=False)
    for entry in page.entries:
        _line(entry, log.dataset_id, reviewer_id, within=True)
    if line.events > len(page.entries):
        st.button(
            f"Show all {line.events:,}",
            key=f"all-{line.id}",
            on_click=record_filters.only_batch,
            args=(line.batch,),
        )


def _what(entry: Entry) -> str:
    """Who did what, and what became of it, as Markdown."""
    words = inert(record_words.what(entry))
    given = entry.kind == "decision"
    gone = not entry.takes_back and entry.standing == 0
    said = f"**{inert(entry.reviewer)}**{':' if given else ''} {f'~~{words}~~' if gone else words}"
    if entry.repeat:
        said += " (given a second time)"
    notes = [record_words.outcome(entry), _state(entry), entry.reason, entry.comment]
    return "  \n".join([said, *(_small(note) for note in notes if note)])


def _state(entry: Entry) -> str | None:
    state = record_words.state(entry)
    if state is None or entry.taken_back_at is None or entry.events > 1:
        return state
    return f"{state}, {_ago(entry.taken_back_at)}"


def _visible(entry: Entry) -> str:
    if entry.takes_back or entry.kind == "redo":
        return ""
    lines = [record_words.seen(entry.visible, entry.visible_run_id)]
    took = record_words.seconds(entry.duration_ms)
    if took:
        lines.append(f"Took {took}")
    return "  \n".join(map(_small, lines))


def _moment(entry: Entry) -> str:
    ago = _ago(entry.created_at)
    lines = [when(entry.created_at)]
    if entry.session_id is not None:
        lines.append(f"Sitting {entry.session_id}" + (f", {entry.worklist}" if entry.worklist else ""))
    return "  \n".join([ago[:1].upper() + ago[1:], *map(_small, lines)])


def _ago(moment: datetime) -> str:
    zone = viewers_zone()
    return record_words.ago(moment.astimezone(zone), now().astimezone(zone))


def _small(text: str) -> str:
    return f":gray[:small[{inert(text)}]]"


def _action(entry: Entry, dataset_id: int, reviewer_id: int) -> None:
    if entry.restorable and entry.batch:
        reverting_view.restore_button(reviewer_id, entry.batch, entry.restorable)
    elif not entry.takes_back and entry.standing and entry.events > 1:
        reverting_view.revert_button(dataset_id, reviewer_id, "Revert…", batch=entry.batch)
    elif not entry.takes_back and entry.standing:
        reverting_view.revert_button(dataset_id, reviewer_id, "Revert…", annotation_id=entry.id)


def _pager(page: Page) -> None:
    if page.newer is None and page.older is None:
        return
    with st.container(horizontal=True, horizontal_alignment="center"):
        st.button("Newest", key="log-newest", on_click=_go, args=(None, None), disabled=page.newer is None)
        st.button(
            "Newer", key="log-newer", on_click=_go, args=(None, page.newer), disabled=page.newer is None
        )
        st.button(
            "Older", key="log-older", on_click=_go, args=(page.older, None), disabled=page.older is None
        )
