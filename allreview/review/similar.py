"""Cells that look like a cell, by the neighbours the worker stored."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.labels import current_label, standing
from allreview.review import rankings
from allreview.settings import Settings
from db.tables import Cell, CellFile, Run, SnapshotCell, Subject


@dataclass(frozen=True)
class SimilarCell:
    """A neighbour of a cell. `similarity` is the cosine of their features: 1 for what looks the same."""

    cell_id: int
    sha256: str
    path: str
    subject: str | None
    current_label: str
    source_label: str
    part: str
    similarity: float


def similar_cells(
    session: Session, settings: Settings, run_id: int, cell_id: int, count: int = 8
) -> list[SimilarCell]:
    """The cells most like this one, the most similar first; none where the run has no neighbours of it."""
    run, cell = session.get(Run, run_id), session.get(Cell, cell_id)
    near = rankings.neighbours(settings, run_id)
    if run is None or cell is None or near is None or cell.sha256 not in near.sha256:
        return []
    place = near.sha256.index(cell.sha256)
    alike = {
        near.sha256[position]: float(similarity)
        for position, similarity in zip(
            near.positions[place, :count], near.similarities[place, :count], strict=True
        )
    }
    now = standing()
    first_file = (
        sa.select(sa.func.min(CellFile.path))
        .where(CellFile.cell_id == Cell.id)
        .correlate(Cell)
        .scalar_subquery()
    )
    query = (
        sa.select(
            Cell.id,
            Cell.sha256,
            first_file,
            Subject.name,
            current_label(now),
            Cell.source_label,
            SnapshotCell.part,
        )
        .join(SnapshotCell, SnapshotCell.cell_id == Cell.id)
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(now, now.c.cell_id == Cell.id)
        .where(SnapshotCell.snapshot_id == run.snapshot_id, Cell.sha256.in_(alike))
    )
    found = [SimilarCell(*row, similarity=alike[row.sha256]) for row in session.execute(query)]
    return sorted(found, key=lambda other: (-other.similarity, other.cell_id))
