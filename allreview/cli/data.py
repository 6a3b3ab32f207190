"""`import` and `demo`: cells into the store."""

from typing import TYPE_CHECKING, Annotated

import typer

from allreview.cli import output
from allreview.cli.options import Json

if TYPE_CHECKING:
    from allreview.cells.importing import ImportReport


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="A folder of images, or a zip; s3://bucket/folder too. A folder for each class.",
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Into this dataset; without it, the one named like the folder."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="CSV", help="path,label,subject: overrides what names and folders say."),
    ] = None,
    json: Json = False,
) -> None:
    """Import the cells of a folder or a zip. Repeating it adds nothing."""
    from allreview.cells.importing import import_cells
    from allreview.places import place
    from allreview.store import open_store

    settings = output.settings()
    engine = open_store(settings)
    with output.progress("Importing") as progress:
        report = import_cells(
            engine,
            settings,
            place(source),
            dataset=dataset,
            labels=place(labels) if labels is not None else None,
            progress=progress,
        )
    _tell(report, json)


def demo(json: Json = False) -> None:
    """Draw the synthetic demo set and import it."""
    from allreview.cells.demo import import_demo
    from allreview.store import open_store

    settings = output.settings()
    engine = open_store(settings)
    with output.progress("Drawing and importing the demo set") as progress:
        report = import_demo(engine, settings, progress)
    _tell(report, json)


def _tell(report: "ImportReport", json: bool) -> None:
    if json:
        output.emit(report.as_dict())
        return
    from allreview.cells.naming import class_title

    classes = ", ".join(f"{number:,} {class_title(name)}" for name, number in report.classes.items())
    output.line(f"{output.plural(report.added, 'new cell')} in dataset {report.dataset!r}.")
    output.line(
        f"It now holds {output.plural(report.cells, 'cell')} ({classes}) of "
        f"{output.plural(report.subjects, 'subject')} in {output.plural(report.leak_groups, 'leak group')}; "
        f"{output.plural(report.duplicates, 'file')} repeated a cell."
    )
    if report.rejected:
        output.line(f"{output.plural(len(report.rejected), 'file')} stayed out:")
        output.listed([f"{entry.path}: {entry.reason}" for entry in report.rejected])
