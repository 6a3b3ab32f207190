"""What a run's folder holds when it is complete, for people and other programs. Keras is not needed.

    model.keras, model.json   made by the fit
    model.weights.h5          the same weights, for a graph built elsewhere
    recipe.yaml               everything that decided the run
    history.csv               the epochs
    snapshot.csv              every cell with its label and part
    predictions.csv           what the model says of every cell
    figures/*.html            the test part in pictures, and the history
    model-card.md             what the model is, what it saw, how well it does
    out-of-fold.npz, neighbours.npz, map.npz   what helps a reviewer (`allreview.review.rankings`)

Each file is written beside its place and renamed, so none is ever half there.
"""

import csv
import io
import json
import os
import uuid
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

import db
from allreview import recipes
from allreview.cells.naming import class_title
from allreview.errors import UserError
from allreview.evaluation.reports import Report, run_report
from allreview.settings import Settings
from allreview.training.model_card import CardFacts, model_card
from allreview.training.runs import HISTORY, RunRow, get_run
from allreview.training.snapshots import SnapshotLine, lines
from db.tables import Prediction

if TYPE_CHECKING:
    import plotly.graph_objects as go

CARD = "model-card.md"
FIGURES = "figures"
WEIGHTS = "model.weights.h5"
_SNAPSHOT = ("sha256", "label", "part", "source_label", "subject", "path")
_PREDICTIONS = ("sha256", "part", "label", "source_label", "subject", "predicted", "probability")


def keep(engine: sa.Engine, settings: Settings, run_id: int, *, state: str = "finished") -> None:
    """Write what the run has into its folder; what it has not (it was stopped before) is left out.

    Writing again replaces what is there. Nobody's wish to stop is looked at: it takes a second or two.

    Raises:
        OSError: the folder cannot be written; what was written by then stays.
    """
    with db.reading(engine) as session:
        run = get_run(session, run_id)
        cells = lines(session, run.snapshot_id)
    folder = settings.run_folder(run_id)
    folder.mkdir(parents=True, exist_ok=True)
    description = _description(folder)
    _write(folder / "recipe.yaml", recipes.as_yaml(run.recipe))
    _write(
        folder / "snapshot.csv", _csv(_SNAPSHOT, ([getattr(c, name) for name in _SNAPSHOT] for c in cells))
    )
    if run.history:
        _write(
            folder / "history.csv", _csv(HISTORY, ([row[name] for name in HISTORY] for row in run.history))
        )
    if description:
        _keep_weights(folder)
    report = _report(engine, run_id)
    if report is not None:
        _keep_predictions(engine, run, cells, folder)
    _keep_figures(run, report, folder / FIGURES)
    facts = CardFacts(
        run=run,
        cells=cells,
        stopped=state == "stopped",
        description=description,
        subjects=report.per_subject if report else (),
    )
    _write(folder / CARD, model_card(facts))


def _description(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _keep_weights(folder: Path) -> None:
    """A `.keras` file is a zip that holds the weights as a file of their own."""
    with zipfile.ZipFile(folder / "model.keras") as archive:
        _place(folder / WEIGHTS, lambda path: path.write_bytes(archive.read(WEIGHTS)))


def _report(engine: sa.Engine, run_id: int) -> Report | None:
    try:
        return run_report(engine, run_id, "test", "source")
    except UserError:  # it was stopped before its cells were predicted
        return None


def _keep_predictions(engine: sa.Engine, run: RunRow, cells: Sequence[SnapshotLine], folder: Path) -> None:
    query = sa.select(Prediction.cell_id, Prediction.label, Prediction.probability, Prediction.probabilities)
    with db.reading(engine) as session:
        found = {row.cell_id: row for row in session.execute(query.where(Prediction.run_id == run.id))}
    header = [*_PREDICTIONS, *(f"class {name}" if name in _PREDICTIONS else name for name in run.classes)]
    rows = (
        [
            cell.sha256,
            cell.part,
            cell.label,
            cell.source_label,
            cell.subject,
            found[cell.cell_id].label,
            f"{found[cell.cell_id].probability:.9g}",
            *(f"{found[cell.cell_id].probabilities[name]:.9g}" for name in run.classes),
        ]
        for cell in cells
        if cell.cell_id in found
    )
    _write(folder / "predictions.csv", _csv(header, rows))


def _keep_figures(run: RunRow, report: Report | None, folder: Path) -> None:
    """Pages that open in a browser without a network: Plotly's script lies among them, once."""
    figures = _figures(run, report)
    if not figures:
        return
    from plotly.offline import get_plotlyjs

    folder.mkdir(exist_ok=True)
    _write(folder / "plotly.min.js", get_plotlyjs())
    for name, figure in figures.items():
        page = figure.to_html(include_plotlyjs="directory", full_html=True, config={"displaylogo": False})
        _write(folder / f"{name}.html", page)


def _figures(run: RunRow, report: Report | None) -> "dict[str, go.Figure]":
    from allreview.evaluation import figures

    made: dict[str, go.Figure] = {}
    if run.history:
        made["history"] = figures.history_figure(
            run.history, run.recipe.epochs, ended=True, kept=run.best_epoch
        )
    if report is None:
        return made
    titles = {name: class_title(name) for name in report.classes}
    marked = figures.marked("Test cells: label against prediction", report.shares_patients)
    made["confusion"] = figures.confusion_figure(report.figures["confusion"], marked, titles)
    if report.roc:
        made["roc"] = figures.roc_figure([report])
        made["precision-recall"] = figures.precision_recall_figure([report])
    made["reliability"] = figures.reliability_figure(report)
    if report.per_subject:
        made["subjects"] = figures.subjects_figure(report)
    return made


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> None:
    # Paths of the file system may hold bytes that are no text.
    _place(path, lambda target: target.write_bytes(text.encode("utf-8", "surrogateescape")))


def _place(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        write(temporary)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
