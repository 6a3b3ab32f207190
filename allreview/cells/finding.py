"""One cell, found by what a person types."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.errors import UserError
from db.tables import Cell, CellFile

LARGEST_ID = 2**31 - 1
SHORTEST_PREFIX = 6
SHOWN_CANDIDATES = 5


def is_id(text: str) -> bool:
    """Whether the text can be the id of a row, in the range every store takes."""
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= LARGEST_ID


def is_sha_prefix(text: str) -> bool:
    """Whether the text can be the beginning of a SHA-256."""
    return SHORTEST_PREFIX <= len(text) <= 64 and set(text.lower()) <= set("0123456789abcdef")


def find_cell(session: Session, text: str, dataset_id: int | None = None) -> Cell:
    """The one cell meant by `text`: an id, the first 6 or more digits of a SHA-256, or a file's path.

    A path may be given by its end (`fold_0/all/UID_1_1_1_all.bmp`). An id goes before a SHA-256.

    Raises:
        UserError: no cell is meant, or more than one.
    """
    text = text.strip().replace("\0", "")
    within = [Cell.dataset_id == dataset_id] if dataset_id is not None else []
    for condition in _meanings(text):
        found = session.scalars(
            sa.select(Cell).where(condition, *within).order_by(Cell.id).limit(SHOWN_CANDIDATES + 1)
        ).all()
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(f"{cell.id} ({cell.sha256[:10]})" for cell in found[:SHOWN_CANDIDATES])
            more = " and more" if len(found) > SHOWN_CANDIDATES else ""
            raise UserError(f"{text!r} means more than one cell: {shown}{more}; give the id of one of them.")
    raise UserError(
        f"No cell is known as {text!r}: give its id, the first {SHORTEST_PREFIX} or more digits of its "
        "SHA-256, or the path it was imported from."
    )


def _meanings(text: str) -> list[sa.ColumnElement[bool]]:
    """What the text may mean, the most likely first."""
    if not text:
        return []
    found: list[sa.ColumnElement[bool]] = []
    if is_id(text):
        found.append(Cell.id == int(text))
    if is_sha_prefix(text):
        found.append(Cell.sha256.startswith(text.lower()))
    ends = CellFile.path.endswith("/" + text.removeprefix("./").lstrip("/"), autoescape=True)
    for matches in (CellFile.path == text, ends):
        found.append(sa.exists().where(CellFile.cell_id == Cell.id, matches))
    return found
