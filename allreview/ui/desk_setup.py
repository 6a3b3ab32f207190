"""Before the desk: which worklist to go on with, or which cells to read."""

from collections.abc import Collection

import sqlalchemy as sa
import streamlit as st

import db
from allreview.errors import UserError
from allreview.review import queues
from allreview.review.reading import sittings, worklists
from allreview.review.reading.blinding import HIDEABLE
from allreview.review.reading.sittings import SittingInfo
from allreview.review.reading.worklists import WorklistRow
from allreview.review.strategies import STRATEGIES
from allreview.training import runs
from allreview.training.runs import RunRow
from allreview.ui import context, run_view
from allreview.ui.desk import SITTING_KEY
from allreview.ui.errors import show_user_error
from allreview.ui.words import PART_TITLES, inert
from allreview.wording import listed, percent, plural
from db.tables import PARTS, Annotation, Reviewer, ReviewSession, Worklist

WORKLIST_KEY = "worklist"
_LISTED = 6
_CONTROL_WHY = (
    "Reading only the model's mistakes would bend the labels towards the model; "
    "so {share} of the cells are random ones it got right."
)


def open_sitting(dataset_id: int, reviewer_id: int) -> SittingInfo | None:
    """The sitting named in the URL, if it is this reviewer's, of this dataset, and still open.

    A worklist named there starts its sitting, or goes on with it.
    """
    if WORKLIST_KEY in st.query_params:
        asked = st.query_params.pop(WORKLIST_KEY)
        if asked.isdecimal():
            try:
                _sit_down(int(asked), reviewer_id)
            except UserError as error:
                show_user_error(error)
    asked = st.query_params.get(SITTING_KEY, "")
    if not asked.isdecimal():
        return None
    try:
        with db.reading(context.engine()) as session:
            found = sittings.info(session, int(asked))
    except UserError:
        found = None
    mine = found is not None and (found.reviewer_id, found.dataset_id) == (reviewer_id, dataset_id)
    if not mine or found is None or found.ended_at is not None:
        st.query_params.pop(SITTING_KEY, None)
        return None
    return found


def setup(dataset_id: int, reviewer: Reviewer) -> None:
    """The reviewer's worklists, and what it takes to start a new queue."""
    waiting = _worklists(dataset_id, reviewer.id)
    with db.reading(context.engine()) as session:
        finished = runs.list_runs(session, dataset_id=dataset_id, states=("finished",))
    if finished:
        st.subheader("Start a new queue", anchor=False)
        _new_queue(finished, reviewer.id)
        return
    st.info(
        "No model is trained yet. Train one, and its mistakes can be read here."
        if waiting
        else "There is nothing to review yet: train a model first, then read the cells it got wrong."
    )
    st.page_link("pages/train.py", label="Go to Train", icon=":material/model_training:")


def _sit_down(worklist_id: int, reviewer_id: int) -> None:
    sitting_id = sittings.start(context.engine(), worklist_id=worklist_id, reviewer_id=reviewer_id)
    st.query_params[SITTING_KEY] = str(sitting_id)


def _worklists(dataset_id: int, reviewer_id: int) -> bool:
    """The worklists in which there is something left to read for this reviewer; whether there are any."""
    with db.reading(context.engine()) as session:
        found = worklists.rows(session, dataset_id, reviewer_id=reviewer_id)
        begun = set(
            session.scalars(
                sa.select(ReviewSession.worklist_id).where(ReviewSession.reviewer_id == reviewer_id)
            )
        )
        left = {
            row.id: worklists.left_for(session, session.get_one(Worklist, row.id), reviewer_id)[1]
            for row in found
        }
    waiting = [row for row in found if left[row.id]]
    waiting.sort(key=lambda row: (reviewer_id not in row.readers, row.id not in begun, -row.id))
    if not waiting:
        return False
    st.subheader("Worklists for you", anchor=False)
    for row in waiting[:_LISTED]:
        _worklist(row, left[row.id], reviewer_id, begun)
    if len(waiting) > _LISTED:
        with st.expander(f"{len(waiting) - _LISTED} more"):
            for row in waiting[_LISTED:]:
                _worklist(row, left[row.id], reviewer_id, begun)
    return True


def _worklist(row: WorklistRow, left: int, reviewer_id: int, begun: Collection[int]) -> None:
    words, button = st.columns([6, 1], vertical_alignment="center")
    others = [name for number, name in row.readers.items() if number != reviewer_id]
    notes = [f"{left:,} of {plural(row.cells, 'cell')} left"]
    if reviewer_id not in row.readers:
        notes.append("open to everybody")
    elif others:
        notes.append(f"with {inert(listed(others))}")
    if row.adjudicates:
        notes.append("your answers settle where readers differ")
    elif row.hidden:
        notes.append("read blind")
    words.markdown(f"**{inert(row.name)}** :small[{' · '.join(notes)}]")
    if button.button("Continue" if row.id in begun else "Start", key=f"worklist-{row.id}", width="stretch"):
        _sit_down(row.id, reviewer_id)
        st.rerun()


def _new_queue(finished: list[RunRow], reviewer_id: int) -> None:
    which, how = st.columns([5, 4], gap="large")
    with which:
        run = run_view.choose_run(finished, "Run")
        parts = st.pills(
            "From",
            ["validation", "train", "test"],
            selection_mode="multi",
            default=["validation", "train"],
            format_func=lambda part: f"{PART_TITLES[part]} cells",
            key=f"parts-{run.id}",
        )
        counts = _counts(run.id, tuple(part for part in PARTS if part in parts), _last_event())
        by = st.radio(
            "Queue",
            list(STRATEGIES),
            format_func=lambda name: _queue_title(name, counts),
            captions=[kind.description for kind in STRATEGIES.values()],
            key="queue",
        )
    with how:
        limit = st.number_input(
            "At most", 1, 10_000, 500, 50, key="queue-limit", help="Cells in the worklist."
        )
        hidden = _hidden("test" in parts)
        control = _control(by)
        if not parts:
            st.info("Choose at least one kind of cells.")
            return
        problem = _problem(run.id, by) if counts.get(by) is None else None
        if problem:
            st.info(inert(problem))
            return
        found = counts[by] or 0
        st.write(f"{plural(found, 'cell')} in this queue. Cells somebody decided already are left out.")
        started = st.button(
            "Start reading", type="primary", key="start_reading", shortcut="Enter", width="stretch"
        )
    if started:
        worklist_id = worklists.join_or_create(
            context.engine(),
            context.settings(),
            run_id=run.id,
            reviewer_id=reviewer_id,
            by=by,
            parts=parts,
            hidden=hidden,
            control=control,
            limit=limit,
            name=f"{STRATEGIES[by].title}, run {run.id}",
        )
        _sit_down(worklist_id, reviewer_id)
        st.rerun()


def _queue_title(name: str, counts: dict[str, int | None]) -> str:
    found = counts.get(name)
    words = plural(found, "cell") if found is not None else "not for this run"
    return f"{STRATEGIES[name].title} :gray[· {words}]"


def _hidden(test_cells: bool) -> list[str]:
    st.markdown("Hide while reading")
    chosen = [
        name
        for name, words in HIDEABLE.items()
        if st.toggle(words[0].upper() + words[1:], key=f"hide-{name}")
    ]
    if test_cells:
        st.caption(
            "Test cells are always read blind: the model's opinion, the saliency, the source label and other "
            "answers stay hidden, so that the test figures stay honest."
        )
    return chosen


def _control(by: str) -> float:
    if not STRATEGIES[by].by_suspicion:
        return 0.0
    share = st.slider(
        "Control cells", 0, int(100 * queues.MOST_CONTROLS), 10, 5, format="%d %%", key="queue-control"
    )
    st.caption(_CONTROL_WHY.format(share=percent(share / 100)))
    return share / 100


def _last_event() -> int:
    with db.reading(context.engine()) as session:
        return session.scalar(sa.select(sa.func.max(Annotation.id))) or 0


@st.cache_data(max_entries=50, ttl=60, show_spinner="Counting cells…")
def _counts(run_id: int, parts: tuple[str, ...], last_event: int) -> dict[str, int | None]:
    """Counted anew after every decision: `last_event` is part of the question."""
    if not parts:
        return {}
    with db.reading(context.engine()) as session:
        return queues.counts(session, run_id, parts=parts, settings=context.settings())


def _problem(run_id: int, by: str) -> str | None:
    """Why the run has no such queue, and what to do."""
    try:
        with db.reading(context.engine()) as session:
            queues.queue_of(session, run_id, by=by, limit=1, settings=context.settings())
    except UserError as error:
        return str(error)
    return None
