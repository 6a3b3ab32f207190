"""`evaluate` and `predict`: a run's model on images that were never imported."""

from pathlib import Path
from typing import Annotated, Any

import typer

from allreview.cli import output
from allreview.cli.options import Json, RunId

_SHOWN = ("accuracy", "balanced_accuracy", "weighted_f1", "auroc", "ece")


def evaluate(
    run_id: RunId,
    folder: Annotated[
        str, typer.Argument(metavar="DIR", help="A labelled folder, laid out as for `import`.")
    ],
    labels: Annotated[
        str | None,
        typer.Option(metavar="CSV", help="path,label,subject: overrides what names and folders say."),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Write what the model says of each cell here.")
    ] = None,
    json: Json = False,
) -> None:
    """Score a run on a labelled folder that was never imported."""
    from allreview.places import place
    from allreview.store import open_store
    from allreview.training.inference import evaluate_folder

    settings = output.settings()
    with output.quiet_libraries(settings.logs / "libraries.log"), output.progress("Scoring") as progress:
        found = evaluate_folder(
            settings,
            open_store(settings),
            run_id,
            place(folder),
            labels=place(labels) if labels is not None else None,
            predictions=predictions,
            progress=progress,
        )
    trained_on = found["known_cells"]["train"] + found["known_cells"]["validation"]
    if trained_on:
        output.say(
            f"{trained_on:,} of these {found['n']:,} cells were used to train run {run_id}: "
            "the figures flatter it."
        )
    if json:
        output.emit(found)
    else:
        _print_scores(found)


def predict(
    run_id: RunId,
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Images, of any readable format.")],
    json: Json = False,
) -> None:
    """Classify images. A file that cannot be used is listed with the reason, and the rest is classified."""
    from allreview.places import place
    from allreview.training.inference import predict_files

    settings = output.settings()
    with output.quiet_libraries(settings.logs / "libraries.log"), output.progress("Classifying") as progress:
        found = predict_files(settings, run_id, [place(file) for file in files], progress)
    if json:
        output.emit(found)
        return
    from allreview.cells.naming import class_title

    output.table(
        ("path", "class", "probability"),
        [
            (entry["path"], f"cannot be used: {entry['error']}", None)
            if "error" in entry
            else (
                entry["path"],
                class_title(entry["label"]),
                output.percent(entry["probabilities"][entry["label"]]),
            )
            for entry in found
        ],
        numbers=("probability",),
    )


def _print_scores(found: dict[str, Any]) -> None:
    from allreview.cells.naming import class_title
    from allreview.evaluation.naming import new_patient_in_words

    figures = ", ".join(f"{name.replace('_', ' ')} {output.percent(found[name])}" for name in _SHOWN)
    output.line(f"{output.plural(found['n'], 'cell')}: {figures}.")
    output.table(
        ("class", "cells", "precision", "recall", "F1"),
        [
            (
                class_title(name),
                scores["support"],
                *(output.percent(scores[key]) for key in ("precision", "recall", "f1")),
            )
            for name, scores in found["per_class"].items()
        ],
        numbers=("cells", "precision", "recall", "F1"),
    )
    if found["per_subject"]:
        output.table(
            ("subject", "cells", "accuracy"),
            [
                (subject, scores["n"], output.percent(scores["accuracy"]))
                for subject, scores in found["per_subject"].items()
            ],
            numbers=("cells", "accuracy"),
        )
    if found["new_patient"] is not None:
        output.line(new_patient_in_words(found["new_patient"], shares_patients=False))
    if found["rejected"]:
        output.line(f"{output.plural(len(found['rejected']), 'file')} stayed out:")
        output.listed([f"{entry['path']}: {entry['reason']}" for entry in found["rejected"]])
