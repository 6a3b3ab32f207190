"""`compare`: any set of runs as the paper's Table I beside its own rows, and two runs on the cells they share."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from allreview.cli import output
from allreview.cli.options import LARGEST_ID, Json
from allreview.errors import UserError

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import sqlalchemy as sa

    from allreview.evaluation.comparison import Comparison, Judged
    from allreview.evaluation.intervals import Difference
    from allreview.evaluation.reports import Report, System
    from allreview.evaluation.tables import Table

LabelKind = Literal["source", "current"]
_SHOWN = ("accuracy", "balanced_accuracy", "weighted_f1", "auroc", "average_precision", "brier", "ece")


def compare(
    run_ids: Annotated[
        list[int],
        typer.Argument(metavar="RUN…", min=1, max=LARGEST_ID, help="Finished runs, by their numbers."),
    ],
    on: Annotated[
        LabelKind, typer.Option(help="Judge by the labels of the import, or by the labels as they are now.")
    ] = "source",
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table as CSV.")] = None,
    latex: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table for LaTeX.")] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write curves and other figures as PNG and SVG.")
    ] = None,
    json: Json = False,
) -> None:
    """Runs as the paper's Table I beside the paper's own rows; of two runs also what differs, and how surely."""
    from allreview.evaluation.reports import run_reports, systems_report
    from allreview.evaluation.tables import as_csv, as_latex, table_one, table_rows
    from allreview.store import open_store

    run_ids = list(dict.fromkeys(run_ids))
    for path in (csv, latex):
        _require_folder(path)
    engine = open_store(output.settings())
    table = table_one(table_rows(engine, run_ids, on))
    reports = run_reports(engine, run_ids, on=on)
    systems = systems_report(engine, run_ids, on)
    pair, no_pair = _pair(engine, run_ids)
    files = [*_written(csv, as_csv(table)), *_written(latex, as_latex(table))]
    note = None
    if figures is not None:
        from allreview.evaluation.pictures import save_pictures

        pictures = save_pictures(_figures(engine, reports, systems, pair, on), figures.expanduser())
        files, note = [*files, *pictures.files], pictures.note
    for sentence in (no_pair, note):
        if sentence:
            output.say(sentence)
    if json:
        output.emit(_document(table, reports, systems, pair, on, files))
        return
    _print_table(table)
    _print_figures(reports)
    for system in systems:
        if system.leak is not None:
            _print_leak(system)
    if pair is not None:
        _print_pair(pair, on)
    if files:
        output.line(f"Written: {', '.join(map(str, files))}.")


def _pair(engine: "sa.Engine", run_ids: list[int]) -> tuple["Comparison | None", str | None]:
    """Two runs on the cells they share, or why there is nothing to compare."""
    if len(run_ids) != 2:
        return None, None
    from allreview.evaluation.comparison import compare_runs

    try:
        return compare_runs(engine, *run_ids), None
    except UserError as error:
        return None, str(error)


def _judged(pair: "Comparison", on: LabelKind) -> "Judged":
    return pair.source if on == "source" else pair.current


def _document(
    table: "Table",
    reports: "list[Report]",
    systems: "list[System]",
    pair: "Comparison | None",
    on: LabelKind,
    files: list[Path],
) -> dict[str, Any]:
    judged = None if pair is None else _judged(pair, on)
    return {
        "on": on,
        "table": {"columns": table.columns, "rows": table.rows, "notes": table.notes},
        "runs": [
            {
                "run": report.runs[0],
                "title": report.title,
                "split": report.split,
                "shares_patients": report.shares_patients,
                "test": report.scores,
                "new_patient": report.new_patient,
            }
            for report in reports
        ],
        "leak": [
            {
                "title": system.title,
                "runs": {split: report.runs for split, report in system.by_split.items()},
                "differences": {name: asdict(found) for name, found in system.leak.items()},
            }
            for system in systems
            if system.leak is not None
        ],
        "pair": None
        if pair is None or judged is None
        else {
            "run_a": pair.run_a,
            "run_b": pair.run_b,
            "cells": judged.a["n"],
            "shares_patients": pair.shared_patients,
            "a": judged.a,
            "b": judged.b,
            "new_patient_a": judged.new_patient_a,
            "new_patient_b": judged.new_patient_b,
            "differences": {name: asdict(found) for name, found in judged.differences.items()},
            "mcnemar": asdict(judged.mcnemar),
        },
        "files": [str(path) for path in files],
    }


def _print_table(table: "Table") -> None:
    output.table(table.columns, table.rows, numbers=table.columns[1:])
    for note in table.notes:
        output.line(note)


def _print_figures(reports: "list[Report]") -> None:
    """The figures that Table I lacks, with their intervals."""
    from allreview.evaluation.naming import FIGURE_TITLES, NEW_PATIENT, SHARED_PATIENTS, new_patient_briefly

    titles = [NEW_PATIENT, *(FIGURE_TITLES[name] for name in _SHOWN)]
    rows = []
    for report in reports:
        intervals = report.scores.get("intervals", {})
        mark = f"; {SHARED_PATIENTS}" if report.shares_patients else ""
        figures = [_with_interval(report.scores.get(name), intervals.get(name)) for name in _SHOWN]
        expected = new_patient_briefly(report.new_patient, shares_patients=report.shares_patients)
        rows.append((f"{report.title}{mark}", report.scores["n"], expected, *figures))
    output.table(("Test cells of", "Cells", *titles), rows, numbers=("Cells", *titles))
    output.line("In brackets: the 95 % interval from resampling subjects. Of the last two, lower is better.")


def _print_leak(system: "System") -> None:
    from allreview.evaluation.figures import in_points
    from allreview.evaluation.naming import FIGURE_TITLES

    found = [f"{FIGURE_TITLES[name]} {in_points(value)}" for name, value in (system.leak or {}).items()]
    output.line(f"{system.title}, what shared patients add: {'; '.join(found)}.")


def _print_pair(pair: "Comparison", on: LabelKind) -> None:
    from allreview.evaluation.naming import FIGURE_TITLES, SHARED_PATIENTS

    judged = _judged(pair, on)
    mark = f" ({SHARED_PATIENTS})" if pair.shared_patients else ""
    cells = output.plural(judged.a["n"], "test cell")
    output.line(f"Runs {pair.run_a} and {pair.run_b} on the same {cells}, by {on} labels{mark}:")
    columns = ("figure", f"run {pair.run_a}", f"run {pair.run_b}", "difference in points (95 %)")
    rows = [
        (
            FIGURE_TITLES[name],
            output.percent(judged.a.get(name)),
            output.percent(judged.b.get(name)),
            _points(difference),
        )
        for name, difference in judged.differences.items()
    ]
    output.table(columns, rows, numbers=columns[1:])
    test = judged.mcnemar
    output.line(
        f"Only run {pair.run_a} is right on {output.plural(test.only_a_right, 'cell')}, only run {pair.run_b} on "
        f"{output.plural(test.only_b_right, 'cell')} (McNemar's exact test: p = {test.p_value:.2g}; it takes cells "
        "as independent, which cells of one subject are not)."
    )


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    ends = f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})" if interval else ""
    return f"{output.percent(value)}{ends}"


def _points(difference: "Difference") -> str:
    from allreview.evaluation.figures import in_points

    return in_points(difference).replace(" points", "")


def _figures(
    engine: "sa.Engine",
    reports: "list[Report]",
    systems: "list[System]",
    pair: "Comparison | None",
    on: LabelKind,
) -> "dict[str, go.Figure]":
    from allreview.cells.naming import class_title
    from allreview.evaluation import figures as draw

    drawn = {
        "roc": draw.roc_figure(reports, with_intervals=True),
        "precision-recall": draw.precision_recall_figure(reports, with_intervals=True),
        "reliability": draw.reliability_figure(reports, with_intervals=True),
    }
    histories = _histories(engine, reports)
    if histories:
        drawn["histories"] = draw.histories_figure(histories)
    for report in reports:
        number = report.runs[0]
        titles = {name: class_title(name) for name in report.classes}
        heading = draw.marked(report.title, report.shares_patients)
        drawn[f"confusion-run-{number}"] = draw.confusion_figure(report.figures["confusion"], heading, titles)
        if report.per_subject:
            drawn[f"subjects-run-{number}"] = draw.subjects_figure(report, report.title)
    if pair is not None:
        drawn["differences"] = draw.differences_figure(
            _judged(pair, on).differences,
            f"run {pair.run_a}",
            f"run {pair.run_b}",
            shared_patients=pair.shared_patients,
        )
    leaks = [system for system in systems if system.leak is not None]
    for number, system in enumerate(leaks, start=1):
        drawn["leak" if len(leaks) == 1 else f"leak-{number}"] = draw.leak_figure(system)
    return drawn


def _histories(engine: "sa.Engine", reports: "list[Report]") -> list[tuple[str, list[dict[str, float]]]]:
    import db
    from allreview.evaluation.naming import SHARED_PATIENTS
    from allreview.training.runs import get_run

    found = []
    with db.reading(engine) as session:
        for report in reports:
            history = get_run(session, report.runs[0]).history
            mark = f", {SHARED_PATIENTS}" if report.shares_patients else ""
            if history:  # the average of other runs has none
                found.append((f"{report.title}{mark}", history))
    return found


def _require_folder(path: Path | None) -> None:
    """Say at once, not after the work, that a file cannot be written."""
    if path is not None and (path.expanduser().is_dir() or not path.expanduser().parent.is_dir()):
        raise UserError(f"The file {path} cannot be written: name a file in a folder that exists.")


def _written(path: Path | None, text: str) -> list[Path]:
    if path is None:
        return []
    try:
        path.expanduser().write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"The file {path} cannot be written: {error.strerror or error}.") from None
    return [path.expanduser()]
