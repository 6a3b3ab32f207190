"""The log, current labels and changes as CSV, for spreadsheets and statistics."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from allreview.cells.naming import shown
from allreview.review.record.changes import ChangedCell
from allreview.review.record.entries import Entry, Log, LogFilters

EVENT_COLUMNS = (
    "annotation", "when", "cell", "sha256", "path", "subject", "source_label", "kind", "label", "label_before",
    "label_after", "reviewer", "taken_back_by", "taken_back_at", "sitting", "worklist", "reason", "note", "visible",
    "visible_run", "repeat", "seconds", "batch",
)  # fmt: skip
LABEL_COLUMNS = ("cell", "sha256", "path", "subject", "source_label", "current_label", "reviewer", "when")
CHANGE_COLUMNS = ("cell", "sha256", "path", "subject", "part", "before", "after", "reviewer", "when")


def events_csv(log: Log, filters: LogFilters) -> bytes:
    """Every event the filters let through, newest first. Moments are UTC."""
    return _csv(EVENT_COLUMNS, map(_event, log.every(filters)))


def labels_csv(log: Log) -> bytes:
    """Each cell with its source label and its current label."""
    return _csv(LABEL_COLUMNS, ([row[name] for name in LABEL_COLUMNS] for row in log.current_labels()))


def changes_csv(cells: Iterable[ChangedCell]) -> bytes:
    """Cells that changed since a run."""
    return _csv(CHANGE_COLUMNS, map(_change, cells))


def _event(entry: Entry) -> Sequence[Any]:
    return (
        entry.id,
        entry.created_at,
        entry.cell_id,
        entry.sha256,
        entry.path,
        entry.subject,
        entry.source_label,
        entry.kind,
        entry.label,
        entry.change.before,
        entry.change.after,
        entry.reviewer,
        entry.taken_back_by,
        entry.taken_back_at,
        entry.session_id,
        entry.worklist,
        entry.reason,
        entry.comment,
        None if entry.visible is None else " ".join(entry.visible),
        entry.visible_run_id,
        int(entry.repeat),
        None if entry.duration_ms is None else entry.duration_ms / 1000,
        entry.batch,
    )


def _change(cell: ChangedCell) -> Sequence[Any]:
    return (
        cell.cell_id,
        cell.sha256,
        cell.path,
        cell.subject,
        cell.part,
        cell.before,
        cell.after,
        cell.reviewer,
        cell.changed_at,
    )


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    writer.writerows([_text(value) for value in row] for row in rows)
    return buffer.getvalue().encode()


def _text(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat(timespec="seconds")
    return shown(value) if isinstance(value, str) else value
