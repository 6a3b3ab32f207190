"""`train`, `runs`, `show` and `stop`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from allreview.cli import output, run_views
from allreview.cli.options import LARGEST_ID, Json, RunId
from allreview.wording import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from allreview.evaluation.reports import SeriesReport
    from allreview.training.runs import RunRow
    from allreview.training.series import Protocol

State = Literal["queued", "running", "finished", "stopped", "failed"]
Mode = Literal["features", "finetune"]
ProtocolName = Literal["leak-group", "image", "both"]
_PROTOCOLS: "dict[ProtocolName, Protocol]" = {"leak-group": "leak_group", "image": "image", "both": "both"}


def train(
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="The dataset, if there are several.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="MobileNetV2, ResNet50, EfficientNetB3, VGG16 or AlexNet; two as A+B, or 'ensemble' for the "
            "paper's two.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Start from a named recipe, or from a YAML or JSON file."),
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="Train the head on frozen features, or everything end to end.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Passes over the training cells.")
    ] = None,
    protocol: Annotated[
        ProtocolName | None,
        typer.Option(
            help="Test on whole leak groups, on single images of patients that are in training too, or train "
            "both ways to see the difference."
        ),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            metavar="K|all", help="Cross-validate: one run for each of K folds, or of the folds there are."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the recipe; can be repeated."),
    ] = None,
    parent: Annotated[
        int | None,
        typer.Option(
            metavar="RUN",
            min=1,
            max=LARGEST_ID,
            help="Retrain this run on the labels as they are now, by its recipe and its split.",
        ),
    ] = None,
    head_only: Annotated[
        bool,
        typer.Option(
            "--head-only",
            help="With --parent, of a run that trained everything: only a new head, on what its backbone sees.",
        ),
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Enqueue and do not wait.")] = False,
    json: Json = False,
) -> int:
    """Train on the labels as they are now, and follow the run or runs. Ctrl-C leaves them going."""
    from allreview.cli.following import follow_all
    from allreview.cli.recipes import set_values
    from allreview.cli.requests import Request, planned, say_if_from_scratch
    from allreview.store import open_store
    from allreview.training import jobs

    options = {"backbone": backbone, "mode": mode, "epochs": epochs}
    request = Request(
        dataset=dataset,
        recipe=recipe,
        settings={key: value for key, value in options.items() if value is not None},
        changes=set_values(set_ or ()),
        parent=parent,
        head_only=head_only,
        protocol=_PROTOCOLS[protocol] if protocol else None,
        folds=folds,
    )
    settings = output.settings()
    engine = open_store(settings)
    dataset_id, recipes = planned(engine, request)
    run_ids = jobs.submit_all(engine, settings, dataset_id, recipes, parent)
    say_if_from_scratch(recipes[0])
    found = [_run(run_id) for run_id in run_ids] if detach else follow_all(engine, settings, run_ids)
    if not detach and any(run.unfinished for run in found):
        _say_going_on([run.id for run in found if run.unfinished])
    ended = not detach and not any(run.unfinished for run in found)
    _tell(found, json, ended, _series_report(engine, found) if ended else None)
    failed = [run for run in found if run.state == "failed"]
    for run in failed:
        output.say(f"Run {run.id} failed: {run.message}")
    return 1 if failed else 0


def _say_going_on(run_ids: "Sequence[int]") -> None:
    if len(run_ids) == 1:
        only = run_ids[0]
        output.say(
            f"Run {only} goes on without you: see `allreview show {only}`, or `allreview stop {only}`."
        )
    else:
        numbers = listed([str(run_id) for run_id in run_ids])
        output.say(
            f"Runs {numbers} go on without you: see `allreview runs`, or `allreview stop RUN` for each."
        )


def _series_report(engine: "sa.Engine", found: "Sequence[RunRow]") -> "SeriesReport | None":
    """What the runs of a series came to together; None for a single run, or when none is finished."""
    series = found[0].series
    if series is None or not any(run.state == "finished" for run in found):
        return None
    from allreview.evaluation.reports import series_report

    return series_report(engine, series)


def _tell(found: "Sequence[RunRow]", json: bool, ended: bool, together: "SeriesReport | None") -> None:
    """The run or runs on stdout: what they came to, or only their state while they go on."""
    from allreview.cli import series_views

    if json:
        shown: list[dict[str, Any]] = [
            run_views.result(run) if ended else {"run": run.id, "state": run.state} for run in found
        ]
        several = {"series": found[0].series, "runs": shown}
        if ended:
            several["summary"] = series_views.summary(together) if together else None
        output.emit(shown[0] if len(found) == 1 else several)
    elif not ended:
        for run in found:
            output.line(f"Run {run.id} is {run.state}.")
    elif len(found) > 1:
        run_views.print_runs(found)
        if together:
            series_views.print_summary(together)
    elif found[0].state != "failed":
        run_views.print_run(found[0])


def runs(
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs on this dataset.")] = None,
    state: Annotated[State | None, typer.Option(help="Only runs in this state.")] = None,
    json: Json = False,
) -> None:
    """List the runs, newest first."""
    import db
    from allreview.cli.recipes import find_dataset
    from allreview.store import open_store
    from allreview.training.runs import list_runs

    with db.reading(open_store(output.settings())) as session:
        dataset_id = find_dataset(session, dataset).id if dataset is not None else None
        found = list_runs(session, dataset_id=dataset_id, states=(state,) if state else None)
    if json:
        output.emit([run_views.facts(run) for run in found])
        return
    if not found:
        output.line("There are no runs yet.")
        return
    run_views.print_runs(found)


def show(
    run_id: RunId,
    recipe: Annotated[
        bool, typer.Option("--recipe", help="Print the recipe alone, as `train --recipe` takes it.")
    ] = False,
    json: Json = False,
) -> None:
    """Everything known about one run: recipe, epochs, figures."""
    from allreview.recipes import as_yaml

    run = _run(run_id)
    if recipe and json:
        output.emit(run.recipe.model_dump())
    elif recipe:
        output.line(as_yaml(run.recipe).rstrip())
    elif json:
        output.emit(run_views.facts(run) | {"epochs": run.history})
    else:
        run_views.print_run(run)


def stop(run_id: RunId, json: Json = False) -> None:
    """Stop a run within one batch; its best weights so far are kept."""
    from allreview.store import open_store
    from allreview.training import jobs

    settings = output.settings()
    engine = open_store(settings)
    state = jobs.stop(engine, run_id)
    if state == "running":
        jobs.resume_unfinished(engine, settings)  # a run that nobody works on would never notice
    _say_what_goes_on(run_id)
    if json:
        output.emit({"run": run_id, "state": state, "stop_requested": state in ("running", "stopped")})
    elif state == "running":
        output.line(f"Run {run_id} stops within one batch.")
    else:
        output.line(f"Run {run_id} is {state}.")


def _say_what_goes_on(run_id: int) -> None:
    going = [member for member in _run(run_id).members if _run(member).unfinished]
    if going:
        numbers = listed([str(member) for member in going])
        which = f"its member, run {numbers}, goes" if len(going) == 1 else f"its members, runs {numbers}, go"
        output.say(f"Run {run_id} is an ensemble, and {which} on: stop what nobody else needs.")


def _run(run_id: int) -> "RunRow":
    import db
    from allreview.store import open_store
    from allreview.training.runs import get_run

    with db.reading(open_store(output.settings())) as session:
        return get_run(session, run_id)
