"""Two runs on the same test cells: which is better, and which cells' verdicts changed.

Only cells that lie in the test part of both runs' snapshots are compared, so no figure rests on a cell
that one of the two was trained on. Every figure is given twice: on source labels and on current labels.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from allreview.errors import UserError
from allreview.evaluation.intervals import Difference, differences
from allreview.evaluation.metrics import Scores, evaluate
from allreview.evaluation.new_patients import NewPatient, new_patient
from allreview.evaluation.resampling import numbered, sample
from allreview.evaluation.stored import runs_of, unit_name
from allreview.labels import NOT_CLASSES, current_label, standing
from db import reading
from db.tables import Cell, CellFile, Prediction, Run, SnapshotCell, Subject

Outcome = Literal["became right", "became wrong", "still wrong", "not judged"]
"""What a changed verdict means by the current label; not judged where that is unsure or unusable."""


@dataclass(frozen=True)
class McNemar:
    """The exact test whether two runs differ in accuracy on the same cells (McNemar 1947).

    `p_value` is the two-sided binomial probability of a split of the disagreements at least this uneven
    if both were equally accurate; 1.0 when they never disagree. It takes cells as independent; cells of
    one subject are not quite, so a small value says less than it seems.
    """

    only_a_right: int
    only_b_right: int
    p_value: float


@dataclass(frozen=True)
class Judged:
    """Both runs' figures on one kind of label, over the same `a["n"]` cells.

    `differences` say by how much B is higher (accuracy, balanced accuracy, macro and weighted F1, AUROC; as
    shares), with 95 % intervals from resampling subjects: in each resample both are measured on the same ones.
    `new_patient_a` and `_b` are what to expect of a patient neither was trained on, None where that cannot be said.
    """

    a: Scores
    b: Scores
    new_patient_a: NewPatient | None
    new_patient_b: NewPatient | None
    mcnemar: McNemar
    differences: dict[str, Difference]


@dataclass(frozen=True)
class ChangedCell:
    """A cell that the two runs predict differently. Probabilities are those of each run's own verdict."""

    cell_id: int
    sha256: str
    path: str | None
    subject: str | None
    source_label: str
    current_label: str
    label_a: str
    probability_a: float
    label_b: str
    probability_b: float
    outcome: Outcome


@dataclass(frozen=True)
class LabelChanges:
    """How run B's snapshot differs from run A's.

    `changed` cells have another class, `left_out` were decided unsure or unusable since and are not
    trained on, `added` are in B's only, imported since. `in_training` of the changed and left out are
    training cells: only those change what the model learns from.
    """

    changed: int
    left_out: int
    added: int
    in_training: int


@dataclass(frozen=True)
class Comparison:
    """Two runs on the test cells they share. `dataclasses.asdict` gives it as JSON.

    `cells` are compared; `without_prediction` more are shared but at least one run has no prediction for
    them; `left_out` of the compared ones are currently unsure or unusable and so missing in `current`.
    `changed` holds the cells whose verdict changed, those that became wrong first, most confident first.
    `shared_patients` says that at least one run was trained on patients of its test cells.
    """

    run_a: int
    run_b: int
    dataset_id: int
    classes: list[str]
    cells: int
    without_prediction: int
    left_out: int
    source: Judged
    current: Judged
    changed: list[ChangedCell]
    shared_patients: bool

    @property
    def outcomes(self) -> dict[Outcome, int]:
        """How many changed cells there are of each outcome."""
        counts = Counter(cell.outcome for cell in self.changed)
        return {outcome: counts[outcome] for outcome in _OUTCOME_ORDER}


_OUTCOME_ORDER: tuple[Outcome, ...] = ("became wrong", "became right", "still wrong", "not judged")


def compare_runs(engine: sa.Engine, run_a: int, run_b: int) -> Comparison:
    """Compare two finished runs of one dataset on the test cells they share.

    Raises:
        UserError: a run does not exist or is not finished, the two belong to different datasets, or they
            share no test cell that both have predicted.
    """
    with reading(engine) as session:
        a, b = _two_runs(session, run_a, run_b)
        shared = _count_shared(session, a, b)
        rows = session.execute(_shared_predictions(a, b)).all()
        stored = runs_of(session, [run_a, run_b])
    if not rows:
        raise UserError(
            f"Runs {run_a} and {run_b} share no test cell that both predicted, so they cannot be compared:"
            " choose a run and its retrain, or two runs with the same split."
        )
    judged = [row for row in rows if row.current_label not in NOT_CLASSES]
    # A class may have been added between the runs; the run that did not know it gave it no probability.
    seen = {label for row in rows for label in (row.source_label, row.current_label)} - set(NOT_CLASSES)
    classes = sorted({*a.classes, *b.classes, *seen})
    sourced = [row for row in rows if row.source_label not in NOT_CLASSES]
    shared_patients = any(run.shares_patients for run in stored)
    return Comparison(
        run_a=run_a,
        run_b=run_b,
        dataset_id=a.dataset_id,
        classes=classes,
        cells=len(rows),
        without_prediction=shared - len(rows),
        left_out=len(rows) - len(judged),
        source=_judge(sourced, classes, shared_patients, lambda row: row.source_label),
        current=_judge(judged, classes, shared_patients, lambda row: row.current_label),
        changed=_changed(rows),
        shared_patients=shared_patients,
    )


def labels_changed(engine: sa.Engine, run_a: int, run_b: int) -> LabelChanges:
    """How the labels that run B was given differ from those of run A, over all parts.

    Raises:
        UserError: a run does not exist, or the two belong to different datasets.
    """
    with reading(engine) as session:
        a, b = _two_runs(session, run_a, run_b, finished=False)
        of_a, of_b = aliased(SnapshotCell), aliased(SnapshotCell)
        pairs = (
            sa.select(of_a.label, of_b.label, of_b.part, sa.func.count())
            .join(of_b, sa.and_(of_b.cell_id == of_a.cell_id, of_b.snapshot_id == b.snapshot_id))
            .where(of_a.snapshot_id == a.snapshot_id)
            .group_by(of_a.label, of_b.label, of_b.part)
        )
        both = session.execute(pairs).all()
        size_b = session.scalar(
            sa.select(sa.func.count())
            .select_from(SnapshotCell)
            .where(SnapshotCell.snapshot_id == b.snapshot_id)
        )
    changed = left_out = in_training = shared = 0
    for before, after, part, number in both:
        shared += number
        if before != after and part == "train":
            in_training += number
        if before != after and after in NOT_CLASSES:
            left_out += number
        elif before != after:
            changed += number
    added = (size_b or 0) - shared
    return LabelChanges(changed=changed, left_out=left_out, added=added, in_training=in_training)


def _two_runs(session: Session, run_a: int, run_b: int, *, finished: bool = True) -> tuple[Run, Run]:
    a, b = (_run(session, number, finished) for number in (run_a, run_b))
    if a.dataset_id != b.dataset_id:
        raise UserError(
            f"Runs {run_a} and {run_b} belong to different datasets, so they share no cells:"
            " choose two runs of one dataset."
        )
    return a, b


def _run(session: Session, number: int, finished: bool) -> Run:
    run = session.get(Run, number)
    if run is None:
        raise UserError(f"There is no run {number}: choose one from the list of runs.")
    if finished and run.state != "finished":
        raise UserError(f"Run {number} is {run.state}, not finished: only finished runs can be compared.")
    return run


def _in_both_tests(a: Run, b: Run) -> sa.Subquery:
    """The ids of cells in the test part of both snapshots."""
    of_a, of_b = aliased(SnapshotCell), aliased(SnapshotCell)
    return (
        sa.select(of_a.cell_id)
        .join(of_b, of_b.cell_id == of_a.cell_id)
        .where(of_a.snapshot_id == a.snapshot_id, of_a.part == "test")
        .where(of_b.snapshot_id == b.snapshot_id, of_b.part == "test")
        .subquery("in_both_tests")
    )


def _count_shared(session: Session, a: Run, b: Run) -> int:
    return session.scalar(sa.select(sa.func.count()).select_from(_in_both_tests(a, b))) or 0


def _shared_predictions(a: Run, b: Run) -> sa.Select[*tuple[Any, ...]]:
    """One row for each shared test cell that both runs predicted, by cell id."""
    shared, now = _in_both_tests(a, b), standing()
    by_a, by_b = aliased(Prediction), aliased(Prediction)
    first_path = (
        sa.select(CellFile.path)
        .where(CellFile.cell_id == Cell.id)
        .order_by(CellFile.id)
        .limit(1)
        .correlate(Cell)
        .scalar_subquery()
    )
    return (
        sa.select(
            Cell.id.label("cell_id"),
            Cell.sha256,
            first_path.label("path"),
            Subject.name.label("subject"),
            Subject.leak_group_id,
            Cell.source_label,
            current_label(now).label("current_label"),
            by_a.label.label("label_a"),
            by_a.probability.label("probability_a"),
            by_a.probabilities.label("probabilities_a"),
            by_b.label.label("label_b"),
            by_b.probability.label("probability_b"),
            by_b.probabilities.label("probabilities_b"),
        )
        .join(shared, shared.c.cell_id == Cell.id)
        .join(by_a, sa.and_(by_a.cell_id == Cell.id, by_a.run_id == a.id))
        .join(by_b, sa.and_(by_b.cell_id == Cell.id, by_b.run_id == b.id))
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(now, now.c.cell_id == Cell.id)
        .order_by(Cell.id)
    )


def _judge(
    rows: Sequence[Any], classes: list[str], shared_patients: bool, label_of: Callable[[Any], str]
) -> Judged:
    labels = [label_of(row) for row in rows]
    verdicts_a, verdicts_b = [row.label_a for row in rows], [row.label_b for row in rows]
    table_a = _table([row.probabilities_a for row in rows], classes)
    table_b = _table([row.probabilities_b for row in rows], classes)
    names = [unit_name(row.leak_group_id, row.cell_id) for row in rows]
    unit, units = numbered(names)
    apart = not shared_patients and all(row.subject is not None for row in rows)
    return Judged(
        a=evaluate(labels, table_a, classes, verdicts_a),
        b=evaluate(labels, table_b, classes, verdicts_b),
        new_patient_a=_expected(labels, verdicts_a, names) if apart else None,
        new_patient_b=_expected(labels, verdicts_b, names) if apart else None,
        mcnemar=_mcnemar(labels, verdicts_a, verdicts_b),
        differences=differences(
            sample(labels, table_a, classes, unit, units, verdicts_a),
            sample(labels, table_b, classes, unit, units, verdicts_b),
        ),
    )


def _expected(labels: list[str], verdicts: list[str], units: list[str]) -> NewPatient | None:
    return new_patient([said == label for said, label in zip(verdicts, labels, strict=True)], units)


def _table(probabilities: list[dict[str, float]], classes: list[str]) -> list[list[float]]:
    return [[cell.get(name, 0.0) for name in classes] for cell in probabilities]


def _mcnemar(labels: list[str], verdicts_a: list[str], verdicts_b: list[str]) -> McNemar:
    from scipy.stats import binomtest

    right = Counter(
        (a == label, b == label) for label, a, b in zip(labels, verdicts_a, verdicts_b, strict=True)
    )
    only_a, only_b = right[True, False], right[False, True]
    p_value = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a_right=only_a, only_b_right=only_b, p_value=p_value)


def _changed(rows: Sequence[Any]) -> list[ChangedCell]:
    fields = [name for name in ChangedCell.__dataclass_fields__ if name != "outcome"]
    changed = [
        ChangedCell(**{name: getattr(row, name) for name in fields}, outcome=_outcome(row))
        for row in rows
        if row.label_a != row.label_b
    ]
    return sorted(changed, key=lambda cell: (_OUTCOME_ORDER.index(cell.outcome), -cell.probability_b))


def _outcome(row: Any) -> Outcome:
    if row.current_label in NOT_CLASSES:
        return "not judged"
    if row.label_b == row.current_label:
        return "became right"
    return "became wrong" if row.label_a == row.current_label else "still wrong"
