"""How many cells there are, counted once for each state of the store and not at every look.

A count over a million cells takes up to some seconds, a page of them milliseconds. So whoever draws a page is told
what is known, and large counts go on behind it. What was counted holds until cells, decisions or predictions come;
for the rare change that these do not show, at most for a minute.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.cells.browsing import Filters, count_cells
from allreview.cells.summaries import Counts, counts
from db.tables import Annotation, Cell, Run

AT_ONCE = 20_000
"""Cells. A dataset of no more is counted on the spot."""
_SECONDS = 60.0
_REMEMBERED = 128
_LATE = 1_000
"""Of so many last events it is noticed when one with a smaller number is committed later, as PostgreSQL allows."""

_Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Found:
    """How many cells; None while nothing is known. While `counting`, the number is of some time ago."""

    number: int | None
    counting: bool = False


@dataclass(frozen=True)
class _Entry:
    marker: Hashable
    at: float
    value: Any


_entries: OrderedDict[_Key, _Entry] = OrderedDict()
_under_way: set[_Key] = set()
_lock = threading.Lock()
_one_at_a_time = threading.Lock()


def found_cells(engine: sa.Engine, dataset_id: int, filters: Filters) -> Found:
    """How many cells the filters let through, as far as that is known by now."""
    key = (str(engine.url), dataset_id, filters)
    with db.reading(engine) as session:
        marker = _marker(session, filters.run_id)
        entry = _entries.get(key)
        if entry is not None and _holds(entry, marker):
            return Found(entry.value)
        some = sa.select(Cell.id).where(Cell.dataset_id == dataset_id).limit(AT_ONCE + 1)
        if len(session.scalars(some).all()) <= AT_ONCE:
            return Found(_remember(key, marker, count_cells(session, dataset_id, filters)))
    _count_behind(key, marker, engine, dataset_id, filters)
    return Found(entry.value if entry is not None else None, counting=True)


def counts_of(engine: sa.Engine, dataset_id: int, run_id: int | None) -> Counts:
    """`counts`, counted again only when something has changed."""
    key = (str(engine.url), dataset_id, "counts", run_id)
    with db.reading(engine) as session:
        marker = _marker(session, run_id)
        entry = _entries.get(key)
        if entry is not None and _holds(entry, marker):
            return entry.value
        return _remember(key, marker, counts(session, dataset_id, run_id))


def _holds(entry: _Entry, marker: Hashable) -> bool:
    return entry.marker == marker and time.monotonic() - entry.at < _SECONDS


def _remember(key: _Key, marker: Hashable, value: Any) -> Any:
    with _lock:
        _entries[key] = _Entry(marker, time.monotonic(), value)
        _entries.move_to_end(key)
        while len(_entries) > _REMEMBERED:
            _entries.popitem(last=False)
    return value


def _count_behind(key: _Key, marker: Hashable, engine: sa.Engine, dataset_id: int, filters: Filters) -> None:
    with _lock:
        if key in _under_way:
            return
        _under_way.add(key)

    def count() -> None:
        try:
            with _one_at_a_time, db.reading(engine) as session:
                _remember(key, marker, count_cells(session, dataset_id, filters))
        except Exception:
            logging.getLogger(__name__).exception("counting failed")
            _remember(key, marker, None)
        finally:
            with _lock:
                _under_way.discard(key)

    _in_background(count)


def _in_background(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="counting", daemon=True).start()


def _marker(session: Session, run_id: int | None) -> Hashable:
    """Something that changes when cells, decisions or the run's predictions do."""
    last = session.scalar(sa.select(sa.func.max(Annotation.id))) or 0
    late = sa.select(sa.func.count()).where(Annotation.id > last - _LATE)
    run = sa.select(Run.state, Run.finished_at).where(Run.id == run_id)
    return (
        session.scalar(sa.select(sa.func.max(Cell.id))),
        last,
        session.scalar(late),
        None if run_id is None else tuple(session.execute(run).one_or_none() or ()),
    )
