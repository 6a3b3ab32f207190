"""What the log says now: the current label of a cell.

An annotation is in force when it gives a label and nothing takes it back. A cell's current label is that of its
last annotation in force, an adjudication outranking decisions; without one it is the source label.

The log is the truth. So that a million cells can be filtered by it, what stands is also kept beside each cell:
whoever adds to the log calls `keep_standing` in the same transaction, and `allreview check` compares the two.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from db.tables import Annotation, Cell

UNSURE = "unsure"
UNUSABLE = "unusable"
NOT_CLASSES = (UNSURE, UNUSABLE)
"""Decisions that name no class. Cells with one of these are left out of training."""

_AT_ONCE = 500


def in_force(annotation: type[Annotation] = Annotation) -> sa.ColumnElement[bool]:
    """True for annotations that stand: answers that were not taken back."""
    undo = aliased(Annotation)
    return sa.and_(annotation.label.is_not(None), ~sa.exists().where(undo.undoes_id == annotation.id))


def adjudicates(annotation: type[Annotation] = Annotation) -> sa.ColumnElement[bool]:
    """True for adjudications, also for one that was taken back and brought back."""
    first = aliased(Annotation)
    brought_back = sa.exists().where(first.id == annotation.redoes_id, first.kind == "adjudication")
    return sa.or_(annotation.kind == "adjudication", sa.and_(annotation.kind == "redo", brought_back))


def standing() -> sa.Subquery:
    """The one annotation that speaks for each annotated cell: columns `cell_id`, `label`, `annotation_id`.

    Join it to cells with an outer join and read the label with `current_label`.
    """
    columns = (
        Cell.id.label("cell_id"),
        Cell.current_label.label("label"),
        Cell.standing_id.label("annotation_id"),
    )
    return sa.select(*columns).where(Cell.standing_id.is_not(None)).subquery("standing")


def standing_by_the_log(which: sa.ColumnElement[bool] | None = None) -> sa.Subquery:
    """What `standing` says, worked out from the log; `which` restricts the annotations it looks at."""
    rank = sa.func.row_number().over(
        partition_by=Annotation.cell_id,
        order_by=(sa.case((adjudicates(), 0), else_=1), Annotation.sequence.desc()),
    )
    columns = (Annotation.cell_id, Annotation.label, Annotation.id.label("annotation_id"))
    answers = sa.select(*columns, rank.label("rank")).where(in_force())
    if which is not None:
        answers = answers.where(which)
    ranked = answers.subquery("ranked")
    return (
        sa.select(ranked.c.cell_id, ranked.c.label, ranked.c.annotation_id)
        .where(ranked.c.rank == 1)
        .subquery("standing_by_the_log")
    )


def keep_standing(session: Session, cell_ids: Iterable[int]) -> None:
    """Write beside these cells what their log says now. For whoever adds to it, in the same transaction."""
    session.flush()
    ids = sorted(set(cell_ids))
    for start in range(0, len(ids), _AT_ONCE):
        found = session.execute(_of_cells(), {"cells": ids[start : start + _AT_ONCE]}).all()
        session.execute(sa.update(Cell), [row._asdict() for row in found])


@lru_cache(maxsize=1)
def _of_cells() -> sa.Select[*tuple[Any, ...]]:
    # Built once: it stands behind every key at the reading desk.
    some = sa.bindparam("cells", expanding=True)
    now = standing_by_the_log(Annotation.cell_id.in_(some))
    return (
        sa.select(
            Cell.id, now.c.annotation_id.label("standing_id"), current_label(now).label("current_label")
        )
        .outerjoin(now, now.c.cell_id == Cell.id)
        .where(Cell.id.in_(some))
    )


def wrongly_kept(session: Session) -> list[int]:
    """Cells beside which something else is kept than their log says. There should be none."""
    now = standing_by_the_log()
    differs = sa.or_(
        Cell.standing_id.is_distinct_from(now.c.annotation_id),
        Cell.current_label != current_label(now),
    )
    query = sa.select(Cell.id).outerjoin(now, now.c.cell_id == Cell.id).where(differs).order_by(Cell.id)
    return list(session.scalars(query))


def current_label(standing_annotation: sa.Subquery) -> sa.ColumnElement[str]:
    """The current label of the cell in the row: the standing annotation's, else the source label."""
    return sa.func.coalesce(standing_annotation.c.label, Cell.source_label)
