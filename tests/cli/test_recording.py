"""`log`, `revert`, `restore`, `redo` and `report`."""

from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.labels import in_force
from allreview.review.log.annotations import decide_many, reviewer_named
from allreview.review.reading import sittings, worklists
from db.tables import Annotation
from tests.cli.commands import command, refused, succeed
from tests.factory import Store, entries_of, small_store


@pytest.fixture
def store(sqlite_engine: sa.Engine) -> Store:
    return small_store(sqlite_engine)


def standing(engine: sa.Engine) -> int:
    with db.reading(engine) as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Annotation).where(in_force())) or 0


def test_the_log_lists_and_filters_events(sqlite_engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    succeed("label", cell, "hem", "--reviewer", "Ann", "--reason", "size")
    succeed("label", store.cells["2"][0], "unsure", "--reviewer", "Ben")
    succeed("undo", "--reviewer", "Ben")
    decide_many(sqlite_engine, cells=dict.fromkeys(store.cells["3"]), label="unusable", reviewer_id=store.ann)
    events = succeed("log")
    assert [event["kind"] for event in events] == ["decision"] * 4 + ["undo", "decision", "decision"]
    first = events[-1]
    assert (first["cell"], first["label_before"], first["label_after"], first["reason"]) == (
        cell,
        "all",
        "hem",
        "size",
    )
    assert datetime.fromisoformat(first["created_at"]).tzinfo is not None
    assert events[-2]["taken_back_by"] == "Ben"
    for options, number in (
        (("--cell", cell), 1),
        (("--cell", first["sha256"][:10]), 1),
        (("--reviewer", "ben"), 2),
        (("--kind", "undo"), 1),
        (("--limit", 3), 3),
        (("--since", "2999-01-01"), 0),
        (("--until", f"{datetime.now():%Y-%m-%d}"), 7),
        (("--until", "2020-01-01T12:00"), 0),
    ):
        assert len(succeed("log", *options)) == number, options
    told = command("log").stdout
    assert "Ann: Unusable, 4 cells in one decision" in told
    assert "Ben took back Unsure" in told


def test_what_the_log_cannot_be_asked(sqlite_engine: sa.Engine, store: Store) -> None:
    assert "There is no reviewer 'Nobody'" in refused("log", "--reviewer", "Nobody")
    assert "--kind takes decision" in refused("log", "--kind", "guess")
    assert "--since takes a day or moment" in refused("log", "--since", "yesterday")
    assert "There is no sitting 9" in refused("log", "--sitting", "9")


def test_a_bulk_decision_is_reverted_and_restored(sqlite_engine: sa.Engine, store: Store) -> None:
    batch = decide_many(
        sqlite_engine, cells=dict.fromkeys(store.cells["1"]), label="hem", reviewer_id=store.ann
    )
    one = succeed("log", "--limit", 1)[0]["annotation"]
    assert succeed("revert", one, "--reviewer", "Ben", "--reason", "slip")["answers"] == 1
    assert "undone already" in refused("revert", one, "--reviewer", "Ben")
    taken = succeed("revert", "--batch", batch, "--reviewer", "Chris")
    assert (taken["answers"], taken["cells"], standing(sqlite_engine)) == (3, 3, 0)
    assert succeed("log", "--kind", "revert", "--reviewer", "Chris")[0]["batch"] == taken["batch"]
    again = succeed("restore", taken["batch"], "--reviewer", "Ann")
    assert (again["answers"], standing(sqlite_engine)) == (3, 3)
    assert "Nothing of this is left" in refused("restore", taken["batch"], "--reviewer", "Ann")
    assert "Say what to revert" in refused("revert", "--reviewer", "Ben")
    assert "Say what to revert" in refused("revert", one, "--batch", batch, "--reviewer", "Ben")


def test_redo_brings_back_what_was_undone_last(sqlite_engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    lukasz = "Łukasz Öz"
    saved = succeed("label", cell, "hem", "--reviewer", lukasz)
    succeed("undo", "--reviewer", lukasz.lower())
    redone = succeed("redo", "--reviewer", lukasz.upper())
    assert (redone["cell"], redone["redone"], standing(sqlite_engine)) == (cell, saved["annotation"], 1)
    assert "undone nothing" in refused("redo", "--reviewer", lukasz)
    succeed("undo", "--reviewer", lukasz)
    succeed("label", cell, "all", "--reviewer", "Ann")
    assert "Ann said ALL while you were looking" in refused("redo", "--reviewer", lukasz)


def test_a_sitting_is_reported_and_reverted(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    store = small_store(sqlite_engine)
    with db.reading(sqlite_engine) as session:
        entries = entries_of(session, store.cells["1"])
    ann, ben = reviewer_named(sqlite_engine, "Ann"), reviewer_named(sqlite_engine, "Ben")
    worklist = worklists.create(
        sqlite_engine, dataset_id=store.dataset, name="Twice", strategy="chosen", entries=entries,
        parts=("train",), hidden=("others",), overlap=2, readers=(ann, ben),
    )  # fmt: skip
    sitting = sittings.start(sqlite_engine, worklist_id=worklist, reviewer_id=ann)
    for _ in range(3):
        (cell,) = sittings.upcoming(sqlite_engine, sitting)
        sittings.answer(sqlite_engine, sitting, cell, "hem", seen=cell.last_event_id)
    page, paper = tmp_path / "report.html", tmp_path / "report.PDF"
    told = succeed("report", sitting, page)
    assert (told["cells"], told["answers"], told["unread"], told["withheld"]) == (3, 3, 1, 0)
    assert "Reading report: Twice" in page.read_text()
    succeed("report", worklist, paper, "--worklist")
    assert paper.read_bytes().startswith(b"%PDF-")
    assert succeed("report", sitting, tmp_path / "ben.html", "--reviewer", "ben")["withheld"] == 3
    assert "is there already" in refused("report", sitting, page)
    assert "an .html or a .pdf file" in refused("report", sitting, tmp_path / "report.docx")
    assert "There is no sitting 99" in refused("report", 99, tmp_path / "none.pdf")
    assert "cannot be written" in refused("report", sitting, tmp_path / "nowhere" / "report.pdf")
    assert len(succeed("log", "--sitting", sitting)) == 3
    taken = succeed("revert", "--sitting", sitting, "--reviewer", "Ben")
    assert (taken["answers"], standing(sqlite_engine)) == (3, 0)
