"""What readers said of cells: the answers in force, one for each reader and cell."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from allreview.evaluation.stored import unit_name
from allreview.labels import NOT_CLASSES, adjudicates, in_force
from allreview.review.log.events import slices
from db.tables import Annotation, Cell, Reviewer, ReviewSession, Subject, WorklistItem


@dataclass(frozen=True)
class Reading:
    """One answer of one reader to one cell.

    `repeat` marks the answer to a cell that the reader was given again. The reader of an answer that was taken back
    and brought back is who gave it first. An answer is `independent` when other reviewers' answers were hidden, or
    when nobody else had answered yet. `visible` lists what could be seen of
    `allreview.review.reading.blinding.HIDEABLE`; None where that was not recorded. An `adjudication` decides between
    readers and is none of their readings.
    """

    cell_id: int
    reviewer_id: int
    reviewer: str
    label: str
    repeat: bool = False
    independent: bool = True
    adjudication: bool = False
    visible: tuple[str, ...] | None = None
    created_at: datetime | None = None
    annotation_id: int = 0


def readings(session: Session, *, dataset_id: int, worklist_id: int | None = None) -> list[Reading]:
    """The answers in force, by cell and in the order they were given.

    Of each reader and cell these are the last answer and the last repeated one; of each cell the last adjudication.
    With a worklist only answers given in its sittings count, and adjudications of its cells wherever they were made.
    """
    origin, earlier = aliased(Annotation), aliased(Annotation)
    somebody_before = (
        sa.exists()
        .where(
            earlier.cell_id == origin.cell_id,
            earlier.sequence < origin.sequence,
            earlier.reviewer_id != origin.reviewer_id,
        )
        .correlate(origin)
    )
    query = (
        sa.select(
            Annotation.cell_id,
            origin.reviewer_id,
            Reviewer.name,
            sa.type_coerce(Annotation.label, sa.String).label("label"),
            Annotation.repeat,
            ~somebody_before,
            adjudicates().label("adjudication"),
            Annotation.visible,
            Annotation.created_at,
            Annotation.id,
        )
        .join(Cell, Cell.id == Annotation.cell_id)
        .join(origin, origin.id == sa.func.coalesce(Annotation.redoes_id, Annotation.id))
        .join(Reviewer, Reviewer.id == origin.reviewer_id)
        .where(Cell.dataset_id == dataset_id, in_force())
        .order_by(Annotation.cell_id, Annotation.sequence)
    )
    if worklist_id is not None:
        query = query.where(_belongs_to(worklist_id))
    last: dict[tuple[object, ...], Reading] = {}
    for (
        cell,
        reader,
        name,
        label,
        repeat,
        first,
        adjudication,
        visible,
        created_at,
        number,
    ) in session.execute(query):
        key = (cell, "adjudication") if adjudication else (cell, reader, repeat)
        last.pop(key, None)  # the later answer takes its place in the order too
        last[key] = Reading(
            cell_id=cell,
            reviewer_id=reader,
            reviewer=name,
            label=label,
            repeat=repeat,
            independent=first or (visible is not None and "others" not in visible),
            adjudication=bool(adjudication),
            visible=None if visible is None else tuple(visible),
            created_at=created_at,
            annotation_id=number,
        )
    return list(last.values())


def _belongs_to(worklist_id: int) -> sa.ColumnElement[bool]:
    in_its_sittings = Annotation.session_id.in_(
        sa.select(ReviewSession.id).where(ReviewSession.worklist_id == worklist_id)
    )
    of_its_cells = Annotation.cell_id.in_(
        sa.select(WorklistItem.cell_id).where(WorklistItem.worklist_id == worklist_id)
    )
    return sa.or_(in_its_sittings, sa.and_(adjudicates(), of_its_cells))


def own_answers(
    readings: Iterable[Reading], *, with_dependent: bool = False, classes_only: bool = False
) -> list[Reading]:
    """The readers' answers without adjudications and repeats.

    Args:
        with_dependent: also those given while others' answers could be seen.
        classes_only: leave out *unsure* and *unusable*.
    """
    return [
        reading
        for reading in readings
        if not reading.adjudication
        and not reading.repeat
        and (with_dependent or reading.independent)
        and not (classes_only and reading.label in NOT_CLASSES)
    ]


def by_cell(readings: Iterable[Reading]) -> dict[int, dict[str, str]]:
    """What each reader said of each cell, by their names."""
    found: dict[int, dict[str, str]] = {}
    for reading in readings:
        found.setdefault(reading.cell_id, {})[reading.reviewer] = reading.label
    return found


def units_of(session: Session, cell_ids: Iterable[int]) -> dict[int, str]:
    """What intervals resample, for each cell: its leak group, else the cell alone."""
    found: dict[int, str] = {}
    ids: Sequence[int] = sorted(set(cell_ids))
    for some in slices(ids):
        query = sa.select(Cell.id, Subject.leak_group_id).outerjoin(Subject, Subject.id == Cell.subject_id)
        found.update(
            (cell, unit_name(group, cell)) for cell, group in session.execute(query.where(Cell.id.in_(some)))
        )
    return found
