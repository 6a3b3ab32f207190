"""What a series of runs came to, the test parts of its folds pooled: for --json, and as a table for people."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from allreview.cli import output
from allreview.evaluation.naming import (
    SHARED_PATIENTS,
    in_company_in_words,
    new_patient_in_words,
    split_in_words,
)

if TYPE_CHECKING:
    from allreview.evaluation.intervals import Difference
    from allreview.evaluation.reports import Report, SeriesReport, System

_FIGURES = ("accuracy", "balanced_accuracy", "weighted_f1", "auroc", "ece")


def summary(report: "SeriesReport") -> dict[str, Any]:
    """Figures with their 95 % intervals by system and split, and what shared patients add to them, as shares."""
    return {
        "systems": [
            {
                "title": system.title,
                "by_split": {
                    split: {
                        "runs": pooled.runs,
                        "shares_patients": pooled.shares_patients,
                        "test": pooled.scores,
                        "new_patient": pooled.new_patient,
                        "in_company": system.in_company[split].scores if split in system.in_company else None,
                    }
                    for split, pooled in system.by_split.items()
                },
                "leak": None
                if system.leak is None
                else {figure: asdict(found) for figure, found in system.leak.items()},
            }
            for system in report.systems
        ],
        "unfinished": report.unfinished,
    }


def print_summary(report: "SeriesReport") -> None:
    """A table with one line for each way to split, and the difference between them in points."""
    names = tuple(name.replace("_", " ") for name in _FIGURES)
    rows = [_line(system, pooled) for system in report.systems for pooled in system.by_split.values()]
    output.table(("model", "split", "runs", "test cells", *names), rows, numbers=("test cells", *names))
    output.line("In brackets: the 95 % interval from resampling subjects. Cells of all folds are pooled.")
    for system in report.systems:
        for split, pooled in system.by_split.items():
            title = f"{system.title}, {split_in_words(pooled.recipe, with_fold=False)}"
            words = new_patient_in_words(pooled.new_patient, shares_patients=pooled.shares_patients)
            output.line(f"{title}: {words}")
            if split in system.in_company:
                output.line(
                    f"{title}, apart from these: {in_company_in_words(system.in_company[split].scores)}"
                )
        if system.leak is not None:
            found = [
                f"{name.replace('_', ' ')} {_points(system.leak[name])}"
                for name in _FIGURES
                if name in system.leak
            ]
            output.line(f"{system.title}, what shared patients add, in points: {'; '.join(found)}.")


def _line(system: "System", pooled: "Report") -> tuple[object, ...]:
    words = split_in_words(pooled.recipe, with_fold=False)
    marked = f"{words}: {SHARED_PATIENTS}" if pooled.shares_patients else words
    runs = ", ".join(map(str, pooled.runs))
    return (system.title, marked, runs, pooled.scores["n"], *(_figure(pooled, name) for name in _FIGURES))


def _figure(pooled: "Report", name: str) -> str:
    shown = output.percent(pooled.scores[name])
    interval = pooled.scores.get("intervals", {}).get(name)
    if interval is None:
        return shown
    return f"{shown} ({output.percent(interval[0])} to {output.percent(interval[1])})"


def _points(difference: "Difference") -> str:
    shown = f"{100 * difference.value:+.1f}"
    if difference.low is None or difference.high is None:
        return shown
    return f"{shown} ({100 * difference.low:+.1f} to {100 * difference.high:+.1f})"
