"""Looking at cells: filters, pages, counts, and finding one cell by what a person types.

Every question is a fixed number of queries, however many cells it is about. The part of a cell and its
prediction come from the run that is asked about (`Filters.run_id`); without a run there is neither.

Test cells are read blind: unless `Filters.test_predictions` is set, what the run predicts of its own test
cells is absent from the rows, and from filtering and sorting too, which would give it away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.cells.cell_query import CellQuery, CellRow, with_paths
from allreview.cells.details import CellDetail, LogEntry, RunPrediction, cell_detail
from allreview.cells.finding import find_cell, is_id, is_sha_prefix
from allreview.cells.summaries import Counts, counts
from allreview.labels import NOT_CLASSES
from db.tables import Cell, CellFile, Subject

__all__ = [
    "CellDetail",
    "CellRow",
    "Counts",
    "Filters",
    "LogEntry",
    "RunPrediction",
    "Sort",
    "cell_detail",
    "count_cells",
    "counts",
    "find_cell",
    "ids_of_cells",
    "page_of_cells",
    "rows_of_cells",
]

_AT_ONCE = 500
"""Ids in one query: stores limit how many values a statement may name."""


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which cells to show; what is left at its default does not restrict.

    `parts`, `verdict` and `confidence` (both ends included) need `run_id`. `verdict` compares the run's
    prediction with the current label, and is neither right nor wrong for *unsure* and *unusable* cells.
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
    """In which order to show cells; the cell's id decides between equals."""

    IMPORTED = "imported"
    SUBJECT = "subject"
    MOST_CONFIDENT = "most confident"
    LEAST_CONFIDENT = "least confident"
    LAST_LABELLED = "last labelled"


def count_cells(session: Session, dataset_id: int, filters: Filters) -> int:
    """How many cells of the dataset the filters let through."""
    query = CellQuery(filters.run_id, test_predictions=filters.test_predictions)
    where = _conditions(query, dataset_id, filters)
    return session.scalar(sa.select(sa.func.count()).select_from(query.source).where(*where)) or 0


def page_of_cells(
    session: Session, dataset_id: int, filters: Filters, sort: Sort, page: int, per_page: int
) -> list[CellRow]:
    """The cells of one page; pages count from 1, and one after the last is empty."""
    query = CellQuery(filters.run_id, test_predictions=filters.test_predictions)
    select = (
        query.rows()
        .where(*_conditions(query, dataset_id, filters))
        .order_by(*_order(query, sort))
        .limit(per_page)
        .offset((max(page, 1) - 1) * per_page)
    )
    return with_paths(session, session.execute(select).all())


def ids_of_cells(session: Session, dataset_id: int, filters: Filters) -> set[int]:
    """All cells that the filters let through."""
    query = CellQuery(filters.run_id, test_predictions=filters.test_predictions)
    where = _conditions(query, dataset_id, filters)
    return set(session.scalars(sa.select(Cell.id).select_from(query.source).where(*where)))


def rows_of_cells(
    session: Session, cell_ids: Sequence[int], *, run_id: int | None = None, test_predictions: bool = False
) -> list[CellRow]:
    """These cells, in the order they are named; one that does not exist is left out."""
    query = CellQuery(run_id, test_predictions=test_predictions)
    found: dict[int, CellRow] = {}
    for start in range(0, len(cell_ids), _AT_ONCE):
        some = query.rows().where(Cell.id.in_(cell_ids[start : start + _AT_ONCE]))
        found.update((row.cell_id, row) for row in with_paths(session, session.execute(some).all()))
    return [found[cell_id] for cell_id in cell_ids if cell_id in found]


def _conditions(query: CellQuery, dataset_id: int, filters: Filters) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = [Cell.dataset_id == dataset_id]
    if filters.labels:
        found.append(query.label.in_(filters.labels))
    if filters.relabelled != "any":
        changed = query.label != Cell.source_label
        found.append(changed if filters.relabelled == "changed" else ~changed)
    if filters.labelled != "any":
        given = query.standing.c.annotation_id
        found.append(given.is_not(None) if filters.labelled == "labelled" else given.is_(None))
    if filters.subjects:
        found.append(Subject.name.in_(filters.subjects))
    if filters.text.strip():
        found.append(_mentions(filters.text))
    if filters.run_id is not None:
        found += _run_conditions(query, filters)
    return found


def _run_conditions(query: CellQuery, filters: Filters) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if filters.parts:
        found.append(query.part.in_(filters.parts))
    if filters.verdict != "any":
        right = query.predicted == query.label
        found.append(right if filters.verdict == "right" else ~right)
        found.append(query.label.not_in(NOT_CLASSES))
    if filters.confidence != (0.0, 1.0):
        found.append(query.probability.between(*filters.confidence))
    return found


def _mentions(text: str) -> sa.ColumnElement[bool]:
    # PostgreSQL takes no NUL in text, and no id above its range.
    text = text.strip().replace("\0", "")
    in_a_path = sa.exists().where(CellFile.cell_id == Cell.id, CellFile.path.icontains(text, autoescape=True))
    found = [in_a_path, Subject.name.icontains(text, autoescape=True)]
    if is_id(text):
        found.append(Cell.id == int(text))
    if is_sha_prefix(text):
        found.append(Cell.sha256.startswith(text.lower()))
    return sa.or_(*found)


def _order(query: CellQuery, sort: Sort) -> list[sa.ColumnElement[Any]]:
    first: dict[Sort, list[sa.ColumnElement[Any]]] = {
        Sort.SUBJECT: [Subject.name.is_(None), Subject.name.asc()],
        Sort.LAST_LABELLED: [query.standing.c.annotation_id.desc().nulls_last()],
    }
    if query.has_run:
        first[Sort.MOST_CONFIDENT] = [query.probability.desc().nulls_last()]
        first[Sort.LEAST_CONFIDENT] = [query.probability.asc().nulls_last()]
    return [*first.get(sort, []), Cell.id.asc()]
