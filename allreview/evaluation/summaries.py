"""The figures of a run that are kept with it, as JSON."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.evaluation.reports import Part, Report, company_report, run_report
from allreview.evaluation.stored import runs_of
from db import reading
from db.tables import PARTS, Run, SnapshotCell

WITH_INTERVALS: tuple[Part, ...] = ("validation", "test")
"""Training cells get no interval: how sure figures on cells that were learnt by heart are means nothing."""


def run_metrics(engine: sa.Engine, run_id: int) -> dict[str, Any]:
    """The run's figures on every part, from its stored predictions, and what its split shares.

    `{part: Scores on source labels, with those on current labels under "current"}`, and under `split`
    whether training and test share patients, and how many test cells are of patients that were trained on. Of the test
    part, `new_patient` says what to expect of a patient the model has never seen, and `in_company` has the figures of
    its cells read together with the others of their subject, None where that cannot be done.

    Raises:
        UserError: there is no such run, or it has no predictions.
    """
    with reading(engine) as session:
        (run,) = runs_of(session, [run_id])
        present = _parts(session, run_id)
    found: dict[str, Any] = {}
    for part in present:
        source, current = (run_report(engine, run_id, part, on) for on in ("source", "current"))
        found[part] = {**_scores(source), "current": _scores(current)}
    if "test" in found:
        together = company_report(engine, run_id)
        found["test"]["in_company"] = None if together is None else _scores(together)
    found["split"] = {
        "shares_patients": run.shares_patients,
        "test_cells_of_trained_subjects": run.shared_cells,
    }
    return found


def _parts(session: Session, run_id: int) -> list[Part]:
    """The parts that the run's snapshot has cells of; all where it has none, so that their lack is said."""
    query = (
        sa.select(SnapshotCell.part)
        .join(Run, Run.snapshot_id == SnapshotCell.snapshot_id)
        .where(Run.id == run_id)
        .distinct()
    )
    present = set(session.scalars(query)) or PARTS
    return [part for part in PARTS if part in present]


def _scores(report: Report) -> dict[str, Any]:
    if report.part in WITH_INTERVALS:
        return {**report.scores, **({"new_patient": report.new_patient} if report.part == "test" else {})}
    scores: dict[str, Any] = {**report.figures}
    if report.uncalibrated is not None:
        scores["uncalibrated"] = report.uncalibrated
    return scores
