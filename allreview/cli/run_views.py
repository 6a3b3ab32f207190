"""Runs as the command line shows them: as plain values for --json, and as tables for people."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from allreview.cli import output
from allreview.evaluation.naming import (
    SHARED_PATIENTS,
    in_company_in_words,
    model_title,
    new_patient_briefly,
    new_patient_in_words,
    split_in_words,
)
from allreview.wording import listed

if TYPE_CHECKING:
    from allreview.recipe import Recipe
    from allreview.training.runs import RunRow

_SHOWN_SCORES = ("accuracy", "balanced_accuracy", "weighted_f1", "auroc", "ece")
_SHORT = 8  # characters of a series' id that tell it from others


def facts(run: "RunRow") -> dict[str, Any]:
    """Everything about a run but its epochs, as plain values."""
    return result(run) | {
        "dataset": run.dataset,
        "dataset_id": run.dataset_id,
        "snapshot_id": run.snapshot_id,
        "classes": run.classes,
        "train": run.metrics.get("train", {}),
        "weights_hash": run.weights_hash,
        "temperature": run.temperature,
        "machine": run.machine,
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


def result(run: "RunRow") -> dict[str, Any]:
    """What a training came to, as plain values."""
    return {
        "run": run.id,
        "state": run.state,
        "seconds": run.seconds,
        "recipe": run.recipe.model_dump(),
        "shares_patients": run.recipe.shares_patients,
        "snapshot": run.snapshot_hash,
        "parent": run.parent_id,
        "series": run.series,
        "members": run.members,
        "best_epoch": run.best_epoch,
        "validation": run.metrics.get("validation", {}),
        "test": run.metrics.get("test", {}),
        "message": run.message,
    }


def split_words(recipe: "Recipe") -> str:
    """How test cells were chosen: 'split by leak group, fold 1 of 5'. Shared patients are always said."""
    words = split_in_words(recipe)
    return f"{words}: {SHARED_PATIENTS}" if recipe.shares_patients else words


def model_words(run: "RunRow") -> str:
    """The backbones: 'ResNet50', and which runs an averaged ensemble is the mean of."""
    title = model_title(run.recipe)
    return f"{title} of runs {listed([str(one) for one in run.members])}" if run.members else title


def print_runs(runs: Sequence["RunRow"]) -> None:
    """A table with one line for each run."""
    columns = (
        "run", "dataset", "model", "mode", "split", "state", "parent", "series", "best epoch", "validation",
        "test", "new patient", "s",
    )  # fmt: skip
    numbers = ("run", "parent", "best epoch", *columns[-4:])
    output.table(columns, [_run_line(run) for run in runs], numbers=numbers)


def _run_line(run: "RunRow") -> tuple[object, ...]:
    scores = [output.percent(run.metrics.get(part, {}).get("accuracy")) for part in ("validation", "test")]
    seconds = None if run.seconds is None else round(run.seconds)
    series = run.series[:_SHORT] if run.series else None
    return (
        run.id, run.dataset, model_words(run), run.recipe.mode, split_words(run.recipe), run.state,
        run.parent_id, series, run.best_epoch, *scores, _new_patient(run), seconds,
    )  # fmt: skip


def _new_patient(run: "RunRow") -> str:
    return new_patient_briefly(
        run.metrics.get("test", {}).get("new_patient"), shares_patients=run.shares_patients
    )


def print_run(run: "RunRow") -> None:
    """All about one run."""
    took = "" if run.seconds is None else f" after {run.seconds:.0f} s"
    origin = f", retrain of run {run.parent_id}" if run.parent_id else ""
    output.line(f"Run {run.id} on {run.dataset!r}{origin}: {run.state}{took}.")
    if run.message:
        output.line(run.message)
    output.line(f"Model: {model_words(run)}.")
    output.line(f"Split: {split_words(run.recipe)}.")
    if run.series:
        output.line(f"Series: {run.series}.")
    settings = ", ".join(f"{key}={value}" for key, value in run.recipe.model_dump().items())
    output.line(f"Recipe: {settings}.")
    output.line(f"Snapshot: {run.snapshot_hash}.")
    _print_epochs(run)
    _print_scores(run)


def _print_epochs(run: "RunRow") -> None:
    if not run.epochs:
        return
    columns = ("epoch", "loss", "accuracy", "validation loss", "validation accuracy", "")
    rows = [
        (
            row.epoch,
            f"{row.loss:.4f}",
            output.percent(row.accuracy),
            f"{row.val_loss:.4f}",
            output.percent(row.val_accuracy),
            "best" if row.epoch == run.best_epoch else "",
        )
        for row in run.epochs
    ]
    output.table(columns, rows, numbers=columns[:-1])


def _print_scores(run: "RunRow") -> None:
    parts = [(part, run.metrics[part]) for part in ("train", "validation", "test") if part in run.metrics]
    if not parts:
        return
    names = tuple(name.replace("_", " ") for name in _SHOWN_SCORES)
    rows = [
        (
            f"test, {SHARED_PATIENTS}" if part == "test" and run.recipe.shares_patients else part,
            found["n"],
            *(output.percent(found[name]) for name in _SHOWN_SCORES),
        )
        for part, found in parts
    ]
    output.table(("part", "cells", *names), rows, numbers=("cells", *names))
    if "new_patient" in run.metrics.get("test", {}):
        found = run.metrics["test"]["new_patient"]
        output.line(new_patient_in_words(found, shares_patients=run.shares_patients))
    if run.metrics.get("test", {}).get("in_company"):
        output.line(f"Apart from these: {in_company_in_words(run.metrics['test']['in_company'])}")
    output.line("Figures are on source labels; --json has those on current labels too.")
