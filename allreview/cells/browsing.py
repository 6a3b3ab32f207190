"""Looking at cells: pages, counts, and finding one cell by what a person types.

The part of a cell and its prediction come from the run that is asked about (`Filters.run_id`); without a run there
is neither.

Test cells are read blind: unless `Filters.test_predictions` is set, what the run predicts of its own test
cells is absent from the rows, and from filtering and sorting too, which would give it away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.orm import Session

from allreview.cells.cell_query import CellQuery, CellRow, Filters, Sort, with_paths
from allreview.cells.details import CellDetail, LogEntry, RunPrediction, cell_detail
from allreview.cells.finding import find_cell
from allreview.cells.summaries import Counts, counts
from allreview.cells.walking import Place, Walk
from db.tables import Cell

__all__ = [
    "CellDetail",
    "CellRow",
    "Counts",
    "Filters",
    "LogEntry",
    "Page",
    "Place",
    "RunPrediction",
    "Sort",
    "cell_detail",
    "cells_from",
    "count_cells",
    "counts",
    "find_cell",
    "ids_of_cells",
    "page_of_cells",
    "rows_of_cells",
]

_AT_ONCE = 500
"""Ids in one query: stores limit how many values a statement may name."""


@dataclass(frozen=True)
class Page:
    """Some cells that follow each other, and the places of the first and the last; both None without cells."""

    rows: list[CellRow]
    first: Place | None
    last: Place | None


def count_cells(session: Session, dataset_id: int, filters: Filters, *, limit: int | None = None) -> int:
    """How many cells of the dataset the filters let through; counting ends at `limit`."""
    return Walk(session, dataset_id, filters).count(limit)


def page_of_cells(
    session: Session, dataset_id: int, filters: Filters, sort: Sort, page: int, per_page: int
) -> list[CellRow]:
    """The cells of one page; pages count from 1, and one after the last is empty.

    The page is found by counting from the first cell: who turns pages one by one asks `cells_from`.
    """
    skip = (max(page, 1) - 1) * per_page
    return cells_from(session, dataset_id, filters, sort, None, per_page, skip=skip).rows


def cells_from(
    session: Session,
    dataset_id: int,
    filters: Filters,
    sort: Sort,
    place: Place | None,
    limit: int,
    *,
    direction: Literal["at", "after", "before"] = "after",
    skip: int = 0,
) -> Page:
    """The next `limit` cells from a place on, in the order asked for.

    Args:
        place: where another page began or ended; None is before the first cell, and for `before` after the last.
        direction: `at` begins with the cell of the place, `after` with the one that follows; `before` ends with the
            one that comes before it.
        skip: cells to leave out in between.
    """
    walk = Walk(session, dataset_id, filters, sort)
    if direction == "before":
        places = walk.before(place, limit, skip)
    else:
        places = walk.after(place, limit, skip, including=direction == "at")
    ids = [each.cell_id for each in places]
    rows = rows_of_cells(session, ids, run_id=filters.run_id, test_predictions=filters.test_predictions)
    return Page(rows, places[0], places[-1]) if places else Page([], None, None)


def ids_of_cells(session: Session, dataset_id: int, filters: Filters) -> set[int]:
    """All cells that the filters let through."""
    return Walk(session, dataset_id, filters).ids()


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
