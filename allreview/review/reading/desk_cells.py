"""The cell on the desk with what its reader may see of it: nothing hidden leaves this module."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.labels import in_force
from allreview.review.log.events import Event, events_of
from allreview.review.reading import claims
from allreview.review.reading.blinding import HIDEABLE, hidden_of, shows_reason
from db.tables import (
    Annotation,
    Cell,
    CellFile,
    Claim,
    Prediction,
    ReviewSession,
    Subject,
    Worklist,
    WorklistItem,
)


@dataclass(frozen=True)
class DeskCell:
    """The cell on the desk with all that may be shown beside it: what is `hidden` is empty here.

    `last_event_id` is the last event the reviewer may know of: of their own only, where others' answers are
    hidden. `repeat` must not be shown. `draft_reason` and `draft_comment` were written beside the cell before.
    """

    cell_id: int
    position: int
    sha256: str
    path: str
    subject_id: int | None
    subject: str | None
    part: str | None
    source_label: str | None
    predicted: str | None
    probability: float | None
    reason: str
    last_event_id: int | None
    control: bool = False
    repeat: bool = False
    hidden: frozenset[str] = frozenset()
    draft_reason: str | None = None
    draft_comment: str | None = None
    visible: tuple[str, ...] = field(default=())

    @property
    def blind(self) -> bool:
        """Whether the model's opinion is hidden."""
        return "prediction" in self.hidden

    def shows(self, what: str) -> bool:
        """Whether this may be shown, of `allreview.review.reading.blinding.HIDEABLE`."""
        return what not in self.hidden


def desk_cells(
    session: Session, sitting: ReviewSession, worklist: Worklist, places: Iterable[claims.Place]
) -> list[DeskCell]:
    """The cells at these places of a worklist, in their order, as the sitting's reviewer may see them."""
    wanted = list(places)
    ids = [place.cell_id for place in wanted]
    values = {
        "cells": ids,
        "worklist": worklist.id,
        "run": worklist.run_id,
        "sitting": sitting.id,
        "reviewer": sitting.reviewer_id,
    }
    repeats = {place.cell_id: place.repeat for place in wanted}
    found = {
        row[0].id: _shown(row, worklist, repeat=repeats[row[0].id])
        for row in session.execute(_desk_query(), values)
    }
    return [found[cell_id] for cell_id in ids]


def answers_of_others(session: Session, cell: DeskCell, reviewer_id: int) -> list[Event]:
    """What other reviewers said of the cell and still say, oldest first; empty where that is hidden."""
    if not cell.shows("others"):
        return []
    query = sa.select(Annotation).where(
        Annotation.cell_id == cell.cell_id, Annotation.reviewer_id != reviewer_id, in_force()
    )
    return events_of(session, session.scalars(query.order_by(Annotation.id)).all())


def subject_strip(session: Session, cell: DeskCell, count: int = 10) -> list[tuple[str, str]]:
    """(SHA-256, path) of up to `count` other cells of the subject, nearest in import order first."""
    if cell.subject_id is None:
        return []
    distance = sa.func.abs(Cell.id - cell.cell_id)
    query = (
        sa.select(Cell.sha256, sa.func.min(CellFile.path))
        .join(CellFile, CellFile.cell_id == Cell.id)
        .where(Cell.subject_id == cell.subject_id, Cell.id != cell.cell_id)
        .group_by(Cell.id, Cell.sha256)
        .order_by(distance, Cell.id)
        .limit(count)
    )
    return [(sha, path) for sha, path in session.execute(query)]


@cache
def _desk_query() -> sa.Select[*tuple[Any, ...]]:
    """Cells with all that may be shown of them, put together once."""
    first_file = sa.select(sa.func.min(CellFile.path)).where(CellFile.cell_id == Cell.id)
    last = sa.select(sa.func.max(Annotation.id)).where(Annotation.cell_id == Cell.id)
    own_last = last.where(Annotation.reviewer_id == sa.bindparam("reviewer"))
    return (
        sa.select(
            Cell,
            first_file.correlate(Cell).scalar_subquery(),
            Subject.name,
            WorklistItem,
            Prediction,
            Claim,
            last.correlate(Cell).scalar_subquery(),
            own_last.correlate(Cell).scalar_subquery(),
        )
        .select_from(Cell)
        .join(
            WorklistItem,
            sa.and_(WorklistItem.cell_id == Cell.id, WorklistItem.worklist_id == sa.bindparam("worklist")),
        )
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(
            Prediction, sa.and_(Prediction.cell_id == Cell.id, Prediction.run_id == sa.bindparam("run"))
        )
        .outerjoin(Claim, sa.and_(Claim.cell_id == Cell.id, Claim.session_id == sa.bindparam("sitting")))
        .where(Cell.id.in_(sa.bindparam("cells", expanding=True)))
    )


def _shown(row: sa.Row[*tuple[Any, ...]], worklist: Worklist, *, repeat: bool) -> DeskCell:
    """The cell as the reader may see it: what is hidden never leaves this module."""
    cell, path, subject, item, prediction, claim, last, own_last = row
    hidden = hidden_of(worklist.hidden, item.part, adjudicates=worklist.adjudicates)
    opinion = prediction if "prediction" not in hidden else None
    absent = set() if prediction else {"prediction"}
    return DeskCell(
        cell_id=cell.id,
        position=item.position,
        sha256=cell.sha256,
        path=path or "",
        subject_id=cell.subject_id if "subject" not in hidden else None,
        subject=subject if "subject" not in hidden else None,
        part=item.part,
        source_label=cell.source_label if "source_label" not in hidden else None,
        predicted=opinion.label if opinion else None,
        probability=opinion.probability if opinion else None,
        reason=item.reason if shows_reason(hidden) else "",
        last_event_id=own_last if "others" in hidden else last,
        control=item.control,
        repeat=repeat,
        hidden=hidden,
        draft_reason=claim.reason if claim else None,
        draft_comment=claim.comment if claim else None,
        visible=tuple(what for what in HIDEABLE if what not in hidden and what not in absent),
    )
