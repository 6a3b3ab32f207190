"""One answer to all selected cells: the bar at the foot of the page, the question before it is saved, the way back.

The bar keeps to the foot of the window, so that nothing moves under the hand that selects.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import streamlit as st

import db
from allreview.cells.browsing import Filters
from allreview.cells.naming import class_title
from allreview.errors import UserError
from allreview.labels import NOT_CLASSES
from allreview.review.log import reverting
from allreview.review.log.annotations import decide_many
from allreview.review.log.bulk import Before, before_deciding
from allreview.review.log.events import Event, StaleSelection
from allreview.review.reading.reasons import REASONS, joined
from allreview.ui import context, selection, to_read
from allreview.ui.errors import guarded, log_error
from allreview.ui.words import inert
from allreview.wording import listed, plural
from db.tables import Dataset

_SAVED, _REFUSED, _PROBLEM, _CHANGED = "_bulk_saved", "_bulk_refused", "_bulk_problem", "_bulk_changed"
_LABEL, _REASONS, _NOTE = "bulk-label", "bulk-reasons", "bulk-note"
_NAMED_EVENTS = 8


@dataclass(frozen=True)
class _Saved:
    """The last bulk decision of this tab. `taken_back` is the batch that took it back, while it is."""

    dataset_id: int
    reviewer_id: int
    cells: tuple[int, ...]
    label: str
    batch: str
    taken_back: str | None = None


def reload_if_changed() -> None:
    """Call first in a fragment: where a callback changed labels or the selection, the whole page is drawn anew."""
    if st.session_state.pop(_CHANGED, False):
        st.rerun()


def drawn_anew() -> None:
    """The whole page is being drawn anew: nothing of what callbacks changed is old any more."""
    st.session_state.pop(_CHANGED, None)


def bulk_bar(dataset: Dataset, wanted: Filters, *, hint: str) -> None:
    """What is selected and what to do with it; what was saved last, and the way back.

    Args:
        hint: how to select, said while nothing is.
    """
    chosen = selection.current().cells
    with st.container(key="bulk-bar", gap="xsmall"):
        problem = st.session_state.pop(_PROBLEM, None)
        if problem:
            st.error(inert(problem), icon=":material/error:")
        told = _last_saved(dataset.id)
        if not chosen:
            if not told:
                st.caption(hint)
            return
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{len(chosen):,} selected**", width="content")
            _decision(dataset, wanted, chosen)
            to_read.read_cells_button(dataset, wanted, chosen)
            st.button("Clear", key="clear-selection", type="tertiary", on_click=_clear)


def _decision(dataset: Dataset, wanted: Filters, cells: tuple[int, ...]) -> None:
    reviewer = context.current_reviewer()
    if reviewer is None:
        st.markdown(":orange[:material/person:] To decide, say who you are in the sidebar.", width="content")
        return
    label = st.selectbox(
        "Label",
        [*dataset.classes, *NOT_CLASSES],
        index=None,
        format_func=class_title,
        key=_LABEL,
        placeholder="Label…",
        label_visibility="collapsed",
        filter_mode=None,
        width=170,
    )
    with st.popover("Reason, note", icon=":material/edit_note:", key="bulk-why"):
        st.pills("Reason", REASONS, selection_mode="multi", key=_REASONS)
        st.text_input("Note", key=_NOTE, placeholder="Saved with each of the decisions")
    asked = st.button("Decide…", key="decide-selected", type="primary", disabled=label is None)
    if asked and label is not None:
        st.session_state.pop(_REFUSED, None)
        title = f"Label {plural(len(cells), 'cell')} as {inert(class_title(label))}?"
        st.dialog(title)(_confirm)(dataset.id, cells, label, wanted, reviewer.id)


def _confirm(dataset_id: int, cells: tuple[int, ...], label: str, wanted: Filters, reviewer_id: int) -> None:
    """What the decision will change, and the button that makes it; drawn again when it was refused."""
    with guarded():
        if st.session_state.get(_CHANGED):
            st.rerun()
        with db.reading(context.engine()) as session:
            before = before_deciding(
                session, cells, label, run_id=wanted.run_id, test_predictions=wanted.test_predictions
            )
        refused: list[Event] = st.session_state.get(_REFUSED, [])
        if refused:
            _answered_meanwhile(refused, cells)
        st.write(" ".join(_sentences(before)))
        reason, note = joined(st.session_state.get(_REASONS) or []), st.session_state.get(_NOTE)
        if reason or note:
            st.caption(inert(". ".join(words for words in (reason, note) if words)))
        problem = st.session_state.pop(_PROBLEM, None)
        if problem:
            st.error(inert(problem), icon=":material/error:")
        with st.container(horizontal=True, horizontal_alignment="right"):
            if st.button("Cancel", key="bulk-cancel"):
                st.rerun()
            st.button(
                f"Label {plural(len(before.seen), 'cell')}",
                key="bulk-confirm",
                type="primary",
                on_click=_decide,
                args=(_Saved(dataset_id, reviewer_id, cells, label, ""), before, wanted.run_id, reason, note),
            )


def _sentences(before: Before) -> list[str]:
    cells = len(before.seen)
    if not before.changing:
        said = ["They carry this label already; your decision confirms it."]
    elif before.changing == cells:
        said = ["This changes the label of all of them." if cells > 1 else "This changes its label."]
    else:
        said = [
            f"This changes the label of {before.changing:,}; the other {cells - before.changing:,} carry it."
        ]
    if before.decided:
        by = listed([f"{n:,} as {inert(class_title(is_))} by {inert(who)}" for is_, who, n in before.decided])
        verb = "was" if before.decided_cells == 1 else "were"
        said.append(f"**{before.decided_cells:,} of them {verb} decided before:** {by}.")
    return said


def _answered_meanwhile(refused: list[Event], cells: tuple[int, ...]) -> None:
    """The answers that came in between, which the reviewer had not seen."""
    told = [
        f"- Cell {event.cell_id}: {inert(event.reviewer)} "
        + (f"said {inert(class_title(event.label))}" if event.label else "took back an answer")
        for event in refused[:_NAMED_EVENTS]
    ]
    if len(refused) > _NAMED_EVENTS:
        told.append(f"- and {len(refused) - _NAMED_EVENTS:,} more")
    words = f"**Nothing was saved.** {plural(len(refused), 'cell')} had an answer meanwhile:"
    st.warning("\n".join([words, "", *told]), icon=":material/group:")
    others = [cell for cell in cells if cell not in {event.cell_id for event in refused}]
    st.button(
        f"Leave {'it' if len(refused) == 1 else 'them'} out",
        key="bulk-leave-out",
        on_click=_select_only,
        args=(others,),
        disabled=not others,
    )


def _last_saved(dataset_id: int) -> bool:
    """One line about the last bulk decision, with the button that takes it back or brings it back, if there is one."""
    saved: _Saved | None = st.session_state.get(_SAVED)
    reviewer = context.current_reviewer()
    if (
        saved is None
        or reviewer is None
        or (saved.dataset_id, saved.reviewer_id) != (dataset_id, reviewer.id)
    ):
        return False
    count, title = plural(len(saved.cells), "cell"), inert(class_title(saved.label))
    with st.container(horizontal=True, vertical_alignment="center", key="bulk-saved"):
        if saved.taken_back is None:
            st.markdown(f":green[:material/check_circle:] {count} saved as {title}", width="content")
            st.button("Undo", key="bulk-undo", type="tertiary", on_click=_undo, args=(saved,))
        else:
            st.markdown(f":gray[:material/undo:] Taken back: {count} as {title}", width="content")
            st.button("Redo", key="bulk-redo", type="tertiary", on_click=_redo, args=(saved,))
    return True


@contextmanager
def _reported() -> Iterator[None]:
    """A callback runs before the page does and outside its guard: what goes wrong is said in the bar."""
    try:
        yield
    except UserError as error:
        st.session_state[_PROBLEM] = str(error)
    except Exception:
        st.session_state[_PROBLEM] = f"Something went wrong ({log_error()}). Nothing was saved."


def _decide(saved: _Saved, before: Before, run_id: int | None, reason: str | None, note: str | None) -> None:
    st.session_state.pop(_REFUSED, None)
    with _reported():
        try:
            batch = decide_many(
                context.engine(),
                cells=before.seen,
                label=saved.label,
                reviewer_id=saved.reviewer_id,
                visible_run_id=run_id,
                visible=before.visible,
                reason=reason,
                comment=note,
            )
        except StaleSelection as stale:
            st.session_state[_REFUSED] = stale.newer
        else:
            st.session_state[_SAVED] = replace(saved, batch=batch)
            for key in (_LABEL, _REASONS, _NOTE):  # the next selection deserves an answer of its own
                st.session_state.pop(key, None)
            _select_only(())


def _undo(saved: _Saved) -> None:
    with _reported():
        taken_back = reverting.undo_batch(context.engine(), batch=saved.batch, reviewer_id=saved.reviewer_id)
        st.session_state[_SAVED] = replace(saved, taken_back=taken_back)
        _select_only(saved.cells)


def _redo(saved: _Saved) -> None:
    with _reported():
        assert saved.taken_back is not None
        batch = reverting.restore(context.engine(), batch=saved.taken_back, reviewer_id=saved.reviewer_id)
        st.session_state[_SAVED] = replace(saved, batch=batch, taken_back=None)
        _select_only(())


def _clear() -> None:
    _select_only(())


def _select_only(cells: list[int] | tuple[int, ...]) -> None:
    selection.choose(cells)
    st.session_state[_CHANGED] = True
