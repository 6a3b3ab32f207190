"""The reading desk: the cell, the model's opinion beside it, a key for every answer.

The desk is a fragment: a key reruns this much and no more. Decisions are written in the button's callback,
which runs before anything is drawn, so "Saved" is only ever said of what was committed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import streamlit as st
from sqlalchemy.orm import Session

import db
from allreview.cells.naming import class_title
from allreview.cells.thumbnails import thumbnail
from allreview.errors import UserError
from allreview.labels import UNSURE, UNUSABLE
from allreview.review import annotations, sittings
from allreview.review.annotations import StaleView
from allreview.review.queues import queue_of
from allreview.review.sittings import DeskCell, Progress
from allreview.training import runs
from allreview.training.runs import RunRow
from allreview.ui import context, run_view, saliency_view
from allreview.ui.errors import guarded, log_error
from allreview.ui.words import PART_TITLES, class_badge, inert
from allreview.wording import percent, plural
from db.tables import Dataset, ReviewSession

SITTING_KEY = "sitting"
_LAST = "desk-last"
_CONFLICT = "desk-conflict"
_DRAWN = "desk-drawn"
_STRIP = 12
_QUICKEST_MS = 200
"""A key that comes sooner after the cell was drawn was meant for the cell before it."""


@dataclass(frozen=True)
class _Conflict:
    """A decision that was refused because somebody else was faster."""

    cell_id: int
    label: str
    newer_id: int
    sentence: str


def open_sitting(dataset_id: int, reviewer_id: int) -> int | None:
    """The sitting named in the URL, if it is this reviewer's, of this dataset, and still open."""
    asked = st.query_params.get(SITTING_KEY, "")
    if not asked.isdecimal():
        return None
    with db.reading(context.engine()) as session:
        found = session.get(ReviewSession, int(asked))
    mine = found is not None and (found.reviewer_id, found.dataset_id) == (reviewer_id, dataset_id)
    if found is None or not mine or found.ended_at is not None:
        st.query_params.pop(SITTING_KEY, None)
        return None
    return found.id


def reviewable_runs(session: Session, dataset_id: int) -> list[RunRow]:
    """Runs whose predictions are there, newest first."""
    return runs.list_runs(session, dataset_id=dataset_id, states=("finished",))


def setup(finished: list[RunRow], dataset_id: int, reviewer_id: int) -> None:
    """Which cells to read; one button starts, or returns to where the reviewer left."""
    run = run_view.choose_run(finished, "Mistakes of")
    parts = st.pills(
        "From",
        ["validation", "train", "test"],
        selection_mode="multi",
        default=["validation", "train"],
        format_func=lambda part: f"{PART_TITLES[part]} cells",
        key=f"parts-{run.id}",
    )
    if "test" in parts:
        st.caption(
            "Test cells are read blind: the model's opinion, the saliency and the source label stay hidden, "
            "so that the test figures stay honest."
        )
    if not parts:
        st.info("Choose at least one kind of cells.")
        return
    with db.reading(context.engine()) as session:
        waiting = len(queue_of(session, run.id, parts=parts))
    st.write(
        f"{plural(waiting, 'cell')} where the model and the label disagree, the most surprising first. "
        "Cells somebody decided already are left out."
    )
    if st.button("Start reading", type="primary", key="start_reading", shortcut="Enter"):
        sitting_id = sittings.start(context.engine(), reviewer_id=reviewer_id, run_id=run.id, parts=parts)
        st.query_params[SITTING_KEY] = str(sitting_id)
        st.rerun()


def desk(sitting_id: int, dataset_id: int, reviewer_id: int) -> None:
    """Draw the desk for the sitting's next cell."""
    st.fragment(_desk, key=f"desk-{sitting_id}")(sitting_id, dataset_id, reviewer_id)


def _desk(sitting_id: int, dataset_id: int, reviewer_id: int) -> None:
    with guarded():
        with db.reading(context.engine()) as session:
            sitting = session.get_one(ReviewSession, sitting_id)
            classes = session.get_one(Dataset, dataset_id).classes
            progress = sittings.progress(session, sitting_id)
            cells = sittings.upcoming(session, sitting_id, saliency_view.AHEAD)
            strip = sittings.subject_strip(session, cells[0], _STRIP) if cells else []
        _top(sitting_id, progress)
        if not cells:
            _all_read(sitting_id, sitting.run_id, reviewer_id, progress)
            return
        cell = cells[0]
        if _show_conflict(cell, sitting_id, reviewer_id, classes):
            return
        _note_drawn(cell.cell_id)
        _pictures_and_opinion(cell, cells, sitting, classes)
        _keys(cell, sitting, reviewer_id, classes)
        _strip(cell, strip)


def _top(sitting_id: int, progress: Progress) -> None:
    bar, leave = st.columns([6, 1], vertical_alignment="center")
    words = f"{progress.decided} of {progress.total} read"
    if progress.skipped:
        words += f" · {progress.skipped} skipped"
    last = st.session_state.get(_LAST)
    if last:
        words += f" · {last}"
    bar.progress((progress.decided + progress.skipped) / max(progress.total, 1), text=words)
    if leave.button("Leave", key="leave", width="stretch", help="Your place is kept."):
        st.query_params.pop(SITTING_KEY, None)
        st.session_state.pop(_LAST, None)
        st.rerun(scope="app")


def _pictures_and_opinion(
    cell: DeskCell, cells: list[DeskCell], sitting: ReviewSession, classes: list[str]
) -> None:
    left, right, side = st.columns([5, 5, 4], gap="medium")
    with side:
        if cell.blind:
            st.markdown("**Test cell, read blind**")
            st.caption("The model's opinion and the source label are hidden until you have decided.")
            shown = None
        else:
            _opinion(cell, classes)
            shown = saliency_view.choose()
        factor = saliency_view.magnification()
        st.text_input("Note", key=f"note-{cell.cell_id}", placeholder="Optional, saved with the decision")
    with left:
        saliency_view.cell_picture(cell, factor)
    with right:
        if shown is None:
            saliency_view.nothing("Saliency is hidden for test cells.")
        else:
            assert sitting.run_id is not None
            saliency_view.pane(sitting.run_id, cells, shown, factor)


def _opinion(cell: DeskCell, classes: list[str]) -> None:
    if cell.predicted is not None and cell.probability is not None:
        st.markdown(f"Model: {class_badge(cell.predicted, classes)} **{percent(cell.probability)}**")
    st.markdown(f"Label: {class_badge(cell.source_label, classes)} (source)")
    subject = f"Subject {inert(cell.subject)} · " if cell.subject else ""
    st.caption(f"{subject}{PART_TITLES.get(cell.part or '', '')} cell")


def _keys(cell: DeskCell, sitting: ReviewSession, reviewer_id: int, classes: list[str]) -> None:
    answers = [(class_title(name), name, str(number)) for number, name in enumerate(classes, start=1)]
    answers += [("Unsure", UNSURE, "U"), ("Unusable", UNUSABLE, "X")]
    with st.container(horizontal=True, key="keys"):
        for title, label, key in answers:
            st.button(
                inert(title),
                key=f"answer-{label}-{cell.cell_id}",
                shortcut=key if len(key) == 1 else None,
                type="primary" if label in classes else "secondary",
                on_click=_decide,
                args=(cell, label, sitting.id, sitting.run_id, reviewer_id, cell.last_event_id),
            )
        st.button(
            "Skip", key=f"skip-{cell.cell_id}", shortcut="S", on_click=_skip, args=(sitting.id, cell.cell_id)
        )
        _undo_button(sitting.id, reviewer_id)


def _undo_button(sitting_id: int, reviewer_id: int) -> None:
    st.button("Undo", key="undo", shortcut="Z", on_click=_undo, args=(sitting_id, reviewer_id))


def _strip(cell: DeskCell, strip: list[tuple[str, str]]) -> None:
    if not strip:
        return
    st.caption(f"Other cells of subject {inert(cell.subject or '')}")
    for column, (sha, path) in zip(st.columns(_STRIP), strip, strict=False):
        column.image(thumbnail(context.settings(), sha, path), width="stretch")


def _all_read(sitting_id: int, run_id: int | None, reviewer_id: int, progress: Progress) -> None:
    st.success(f"All {plural(progress.total, 'cell')} of this queue are read.", icon=":material/done_all:")
    with st.container(horizontal=True):
        _undo_button(sitting_id, reviewer_id)
        if progress.skipped:
            st.button(
                f"Read the {progress.skipped} skipped",
                key="read_skipped",
                on_click=sittings.take_up_skipped,
                args=(context.engine(), sitting_id),
            )
        if st.button("Finish this sitting", key="finish_sitting"):
            sittings.end(context.engine(), sitting_id)
            st.query_params.pop(SITTING_KEY, None)
            st.rerun(scope="app")
    if run_id is not None:
        with db.reading(context.engine()) as session:
            run = runs.get_run(session, run_id, with_epochs=False)
        st.write("The corrected labels are saved. See whether they help:")
        run_view.retrain_button(run)


def _show_conflict(cell: DeskCell, sitting_id: int, reviewer_id: int, classes: list[str]) -> bool:
    """Both answers side by side, when somebody decided on this cell since it was drawn."""
    conflict: _Conflict | None = st.session_state.get(_CONFLICT)
    if conflict is None or conflict.cell_id != cell.cell_id:
        st.session_state.pop(_CONFLICT, None)
        return False
    st.warning(inert(conflict.sentence), icon=":material/group:")
    with st.columns([5, 9])[0]:
        saliency_view.cell_picture(cell, saliency_view.MAGNIFIED)
    with st.container(horizontal=True):
        st.button(
            "Keep theirs",
            type="primary",
            key="keep_theirs",
            on_click=_skip,
            args=(sitting_id, cell.cell_id),
        )
        st.button(
            f"Record {inert(class_title(conflict.label))} as well",
            key="record_mine",
            on_click=_decide,
            args=(cell, conflict.label, sitting_id, None, reviewer_id, conflict.newer_id),
        )
    return True


def _note_drawn(cell_id: int) -> None:
    if st.session_state.get(_DRAWN, (None, 0))[0] != cell_id:
        st.session_state[_DRAWN] = (cell_id, time.monotonic())


@contextmanager
def _reported() -> Iterator[None]:
    """A callback runs before the page does and outside its guard: what goes wrong is said in the status line."""
    try:
        yield
    except UserError as error:
        st.session_state[_LAST] = f"not saved: {inert(str(error))}"
    except Exception:
        st.session_state[_LAST] = f"not saved: something went wrong ({log_error()})"


def _decide(
    cell: DeskCell, label: str, sitting_id: int, run_id: int | None, reviewer_id: int, seen: int | None
) -> None:
    drawn = st.session_state.get(_DRAWN, (None, 0.0))
    took = round((time.monotonic() - drawn[1]) * 1000) if drawn[0] == cell.cell_id else None
    if took is not None and took < _QUICKEST_MS:
        st.session_state[_LAST] = "not saved: the key came before the cell could be seen"
        return
    st.session_state.pop(_CONFLICT, None)
    with _reported():
        try:
            annotations.decide(
                context.engine(),
                cell_id=cell.cell_id,
                label=label,
                reviewer_id=reviewer_id,
                seen=seen,
                session_id=sitting_id,
                visible_run_id=None if cell.blind else run_id,
                comment=st.session_state.get(f"note-{cell.cell_id}"),
                duration_ms=took,
            )
        except StaleView as stale:
            _refused(stale, cell, label, sitting_id, reviewer_id)
        else:
            st.session_state[_LAST] = f"saved: {inert(class_title(label))}"


def _refused(stale: StaleView, cell: DeskCell, label: str, sitting_id: int, reviewer_id: int) -> None:
    if stale.newer.reviewer_id == reviewer_id and stale.newer.session_id == sitting_id:
        st.session_state[_LAST] = "not saved: that cell was answered already"
        return
    st.session_state[_CONFLICT] = _Conflict(cell.cell_id, label, stale.newer.id, str(stale))
    st.session_state[_LAST] = "not saved"


def _skip(sitting_id: int, cell_id: int) -> None:
    st.session_state.pop(_CONFLICT, None)
    with _reported():
        sittings.skip(context.engine(), sitting_id, cell_id)
        st.session_state[_LAST] = "skipped"


def _undo(sitting_id: int, reviewer_id: int) -> None:
    st.session_state.pop(_CONFLICT, None)
    with _reported():
        undone = sittings.undo_last(context.engine(), sitting_id, reviewer_id)
        st.session_state[_LAST] = "undone" if undone else "nothing to undo"
