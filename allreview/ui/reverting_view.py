"""Taking answers back and bringing them back, each after a question that says what it is about."""

from collections.abc import Callable
from typing import Any

import streamlit as st

import db
from allreview.errors import UserError
from allreview.review.log import reverting
from allreview.review.record.entries import Log, Takeable
from allreview.review.record.record_words import of_whom
from allreview.ui import context, record_filters
from allreview.ui.errors import guarded, log_error, show_user_error
from allreview.ui.words import inert
from allreview.wording import plural

_SAID = "_revert_said"
_REASON = "revert-reason"
_THEM = {True: "it", False: "them"}


def revert_button(
    dataset_id: int,
    reviewer_id: int,
    label: str,
    *,
    annotation_id: int | None = None,
    batch: str | None = None,
    session_id: int | None = None,
) -> None:
    """A button that asks, and then takes back an answer, a batch or a sitting, whoever gave them."""
    key = f"revert-{annotation_id or batch or f'sitting-{session_id}'}"
    if not st.button(label, key=key, type="tertiary" if session_id is None else "secondary"):
        return
    with db.reading(context.engine()) as session:
        found = Log(session, dataset_id).takeable(
            annotation_id=annotation_id, batch=batch, session_id=session_id
        )
    if not found.annotation_ids:
        st.toast("Nothing of this stands any more: it was taken back already.", icon=":material/info:")
        return
    _ask_revert(dataset_id, reviewer_id, found)


def restore_button(reviewer_id: int, batch: str, answers: int) -> None:
    """A button that asks, and then brings back what a batch took back."""
    if st.button("Restore…", key=f"restore-{batch}", type="tertiary"):
        _ask_restore(reviewer_id, batch, answers)


def said() -> None:
    """Say on the page what became of the last question, once."""
    kind, words = st.session_state.pop(_SAID, (None, ""))
    if kind == "done":
        st.toast(words, icon=":material/check:")
    elif kind == "refused":
        show_user_error(UserError(words))


@st.dialog("Take back?")
def _ask_revert(dataset_id: int, reviewer_id: int, found: Takeable) -> None:
    with guarded():
        answers = len(found.annotation_ids)
        st.markdown(
            f"This takes back **{plural(answers, 'answer')}** of {inert(of_whom(found.answers_by))} to "
            f"{plural(found.cells, 'cell')}. The log keeps {_THEM[answers == 1]}, and anybody can bring "
            f"{_THEM[answers == 1]} back."
        )
        st.text_input("Why (may be left empty)", max_chars=500, key=_REASON)
        _confirm(f"Revert {plural(answers, 'answer')}", _revert, dataset_id, reviewer_id, found)


@st.dialog("Bring back?")
def _ask_restore(reviewer_id: int, batch: str, answers: int) -> None:
    with guarded():
        st.markdown(f"This brings back **{plural(answers, 'answer')}** as they were given.")
        _confirm(f"Restore {plural(answers, 'answer')}", _restore, reviewer_id, batch, answers)


def _confirm(label: str, act: Callable[..., str], *arguments: Any) -> None:
    """The buttons of a dialog, which closes once it was done or given up."""
    kind, words = st.session_state.get(_SAID, (None, ""))
    if kind == "done":
        st.rerun()
    if kind == "refused":
        del st.session_state[_SAID]
        show_user_error(UserError(words))
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Cancel", key="revert-cancel"):
            st.rerun()
        st.button(
            label, key="revert-confirm", type="primary", on_click=_attempt, args=(act, *arguments),
            disabled=kind == "refused",
        )  # fmt: skip


def _attempt(act: Callable[..., str], *arguments: Any) -> None:
    """Do it, and keep what there is to say. Callbacks run outside `guarded`."""
    try:
        st.session_state[_SAID] = ("done", act(*arguments))
    except UserError as error:
        st.session_state[_SAID] = ("refused", str(error))
    except Exception:
        number = log_error()
        st.session_state[_SAID] = ("refused", f"Something went wrong ({number}). Nothing you saved is lost.")
    else:
        for name in ("before", "after"):
            record_filters.remember(name, None)


def _revert(dataset_id: int, reviewer_id: int, found: Takeable) -> str:
    """Take back exactly the answers that were counted, or none."""
    reason = (st.session_state.get(_REASON) or "").strip() or None
    ids = found.annotation_ids
    try:
        reverting.revert(context.engine(), reviewer_id=reviewer_id, annotation_ids=ids, reason=reason)
    except UserError:
        with db.reading(context.engine()) as session:
            if Log(session, dataset_id).stand(ids):
                raise
        raise UserError(
            "Somebody took back some of this while you were looking, so nothing was changed: close this and "
            "look again."
        ) from None
    return f"Took back {plural(len(ids), 'answer')}."


def _restore(reviewer_id: int, batch: str, answers: int) -> str:
    reverting.restore(context.engine(), batch=batch, reviewer_id=reviewer_id)
    return f"Brought back {plural(answers, 'answer')}."
