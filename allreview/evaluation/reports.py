"""Everything there is to say of a run's judgements, read from what the store holds: no model is needed.

A report covers one part of one run, or pools the test parts of several runs: the folds of a cross-validation,
in which every cell was judged by a model that was not trained on its patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from allreview.errors import UserError
from allreview.evaluation.calibration import tempered
from allreview.evaluation.company import judged_in_company
from allreview.evaluation.curves import Curve, ReliabilityBin, precision_recall, reliability, roc
from allreview.evaluation.intervals import Difference, differences, subject_intervals
from allreview.evaluation.metrics import Calibration, Scores, evaluate, positive_class
from allreview.evaluation.naming import model_title, split_in_words
from allreview.evaluation.new_patients import NewPatient, new_patient
from allreview.evaluation.proportions import wilson
from allreview.evaluation.resampling import Sample, numbered, sample
from allreview.evaluation.stored import JudgedCell, StoredRun, judged_cells, runs_of
from allreview.labels import NOT_CLASSES
from allreview.recipe import Recipe
from db import reading

On = Literal["source", "current"]
Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class SubjectRow:
    """One subject's cells. Intervals are Wilson's at 95 %, [low, high].

    `label` is the label most of its cells have. `share_positive` are called the positive class, blast: for a
    subject with leukaemia that is the share found, for one without it the share of false alarms.
    """

    subject: str
    label: str
    cells: int
    right: int
    accuracy: float
    accuracy_interval: list[float]
    called_positive: int
    share_positive: float
    share_positive_interval: list[float]


@dataclass(frozen=True)
class Report:
    """n cells with what they are labelled and what was predicted of them, and every figure of it.

    `probabilities` are [n, k], a column for each of `classes`: the runs' own, and such as were added since.
    `units` are what intervals resample. `left_out` cells have no class on this kind of label (unsure,
    unusable). `untempered` are the probabilities before temperature scaling, None where a run had none.
    `shared_cells` test cells are of patients that were trained on. Figures are computed when first asked for.
    """

    runs: list[int]
    dataset_id: int
    recipe: Recipe
    part: Part
    on: On
    classes: list[str]
    cell_ids: list[int]
    labels: list[str]
    predicted: list[str]
    probabilities: NDArray[np.float64]
    subjects: list[str | None]
    units: list[str]
    left_out: int
    shares_patients: bool
    shared_cells: int
    untempered: NDArray[np.float64] | None

    @property
    def title(self) -> str:
        """'ResNet50, run 3', or 'ResNet50, runs 3–7'."""
        return f"{model_title(self.recipe)}, {_runs_in_words(self.runs)}"

    @property
    def split(self) -> str:
        """How test cells were chosen, in words."""
        return split_in_words(self.recipe, with_fold=len(self.runs) == 1)

    @property
    def positive(self) -> str:
        """The class whose detection ROC, precision-recall and shares measure."""
        return positive_class(self.classes)

    @cached_property
    def figures(self) -> Scores:
        """The figures without intervals, which take no time."""
        return evaluate(self.labels, self.probabilities, self.classes, self.predicted)

    @cached_property
    def scores(self) -> Scores:
        """The figures with their 95 % intervals from resampling subjects."""
        intervals = subject_intervals(
            self.labels, self.probabilities, self.classes, self.units, self.predicted
        )
        scores = self.figures.copy()
        scores["intervals"] = intervals
        if self.uncalibrated is not None:
            scores["uncalibrated"] = self.uncalibrated
        return scores

    @cached_property
    def new_patient(self) -> NewPatient | None:
        """What to expect of a patient the model has never seen; None where these cells cannot tell."""
        if self.part != "test" or self.shares_patients or any(subject is None for subject in self.subjects):
            return None
        right = [said == label for said, label in zip(self.predicted, self.labels, strict=True)]
        return new_patient(right, self.units)

    @cached_property
    def uncalibrated(self) -> Calibration | None:
        """ECE and Brier score as they were before temperature scaling; None where none was done."""
        if self.untempered is None:
            return None
        before = evaluate(self.labels, self.untempered, self.classes, self.predicted)
        return Calibration(ece=before["ece"], brier=before["brier"])

    @cached_property
    def roc(self) -> list[Curve]:
        return roc(self.labels, self.probabilities, self.classes)

    @cached_property
    def precision_recall(self) -> list[Curve]:
        return precision_recall(self.labels, self.probabilities, self.classes)

    @cached_property
    def reliability(self) -> list[ReliabilityBin]:
        return reliability(self.labels, self.probabilities, self.classes, self.predicted)

    @cached_property
    def per_subject(self) -> list[SubjectRow]:
        """The subjects, by label and then by accuracy, the worst first. Cells without a subject are left out."""
        return subject_rows(self.subjects, self.labels, self.predicted, self.positive)


@dataclass(frozen=True)
class System:
    """The runs of a series that differ only in how cells were split, pooled for each way to split.

    `in_company` are the same cells, each read together with the others of its subject (`evaluation.company`), where
    that can be done. `leak` says by how much each figure is higher when training and test share patients than when
    they do not (as shares: times 100 are points); None unless the series has both.
    """

    title: str
    recipe: Recipe
    by_split: dict[str, Report]
    in_company: dict[str, Report]
    leak: dict[str, Difference] | None


@dataclass(frozen=True)
class SeriesReport:
    """What a series of runs found so far. `unfinished` are its runs without figures, with their states."""

    series: str
    systems: list[System]
    unfinished: dict[int, str]


def run_report(engine: sa.Engine, run_id: int, part: Part = "test", on: On = "source") -> Report:
    """One part of one run.

    Raises:
        UserError: there is no such run, or it has no predictions (yet).
    """
    return run_reports(engine, [run_id], part, on)[0]


def run_reports(
    engine: sa.Engine, run_ids: Sequence[int], part: Part = "test", on: On = "source"
) -> list[Report]:
    """One part of several runs, in the order given.

    Raises:
        UserError: as `run_report`.
    """
    with reading(engine) as session:
        runs = runs_of(session, run_ids)
        cells = judged_cells(session, run_ids, part)
    return [_report([run], [cell for cell in cells if cell.run_id == run.id], part, on) for run in runs]


def company_report(engine: sa.Engine, run_id: int, on: On = "source") -> Report | None:
    """The test cells of a run, each read together with the others of its subject (`evaluation.company`).

    None where that cannot be done: cells without a subject, too few validation subjects, or patients that are in
    training and test.

    Raises:
        UserError: as `run_report`.
    """
    with reading(engine) as session:
        (run,) = runs_of(session, [run_id])
        validation, test = (judged_cells(session, [run_id], part) for part in ("validation", "test"))
    return _company([run], validation, test, on)


def series_report(engine: sa.Engine, series: str, on: On = "source") -> SeriesReport:
    """The test parts of a series, pooled: over the folds of each way to split, for each system apart.

    Where a fold was trained twice its newest run counts.

    Raises:
        UserError: there is no such series, or none of its runs is finished.
    """
    with reading(engine) as session:
        runs = runs_of(session, series=series)
        finished = [run for run in runs if run.state == "finished"]
        validation, cells = _judged(session, finished)
    if not runs:
        raise UserError(f"There is no series {series!r}: choose one from the list of runs.")
    if not finished:
        raise UserError("None of these runs is finished, so there are no figures yet: wait for the first.")
    return SeriesReport(
        series=series,
        systems=_systems(finished, validation, cells, on),
        unfinished={run.id: run.state for run in runs if run.state != "finished"},
    )


def systems_report(engine: sa.Engine, run_ids: Sequence[int], on: On = "source") -> list[System]:
    """The test parts of any runs, pooled as those of a series: for each system and way to split.

    Raises:
        UserError: as `run_report`.
    """
    with reading(engine) as session:
        runs = runs_of(session, run_ids)
        validation, cells = _judged(session, runs)
    return _systems(runs, validation, cells, on)


def leak_between(shared: Report, apart: Report) -> dict[str, Difference]:
    """By how much figures are higher where patients are shared, with an interval from resampling subjects.

    The test cells need not be the same; each resample draws the same subjects for both.
    """
    return differences(*_numbered_alike(apart, shared))


def subject_rows(
    subjects: Sequence[str | None], labels: Sequence[str], predicted: Sequence[str], positive: str
) -> list[SubjectRow]:
    """A row for each subject, by label and then by accuracy, the worst first."""
    cells: dict[str, list[tuple[str, str]]] = {}
    for subject, label, prediction in zip(subjects, labels, predicted, strict=True):
        if subject is not None:
            cells.setdefault(subject, []).append((label, prediction))
    rows = [_subject_row(subject, found, positive) for subject, found in cells.items()]
    return sorted(rows, key=lambda row: (row.label, row.accuracy, len(row.subject), row.subject))


def _subject_row(subject: str, cells: list[tuple[str, str]], positive: str) -> SubjectRow:
    labels = [label for label, _ in cells]
    right = sum(label == prediction for label, prediction in cells)
    called = sum(prediction == positive for _, prediction in cells)
    return SubjectRow(
        subject=subject,
        label=max(sorted(set(labels)), key=labels.count),
        cells=len(cells),
        right=right,
        accuracy=right / len(cells),
        accuracy_interval=wilson(right, len(cells)),
        called_positive=called,
        share_positive=called / len(cells),
        share_positive_interval=wilson(called, len(cells)),
    )


def _judged(session: Session, runs: Sequence[StoredRun]) -> tuple[list[JudgedCell], list[JudgedCell]]:
    """The validation and the test cells of the runs."""
    ids = [run.id for run in runs]
    return judged_cells(session, ids, "validation"), judged_cells(session, ids, "test")


def _company(
    runs: list[StoredRun], validation: list[JudgedCell], test: list[JudgedCell], on: On
) -> Report | None:
    if any(run.shares_patients for run in runs):
        return None
    cells = judged_in_company(validation, test)
    if cells is None:
        return None
    # The weights do what a temperature does: without one, nothing is said of how it was before.
    return _report([replace(run, temperature=None) for run in runs], cells, "test", on)


def _report(runs: list[StoredRun], cells: list[JudgedCell], part: Part, on: On) -> Report:
    first = runs[0]
    if not cells:
        raise UserError(
            f"Run {first.id} is {first.state} and has no predictions of {part} cells: choose a finished run."
        )
    labels = [cell.source_label if on == "source" else cell.current_label for cell in cells]
    judged = [(cell, label) for cell, label in zip(cells, labels, strict=True) if label not in NOT_CLASSES]
    # A class may have been added since the run: it gave that one no probability.
    known = {name for run in runs for name in run.classes}
    classes = sorted(known | {label for _, label in judged})
    table = _table([cell for cell, _ in judged], classes)
    temperature = {run.id: run.temperature for run in runs}
    temperatures = [temperature[cell.run_id] for cell, _ in judged]
    return Report(
        runs=[run.id for run in runs],
        dataset_id=first.dataset_id,
        recipe=first.recipe,
        part=part,
        on=on,
        classes=classes,
        cell_ids=[cell.cell_id for cell, _ in judged],
        labels=[label for _, label in judged],
        predicted=[cell.predicted for cell, _ in judged],
        probabilities=table,
        subjects=[cell.subject for cell, _ in judged],
        units=[cell.unit for cell, _ in judged],
        left_out=len(cells) - len(judged),
        shares_patients=any(run.shares_patients for run in runs),
        shared_cells=sum(run.shared_cells for run in runs),
        untempered=_untempered(table, temperatures),
    )


def _table(cells: list[JudgedCell], classes: list[str]) -> NDArray[np.float64]:
    rows = [[cell.probabilities.get(name, 0.0) for name in classes] for cell in cells]
    return np.array(rows, dtype=np.float64).reshape(len(cells), len(classes))


def _untempered(table: NDArray[np.float64], temperatures: list[float | None]) -> NDArray[np.float64] | None:
    """What the models said before their temperature, a cell's row by its own model's."""
    known = [temperature for temperature in temperatures if temperature is not None]
    if len(known) < len(temperatures):
        return None
    before, of_each = table.copy(), np.array(known)
    for temperature in np.unique(of_each):
        here = of_each == temperature
        before[here] = tempered(table[here], 1 / float(temperature))
    return before


def _systems(
    runs: Sequence[StoredRun], validation: list[JudgedCell], cells: list[JudgedCell], on: On
) -> list[System]:
    found: dict[str, dict[str, dict[int, StoredRun]]] = {}
    for run in sorted(runs, key=lambda run: run.id):
        system = run.recipe.model_copy(update={"split": "leak_group", "fold": 0, "folds": None}).hash
        found.setdefault(system, {}).setdefault(run.recipe.split, {})[run.recipe.fold] = run
    return [_system(by_split, validation, cells, on) for by_split in found.values()]


def _system(
    by_split: dict[str, dict[int, StoredRun]],
    validation: list[JudgedCell],
    cells: list[JudgedCell],
    on: On,
) -> System:
    reports, together = {}, {}
    for split, by_fold in by_split.items():
        runs = [by_fold[fold] for fold in sorted(by_fold)]
        ids = {run.id for run in runs}
        held_out, test = ([cell for cell in some if cell.run_id in ids] for some in (validation, cells))
        reports[split] = _report(runs, test, "test", on)
        company = _company(runs, held_out, test, on)
        if company is not None:
            together[split] = company
    apart = reports.get("leak_group") or reports.get("dataset_folds")
    shared = reports.get("image")
    recipe = next(iter(reports.values())).recipe
    return System(
        title=model_title(recipe),
        recipe=recipe,
        by_split=reports,
        in_company=together,
        leak=leak_between(shared, apart) if shared and apart else None,
    )


def _numbered_alike(*reports: Report) -> list[Sample]:
    """The reports as samples of the same units."""
    unit, count = numbered([name for report in reports for name in report.units])
    classes = sorted({name for report in reports for name in report.classes})
    samples, start = [], 0
    for report in reports:
        columns = [[name == other for other in report.classes] for name in classes]
        table = report.probabilities @ np.array(columns, dtype=np.float64).T
        here = unit[start : start + len(report.labels)]
        samples.append(sample(report.labels, table, classes, here, count, report.predicted))
        start += len(report.labels)
    return samples


def _runs_in_words(runs: Sequence[int]) -> str:
    if len(runs) == 1:
        return f"run {runs[0]}"
    if list(runs) == list(range(runs[0], runs[0] + len(runs))):
        return f"runs {runs[0]}–{runs[-1]}"
    return f"runs {', '.join(map(str, runs))}"
