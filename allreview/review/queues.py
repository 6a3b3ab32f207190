"""What to look at next, and why.

A strategy is a function from a run's judged cells to scores in [0, 1] (low is suspicious) with a reason in
words, registered under its name. Cells that were decided already are left out unless asked for.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.cells.naming import class_title
from allreview.errors import UserError
from allreview.labels import NOT_CLASSES, current_label, standing
from allreview.wording import percent
from db.tables import PARTS, Cell, CellFile, Prediction, Run, SnapshotCell, Subject


@dataclass(frozen=True)
class QueueEntry:
    """One cell of a queue. `score` in [0, 1]: the lower, the more it deserves a look."""

    cell_id: int
    sha256: str
    subject: str | None
    part: str
    source_label: str
    current_label: str
    predicted: str
    probability: float
    probabilities: dict[str, float]
    score: float = 1.0
    reason: str = ""
    path: str = ""


Strategy = Callable[[QueueEntry], QueueEntry | None]
STRATEGIES: dict[str, Strategy] = {}


def strategy(name: str) -> Callable[[Strategy], Strategy]:
    """Register a ranking strategy under `name`."""

    def register(function: Strategy) -> Strategy:
        STRATEGIES[name] = function
        return function

    return register


@strategy("misclassified")
def misclassified(entry: QueueEntry) -> QueueEntry | None:
    """Cells whose prediction differs from their label; the less the model believes the label, the earlier."""
    if entry.predicted == entry.current_label:
        return None
    reason = (
        f"The model says {class_title(entry.predicted)} with {percent(entry.probability)}, "
        f"the label says {class_title(entry.current_label)}."
    )
    return replace(entry, score=entry.probabilities.get(entry.current_label, 0.0), reason=reason)


@strategy("uncertain")
def uncertain(entry: QueueEntry) -> QueueEntry | None:
    """All cells, the smallest margin between the two most probable classes first."""
    first, second, *_ = [*sorted(entry.probabilities.items(), key=lambda item: -item[1]), ("", 0.0)]
    reason = f"The model wavers: {class_title(first[0])} {percent(first[1])}"
    reason += f", {class_title(second[0])} {percent(second[1])}." if second[0] else "."
    return replace(entry, score=first[1] - second[1], reason=reason)


def queue_of(
    session: Session,
    run_id: int,
    *,
    by: str = "misclassified",
    parts: Iterable[str] = PARTS,
    limit: int | None = None,
    include_decided: bool = False,
) -> list[QueueEntry]:
    """The run's cells in the order they deserve a look.

    Cells whose current label is unsure or unusable have nothing to disagree with and are left out.

    Raises:
        UserError: unknown strategy or run, or a run without predictions.
    """
    if by not in STRATEGIES:
        raise UserError(f"Unknown queue {by!r}. The queues are: {', '.join(sorted(STRATEGIES))}.")
    run = session.get(Run, run_id)
    if run is None:
        raise UserError(f"There is no run {run_id}.")
    if not session.scalar(sa.select(sa.exists().where(Prediction.run_id == run_id))):
        raise UserError(f"Run {run_id} has no predictions yet: its state is {run.state}.")
    rank = STRATEGIES[by]
    judged = _judged(session, run, tuple(parts), include_decided, differing=by == "misclassified")
    ranked = [entry for entry in map(rank, judged) if entry is not None]
    ranked.sort(key=lambda entry: (entry.score, entry.cell_id))
    return _with_paths(session, ranked[:limit])


def _judged(
    session: Session, run: Run, parts: tuple[str, ...], include_decided: bool, differing: bool
) -> list[QueueEntry]:
    now = standing()
    label = current_label(now)
    query = (
        sa.select(
            Cell.id,
            Cell.sha256,
            Subject.name,
            SnapshotCell.part,
            Cell.source_label,
            label,
            Prediction.label,
            Prediction.probability,
            Prediction.probabilities,
        )
        .join(Prediction, Prediction.cell_id == Cell.id)
        .join(
            SnapshotCell,
            sa.and_(SnapshotCell.cell_id == Cell.id, SnapshotCell.snapshot_id == run.snapshot_id),
        )
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(now, now.c.cell_id == Cell.id)
        .where(Prediction.run_id == run.id, SnapshotCell.part.in_(parts), label.not_in(NOT_CLASSES))
    )
    if differing:
        query = query.where(Prediction.label != label)
    if not include_decided:
        query = query.where(now.c.annotation_id.is_(None))
    return [QueueEntry(*row) for row in session.execute(query)]


def _with_paths(session: Session, entries: list[QueueEntry]) -> list[QueueEntry]:
    paths: dict[int, str] = {}
    ids = [entry.cell_id for entry in entries]
    for start in range(0, len(ids), 500):
        query = (
            sa.select(CellFile.cell_id, sa.func.min(CellFile.path))
            .where(CellFile.cell_id.in_(ids[start : start + 500]))
            .group_by(CellFile.cell_id)
        )
        paths.update((cell_id, path) for cell_id, path in session.execute(query))
    return [replace(entry, path=paths.get(entry.cell_id, "")) for entry in entries]
