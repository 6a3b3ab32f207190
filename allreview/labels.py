"""What the log says now: the current label of a cell, as a query.

An annotation is in force when it gives a label and nothing takes it back. A cell's current label is that of its
last annotation in force, an adjudication outranking decisions; without one it is the source label.
"""

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from db.tables import Annotation, Cell

UNSURE = "unsure"
UNUSABLE = "unusable"
NOT_CLASSES = (UNSURE, UNUSABLE)
"""Decisions that name no class. Cells with one of these are left out of training."""


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
    rank = sa.func.row_number().over(
        partition_by=Annotation.cell_id,
        order_by=(sa.case((adjudicates(), 0), else_=1), Annotation.sequence.desc()),
    )
    ranked = (
        sa.select(
            Annotation.cell_id, Annotation.label, Annotation.id.label("annotation_id"), rank.label("rank")
        )
        .where(in_force())
        .subquery("ranked")
    )
    return (
        sa.select(ranked.c.cell_id, ranked.c.label, ranked.c.annotation_id)
        .where(ranked.c.rank == 1)
        .subquery("standing")
    )


def current_label(standing_annotation: sa.Subquery) -> sa.ColumnElement[str]:
    """The current label of the cell in the row: the standing annotation's, else the source label."""
    return sa.func.coalesce(standing_annotation.c.label, Cell.source_label)
