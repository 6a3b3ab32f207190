"""Cells by a piece of text: in a file's name, in a subject's name, an id, or the beginning of a SHA-256.

A piece of text may stand anywhere in a name, so every name of the dataset is looked at, in an index that holds little
else: 0.2 s for a million. What was found is remembered for a while, for the pages that follow.
"""

import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from allreview.cells.finding import is_id, is_sha_prefix
from db.tables import Cell, CellFile, Subject

MOST = 50_000
"""Cells. Where more are mentioned, they are no longer gathered: whoever walks meets them soon enough."""
_REMEMBERED = 8
_SECONDS = 60.0
_IN_WORDS = 500

_found: OrderedDict[tuple[Any, ...], tuple[float, "array[int] | None"]] = OrderedDict()
_lock = threading.Lock()


def mentioned(session: Session, dataset_id: int, text: str) -> set[int] | None:
    """The ids of the dataset's cells that the text is about; None when there are more than `MOST`."""
    text = _cleaned(text)
    named = _in_file_names(session, dataset_id, text)
    if named is None:
        return None
    subjects = _subjects(session, dataset_id, text)
    other: list[sa.ColumnElement[bool]] = [Cell.subject_id.in_(subjects)] if subjects else []
    if is_id(text):
        other.append(Cell.id == int(text))
    if is_sha_prefix(text):
        other.append(Cell.sha256.startswith(text.lower()))
    found = set(named)
    for condition in other:  # one by one: each has an index
        some = sa.select(Cell.id).where(Cell.dataset_id == dataset_id, condition).limit(MOST + 1)
        found.update(session.scalars(some))
    return found if len(found) <= MOST else None


def mentions(session: Session, dataset_id: int, text: str) -> sa.ColumnElement[bool]:
    """The same as a condition that is tried cell by cell, for texts that many cells mention."""
    text = _cleaned(text)
    in_a_name = sa.exists().where(CellFile.cell_id == Cell.id, _in_name(text)).correlate(Cell)
    found: list[sa.ColumnElement[bool]] = [in_a_name]
    subjects = _subjects(session, dataset_id, text)
    if subjects:
        found.append(Cell.subject_id.in_(subjects))
    if is_id(text):
        found.append(Cell.id == int(text))
    if is_sha_prefix(text):
        found.append(Cell.sha256.startswith(text.lower()))
    return sa.or_(*found)


def among(session: Session, column: Any, ids: Iterable[int]) -> sa.ColumnElement[bool]:
    """Whether the column is one of so many ids: as one value, since stores limit how many a statement may have."""
    listed = sorted(ids)
    if len(listed) <= _IN_WORDS:
        return column.in_(listed)
    if session.get_bind().dialect.name == "postgresql":
        given = sa.literal(listed, postgresql.ARRAY(sa.Integer))
        return column.in_(sa.select(sa.func.unnest(given).column_valued("id")))
    given = sa.func.json_each(str(listed)).table_valued(sa.column("value", sa.Integer))
    return column.in_(sa.select(given.c.value))


def _in_file_names(session: Session, dataset_id: int, text: str) -> "array[int] | None":
    last = session.scalar(sa.select(sa.func.max(CellFile.id)))
    key = (str(session.get_bind().engine.url), dataset_id, text, last)
    with _lock:
        remembered = _found.get(key)
    if remembered is not None and time.monotonic() - remembered[0] < _SECONDS:
        return remembered[1]
    names = sa.select(CellFile.cell_id).where(CellFile.dataset_id == dataset_id, _in_name(text))
    ids = array("q", session.scalars(names.limit(MOST + 1)))
    found = ids if len(ids) <= MOST else None
    with _lock:
        _found[key] = time.monotonic(), found
        while len(_found) > _REMEMBERED:
            _found.popitem(last=False)
    return found


def _subjects(session: Session, dataset_id: int, text: str) -> list[int]:
    named = Subject.dataset_id == dataset_id, Subject.name.icontains(text, autoescape=True)
    return list(session.scalars(sa.select(Subject.id).where(*named)))


def _in_name(text: str) -> sa.ColumnElement[bool]:
    return CellFile.name.contains(text.lower(), autoescape=True)


def _cleaned(text: str) -> str:
    # PostgreSQL takes no NUL in text, and no id above its range.
    return text.strip().replace("\0", "")
