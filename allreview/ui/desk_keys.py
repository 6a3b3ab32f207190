"""What a reviewer does at the desk: answer, reason, note, skip, undo, redo.

Answers are written in the button's callback, which runs before anything is drawn, so "saved" is only ever said of
what was committed. Every button's key names its turn: a click that was meant for the cell before does not reach the
next one, and is refused.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import streamlit as st

from allreview.cells.naming import class_title
from allreview.errors import UserError
from allreview.review.log.events import StaleView
from allreview.review.reading import reasons, sittings, undoing
from allreview.review.reading.desk_cells import DeskCell
from allreview.review.reading.sittings import SittingInfo
from allreview.ui import context, desk_help
from allreview.ui.errors import log_error
from allreview.ui.viewer import NOTE_BOX, REASONS_BOX, REDO_BOX, TURN_FIELD
from allreview.ui.words import inert

_LAST = "desk-last"
_CONFLICT = "desk-conflict"
_TURN = "desk-turn"
_NO_TURN = (None, 0, None)
_DRAWN = "desk-drawn"
_QUICKEST_MS = 200
"""A key that comes sooner after the cell was drawn was meant for the cell before it."""


@dataclass(frozen=True)
class Turn:
    """One time that one cell lies on the desk. A cell that comes again has another number.

    `seen` is the cell's last event when it was laid there: what comes later was not there to see.
    """

    sitting_id: int
    cell: DeskCell
    number: int
    seen: int | None

    @property
    def note_key(self) -> str:
        return f"{TURN_FIELD}{self.number}"

    @property
    def reasons_key(self) -> str:
        return f"reasons-{self.number}"


@dataclass(frozen=True)
class _Conflict:
    """An answer that was refused because somebody else was faster."""

    cell_id: int
    label: str
    newer_id: int
    sentence: str


def status() -> str:
    """What became of the last key, for the status line."""
    return st.session_state.get(_LAST, "")


def forget() -> None:
    """The next sitting starts without the words of this one."""
    for key in (_LAST, _CONFLICT):
        st.session_state.pop(key, None)
    clear_desk()


def turn_of(sitting: SittingInfo, cell: DeskCell) -> Turn:
    """The turn of the cell on the desk: the same as long as it lies there."""
    what = (sitting.id, cell.cell_id, cell.repeat)
    last, number, seen = st.session_state.get(_TURN, _NO_TURN)
    if last != what:
        number, seen = number + 1, cell.last_event_id
        st.session_state[_TURN] = (what, number, seen)
    return Turn(sitting.id, cell, number, seen)


def clear_desk() -> None:
    """No cell lies on the desk: the next one, be it the same as the last, has a turn of its own."""
    st.session_state[_TURN] = (None, *st.session_state.get(_TURN, _NO_TURN)[1:])


def note_drawn(turn: Turn) -> None:
    """The time an answer takes runs from here."""
    if st.session_state.get(_DRAWN, (None, 0))[0] != turn.number:
        st.session_state[_DRAWN] = (turn.number, time.monotonic())


def keys(turn: Turn, classes: Sequence[str]) -> None:
    """A button for every answer, and for going on without one or back; the reasons under them."""
    with st.container(horizontal=True, key="desk-answers", gap="small"):
        for label, title, key in desk_help.answer_keys(classes):
            st.button(
                inert(title),
                key=f"answer-{label}-{turn.number}",
                shortcut=key,
                type="primary" if label in classes else "secondary",
                on_click=_decide,
                args=(turn, label, turn.seen),
            )
        st.button(
            "Skip",
            key=f"skip-{turn.number}",
            shortcut=desk_help.SKIP_KEY,
            on_click=_skip,
            args=(turn,),
        )
        back_and_forth(turn.sitting_id)
    _reasons(turn)


def back_and_forth(sitting_id: int) -> None:
    """Undo and redo."""
    st.button("Undo", key="undo", shortcut=desk_help.UNDO_KEY, on_click=_undo, args=(sitting_id,))
    with st.container(key=REDO_BOX, width="content"):
        st.button("Redo", key="redo", shortcut=desk_help.REDO_KEY, on_click=_redo, args=(sitting_id,))


def note(turn: Turn) -> None:
    """A line of text that is kept while it is not yet saved."""
    if turn.note_key not in st.session_state:
        st.session_state[turn.note_key] = turn.cell.draft_comment or ""
    with st.container(key=NOTE_BOX):
        st.text_input(
            "Note",
            key=turn.note_key,
            label_visibility="collapsed",
            placeholder="Note (N), saved with the answer",
            on_change=_keep_draft,
            args=(turn,),
        )


def _reasons(turn: Turn) -> None:
    if turn.reasons_key not in st.session_state:
        st.session_state[turn.reasons_key] = reasons.split(turn.cell.draft_reason)
    numbers = {reason: number for number, reason in enumerate(reasons.REASONS, start=1)}
    with st.container(key=REASONS_BOX):
        st.pills(
            "Reason",
            reasons.REASONS,
            selection_mode="multi",
            format_func=lambda reason: f"{reason} :gray[⇧{numbers[reason]}]",
            key=turn.reasons_key,
            label_visibility="collapsed",
            on_change=_keep_draft,
            args=(turn,),
        )


def conflict(turn: Turn) -> bool:
    """Both answers instead of the keys, when somebody answered this cell since it was drawn."""
    found: _Conflict | None = st.session_state.get(_CONFLICT)
    if found is None or found.cell_id != turn.cell.cell_id:
        st.session_state.pop(_CONFLICT, None)
        return False
    st.warning(inert(found.sentence), icon=":material/group:")
    with st.container(horizontal=True):
        st.button(
            "Keep theirs",
            type="primary",
            key="keep_theirs",
            shortcut=desk_help.THEIRS_KEY,
            on_click=_skip,
            args=(turn,),
        )
        st.button(
            f"Record {inert(class_title(found.label))} as well",
            key="record_mine",
            shortcut=desk_help.MINE_KEY,
            on_click=_decide,
            args=(turn, found.label, found.newer_id),
        )
    return True


@contextmanager
def _reported() -> Iterator[None]:
    """A callback runs before the page does and outside its guard: what goes wrong is said in the status line."""
    try:
        yield
    except UserError as error:
        st.session_state[_LAST] = f"not saved: {inert(str(error))}"
    except Exception:
        st.session_state[_LAST] = f"not saved: something went wrong ({log_error()})"


def _over(turn: Turn) -> bool:
    """Whether another cell lies on the desk by now: the click came from buttons that were about to go."""
    over = st.session_state.get(_TURN, _NO_TURN)[1] != turn.number
    if over:
        st.session_state[_LAST] = "not saved: the next cell was already on the desk"
    return over


def _decide(turn: Turn, label: str, seen: int | None) -> None:
    if _over(turn):
        return
    number, drawn = st.session_state.get(_DRAWN, (None, 0.0))
    took = round((time.monotonic() - drawn) * 1000) if number == turn.number else None
    if took is not None and took < _QUICKEST_MS:
        st.session_state[_LAST] = "not saved: the key came before the cell could be seen"
        return
    st.session_state.pop(_CONFLICT, None)
    with _reported():
        try:
            sittings.answer(
                context.engine(),
                turn.sitting_id,
                turn.cell,
                label,
                seen=seen,
                reason=_reason(turn),
                comment=_comment(turn),
                duration_ms=took,
            )
        except StaleView as stale:
            _refused(stale, turn, label)
        else:
            st.session_state[_LAST] = f"saved: {inert(class_title(label))}"


def _refused(stale: StaleView, turn: Turn, label: str) -> None:
    if stale.newer.session_id == turn.sitting_id:
        st.session_state[_LAST] = "not saved: that cell was answered already"
        return
    st.session_state[_CONFLICT] = _Conflict(turn.cell.cell_id, label, stale.newer.id, str(stale))
    st.session_state[_LAST] = "not saved"


def _skip(turn: Turn) -> None:
    if _over(turn):
        return
    st.session_state.pop(_CONFLICT, None)
    with _reported():
        sittings.skip(context.engine(), turn.sitting_id, turn.cell.cell_id)
        st.session_state[_LAST] = "skipped"


def _undo(sitting_id: int) -> None:
    st.session_state.pop(_CONFLICT, None)
    with _reported():
        undone = undoing.undo_last(context.engine(), sitting_id)
        st.session_state[_LAST] = "undone" if undone else "nothing to undo"


def _redo(sitting_id: int) -> None:
    st.session_state.pop(_CONFLICT, None)
    with _reported():
        redone = undoing.redo_last(context.engine(), sitting_id)
        st.session_state[_LAST] = "redone" if redone else "nothing to redo"


def _keep_draft(turn: Turn) -> None:
    with _reported():
        sittings.save_draft(
            context.engine(),
            turn.sitting_id,
            turn.cell.cell_id,
            reason=_reason(turn),
            comment=_comment(turn),
        )


def _reason(turn: Turn) -> str | None:
    """The chosen reasons; while two answers are compared there are no buttons, and the draft stands."""
    if turn.reasons_key not in st.session_state:
        return turn.cell.draft_reason
    return reasons.joined(st.session_state[turn.reasons_key] or ())


def _comment(turn: Turn) -> str | None:
    return (st.session_state.get(turn.note_key) or "").strip() or None
