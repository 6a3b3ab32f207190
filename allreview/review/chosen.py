"""Queues that a person chose: by a filter, or cell by cell.

What the model says of test cells never decides which of them are in such a queue, nor their order: they are read
blind.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from allreview.cells.browsing import Filters, Sort, page_of_cells, rows_of_cells
from allreview.cells.cell_query import CellRow
from allreview.cells.naming import class_title
from allreview.review.queues import QueueEntry
from allreview.wording import listed, percent, plural

LIMIT = 2_000
"""The most cells of one worklist."""
STRATEGY = "filter"
LONGEST_NAME = 200

_PARTS = {"train": "training", "validation": "validation", "test": "test"}
_NAMED_SUBJECTS = 3


def entries_of_filter(
    session: Session, dataset_id: int, filters: Filters, sort: Sort, *, limit: int = LIMIT
) -> list[QueueEntry]:
    """The cells that the filters let through, in the order asked for, at most `limit`."""
    rows = page_of_cells(session, dataset_id, blind(filters), sort, 1, limit)
    return _entries(rows, name_in_words(filters))


def entries_of_cells(
    session: Session, cell_ids: Sequence[int], *, run_id: int | None = None, limit: int = LIMIT
) -> list[QueueEntry]:
    """These cells, in the order they are named, at most `limit`.

    Args:
        run_id: the run that says which part each cell is in, or None.
    """
    return _entries(rows_of_cells(session, cell_ids[:limit], run_id=run_id), "Selected")


def blind(filters: Filters) -> Filters:
    """The same filters, read without what the run predicts of its test cells."""
    return replace(filters, test_predictions=False)


def name_in_words(filters: Filters) -> str:
    """What the filters ask for, as the name of a worklist.

    >>> name_in_words(Filters(labels=("hem",), subjects=("H3",), run_id=1, verdict="wrong"))
    'Normal (hem), subject H3, wrong predictions'
    >>> name_in_words(Filters())
    'All cells'
    """
    words = [
        " or ".join(class_title(label) for label in filters.labels),
        _subjects(filters.subjects),
        {"any": "", "labelled": "labelled here", "not labelled": "not labelled yet"}[filters.labelled],
        {"any": "", "changed": "label changed", "unchanged": "label unchanged"}[filters.relabelled],
        f"“{filters.text.strip()}”" if filters.text.strip() else "",
        *(_of_run(filters) if filters.run_id is not None else []),
    ]
    name = ", ".join(word for word in words if word) or "All cells"
    name = name[0].upper() + name[1:]
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _of_run(filters: Filters) -> list[str]:
    low, high = filters.confidence
    return [
        f"{listed([_PARTS[part] for part in filters.parts])} cells" if filters.parts else "",
        {"any": "", "right": "right predictions", "wrong": "wrong predictions"}[filters.verdict],
        f"certainty {percent(low)} to {percent(high)}" if (low, high) != (0.0, 1.0) else "",
    ]


def _subjects(names: Sequence[str]) -> str:
    if len(names) > _NAMED_SUBJECTS:
        return plural(len(names), "subject")
    return f"{'subject' if len(names) == 1 else 'subjects'} {listed(names)}" if names else ""


def _entries(rows: Sequence[CellRow], reason: str) -> list[QueueEntry]:
    return [
        QueueEntry(
            cell_id=row.cell_id,
            sha256=row.sha256,
            subject=row.subject,
            part=row.part or "",
            source_label=row.source_label,
            current_label=row.current_label,
            predicted=row.predicted or "",
            probability=row.probability or 0.0,
            probabilities={},
            reason=reason,
            path=row.path,
        )
        for row in rows
    ]
