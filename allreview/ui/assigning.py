"""Cells for several readers: which, to whom, what is hidden meanwhile, and how far everybody is."""

import math
from dataclasses import replace

import streamlit as st

import db
from allreview.review.chosen import LIMIT, LONGEST_NAME
from allreview.review.queues import MOST_CONTROLS
from allreview.review.readers import assigning
from allreview.review.readers.assigning import Assignment, ReaderProgress, assign, progress_of_readers
from allreview.review.reading import worklists
from allreview.review.reading.blinding import HIDEABLE
from allreview.review.reading.worklists import WorklistRow
from allreview.review.strategies import STRATEGIES
from allreview.training import runs
from allreview.ui import context, run_view
from allreview.ui.errors import guarded
from allreview.ui.words import PART_TITLES, inert, when
from allreview.wording import listed, plural
from db.tables import Dataset, Reviewer

VIEWS = {
    "worklists": "Worklists",
    "assign": "Assign cells",
    "figures": "How well readers agree",
    "disagreements": "Disagreements",
}
SCOPE_KEY = "readings_of"
_VIEW_KEY = "agreement_view"
_NEXT_VIEW = "_next_agreement_view"
_SHOW_CLOSED = "closed-worklists"
_CARDS = 8
_MOST_OVERLAP = 20
_HIDDEN_TOGETHER = frozenset({"prediction", "source_label", "others"})
"""What is hidden at first when several readers read the same cells: their answers should be their own."""


def choose_view(dataset_id: int) -> str:
    """Which of `VIEWS`; at first the worklists, where there are any."""
    if _NEXT_VIEW in st.session_state:
        st.session_state[_VIEW_KEY] = st.session_state.pop(_NEXT_VIEW)
    elif _VIEW_KEY not in st.session_state:
        with db.reading(context.engine()) as session:
            some = bool(worklists.rows(session, dataset_id, open_only=False))
        st.session_state[_VIEW_KEY] = "worklists" if some else "assign"
    chosen = st.segmented_control(
        "View",
        list(VIEWS),
        format_func=VIEWS.__getitem__,
        required=True,
        key=_VIEW_KEY,
        label_visibility="collapsed",
        persist_state="session",
    )
    return chosen or "worklists"


def go_to(view: str, worklist_id: int | None = None) -> None:
    """Show another view, of this worklist's readings, from the next rerun on."""
    st.session_state[_NEXT_VIEW] = view
    if worklist_id is not None:
        st.session_state[f"_next_{SCOPE_KEY}"] = worklist_id


def read_on_desk(worklist_id: int) -> None:
    """Leave for the reading desk with this worklist."""
    kept = (context.DATASET_KEY, context.REVIEWER_KEY)
    chosen = {key: st.query_params[key] for key in kept if key in st.query_params}
    st.switch_page("pages/review.py", query_params=chosen | {"worklist": str(worklist_id)})


def assign_form(dataset: Dataset, reviewer: Reviewer) -> None:
    """Choose cells and readers, and make the worklist."""
    which, who = st.columns(2, gap="large")
    with which:
        st.subheader("Cells", anchor=False)
        cells = _cells(dataset.id)
    with who:
        st.subheader("Readers", anchor=False)
        readers, overlap = _readers()
        hidden = _hidden(overlap)
        repeats = st.slider(
            "Cells that come again",
            0,
            50,
            round(100 * assigning.REPEATS),
            format="%d %%",
            key="assign-repeats",
            help="So many of each reader's cells come a second time, unannounced, to compare readers with themselves.",
        )
        name = st.text_input(
            "Name of the worklist", key="assign-name", max_chars=LONGEST_NAME, placeholder="as its queue"
        )
        problem = _problem(cells, readers, overlap)
        if problem:
            st.info(problem)
        elif cells is not None and readers:
            st.caption(_work(cells, len(readers), overlap, repeats / 100))
        clicked = st.button(
            "Make the worklist",
            type="primary",
            key="assign",
            width="stretch",
            disabled=problem is not None,
        )
    if clicked and cells is not None:
        with guarded():
            _make(cells, reviewer, tuple(readers), overlap, hidden, repeats / 100, name)


def _make(
    cells: Assignment,
    reviewer: Reviewer,
    readers: tuple[int, ...],
    overlap: int,
    hidden: frozenset[str],
    repeat_rate: float,
    name: str,
) -> None:
    wanted = replace(
        cells, readers=readers, overlap=overlap, hidden=hidden, repeat_rate=repeat_rate, name=name
    )
    with st.spinner("Choosing cells…"):
        made = assign(context.engine(), context.settings(), wanted, reviewer_id=reviewer.id)
    go_to("worklists", made)
    st.toast("The worklist is ready.", icon=":material/check:")
    st.rerun()


def _cells(dataset_id: int) -> Assignment | None:
    """Which cells, or None where something is still to be chosen."""
    with db.reading(context.engine()) as session:
        found = worklists.rows(session, dataset_id, open_only=False)
    source = st.segmented_control(
        "Cells of",
        ["queue", "worklist"],
        format_func={"queue": "A queue", "worklist": "A worklist"}.__getitem__,
        default="queue",
        required=True,
        key="assign-source",
        help="Any filter and any selection of cells becomes a worklist on Browse.",
    )
    if source == "worklist":
        return _cells_of_worklist(dataset_id, found)
    return _cells_of_queue(dataset_id)


def _cells_of_worklist(dataset_id: int, found: list[WorklistRow]) -> Assignment | None:
    if not found:
        st.info("There is no worklist yet: make one of a queue here, or of any filter on Browse.")
        return None
    by_id = {row.id: row for row in found}
    chosen = st.selectbox(
        "Worklist",
        list(by_id),
        format_func=lambda number: f"{by_id[number].name} ({plural(by_id[number].cells, 'cell')})",
        key="assign-worklist",
    )
    return Assignment(
        dataset_id=dataset_id,
        worklist_id=chosen,
        limit=_limit(by_id[chosen].cells, f"assign-limit-{chosen}"),
    )


def _cells_of_queue(dataset_id: int) -> Assignment | None:
    with db.reading(context.engine()) as session:
        finished = runs.list_runs(session, dataset_id=dataset_id, states=("finished",))
    run = run_view.choose_run(finished, "Run") if finished else None
    if run is None:
        st.caption("No run is finished yet: only queues that need none can be chosen.")
    names = [name for name, kind in STRATEGIES.items() if run is not None or not kind.needs_run]
    by = st.selectbox(
        "Queue", names, format_func=lambda name: STRATEGIES[name].title, key=f"assign-queue-{run is None}"
    )
    st.caption(STRATEGIES[by].description)
    parts = tuple(PART_TITLES)
    if run is not None:
        parts = tuple(
            st.pills(
                "From",
                list(PART_TITLES),
                selection_mode="multi",
                default=["train", "validation"],
                format_func=lambda part: f"{PART_TITLES[part]} cells",
                key="assign-parts",
                help="Of test cells the model's opinion, the source label and others' answers are always hidden.",
            )
        )
    decided = st.toggle(
        "Also cells that somebody decided before", key="assign-decided", disabled=STRATEGIES[by].rereads
    )
    return Assignment(
        dataset_id=dataset_id,
        by=by,
        run_id=run.id if run is not None else None,
        parts=parts,
        limit=_limit(200, "assign-limit"),
        include_decided=decided,
        control=_control(by),
    )


def _limit(at_first: int, key: str) -> int:
    return st.number_input("Cells, at most", 1, LIMIT, min(at_first, LIMIT), 10, key=key)


def _control(by: str) -> float:
    if not STRATEGIES[by].by_suspicion:
        return 0.0
    share = st.slider(
        "Control cells",
        0,
        round(100 * MOST_CONTROLS),
        round(100 * assigning.CONTROLS),
        5,
        format="%d %%",
        key="assign-control",
        help="Random cells about which model and label agree, so that nobody can take for granted that something is "
        "wrong.",
    )
    return share / 100


def _readers() -> tuple[list[int], int]:
    names = {reviewer.id: reviewer.name for reviewer in context.active_reviewers()}
    readers = st.multiselect(
        "Read by",
        list(names),
        format_func=lambda number: names.get(number, ""),
        key="assign-readers",
        placeholder="Everybody",
        help="Nobody chosen means that whoever comes may read. Names are added in the sidebar.",
    )
    overlap = st.number_input(
        "Readers for each cell",
        1,
        _MOST_OVERLAP,
        min(2, max(1, len(names))),
        key="assign-overlap",
        help="Agreement can only be measured on cells that two readers or more have read.",
    )
    return readers, overlap


def _hidden(overlap: int) -> frozenset[str]:
    """What is hidden; a key for one reader and for several, because they begin differently."""
    st.markdown("Hide while reading")
    several = overlap > 1
    left, right = st.columns(2)
    chosen = [
        name
        for place, (name, words) in enumerate(HIDEABLE.items())
        if (left, right)[place % 2].toggle(
            words[0].upper() + words[1:],
            several and name in _HIDDEN_TOGETHER,
            key=f"assign-hide-{name}-{several}",
        )
    ]
    if several and _HIDDEN_TOGETHER - set(chosen):
        st.caption(
            "Readers who see the same hint agree more than their eyes do: hide it if you want to know how well they "
            "agree."
        )
    return frozenset(chosen)


def _problem(cells: Assignment | None, readers: list[int], overlap: int) -> str | None:
    """Why the worklist cannot be made yet, in a sentence."""
    if cells is None:
        return "Choose cells first."
    if not cells.parts:
        return "Choose at least one kind of cells."
    if readers and overlap > len(readers):
        return (
            f"Each cell cannot have {overlap} readers when {plural(len(readers), 'is', 'are')} chosen: choose more "
            "readers, or fewer for each cell."
        )
    return None


def _work(cells: Assignment, readers: int, overlap: int, repeat_rate: float) -> str:
    """How much everybody will have to read, at most."""
    each = math.ceil((cells.limit or 0) * overlap / readers)
    again = round(each * repeat_rate)
    words = f"About {plural(each, 'cell')} for each reader" + (f", and {again:,} again" if again else "")
    return f"{words}, if the queue has so many."


def worklist_cards(dataset: Dataset, reviewer: Reviewer) -> None:
    """Every worklist with how far its readers are."""
    with db.reading(context.engine()) as session:
        found = worklists.rows(session, dataset.id, open_only=False)
    if not found:
        st.info("There is no worklist yet.", icon=":material/checklist:")
        st.button("Assign cells", on_click=go_to, args=("assign",), key="assign-first")
        return
    closed = sum(row.closed_at is not None for row in found)
    with_closed = closed > 0 and st.toggle(
        f"Also {plural(closed, 'closed one')}", closed == len(found), key=_SHOW_CLOSED
    )
    shown = [row for row in found if with_closed or row.closed_at is None]
    pages = -(-len(shown) // _CARDS)
    page = st.pagination(pages, key="worklist-page") if pages > 1 else 1
    for row in shown[(page - 1) * _CARDS : page * _CARDS]:
        with st.container(border=True, key=f"worklist-card-{row.id}"):
            _card(row, reviewer)


def _card(row: WorklistRow, reviewer: Reviewer) -> None:
    with db.reading(context.engine()) as session:
        readers = progress_of_readers(session, row.id)
    words, buttons = st.columns([5, 3], vertical_alignment="center")
    with words:
        st.markdown(f"**{inert(row.name)}**  \n:gray[:small[{_facts(row)}]]")
    wanted = row.cells * row.overlap
    done = min(row.readings_done, wanted)
    with buttons.container(horizontal=True, horizontal_alignment="right"):
        _buttons(row, reviewer, readers)
    st.progress(done / wanted if wanted else 0.0, f"{done:,} of {plural(wanted, 'reading')}")
    if readers:
        st.markdown(" · ".join(f":small[{inert(one.reviewer)} {_how_far(one, row)}]" for one in readers))


def _facts(row: WorklistRow) -> str:
    readers = f"each read by {row.overlap}" if row.overlap > 1 else "each read once"
    facts = [f"{plural(row.cells, 'cell')}, {readers}"]
    facts.append("assigned" if row.readers else "open to everybody")
    if row.adjudicates:
        facts.append("answers are adjudications")
    if row.hidden:
        facts.append(f"hidden: {listed([words for name, words in HIDEABLE.items() if name in row.hidden])}")
    facts.append(when(row.created_at))
    if row.closed_at is not None:
        facts.append(f"closed {when(row.closed_at)}")
    return " · ".join(facts)


def _how_far(one: ReaderProgress, row: WorklistRow) -> str:
    read = f":gray[read {one.read:,}"
    if one.repeated:
        read += f" and {one.repeated:,} again"
    if row.closed_at is None:
        read += f", {one.left:,} left" if one.left else ", nothing left"
    return f"{read}]"


def _buttons(row: WorklistRow, reviewer: Reviewer, readers: list[ReaderProgress]) -> None:
    mine = next((one for one in readers if one.reviewer_id == reviewer.id), None)
    may_read = row.closed_at is None and (not row.readers or reviewer.id in row.readers)
    if (
        may_read
        and (mine is None or mine.left)
        and st.button("Read", key=f"read-{row.id}", icon=":material/menu_book:")
    ):
        read_on_desk(row.id)
    if row.readings_done:
        st.button("Agreement", key=f"figures-{row.id}", on_click=go_to, args=("figures", row.id))
    if row.closed_at is None:
        with st.popover("Close", key=f"close-menu-{row.id}"):
            st.write("Nobody can read on in a closed worklist. Every answer stays.")
            if st.button("Close it", key=f"close-{row.id}", type="primary"):
                with guarded():
                    worklists.close(context.engine(), row.id)
                    st.rerun()
