"""What can be asked about cells, and what is said of each: subject, current label, part and prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.labels import NOT_CLASSES
from db.tables import Cell, CellFile, Prediction, Run, SnapshotCell, Subject


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which cells to show; what is left at its default does not restrict.

    `parts`, `verdict` and `confidence` (both ends included) need `run_id`. `verdict` compares the run's
    prediction with the current label, and is neither right nor wrong for *unsure* and *unusable* cells. `text` is
    looked for in the names of subjects and files, and may be an id or the beginning of a SHA-256.
    """

    labels: tuple[str, ...] = ()
    relabelled: Literal["any", "changed", "unchanged"] = "any"
    labelled: Literal["any", "labelled", "not labelled"] = "any"
    subjects: tuple[str, ...] = ()
    run_id: int | None = None
    parts: tuple[str, ...] = ()
    verdict: Literal["any", "right", "wrong"] = "any"
    confidence: tuple[float, float] = (0.0, 1.0)
    text: str = ""
    test_predictions: bool = False


class Sort(StrEnum):
    """In which order to show cells; the cell's id decides between equals.

    Cells without a subject, a prediction that may be seen, or a standing label come after all others, by their id.
    """

    IMPORTED = "imported"
    SUBJECT = "subject"
    MOST_CONFIDENT = "most confident"
    LEAST_CONFIDENT = "least confident"
    LAST_LABELLED = "last labelled"


@dataclass(frozen=True)
class CellRow:
    """One cell as a gallery shows it. `path` is its first file; `probability` is that of `predicted`."""

    cell_id: int
    sha256: str
    path: str
    subject: str | None
    source_label: str
    current_label: str
    part: str | None
    predicted: str | None
    probability: float | None

    @property
    def relabelled(self) -> bool:
        """Whether the current label differs from the source label."""
        return self.current_label != self.source_label

    @property
    def wrong(self) -> bool:
        """Whether the run predicts another class than the current label."""
        return (
            self.predicted is not None
            and self.current_label not in NOT_CLASSES
            and self.predicted != self.current_label
        )


class CellQuery:
    """The joined tables of one question: cells, subjects, part and prediction."""

    def __init__(self, run_id: int | None = None, *, test_predictions: bool = False) -> None:
        part: sa.SQLColumnExpression[Any] = sa.null()
        predicted: sa.SQLColumnExpression[Any] = sa.null()
        probability: sa.SQLColumnExpression[Any] = sa.null()
        source = sa.join(Cell, Subject, Cell.subject_id == Subject.id, isouter=True)
        if run_id is not None:
            snapshot = sa.select(Run.snapshot_id).where(Run.id == run_id).scalar_subquery()
            in_snapshot = sa.and_(SnapshotCell.cell_id == Cell.id, SnapshotCell.snapshot_id == snapshot)
            predicts = sa.and_(Prediction.cell_id == Cell.id, Prediction.run_id == run_id)
            if not test_predictions:
                predicts = sa.and_(predicts, sa.func.coalesce(SnapshotCell.part, "") != "test")
            source = source.join(SnapshotCell, in_snapshot, isouter=True)
            source = source.join(Prediction, predicts, isouter=True)
            part, predicted, probability = SnapshotCell.part, Prediction.label, Prediction.probability
        self.source, self.part, self.predicted, self.probability = source, part, predicted, probability

    def rows(self) -> sa.Select[*tuple[Any, ...]]:
        """The columns of a `CellRow` but its path."""
        return sa.select(
            Cell.id.label("cell_id"),
            Cell.sha256,
            Subject.name.label("subject"),
            Cell.source_label,
            Cell.current_label,
            self.part.label("part"),
            self.predicted.label("predicted"),
            self.probability.label("probability"),
        ).select_from(self.source)


def with_paths(session: Session, rows: Sequence[sa.Row[Any]]) -> list[CellRow]:
    """Rows of `CellQuery.rows`, each with the path of the cell's first file."""
    # Looked up for one page of cells only: as a column it would be worked out for every cell sorted.
    ids = [row.cell_id for row in rows]
    first = sa.select(sa.func.min(CellFile.id)).where(CellFile.cell_id.in_(ids)).group_by(CellFile.cell_id)
    found = session.execute(sa.select(CellFile.cell_id, CellFile.path).where(CellFile.id.in_(first))).all()
    paths = {row.cell_id: row.path for row in found}
    return [CellRow(path=paths.get(row.cell_id, ""), **row._asdict()) for row in rows]
