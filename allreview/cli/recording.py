"""`log`, `revert`, `restore`, `redo` and `report`: what was decided, taking it back, and reports to print."""

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allreview.cli import output
from allreview.cli.options import LARGEST_ID, Json, Reviewer
from allreview.errors import UserError

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

    from allreview.review.record.entries import Entry

_Sitting = Annotated[
    int | None,
    typer.Option("--sitting", metavar="N", min=1, max=LARGEST_ID, help="A sitting, by its number."),
]


def log(
    cell: Annotated[str | None, typer.Option(metavar="CELL", help="Only of this cell.")] = None,
    reviewer: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this reviewer.")] = None,
    sitting: _Sitting = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Only decision, adjudication, undo, redo or revert."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="From this day (2026-11-23) or moment on, local time.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Up to this day or moment, both included.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many.")] = 50,
    dataset: Annotated[str | None, typer.Option(metavar="NAME", help="The dataset's name.")] = None,
    json: Json = False,
) -> None:
    """List what was decided and taken back, the newest first."""
    import db
    from allreview.review.record.entries import Log, LogFilters
    from allreview.store import open_store

    with db.reading(open_store(output.settings())) as session:
        dataset_id = _dataset(session, dataset, sitting)
        filters = LogFilters(
            cell_id=_cell(session, cell, dataset_id) if cell is not None else None,
            reviewer_id=_reviewer(session, reviewer) if reviewer is not None else None,
            session_id=sitting,
            kind=_kind(kind),
            since=_moment(since, "--since"),
            until=_moment(until, "--until", last=True),
        )
        entries = Log(session, dataset_id).page(filters, size=limit, folded=not json).entries
    if json:
        output.emit([_event(entry) for entry in entries])
    elif not entries:
        output.line("No event matches.")
    else:
        _table(entries)


def revert(
    reviewer: Reviewer,
    annotation: Annotated[
        int | None,
        typer.Argument(metavar="ANNOTATION", min=1, max=LARGEST_ID, help="One answer, as `log` numbers it."),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="B", help="All that stands of this bulk decision.")
    ] = None,
    sitting: _Sitting = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why, in a word.")] = None,
    json: Json = False,
) -> None:
    """Take back an answer, a bulk decision or a sitting, whoever gave the answers."""
    from allreview.review.log import reverting
    from allreview.review.log.annotations import reviewer_named
    from allreview.store import open_store
    from allreview.wording import plural

    if [annotation, batch, sitting].count(None) != 2:
        raise UserError("Say what to revert: one ANNOTATION, --batch or --sitting.")
    engine = open_store(output.settings())
    who = reviewer_named(engine, reviewer)
    if annotation is not None:
        made = reverting.revert(engine, reviewer_id=who, annotation_ids=[annotation], reason=reason)
    elif batch is not None:
        made = reverting.revert_batch(engine, batch=batch, reviewer_id=who, reason=reason)
    else:
        assert sitting is not None
        made = reverting.revert_session(engine, session_id=sitting, reviewer_id=who, reason=reason)
    answers, cells = _size(engine, made)
    if json:
        output.emit({"batch": made, "answers": answers, "cells": cells})
    else:
        words = f"{plural(answers, 'answer')} to {plural(cells, 'cell')}"
        output.line(f"Reverted {words}. To bring back: restore {made} --reviewer {_quoted(reviewer)}")


def restore(
    batch: Annotated[
        str,
        typer.Argument(metavar="BATCH", help="The batch that took answers back, as `log --json` names it."),
    ],
    reviewer: Reviewer,
    json: Json = False,
) -> None:
    """Bring back what a batch of reverted or undone answers took back."""
    from allreview.review.log import reverting
    from allreview.review.log.annotations import reviewer_named
    from allreview.store import open_store
    from allreview.wording import plural

    engine = open_store(output.settings())
    made = reverting.restore(engine, batch=batch, reviewer_id=reviewer_named(engine, reviewer))
    answers, cells = _size(engine, made)
    if json:
        output.emit({"batch": made, "answers": answers, "cells": cells})
    else:
        output.line(f"Brought back {plural(answers, 'answer')} to {plural(cells, 'cell')}.")


def redo(reviewer: Reviewer, json: Json = False) -> None:
    """Let the answer that a reviewer undid last stand again."""
    import db
    from allreview.cells.naming import class_title
    from allreview.review.log import reverting
    from allreview.review.record.entries import last_undone
    from allreview.store import open_store
    from db.tables import Annotation

    engine = open_store(output.settings())
    with db.reading(engine) as session:
        who = _reviewer(session, reviewer)
        undone = last_undone(session, who)
        if undone is None or undone.undoes_id is None:
            raise UserError(f"{reviewer} has undone nothing that could be brought back.")
        answer = session.get_one(Annotation, undone.undoes_id)
    made = reverting.redo(engine, annotation_id=answer.id, reviewer_id=who, seen=undone.id)
    if json:
        output.emit({"annotation": made, "cell": answer.cell_id, "redone": answer.id})
    else:
        output.line(f"Brought back: {class_title(answer.label or '')} on cell {answer.cell_id}.")


def report(
    number: Annotated[
        int, typer.Argument(metavar="SITTING", min=1, max=LARGEST_ID, help="The sitting's number.")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make: .html or .pdf.")],
    worklist: Annotated[
        bool, typer.Option("--worklist", help="The number is a worklist's: report all its sittings together.")
    ] = False,
    reviewer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Who asks: others' answers that they must not know yet are left out."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a report of a sitting, to print and sign."""
    import db
    from allreview.review.reports.session_report import report_of
    from allreview.review.reports.session_report_html import html_report
    from allreview.review.reports.session_report_pdf import pdf_report
    from allreview.store import open_store
    from allreview.wording import plural

    settings = output.settings()
    suffix = file.suffix.lower()
    if suffix not in (".html", ".pdf"):
        raise UserError(f"A report is an .html or a .pdf file, not {file.name!r}.")
    if file.exists():
        raise UserError(f"{file} is there already: name another file.")
    with db.reading(open_store(settings)) as session:
        found = report_of(
            session,
            **{"worklist_id" if worklist else "session_id": number},
            viewer_id=_reviewer(session, reviewer) if reviewer is not None else None,
            zone=datetime.now().astimezone().tzinfo or UTC,
        )
    made = pdf_report(found, settings) if suffix == ".pdf" else html_report(found, settings).encode()
    try:
        file.write_bytes(made)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}.") from None
    if json:
        output.emit(
            {
                "path": str(file),
                "cells": len(found.cells),
                "answers": sum(len(cell.answers) for cell in found.cells),
                "unread": found.unread,
                "withheld": found.withheld,
            }
        )
    else:
        output.line(f"{file}: {plural(len(found.cells), 'cell')}.")


def _dataset(session: "Session", name: str | None, sitting: int | None) -> int:
    """The dataset that is meant: the sitting's, the named one, or the only one."""
    from allreview.cli.recipes import find_dataset
    from db.tables import ReviewSession, Worklist

    if sitting is None or name is not None:
        return find_dataset(session, name).id
    found = session.get(ReviewSession, sitting)
    if found is None:
        raise UserError(f"There is no sitting {sitting}.")
    return session.get_one(Worklist, found.worklist_id).dataset_id


def _cell(session: "Session", text: str, dataset_id: int) -> int:
    from allreview.cells.finding import find_cell, is_id, is_sha_prefix

    if not (is_id(text) or is_sha_prefix(text)):
        path = Path(text).expanduser()
        text = str(path.resolve()) if path.exists() else text
    return find_cell(session, text, dataset_id).id


def _reviewer(session: "Session", name: str) -> int:
    from allreview.review.log.annotations import find_reviewer

    found = find_reviewer(session, name)
    if found is None:
        raise UserError(f"There is no reviewer {name!r}: give the name that decisions were made under.")
    return found.id


def _kind(text: str | None) -> str | None:
    from allreview.review.record.record_words import KINDS

    if text is not None and text.strip().lower() not in KINDS:
        raise UserError(f"--kind takes {', '.join(KINDS)}, not {text!r}.")
    return text.strip().lower() if text is not None else None


def _moment(text: str | None, option: str, *, last: bool = False) -> datetime | None:
    """The moment that is meant, in local time where no zone is given; of a day its first or its last moment."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UserError(
            f"{option} takes a day or moment like 2026-11-23 or 2026-11-23T14:30, not {text!r}."
        ) from None
    if last and len(text.strip()) == len("2026-11-23"):
        moment = datetime.combine(moment.date(), time()) + timedelta(days=1, microseconds=-1)
    return moment if moment.tzinfo else moment.astimezone()


def _size(engine: "sa.Engine", batch: str) -> tuple[int, int]:
    """How many answers, on how many cells, a batch is about."""
    import sqlalchemy as sa

    import db
    from db.tables import Annotation

    with db.reading(engine) as session:
        counts = sa.select(sa.func.count(), sa.func.count(sa.distinct(Annotation.cell_id)))
        answers, cells = session.execute(counts.where(Annotation.batch == batch)).one()
    return answers, cells


def _event(entry: "Entry") -> dict[str, object]:
    return {
        "annotation": entry.id,
        "created_at": entry.created_at,
        "cell": entry.cell_id,
        "sha256": entry.sha256,
        "path": entry.path,
        "subject": entry.subject,
        "source_label": entry.source_label,
        "kind": entry.kind,
        "label": entry.label,
        "label_before": entry.change.before,
        "label_after": entry.change.after,
        "reviewer": entry.reviewer,
        "taken_back_by": entry.taken_back_by,
        "taken_back_at": entry.taken_back_at,
        "sitting": entry.session_id,
        "worklist": entry.worklist,
        "reason": entry.reason,
        "comment": entry.comment,
        "visible": entry.visible,
        "visible_run": entry.visible_run_id,
        "repeat": entry.repeat,
        "duration_ms": entry.duration_ms,
        "batch": entry.batch,
    }


def _table(entries: list["Entry"]) -> None:
    from allreview.review.record import record_words

    output.table(
        ("annotation", "cell", "what", "state", "sitting", "when", "note"),
        [
            (
                entry.id,
                entry.cell_id if entry.events == 1 else None,
                f"{entry.reviewer}{':' if entry.kind == 'decision' else ''} {record_words.what(entry)}",
                record_words.state(entry),
                entry.session_id,
                f"{entry.created_at.astimezone():%Y-%m-%d %H:%M}",
                ". ".join(text for text in (entry.reason, entry.comment) if text) or None,
            )
            for entry in entries
        ],
        numbers=("annotation", "cell", "sitting"),
    )


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)
