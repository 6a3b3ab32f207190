"""Pages of Browse in a million cells: the next page, for every order and every filter.

    python -m benchmarks.browse [--cells 1000000] [--rounds 40] [--database-url URL | --postgresql] [--json]

Builds a store of so many cells, a tenth of them annotated, with a run that predicts all of them (see
`benchmarks.browse_store`), and a second one of 10,000 cells. Asks for the first page of 48 cells; for pages by their
number, at random depths; and for those that follow, one by one, as turning pages does. The plain way is what most
programs do: one joined statement with ORDER BY, LIMIT and OFFSET, current labels worked out from the log. As it takes
seconds, it is asked once for each question, at such a depth; PostgreSQL's planner may choose nested loops that take
many minutes, so it is cut off there after half a minute, which then counts as what it took. All in all ten minutes.

`--database-url` names an empty PostgreSQL database; `--postgresql` starts a throw-away server where `initdb` is found.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

import db
from allreview.cells.browsing import Filters, Page, Place, Sort, cells_from, count_cells, rows_of_cells
from allreview.labels import current_label, standing_by_the_log
from benchmarks.browse_store import build
from benchmarks.throwaway_postgresql import server
from db.tables import Cell, CellFile, Prediction, SnapshotCell, Subject

PER_PAGE = 48
SMALL = 10_000
PLAIN_LIMIT_MS = 30_000
TITLES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
DEPTHS = 3


@dataclass(frozen=True)
class Question:
    """One way to look at cells."""

    name: str
    filters: Filters
    sort: Sort = Sort.IMPORTED


QUESTIONS = [
    *(Question(f"order: {sort}", Filters(run_id=1), sort) for sort in Sort),
    Question("class: frequent", Filters(labels=("all",))),
    Question("class: rare", Filters(labels=("neutrophil",))),
    Question("class: two, both rare", Filters(labels=("neutrophil", "unsure"))),
    Question("class: two, one rare", Filters(labels=("hem", "unsure"))),
    Question("subject: one", Filters(subjects=("P00011",))),
    Question("subject: five", Filters(subjects=("P00011", "P04012", "P07919", "P05831", "P03743"))),
    Question("text: a subject", Filters(text="P00011")),
    Question("text: part of a file name", Filters(text="_4999")),
    Question("text: in every file name", Filters(text="uid_")),
    Question("part: test", Filters(run_id=1, parts=("test",))),
    Question("part: training, validation", Filters(run_id=1, parts=("train", "validation"))),
    Question("prediction: wrong", Filters(run_id=1, verdict="wrong")),
    Question("prediction: right", Filters(run_id=1, verdict="right")),
    Question("certainty: 45 to 55 %", Filters(run_id=1, confidence=(0.45, 0.55))),
    Question("certainty: 95 to 100 %", Filters(run_id=1, confidence=(0.95, 1.0))),
    Question("labelled", Filters(labelled="labelled")),
    Question("not labelled", Filters(labelled="not labelled")),
    Question("label changed", Filters(relabelled="changed")),
    Question("label unchanged", Filters(relabelled="unchanged")),
    Question("wrong, most certain first", Filters(run_id=1, verdict="wrong"), Sort.MOST_CONFIDENT),
    Question(
        "wrong, of one class, by subject", Filters(run_id=1, verdict="wrong", labels=("hem",)), Sort.SUBJECT
    ),
    Question(
        "rare class, least certain first", Filters(run_id=1, labels=("neutrophil",)), Sort.LEAST_CONFIDENT
    ),
    Question("label changed, last labelled first", Filters(relabelled="changed"), Sort.LAST_LABELLED),
]


def main() -> None:
    """Build, ask, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40, help="pages of each question")
    parser.add_argument("--database-url", help="an empty PostgreSQL database")
    parser.add_argument("--postgresql", action="store_true", help="start a throw-away PostgreSQL server")
    parser.add_argument("--only", default="", help="questions whose name contains this")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        large, small = f"sqlite:///{folder}/large.sqlite", f"sqlite:///{folder}/small.sqlite"
        if asked.postgresql:
            large, small = stack.enter_context(server(Path(folder), ("large", "small")))
        elif asked.database_url:
            large = asked.database_url
        found = measure(large, small, asked.cells, asked.rounds, asked.only)
    print(json.dumps(found) if asked.json else _words(found))


def measure(large: str, small: str, cells: int, rounds: int, only: str = "") -> dict[str, Any]:
    """All figures, from stores at these URLs, which are built first where they are empty."""
    stores = {cells: db.engine_for(large), SMALL: db.engine_for(small)}
    built: dict[int, float] = {}
    for number, engine in stores.items():
        db.migrate(engine)
        with db.reading(engine) as session:
            there = session.scalar(sa.select(sa.func.max(Cell.id)))
        if there is None:
            built[number] = _seconds(lambda engine=engine, number=number: build(engine, number))[0]
    questions = [question for question in QUESTIONS if only in question.name]
    rows = [_ask(question, stores, cells, rounds) for question in questions]
    p95 = [row["next_p95_ms"] for row in rows]
    growth = [row["next_p50_ms"] / row["next_p50_ms_small"] for row in rows]
    return {
        "compares": f"A page of {PER_PAGE} of {cells:,} cells on {TITLES[stores[cells].dialect.name]} by OFFSET over "
        f"joined tables, against the next page by its place ({max(p95):.0f} ms at the 95th percentile of the slowest "
        f"question; {statistics.median(growth):.2g} times what it takes with {SMALL:,} cells)",
        "ratio": round(statistics.median(row["plain_p50_ms"] / row["next_p50_ms"] for row in rows), 1),
        "dialect": stores[cells].dialect.name,
        "cells": cells,
        "build_seconds": round(built.get(cells, 0.0), 1),
        "worst_p95_ms": max(p95),
        "large_to_small_median": round(statistics.median(growth), 2),
        "large_to_small_first_page": round(
            statistics.median(row["first_p50_ms"] / row["first_p50_ms_small"] for row in rows), 2
        ),
        "questions": rows,
    }


def _ask(question: Question, stores: dict[int, sa.Engine], cells: int, rounds: int) -> dict[str, Any]:
    row: dict[str, Any] = {"question": question.name}
    for number, engine in stores.items():
        end = "" if number == cells else "_small"
        # What a server process keeps, a page may use; nothing else is warmed up but for one page.
        with db.reading(engine) as session:
            counting, total = _seconds(lambda: count_cells(session, 1, question.filters))
            depths = random.Random(1)
            starts = [depths.randrange(max(1, total - 2 * PER_PAGE)) for _ in range(DEPTHS)]
            row[f"cells{end}"], row[f"count_ms{end}"] = total, _ms(counting)
            row |= _times(f"first{end}", [_page(session, question)[0] for _ in range(rounds)])
            jumps, following = [], []
            for start in starts:
                taken, page = _page(session, question, skip=start)
                jumps.append(taken)
                for _ in range(-(-rounds // DEPTHS)):
                    taken, page = _page(session, question, page.last)
                    following.append(taken)
            row |= _times(f"next{end}", following) | _times(f"jump{end}", jumps)
            if number == cells:
                row |= _times("plain", [_seconds(partial(_cut_off, engine, question, starts[0]))[0]])
    return row


def _page(
    session: Session, question: Question, place: Place | None = None, skip: int = 0
) -> tuple[float, Page]:
    return _seconds(
        lambda: cells_from(session, 1, question.filters, question.sort, place, PER_PAGE, skip=skip)
    )


def _cut_off(engine: sa.Engine, question: Question, skip: int) -> None:
    """The plain way, for no longer than the limit."""
    with db.reading(engine) as session:
        if engine.dialect.name == "postgresql":
            session.execute(sa.text(f"set local statement_timeout = {PLAIN_LIMIT_MS}"))
        with suppress(OperationalError):
            _plain(session, question, skip)


def _plain(session: Session, question: Question, skip: int) -> None:
    """One statement over all tables, in the way that comes to mind first."""
    wanted, now = question.filters, standing_by_the_log()
    label = current_label(now)
    source: Any = sa.join(Cell, Subject, isouter=True).join(now, now.c.cell_id == Cell.id, isouter=True)
    where: list[Any] = [Cell.dataset_id == 1]
    if wanted.run_id is not None:
        said = sa.and_(Prediction.cell_id == Cell.id, Prediction.run_id == 1, SnapshotCell.part != "test")
        snapshot = sa.and_(SnapshotCell.cell_id == Cell.id, SnapshotCell.snapshot_id == 1)
        source = source.join(SnapshotCell, snapshot, isouter=True).join(Prediction, said, isouter=True)
    if wanted.labels:
        where.append(label.in_(wanted.labels))
    if wanted.subjects:
        where.append(Subject.name.in_(wanted.subjects))
    if wanted.relabelled != "any":
        changed = label != Cell.source_label
        where.append(changed if wanted.relabelled == "changed" else ~changed)
    if wanted.labelled != "any":
        given = now.c.annotation_id.is_not(None)
        where.append(given if wanted.labelled == "labelled" else ~given)
    if wanted.text:
        in_a_path = sa.exists().where(CellFile.cell_id == Cell.id, CellFile.path.icontains(wanted.text))
        where.append(sa.or_(in_a_path, Subject.name.icontains(wanted.text)))
    if wanted.parts:
        where.append(SnapshotCell.part.in_(wanted.parts))
    if wanted.verdict != "any":
        right = Prediction.label == label
        where.append(right if wanted.verdict == "right" else ~right)
    if wanted.confidence != (0.0, 1.0):
        where.append(Prediction.probability.between(*wanted.confidence))
    order: dict[Sort, list[Any]] = {
        Sort.SUBJECT: [Subject.name.asc().nulls_last()],
        Sort.LAST_LABELLED: [now.c.annotation_id.desc().nulls_last()],
    }
    if wanted.run_id is not None:
        order[Sort.MOST_CONFIDENT] = [Prediction.probability.desc().nulls_last()]
        order[Sort.LEAST_CONFIDENT] = [Prediction.probability.asc().nulls_last()]
    ids = sa.select(Cell.id).select_from(source).where(*where)
    ids = ids.order_by(*order.get(question.sort, []), Cell.id).limit(PER_PAGE).offset(skip)
    rows_of_cells(session, list(session.scalars(ids)), run_id=wanted.run_id)


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def _times(name: str, seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        f"{name}_p50_ms" if not name.endswith("_small") else f"{name[:-6]}_p50_ms_small": _ms(
            statistics.median(ordered)
        ),
        f"{name}_p95_ms" if not name.endswith("_small") else f"{name[:-6]}_p95_ms_small": _ms(
            ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
        ),
    }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _words(found: dict[str, Any]) -> str:
    lines = [
        f"{found['cells']:,} cells on {found['dialect']}, built in {found['build_seconds']} s",
        f"{'':36}{'cells':>9} {'next p50':>9} {'p95':>8} {'first':>8} {'jump':>8} {'plain':>9} {'count':>8} "
        f"{'at 10,000':>10}",
    ]
    for row in found["questions"]:
        lines.append(
            f"{row['question']:36}{row['cells']:>9,} {row['next_p50_ms']:>9} {row['next_p95_ms']:>8} "
            f"{row['first_p95_ms']:>8} {row['jump_p95_ms']:>8} {row['plain_p50_ms']:>9} {row['count_ms']:>8} "
            f"{row['next_p50_ms_small']:>10}"
        )
    return "\n".join(
        [*lines, *(f"{key:28} {found[key]}" for key in found if key not in ("questions", "cells"))]
    )


if __name__ == "__main__":
    main()
