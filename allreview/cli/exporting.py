"""`export`: a run's model as a file for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from allreview.cli import output
from allreview.cli.options import Json, RunId


def export(
    run_id: RunId,
    destination: Annotated[
        Path,
        typer.Argument(
            metavar="DEST", help="The file to make (a folder for savedmodel), or a folder to put it in."
        ),
    ],
    format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="onnx, savedmodel or keras.")
    ] = "onnx",
    json: Json = False,
) -> None:
    """Export a run's model, and check that it says what the run's own model says."""
    from allreview.store import open_store
    from allreview.training.exporting import export_run

    settings = output.settings()
    with output.quiet_libraries(settings.logs / "libraries.log"):
        found = export_run(open_store(settings), settings, run_id, destination, format.strip().lower())
    if json:
        output.emit(found)
        return
    output.line(
        f"Run {run_id} is exported to {found['path']}. On {found['compared']} {found['compared_on']} its "
        f"probabilities differ from the run's own by at most {found['largest_difference']:.1g}."
    )
