"""`queue`, `label` and `undo`: what to look at next, and decisions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from allreview.cli import output
from allreview.cli.options import Json, Reviewer, RunId
from allreview.errors import UserError

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

    from db.tables import Cell

_CELL_HELP = "An id, the first 6 or more digits of a SHA-256, or a path."


def queue(
    run_id: RunId,
    by: Annotated[
        str,
        typer.Option(
            metavar="STRATEGY",
            help="How cells are ranked: misclassified, label-error, uncertain, runs-disagree, readers-disagree, "
            "outlier or random.",
        ),
    ] = "misclassified",
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many cells.")] = None,
    parts: Annotated[
        str,
        typer.Option(
            metavar="PARTS",
            help="Cells of these parts, with commas. Test cells are for blind review: only on request.",
        ),
    ] = "train,validation",
    control: Annotated[
        float,
        typer.Option(metavar="SHARE", help="Share of cells, mixed in at random, that the model got right."),
    ] = 0.1,
    no_diverse: Annotated[
        bool,
        typer.Option("--no-diverse", help="Rank by suspicion alone, whatever the subject and the likeness."),
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Decides what is drawn at random.")] = 0,
    json: Json = False,
) -> None:
    """List the cells that deserve a look by what a run says of them, the most suspicious first."""
    import db
    from allreview.review.queues import queue_of
    from allreview.store import open_store

    wanted = _parts(parts)
    with db.reading(open_store(output.settings())) as session:
        entries = queue_of(
            session,
            run_id,
            by=by,
            parts=wanted,
            limit=limit,
            control=control,
            diverse=not no_diverse,
            seed=seed,
            settings=output.settings(),
        )
    if json:
        output.emit(
            [
                {
                    "cell": entry.cell_id,
                    "sha256": entry.sha256,
                    "path": entry.path,
                    "subject": entry.subject,
                    "part": entry.part,
                    "source_label": entry.source_label,
                    "current_label": entry.current_label,
                    "predicted": entry.predicted,
                    "probability": entry.probability,
                    "score": entry.score,
                    "reason": entry.reason,
                    "control": entry.control,
                }
                for entry in entries
            ]
        )
    elif not entries:
        output.line("Nothing is left to read in this queue.")
    else:
        output.table(
            ("cell", "subject", "part", "score", "reason", "path"),
            [
                (entry.cell_id, entry.subject, entry.part, f"{entry.score:.3f}", entry.reason, entry.path)
                for entry in entries
            ],
            numbers=("cell", "score"),
        )


def label(
    cell: Annotated[str, typer.Argument(metavar="CELL", help=_CELL_HELP)],
    label: Annotated[str, typer.Argument(metavar="LABEL", help="A class, unsure or unusable.")],
    reviewer: Reviewer,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why, in a word.")] = None,
    comment: Annotated[str | None, typer.Option(metavar="TEXT", help="Anything to add.")] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Look for the cell in this dataset.")
    ] = None,
    json: Json = False,
) -> None:
    """Record one decision on one cell."""
    import db
    from allreview.cells.naming import class_title, match_class
    from allreview.review.log import annotations
    from allreview.review.log.events import last_event_id
    from allreview.store import open_store
    from db.tables import Dataset

    engine = open_store(output.settings())
    with db.reading(engine) as session:
        found = _find_cell(session, cell, dataset)
        chosen = match_class(label, session.get_one(Dataset, found.dataset_id).classes)
    reviewer_id = annotations.reviewer_named(engine, reviewer)
    with db.reading(engine) as session:
        previous = _current_label(session, found.id)
        seen = last_event_id(session, found.id)
    annotation = annotations.decide(
        engine,
        cell_id=found.id,
        label=chosen,
        reviewer_id=reviewer_id,
        seen=seen,
        reason=reason,
        comment=comment,
    )
    if json:
        output.emit(
            {
                "annotation": annotation,
                "cell": found.id,
                "sha256": found.sha256,
                "label": chosen,
                "previous": previous,
            }
        )
    else:
        output.line(f"Saved: cell {found.id} is {class_title(chosen)} (was {class_title(previous)}).")


def undo(
    reviewer: Reviewer,
    cell: Annotated[str | None, typer.Argument(metavar="CELL", help=_CELL_HELP)] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Look for the cell in this dataset.")
    ] = None,
    json: Json = False,
) -> None:
    """Take back a reviewer's last decision that stands, of all cells or of one."""
    import db
    from allreview.cells.naming import class_title
    from allreview.review.log import annotations, reverting
    from allreview.store import open_store

    engine = open_store(output.settings())
    _require_reviewer(engine, reviewer)
    reviewer_id = annotations.reviewer_named(engine, reviewer)
    with db.reading(engine) as session:
        cell_id = _find_cell(session, cell, dataset).id if cell is not None else None
        decision = annotations.last_decision(session, reviewer_id, cell_id)
    if decision is None:
        where = "" if cell_id is None else f" on cell {cell_id}"
        raise UserError(f"{reviewer} has no decision{where} that could be undone.")
    event = reverting.undo(engine, annotation_id=decision.id, reviewer_id=reviewer_id)
    if json:
        output.emit({"annotation": event, "cell": decision.cell_id, "undone": decision.id})
    else:
        output.line(f"Undone: {class_title(decision.label or '')} on cell {decision.cell_id}.")


def _parts(text: str) -> list[str]:
    from db.tables import PARTS

    wanted = [part.strip().lower() for part in text.split(",") if part.strip()]
    wrong = [part for part in wanted if part not in PARTS]
    if wrong or not wanted:
        raise UserError(f"--parts takes {', '.join(PARTS)}, with commas between them, not {text!r}.")
    return wanted


def _find_cell(session: "Session", text: str, dataset: str | None) -> "Cell":
    from allreview.cells.finding import find_cell, is_id, is_sha_prefix
    from allreview.cli.recipes import find_dataset

    dataset_id = find_dataset(session, dataset).id if dataset is not None else None
    if not (is_id(text) or is_sha_prefix(text)):
        path = Path(text).expanduser()
        if _is_file(path):
            text = str(path.resolve())  # cells are known by their whole path
    return find_cell(session, text, dataset_id)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _current_label(session: "Session", cell_id: int) -> str:
    import sqlalchemy as sa

    from allreview.labels import current_label, standing
    from db.tables import Cell

    now = standing()
    query = sa.select(current_label(now)).select_from(Cell).outerjoin(now, now.c.cell_id == Cell.id)
    return session.scalars(query.where(Cell.id == cell_id)).one()


def _require_reviewer(engine: "sa.Engine", name: str) -> None:
    """Undo adds nobody: a name that was never used has nothing to take back."""
    import db
    from allreview.review.log.annotations import find_reviewer

    with db.reading(engine) as session:
        if find_reviewer(session, name) is None:
            raise UserError(f"There is no reviewer {name!r}: give the name the decision was made under.")
