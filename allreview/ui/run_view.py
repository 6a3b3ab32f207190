"""A run as people watch it: state in words, progress, curves, figures."""

from typing import Literal

import streamlit as st

import db
from allreview.evaluation.figures import history_figure
from allreview.evaluation.naming import model_title
from allreview.training import jobs, runs
from allreview.training.runs import RunRow
from allreview.ui import context, results_view
from allreview.ui.errors import guarded
from allreview.ui.figures import chart
from allreview.ui.recipe_form import MODES
from allreview.ui.words import STATE_TITLES, run_title

_COLOURS = {"queued": "gray", "running": "blue", "finished": "green", "stopped": "orange", "failed": "red"}


def title(run: RunRow) -> str:
    """One line that tells runs apart."""
    parent = f", retrain of run {run.parent_id}" if run.parent_id else ""
    return run_title(run.id, run.recipe) + parent


def choose_run(found: list[RunRow], label: str) -> RunRow:
    """The run named in the URL or looked at last, else the newest."""
    by_id = {run.id: run for run in found}
    context.begin_choice(context.RUN_KEY, {run_id: str(run_id) for run_id in by_id})
    chosen = st.selectbox(
        label,
        list(by_id),
        format_func=lambda run_id: title(by_id[run_id]),
        key=context.RUN_KEY,
    )
    context.end_choice(context.RUN_KEY, str(chosen))
    return by_id[chosen]


def live(shown: RunRow) -> None:
    """The run's state and curves, refreshed every second until it is over; and once more when its folder is complete.

    That is waited for by a fragment of its own: where buttons are in a fragment that reruns the page, it may swallow
    the press of one.
    """
    polling = shown.unfinished
    watch = st.fragment(_watch, run_every=1.0 if polling else None, key=f"watch-{shown.id}-{polling}")
    watch(shown.id, polling)
    if not polling and not shown.complete:
        st.fragment(_wait_for_folder, run_every=1.0, key=f"folder-{shown.id}")(shown.id)


def _watch(run_id: int, polling: bool) -> None:
    with guarded():
        _draw(run_id, polling)


def _wait_for_folder(run_id: int) -> None:
    with guarded():
        with db.reading(context.engine()) as session:
            complete = runs.get_run(session, run_id, with_epochs=False).complete
        if complete:
            st.rerun(scope="app")
        jobs.resume_unfinished(context.engine(), context.settings())


def _draw(run_id: int, polling: bool) -> None:
    with db.reading(context.engine()) as session:
        run = runs.get_run(session, run_id)
    if polling and not run.unfinished:
        st.rerun(scope="app")
    if polling:
        jobs.resume_unfinished(context.engine(), context.settings())
    _header(run)
    _progress(run)
    figure = history_figure(run.history, run.recipe.epochs, ended=not run.unfinished, kept=run.best_epoch)
    chart(figure, f"history-{run_id}")
    if run.state == "finished":
        results_view.results(run)
        _ways_on(run)
        results_view.sections(run)


def _header(run: RunRow) -> None:
    line, button = st.columns([4, 1], vertical_alignment="center")
    words = f":{_COLOURS[run.state]}-badge[{STATE_TITLES[run.state]}] {model_title(run.recipe)}"
    words += f", {MODES[run.recipe.mode].lower()}, {run.recipe.epochs} epochs"
    if run.seconds is not None:
        words += f", {duration(run.seconds)}"
    line.markdown(words)
    if run.unfinished:
        button.button(
            "Stopping…" if run.stop_requested else "Stop",
            key=f"stop-{run.id}",
            disabled=run.stop_requested,
            on_click=_stop,
            args=(run.id,),
            width="stretch",
            help="Ends within one batch and keeps the best weights so far.",
        )
    if run.state == "failed" and run.message:
        st.error(run.message)
    if run.state == "finished" and run.message:
        st.warning(run.message)
    if run.state == "stopped":
        kept = (
            f"The weights of epoch {run.best_epoch} are kept."
            if run.best_epoch
            else "No epoch was completed."
        )
        st.info(f"Stopped on request. {kept}")


def _stop(run_id: int) -> None:
    jobs.stop(context.engine(), run_id)


def _progress(run: RunRow) -> None:
    """One line of fixed height: stage, how far, how fast, how long still."""
    if run.state == "queued":
        st.progress(0.0, text="Waiting for the worker to be free")
    elif run.state == "running":
        words = runs.STAGES.get(run.stage or "", "Starting")
        if run.stage == "fit" and run.epochs:
            words += f", epoch {min(len(run.epochs) + 1, run.recipe.epochs)} of {run.recipe.epochs}"
        if run.rate:
            words += f" · {run.rate:,.0f} images/s"
        if run.seconds_left is not None and run.done < run.total:
            words += f" · {duration(run.seconds_left)} left"
        st.progress(min(run.done / run.total, 1.0) if run.total else 0.0, text=words)


def _ways_on(run: RunRow) -> None:
    review, retrain, compare = st.columns(3)
    with review:
        if st.button("Review its mistakes", type="primary", key=f"review-{run.id}", width="stretch"):
            st.switch_page("pages/review.py", query_params=st.query_params.to_dict())
    with retrain:
        retrain_button(run)
    with compare:
        if run.parent_id and st.button("Compare with its parent", key=f"compare-{run.id}", width="stretch"):
            st.switch_page("pages/compare.py", query_params=st.query_params.to_dict())


def retrain_button(run: RunRow) -> None:
    """Run the same recipe on the labels as they are now; or only its head, where the backbone was trained too."""
    has_a_head = run.recipe.mode == "finetune" and run.recipe.partner is None
    head_only = has_a_head and st.button(
        "Retrain its head on current labels",
        key=f"retrain-head-{run.id}",
        width="stretch",
        help="The same split and the network as this run trained it; only a new head, which takes seconds.",
    )
    pressed = st.button(
        "Retrain everything" if has_a_head else "Retrain on current labels",
        key=f"retrain-{run.id}",
        width="stretch",
        help="The same recipe and the same split, on the labels as they are now.",
    )
    if pressed or head_only:
        new = jobs.retrain(context.engine(), context.settings(), run.id, head_only=head_only)
        context.choose_run(new)
        st.switch_page(
            "pages/train.py", query_params={**st.query_params.to_dict(), context.RUN_KEY: str(new)}
        )


def histories(found: list[RunRow]) -> list[tuple[str, list[dict[str, float]]]]:
    """The epochs of each run that has any, by what people call the run."""
    with db.reading(context.engine()) as session:
        complete = [runs.get_run(session, run.id) for run in found]
    return [(title(run), run.history) for run in complete if run.epochs]


def judged_by() -> Literal["current", "source"]:
    """Which labels figures are judged by."""
    titles: dict[Literal["current", "source"], str] = {"current": "Current labels", "source": "Source labels"}
    return st.segmented_control(
        "Judged by",
        list(titles),
        format_func=titles.__getitem__,
        default="current",
        required=True,
        key="judged_by",
        persist_state="session",
        help="Current labels contain the reviewers' corrections; source labels are those of the import.",
    )


def duration(seconds: float) -> str:
    """Seconds in words: 8 s, 2 min 05 s, 1 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
