"""`assign`, `worklists` and `agreement`: cells for several readers, how far they are, and how well they agree."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allreview.cli import output
from allreview.cli.options import LARGEST_ID, Json
from allreview.errors import UserError

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

    from allreview.review.readers.agreement import Agreement, Compared, Estimate
    from allreview.review.readers.assigning import ReaderProgress
    from allreview.review.readers.consensus import Consensus
    from allreview.review.reading.worklists import WorklistRow

WorklistId = Annotated[
    int | None,
    typer.Option(
        "--worklist",
        metavar="N",
        min=1,
        max=LARGEST_ID,
        help="A worklist, by the number that `worklists` lists.",
    ),
]
_Dataset = Annotated[str | None, typer.Option("--dataset", metavar="NAME", help="The dataset's name.")]


def assign(
    run_id: Annotated[
        int | None,
        typer.Argument(metavar="RUN", min=1, max=LARGEST_ID, help="Whose queue; `random` needs none."),
    ] = None,
    by: Annotated[
        str, typer.Option(metavar="STRATEGY", help="Which queue of the run, as for `queue`.")
    ] = "misclassified",
    worklist: WorklistId = None,
    dataset: _Dataset = None,
    readers: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Who reads, with commas. A new name is added. Without it everybody may.",
        ),
    ] = "",
    overlap: Annotated[int, typer.Option(metavar="N", min=1, help="By how many each cell is read.")] = 1,
    hide: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="What readers must not see, with commas: prediction, source_label, subject, others.",
        ),
    ] = "",
    repeat: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of each reader's cells that come a second time.")
    ] = 0.05,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many cells.")] = None,
    parts: Annotated[
        str, typer.Option(metavar="PARTS", help="Cells of these parts of the run, with commas.")
    ] = "train,validation",
    control: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of cells the model got right, mixed in at random.")
    ] = 0.1,
    include_decided: Annotated[
        bool, typer.Option("--include-decided", help="Also cells that somebody decided before.")
    ] = False,
    adjudicates: Annotated[
        bool, typer.Option("--adjudicates", help="The answers outrank decisions, and settle disagreements.")
    ] = False,
    name: Annotated[str, typer.Option(metavar="TEXT", help="What the worklist is called.")] = "",
    json: Json = False,
) -> None:
    """Make a worklist of a queue, or of another worklist's cells, for one reader or several."""
    import db
    from allreview.review.readers.assigning import Assignment
    from allreview.review.readers.assigning import assign as make
    from allreview.store import open_store

    engine = open_store(output.settings())
    with db.reading(engine) as session:
        dataset_id = _dataset_id(session, run_id, worklist, dataset)
    names = list(dict.fromkeys(_listed(readers)))
    if names and overlap > len(names):
        raise UserError(f"Each cell cannot be read by {overlap} readers when {len(names)} are named.")
    wanted = Assignment(
        dataset_id=dataset_id,
        by=by,
        run_id=run_id,
        worklist_id=worklist,
        parts=tuple(_parts(parts)),
        limit=limit,
        include_decided=include_decided,
        control=control,
        overlap=overlap,
        hidden=frozenset(_listed(hide)),
        repeat_rate=repeat,
        adjudicates=adjudicates,
        name=name,
        reader_names=tuple(names),
    )
    made = make(engine, output.settings(), wanted)
    with db.reading(engine) as session:
        (row,) = [row for row in _rows(session, dataset_id, with_closed=False) if row.id == made]
        found = _document(session, row)
    if json:
        output.emit(found)
    else:
        whom = ", ".join(row.readers.values()) or "everybody"
        output.line(
            f"Worklist {made}, {row.name!r}: {output.plural(row.cells, 'cell')} for {whom}, "
            f"{output.plural(row.overlap, 'reader')} each."
        )


def worklists(
    dataset: _Dataset = None,
    all_: Annotated[bool, typer.Option("--all", help="Also those that were closed.")] = False,
    close: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=LARGEST_ID, help="Close this one first; its answers stay."),
    ] = None,
    json: Json = False,
) -> None:
    """List worklists, newest first, and how far their readers are."""
    import sqlalchemy as sa

    import db
    from allreview.cli.recipes import find_dataset
    from allreview.review.reading import worklists as service
    from allreview.store import open_store
    from db.tables import Dataset

    engine = open_store(output.settings())
    if close is not None:
        with db.reading(engine) as session:
            _worklist(session, close)
        service.close(engine, close)
    with db.reading(engine) as session:
        ids = (
            session.scalars(sa.select(Dataset.id)).all()
            if dataset is None
            else [find_dataset(session, dataset).id]
        )
        rows = [row for number in ids for row in _rows(session, number, with_closed=all_)]
        rows.sort(key=lambda row: -row.id)
        found = [_document(session, row) for row in rows]
    if json:
        output.emit(found)
    elif not found:
        output.line(
            "There is no worklist." if all_ else "There is no open worklist (--all lists closed ones)."
        )
    else:
        columns = ("worklist", "name", "cells", "each", "readings", "readers", "closed")
        output.table(
            columns, [_line(one) for one in found], numbers=("worklist", "cells", "each", "readings")
        )


def agreement(
    worklist: WorklistId = None,
    dataset: _Dataset = None,
    with_dependent: Annotated[
        bool, typer.Option("--with-dependent", help="Also answers given while others' could be seen.")
    ] = False,
    classes_only: Annotated[
        bool, typer.Option("--classes-only", help="Leave out unsure and unusable, which count as answers.")
    ] = False,
    record_majority: Annotated[
        bool,
        typer.Option(
            "--record-majority", help="Record what most say as label of the cells they disagree on."
        ),
    ] = False,
    reviewer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who records it. A new name is added.")
    ] = None,
    json: Json = False,
) -> None:
    """How well readers agree, with intervals, what they say together, and where they differ."""
    import db
    from allreview.review.log.annotations import reviewer_named
    from allreview.review.readers.adjudication import disputes, record_majorities
    from allreview.store import open_store

    if record_majority and reviewer is None:
        raise UserError("Say with --reviewer who records the majority.")
    engine = open_store(output.settings())
    with db.reading(engine) as session:
        dataset_id = _dataset_id(session, None, worklist, dataset)
        disputed = disputes(session, dataset_id=dataset_id, worklist_id=worklist)
    recorded = None
    if record_majority and reviewer is not None:
        if not disputed.with_majority:
            raise UserError("There is no cell to record: where readers disagree, none has a majority.")
        batch = record_majorities(engine, disputed.cells, reviewer_id=reviewer_named(engine, reviewer))
        recorded = {"batch": batch, "cells": [dispute.cell.cell_id for dispute in disputed.with_majority]}
        with db.reading(engine) as session:
            disputed = disputes(session, dataset_id=dataset_id, worklist_id=worklist)
    found, together = _compared(engine, dataset_id, worklist, with_dependent, classes_only)
    if json:
        output.emit(
            {
                "dataset_id": dataset_id,
                "worklist": worklist,
                **asdict(found),
                "consensus": asdict(together),
                "disputed": [dispute.cell.cell_id for dispute in disputed.cells],
                "waiting": disputed.waiting,
                "recorded": recorded,
            }
        )
        return
    _print_agreement(found, with_dependent)
    _print_readers(found, together)
    if recorded is not None:
        output.line(f"Saved: the majority is the label of {output.plural(len(recorded['cells']), 'cell')}.")
    output.line(
        f"The readers disagree on {output.plural(len(disputed.cells), 'cell')} not settled, "
        f"{len(disputed.with_majority):,} of them with a majority."
    )


def _compared(
    engine: "sa.Engine", dataset_id: int, worklist_id: int | None, with_dependent: bool, classes_only: bool
) -> "tuple[Agreement, Consensus]":
    import db
    from allreview.review.log.readings import own_answers, readings, units_of
    from allreview.review.readers.agreement import agreement_of
    from allreview.review.readers.consensus import consensus_of, held_out_probabilities, run_of

    with db.reading(engine) as session:
        found = readings(session, dataset_id=dataset_id, worklist_id=worklist_id)
        units = units_of(session, {reading.cell_id for reading in found})
        answers = own_answers(found, with_dependent=with_dependent)
        run_id = run_of(session, dataset_id=dataset_id, worklist_id=worklist_id)
        ids = sorted({reading.cell_id for reading in answers})
        known = {} if run_id is None else held_out_probabilities(session, output.settings(), run_id, ids)
    agreeing = agreement_of(found, units, with_dependent=with_dependent, classes_only=classes_only)
    return agreeing, consensus_of(answers, known)


def _print_agreement(found: "Agreement", with_dependent: bool) -> None:
    output.line(
        f"{output.plural(len(found.readers), 'reader')}, {output.plural(found.readings, 'answer')} to "
        f"{output.plural(found.cells, 'cell')}, {found.shared:,} of them read by two or more."
    )
    if found.dependent:
        fate = "Counted" if with_dependent else "Left out"
        output.line(f"{fate}: {output.plural(found.dependent, 'answer')} given with others' answers in view.")
    overall = (
        ("Krippendorff's alpha", found.krippendorff, False),
        ("Fleiss' kappa", found.fleiss, False),
        ("Same answer", found.percent, True),
    )
    rows: list[tuple[Any, ...]] = [
        (title, estimate.cells, _figure(estimate, share), estimate.why or "")
        for title, estimate, share in overall
    ]
    for pair in found.pairs:
        name = f"Cohen's kappa, {pair.first} and {pair.second}"
        rows.append((name, pair.cells, _figure(pair.kappa), pair.kappa.why or ""))
    output.table(("figure", "cells", "value (95 %)", "note"), rows, numbers=("cells",))


def _print_readers(found: "Agreement", together: "Consensus") -> None:
    others = {row.first: row for row in found.against_others}
    themselves = {row.first: row for row in found.with_themselves}
    adjudicated = {row.first: row for row in found.against_adjudicated}
    columns = (
        "reader",
        "with the majority of the others",
        "with themselves",
        "with the adjudicated label",
        "CROWDLAB quality",
    )
    rows = [
        (
            name,
            *(_with(rows.get(name)) for rows in (others, themselves, adjudicated)),
            output.percent(together.readers.get(name)),
        )
        for name in found.readers
    ]
    if rows:
        output.table(columns, rows, numbers=columns[1:])
    if together.why:
        output.line(together.why)


def _with(compared: "Compared | None") -> str | None:
    return f"{_figure(compared.percent, True)}, {compared.cells:,} cells" if compared is not None else None


def _figure(estimate: "Estimate", as_share: bool = False) -> str:
    def shown(value: float) -> str:
        return f"{value:.1%}" if as_share else f"{value:.2f}"

    if estimate.value is None:
        return "–"
    ends = f" ({' to '.join(map(shown, estimate.interval))})" if estimate.interval else ""
    return shown(estimate.value) + ends


def _line(one: dict[str, Any]) -> tuple[Any, ...]:
    readers = ", ".join(
        f"{reader['name']} {reader['read']} read, {reader['left']} left" for reader in one["readers"]
    )
    closed = one["closed_at"].date() if one["closed_at"] else None
    wanted = one["cells"] * one["overlap"]
    done = f"{one['readings_done']} of {wanted}"
    return one["worklist"], one["name"], one["cells"], one["overlap"], done, readers or "everybody", closed


def _document(session: "Session", row: "WorklistRow") -> dict[str, Any]:
    from allreview.review.readers.assigning import progress_of_readers

    return {
        "worklist": row.id,
        "name": row.name,
        "dataset_id": row.dataset_id,
        "run": row.run_id,
        "strategy": row.strategy,
        "parts": row.parts,
        "cells": row.cells,
        "overlap": row.overlap,
        "hidden": sorted(row.hidden),
        "repeat_rate": row.repeat_rate,
        "adjudicates": row.adjudicates,
        "readings_done": row.readings_done,
        "readers": [_reader(one) for one in progress_of_readers(session, row.id)],
        "created_at": row.created_at,
        "closed_at": row.closed_at,
    }


def _reader(one: "ReaderProgress") -> dict[str, Any]:
    return {"name": one.reviewer, "read": one.read, "repeated": one.repeated, "left": one.left}


def _rows(session: "Session", dataset_id: int, *, with_closed: bool) -> "list[WorklistRow]":
    from allreview.review.reading import worklists as service

    return service.rows(session, dataset_id, open_only=not with_closed)


def _dataset_id(session: "Session", run_id: int | None, worklist_id: int | None, dataset: str | None) -> int:
    """Whose cells: the worklist's or the run's dataset, which --dataset must not contradict, else the one named."""
    from allreview.cli.recipes import find_dataset
    from db.tables import Run

    known = None
    if worklist_id is not None:
        known = _worklist(session, worklist_id)
    elif run_id is not None:
        run = session.get(Run, run_id)
        if run is None:
            raise UserError(f"There is no run {run_id}.")
        known = run.dataset_id
    if known is None:
        return find_dataset(session, dataset).id
    if dataset is not None and find_dataset(session, dataset).id != known:
        raise UserError(f"The cells asked for are not of {dataset}: leave --dataset out.")
    return known


def _worklist(session: "Session", worklist_id: int) -> int:
    """The dataset of the worklist."""
    from db.tables import Worklist

    found = session.get(Worklist, worklist_id)
    if found is None:
        raise UserError(f"There is no worklist {worklist_id}: `worklists --all` lists them.")
    return found.dataset_id


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parts(text: str) -> Sequence[str]:
    from db.tables import PARTS

    wanted = [part.lower() for part in _listed(text)]
    if not wanted or set(wanted) - set(PARTS):
        raise UserError(f"--parts takes {', '.join(PARTS)}, with commas between them, not {text!r}.")
    return wanted
