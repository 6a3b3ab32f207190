"""Taking answers back and bringing them back, each after a question that says what it is about."""

import streamlit as st

import db
from allreview.errors import UserError
from allreview.review import reverting
from allreview.review.record import Log, Takeable
from allreview.review.record_words import of_whom
from allreview.ui import context, record_filters
from allreview.ui.errors import guarded
from allreview.ui.words import inert
from allreview.wording import plural

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


@st.dialog("Take back?")
def _ask_revert(dataset_id: int, reviewer_id: int, found: Takeable) -> None:
    with guarded():
        answers = len(found.annotation_ids)
        st.markdown(
            f"This takes back **{plural(answers, 'answer')}** of {inert(of_whom(found.answers_by))} to "
            f"{plural(found.cells, 'cell')}. The log keeps {_THEM[answers == 1]}, and anybody can bring "
            f"{_THEM[answers == 1]} back."
        )
        reason = st.text_input("Why (may be left empty)", max_chars=500, key="revert-reason")
        if _confirmed(f"Revert {plural(answers, 'answer')}"):
            _revert(dataset_id, reviewer_id, found, reason)
            _done(f"Took back {plural(answers, 'answer')}.")


@st.dialog("Bring back?")
def _ask_restore(reviewer_id: int, batch: str, answers: int) -> None:
    with guarded():
        st.markdown(f"This brings back **{plural(answers, 'answer')}** as they were given.")
        if _confirmed(f"Restore {plural(answers, 'answer')}"):
            reverting.restore(context.engine(), batch=batch, reviewer_id=reviewer_id)
            _done(f"Brought back {plural(answers, 'answer')}.")


def _confirmed(label: str) -> bool:
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Cancel", key="revert-cancel"):
            st.rerun()
        return st.button(label, key="revert-confirm", type="primary")


def _revert(dataset_id: int, reviewer_id: int, found: Takeable, reason: str) -> None:
    """Take back exactly the answers that were counted, or none."""
    try:
        reverting.revert(
            context.engine(),
            reviewer_id=reviewer_id,
            annotation_ids=found.annotation_ids,
            reason=reason.strip() or None,
        )
    except UserError:
        with db.reading(context.engine()) as session:
            if Log(session, dataset_id).stand(found.annotation_ids):
                raise
        raise UserError(
            "Somebody took back some of this while you were looking, so nothing was changed: close this and look again."
        ) from None


def _done(words: str) -> None:
    for name in ("before", "after"):
        record_filters.remember(name, None)
    st.toast(words, icon=":material/check:")
    st.rerun()
