"""The reading desk: the cell, what may be known of it, a key for every answer.

The desk is a fragment: a key reruns this much and no more. Picture and keys are drawn first and what can wait last,
and the pictures of the next cells are prepared while the reviewer looks at this one.
"""

from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

import db
from allreview.review.log.events import Event
from allreview.review.reading import desk_cells, pace, sittings
from allreview.review.reading.blinding import shows_reason
from allreview.review.reading.desk_cells import DeskCell
from allreview.review.reading.sittings import Progress, SittingInfo
from allreview.training import runs
from allreview.ui import (
    context,
    desk_facts,
    desk_help,
    desk_keys,
    desk_strips,
    run_view,
    saliency_view,
    viewer,
)
from allreview.ui.errors import guarded
from allreview.ui.words import inert
from allreview.wording import listed, plural
from db.tables import Dataset

SITTING_KEY = "sitting"
_LOOK_AGAIN_SECONDS = 3.0
_STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding-top: 1.6rem; padding-bottom: 1.5rem; }
.st-key-desk-top, .st-key-desk-below { gap: 0.5rem; }
.st-key-desk-beside { gap: 0.75rem; }
.st-key-desk-beside p { margin-bottom: 0; line-height: 1.5; }
.st-key-desk-beside [data-testid="stMarkdownContainer"] { margin-bottom: 0; }
.st-key-desk-reasons button, .st-key-desk-methods button { min-height: 1.75rem; padding: 0.1rem 0.55rem; }
</style>"""


@dataclass(frozen=True)
class _View:
    """What the desk needs from the store besides the cells themselves."""

    progress: Progress
    durations: list[int]
    sharing: list[str]
    others: list[Event]


def desk(sitting: SittingInfo) -> None:
    """Draw the desk for the sitting's next cell."""
    st.html(_STYLE)
    st.fragment(_desk, key=f"desk-{sitting.id}")(sitting)


def _desk(sitting: SittingInfo) -> None:
    with guarded():
        cells = sittings.upcoming(context.engine(), sitting.id, saliency_view.AHEAD)
        top = st.container(key="desk-top")
        if cells:
            _cell(sitting, cells, top)
            return
        desk_keys.clear_desk()
        view = _view(sitting, None)
        with top:
            _top(sitting, view)
        _nothing_left(sitting, view)


def _view(sitting: SittingInfo, cell: DeskCell | None) -> _View:
    with db.reading(context.engine()) as session:
        return _View(
            progress=sittings.progress(session, sitting.id),
            durations=pace.recent_durations(session, sitting.id),
            sharing=sittings.shared_with(session, sitting.id),
            others=desk_cells.answers_of_others(session, cell, sitting.reviewer_id) if cell else [],
        )


def _cell(sitting: SittingInfo, cells: list[DeskCell], top: DeltaGenerator) -> None:
    cell, run_id = cells[0], sitting.run_id
    classes = _classes(sitting.dataset_id)
    methods = saliency_view.chosen_methods()
    turn = desk_keys.turn_of(sitting, cell)
    pictures, beside = st.columns([10, 4], gap="small")
    below = st.container(key="desk-below")
    strips = st.container()
    with pictures:
        waiting = saliency_view.waiting(cell, run_id, methods)
        # Heat maps that are still being made come by themselves. The pictures alone are drawn anew then: rerunning the
        # page could swallow a key that is pressed at that moment.
        draw = st.fragment(
            _pictures, run_every=0.5 if waiting else None, key=f"pictures-{turn.number}-{waiting}"
        )
        draw(sitting, cell, turn.number, classes)
    with below:
        if not desk_keys.conflict(turn):
            desk_keys.keys(turn, classes)
    desk_keys.note_drawn(turn)
    view = _view(sitting, cell)
    with top:
        _top(sitting, view)
    with beside.container(key="desk-beside"):
        desk_facts.facts(cell, classes, view.others)
        if cell.shows("prediction") and run_id is not None:
            saliency_view.choose_methods()
        desk_keys.note(turn)
        if shows_reason(sitting.hidden | cell.hidden):
            st.caption(f"Queue: {inert(sitting.worklist)}")
    saliency_view.ask_ahead(run_id, methods, cells)
    with strips:
        desk_strips.strips(sitting, cell)
    saliency_view.prefetch(run_id, methods, cells)


def _pictures(sitting: SittingInfo, cell: DeskCell, turn: int, classes: list[str]) -> None:
    with guarded():
        methods = saliency_view.chosen_methods()
        shown = saliency_view.shown(turn, cell, sitting.dataset_id, sitting.run_id, methods)
        viewer.viewer(shown, desk_help.sheet(classes))


def _classes(dataset_id: int) -> list[str]:
    with db.reading(context.engine()) as session:
        return session.get_one(Dataset, dataset_id).classes


def _top(sitting: SittingInfo, view: _View) -> None:
    bar, leave = st.columns([6, 1], vertical_alignment="center")
    progress = view.progress
    words = [f"{progress.decided:,} of {progress.total:,} read"]
    if progress.skipped:
        words.append(f"{progress.skipped:,} skipped")
    if progress.by_others:
        words.append(f"{progress.by_others:,} by others")
    words += [
        desk_keys.status(),
        pace.pace_words(pace.cells_an_hour(view.durations), progress.left),
        f"shared with {inert(listed(view.sharing))}" if view.sharing else "",
    ]
    over = progress.total - progress.left
    bar.progress(over / max(progress.total, 1), text=" · ".join(filter(None, words)))
    if leave.button("Leave", key="leave", width="stretch", help="Your place is kept."):
        sittings.leave(context.engine(), sitting.id)
        close()


def close() -> None:
    """Back to the choice of queues."""
    st.query_params.pop(SITTING_KEY, None)
    desk_keys.forget()
    st.rerun(scope="app")


def _wait_for_others(sitting: SittingInfo) -> None:
    with guarded():
        given_back = sittings.upcoming(context.engine(), sitting.id, 1)
        if given_back or not _view(sitting, None).progress.left:
            st.rerun(scope="app")


def _nothing_left(sitting: SittingInfo, view: _View) -> None:
    progress = view.progress
    if progress.left > 0:
        who = f"on the desk of {inert(listed(view.sharing))}" if view.sharing else "with other readers"
        last = "last cell is" if progress.left == 1 else f"last {progress.left:,} cells are"
        st.info(
            f"Nothing is left for you: the {last} {who}. What is given back comes here by itself.",
            icon=":material/hourglass_empty:",
        )
        st.fragment(_wait_for_others, run_every=_LOOK_AGAIN_SECONDS, key=f"others-{sitting.id}")(sitting)
    elif progress.skipped:
        st.info(
            f"All cells of this queue are read but the {progress.skipped:,} you skipped.",
            icon=":material/done:",
        )
    else:
        st.success(
            f"All {plural(progress.total, 'cell')} of this queue are read.", icon=":material/done_all:"
        )
    with st.container(horizontal=True):
        desk_keys.back_and_forth(sitting.id)
        if progress.skipped:
            st.button(
                f"Read the {progress.skipped} skipped",
                key="read_skipped",
                on_click=sittings.take_up_skipped,
                args=(context.engine(), sitting.id),
            )
        if st.button("Finish this sitting", key="finish_sitting"):
            sittings.end(context.engine(), sitting.id)
            close()
    if sitting.run_id is not None:
        with db.reading(context.engine()) as session:
            run = runs.get_run(session, sitting.run_id, with_epochs=False)
        st.write("The corrected labels are saved. See whether they help:")
        run_view.retrain_button(run)
