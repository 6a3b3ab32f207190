"""Events of the log in words, as plain text: pages and the command line say the same."""

from datetime import datetime

from allreview.cells.naming import class_title
from allreview.review.reading.blinding import HIDEABLE
from allreview.review.record.entries import Entry
from allreview.wording import listed, plural

KINDS = {
    "decision": "Decision",
    "adjudication": "Adjudication",
    "undo": "Undone",
    "redo": "Redone",
    "revert": "Reverted",
}
"""The kinds of events, as people call them."""


def what(entry: Entry) -> str:
    """What happened, without who did it: 'Normal (hem) → ALL', 'took back 34 answers of Ben'."""
    if entry.events > 1:
        return _of_batch(entry)
    if entry.kind in ("decision", "adjudication"):
        return ("adjudicated: " if entry.kind == "adjudication" else "") + _given(entry)
    verb = {"undo": "took back", "redo": "brought back", "revert": "reverted"}[entry.kind]
    return f"{verb} {_whose(entry)}{class_title(entry.answer_label or entry.label or '')}"


def outcome(entry: Entry) -> str | None:
    """What the cell's label became, where the event itself does not say it."""
    if entry.events > 1 or entry.change.after == entry.label:
        return None
    if entry.takes_back:
        again = "again " if entry.change.before != entry.change.after else "still "
        return f"The label is {again}{class_title(entry.change.after)}."
    return f"The label stays {class_title(entry.change.after)}, as adjudicated."


def seen(visible: list[str] | None, run_id: int | None) -> str:
    """What the reviewer could see beside the picture: 'Saw the model's opinion (run 3) and the subject'."""
    if visible is None:
        return (
            f"Saw the model's opinion (run {run_id})"
            if run_id is not None
            else "What was visible is not recorded"
        )
    named = []
    for name, words in HIDEABLE.items():
        if name in visible:
            named.append(f"{words} (run {run_id})" if name == "prediction" and run_id is not None else words)
    return f"Saw {listed(named)}" if named else "Saw the picture alone"


def state(entry: Entry) -> str | None:
    """What became of the event's answers, where they do not stand."""
    if entry.takes_back:
        return None
    if entry.events > 1:
        gone = entry.events - entry.standing
        return f"{gone:,} of them taken back" if gone and entry.standing else ("Taken back" if gone else None)
    return f"Taken back by {entry.taken_back_by}" if entry.taken_back_at is not None else None


def seconds(duration_ms: int | None) -> str | None:
    """How long an answer took: '0.8 s', '12 s', '3 min 05 s'."""
    if duration_ms is None:
        return None
    if duration_ms < 9_950:
        return f"{duration_ms / 1000:.1f} s"
    whole = round(duration_ms / 1000)
    return f"{whole} s" if whole < 60 else f"{whole // 60:,} min {whole % 60:02d} s"


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, both in the viewer's time zone: 'just now', '5 minutes ago', 'yesterday', '3 Nov 2025'."""
    passed = (now - moment).total_seconds()
    if passed < 60:
        return "just now"
    if passed < 3600:
        return f"{plural(int(passed // 60), 'minute')} ago"
    days = (now.date() - moment.date()).days
    if days == 0 or passed < 6 * 3600:
        return f"{plural(int(passed // 3600), 'hour')} ago"
    if days == 1:
        return "yesterday"
    return f"{days} days ago" if days <= 30 else f"{moment.day} {moment:%b %Y}"


def of_whom(answers_by: dict[str, int]) -> str:
    """'Ann', 'Ann (30) and Ben (4)': whose answers, with how many where there are several."""
    if len(answers_by) == 1:
        return next(iter(answers_by))
    return listed([f"{name} ({number:,})" for name, number in answers_by.items()])


def _of_batch(entry: Entry) -> str:
    if entry.kind in ("decision", "adjudication"):
        label = class_title(entry.label or "") if entry.labels == 1 else f"{entry.labels} labels"
        ruled = "adjudicated: " if entry.kind == "adjudication" else ""
        return f"{ruled}{label}, {plural(entry.events, 'cell')} in one decision"
    verb = {"undo": "took back", "redo": "brought back", "revert": "reverted"}[entry.kind]
    others = entry.answers_by or {}
    whose = "" if set(others) <= {entry.reviewer} else f" of {of_whom(others)}"
    return f"{verb} {plural(entry.events, 'answer')}{whose}"


def _given(entry: Entry) -> str:
    said = class_title(entry.label or "")
    if entry.change.before == entry.label:
        return f"{said}, as before"
    return f"{class_title(entry.change.before)} → {said}"


def _whose(entry: Entry) -> str:
    return "" if entry.answer_by in (None, entry.reviewer) else f"{entry.answer_by}’s "
