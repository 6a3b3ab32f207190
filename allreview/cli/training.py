"""`train`, `runs`, `show` and `stop`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from allreview.cli import output
from allreview.cli.options import LARGEST_ID, Json, RunId
from allreview.errors import UserError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from allreview.recipe import Recipe
    from allreview.training.runs import RunRow

State = Literal["queued", "running", "finished", "stopped", "failed"]
Mode = Literal["features", "finetune"]

_SHOWN_SCORES = ("accuracy", "balanced_accuracy", "weighted_f1", "auroc", "ece")


def train(
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="The dataset, if there are several.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="MobileNetV2, ResNet50, EfficientNetB3, VGG16 or AlexNet."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="FILE", help="Start from the settings in a YAML or JSON file.")
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="Train the head on frozen features, or everything end to end.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Passes over the training cells.")
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
    detach: Annotated[bool, typer.Option("--detach", help="Enqueue the run and do not wait for it.")] = False,
    json: Json = False,
) -> int:
    """Train on the labels as they are now, and follow the run. Ctrl-C leaves it going."""
    from allreview.cli.following import follow
    from allreview.cli.recipes import set_values
    from allreview.store import open_store
    from allreview.training import jobs

    options = {"backbone": backbone, "mode": mode, "epochs": epochs}
    wanted = {key: value for key, value in options.items() if value is not None} | set_values(set_ or ())
    settings = output.settings()
    engine = open_store(settings)
    dataset_id, made = _plan(engine, dataset, recipe, wanted, parent)
    run_id = jobs.submit(engine, settings, dataset_id=dataset_id, recipe=made, parent_id=parent)
    if detach:
        return _tell_start(engine, run_id, json)
    run = follow(engine, settings, run_id)
    if run.unfinished:
        output.say(
            f"Run {run_id} goes on without you: see `allreview show {run_id}`, or `allreview stop {run_id}`."
        )
        return _tell_start(engine, run_id, json)
    if json:
        output.emit(_result(run))
    elif run.state != "failed":
        _print_run(run)
    if run.state == "failed":
        output.say(f"Run {run_id} failed: {run.message}")
        return 1
    return 0


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
        output.emit([facts(run) for run in found])
        return
    if not found:
        output.line("There are no runs yet.")
        return
    columns = (
        "run",
        "dataset",
        "backbone",
        "mode",
        "state",
        "parent",
        "best epoch",
        "validation",
        "test",
        "s",
    )
    output.table(
        columns, [_run_line(run) for run in found], numbers=("run", "parent", "best epoch", *columns[-3:])
    )


def show(run_id: RunId, json: Json = False) -> None:
    """Everything known about one run: recipe, epochs, figures."""
    run = _run(run_id)
    if json:
        output.emit(facts(run) | {"epochs": _epochs(run)})
    else:
        _print_run(run)


def stop(run_id: RunId, json: Json = False) -> None:
    """Stop a run within one batch; its best weights so far are kept."""
    from allreview.store import open_store
    from allreview.training import jobs

    settings = output.settings()
    engine = open_store(settings)
    state = jobs.stop(engine, run_id)
    if state == "running":
        jobs.resume_unfinished(engine, settings)  # a run that nobody works on would never notice
    if json:
        output.emit({"run": run_id, "state": state, "stop_requested": state in ("running", "stopped")})
    elif state == "running":
        output.line(f"Run {run_id} stops within one batch.")
    else:
        output.line(f"Run {run_id} is {state}.")


def facts(run: "RunRow") -> dict[str, Any]:
    """Everything about a run but its epochs, as plain values."""
    return _result(run) | {
        "dataset": run.dataset,
        "dataset_id": run.dataset_id,
        "snapshot_id": run.snapshot_id,
        "classes": run.classes,
        "train": run.metrics.get("train", {}),
        "weights_hash": run.weights_hash,
        "stop_requested": run.stop_requested,
        "stage": run.stage,
        "done": run.done,
        "total": run.total,
        "rate": run.rate,
        "seconds_left": run.seconds_left,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
    }


def _result(run: "RunRow") -> dict[str, Any]:
    return {
        "run": run.id,
        "state": run.state,
        "seconds": run.seconds,
        "recipe": run.recipe.model_dump(),
        "snapshot": run.snapshot_hash,
        "parent": run.parent_id,
        "best_epoch": run.best_epoch,
        "validation": run.metrics.get("validation", {}),
        "test": run.metrics.get("test", {}),
        "message": run.message,
    }


def _plan(
    engine: "sa.Engine", dataset: str | None, file: str | None, wanted: dict[str, Any], parent: int | None
) -> "tuple[int, Recipe]":
    """What to train on and by which recipe: the file's or the parent's settings, changed by the options."""
    import db
    from allreview.cli.recipes import find_dataset, from_scratch_if_it_must, recipe_file, spelled
    from allreview.recipe import make_recipe
    from allreview.training.runs import get_run

    values = recipe_file(file) if file is not None else {}
    with db.reading(engine) as session:
        if parent is None:
            dataset_id = find_dataset(session, dataset).id
        else:
            before = get_run(session, parent, with_epochs=False)
            dataset_id = before.dataset_id
            if dataset is not None and find_dataset(session, dataset).id != dataset_id:
                raise UserError(
                    f"Run {parent} was trained on {before.dataset!r}: a retrain stays on the same dataset."
                )
            if file is None:
                values = before.recipe.model_dump()
                if spelled(wanted).get("backbone", values["backbone"]) != values["backbone"]:
                    # The weights and mode of another backbone need not be possible for this one.
                    values = {key: value for key, value in values.items() if key not in ("weights", "mode")}
    complete = from_scratch_if_it_must(spelled(values | wanted))
    made = make_recipe(complete)
    if made.weights == "none":
        output.say(f"{made.backbone} starts from scratch, without pretrained weights.")
    return dataset_id, made


def _run(run_id: int) -> "RunRow":
    import db
    from allreview.store import open_store
    from allreview.training.runs import get_run

    with db.reading(open_store(output.settings())) as session:
        return get_run(session, run_id)


def _tell_start(engine: "sa.Engine", run_id: int, json: bool) -> int:
    import db
    from allreview.training.runs import get_run

    with db.reading(engine) as session:
        run = get_run(session, run_id, with_epochs=False)
    if json:
        output.emit({"run": run.id, "state": run.state})
    else:
        output.line(f"Run {run.id} is {run.state}.")
    return 0


def _epochs(run: "RunRow") -> list[dict[str, Any]]:
    return run.history


def _run_line(run: "RunRow") -> tuple[object, ...]:
    scores = [output.percent(run.metrics.get(part, {}).get("accuracy")) for part in ("validation", "test")]
    seconds = None if run.seconds is None else round(run.seconds)
    recipe = run.recipe
    return (
        run.id, run.dataset, recipe.backbone, recipe.mode, run.state, run.parent_id, run.best_epoch,
        *scores, seconds,
    )  # fmt: skip


def _print_run(run: "RunRow") -> None:
    took = "" if run.seconds is None else f" after {run.seconds:.0f} s"
    origin = f", retrain of run {run.parent_id}" if run.parent_id else ""
    output.line(f"Run {run.id} on {run.dataset!r}{origin}: {run.state}{took}.")
    if run.message:
        output.line(run.message)
    changed = ", ".join(f"{key}={value}" for key, value in run.recipe.model_dump().items())
    output.line(f"Recipe: {changed}.")
    output.line(f"Snapshot: {run.snapshot_hash}.")
    if run.epochs:
        output.table(
            ("epoch", "loss", "accuracy", "validation loss", "validation accuracy", ""),
            [
                (
                    row.epoch,
                    f"{row.loss:.4f}",
                    output.percent(row.accuracy),
                    f"{row.val_loss:.4f}",
                    output.percent(row.val_accuracy),
                    "best" if row.epoch == run.best_epoch else "",
                )
                for row in run.epochs
            ],
            numbers=("epoch", "loss", "accuracy", "validation loss", "validation accuracy"),
        )
    parts = [(part, run.metrics[part]) for part in ("train", "validation", "test") if part in run.metrics]
    if parts:
        output.table(
            ("part", "cells", *(name.replace("_", " ") for name in _SHOWN_SCORES)),
            [
                (part, found["n"], *(output.percent(found[name]) for name in _SHOWN_SCORES))
                for part, found in parts
            ],
            numbers=("cells", *(name.replace("_", " ") for name in _SHOWN_SCORES)),
        )
        output.line("Figures are on source labels; --json has those on current labels too.")
