"""Which answers count as readings, on both stores."""

import pytest
import sqlalchemy as sa

import db
from allreview.review.log import reverting
from allreview.review.log.annotations import decide, decide_many
from allreview.review.log.readings import Reading, by_cell, own_answers, readings, units_of
from allreview.review.queues import QueueEntry
from allreview.review.reading import sittings, worklists
from allreview.review.reading.withholding import withheld_worklists
from db.tables import Reviewer
from tests.factory import Store, add_cell, small_store


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return small_store(engine, {"1": ("all", 3), "H1": ("hem", 2)}, tied=(("1", "H1"),))


def found(engine: sa.Engine, store: Store, worklist_id: int | None = None) -> list[Reading]:
    with db.reading(engine) as session:
        return readings(session, dataset_id=store.dataset, worklist_id=worklist_id)


def said(engine: sa.Engine, store: Store, worklist_id: int | None = None) -> list[tuple[str, str]]:
    return [(reading.reviewer, reading.label) for reading in found(engine, store, worklist_id)]


def test_the_last_answer_in_force_of_each_reader_counts(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    first = decide(engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=None)
    second = decide(engine, cell_id=cell, label="unsure", reviewer_id=store.ann, seen=first)
    decide(engine, cell_id=cell, label="all", reviewer_id=store.ben, seen=second)
    assert said(engine, store) == [("Ann", "unsure"), ("Ben", "all")]
    reverting.undo(engine, annotation_id=second, reviewer_id=store.ann)
    assert said(engine, store) == [("Ann", "hem"), ("Ben", "all")]
    reverting.redo(engine, annotation_id=second, reviewer_id=store.ann)
    assert said(engine, store) == [("Ben", "all"), ("Ann", "unsure")]


def test_what_somebody_else_brings_back_is_still_the_readers(engine: sa.Engine, store: Store) -> None:
    cell, other = store.cells["1"][:2]
    batch = decide_many(
        engine,
        cells={cell: None, other: None},
        label="hem",
        reviewer_id=store.ann,
        visible={"subject", "others"},
    )
    gone = reverting.revert_batch(engine, batch=batch, reviewer_id=store.ben, reason="by mistake")
    assert found(engine, store) == []
    reverting.restore(engine, batch=gone, reviewer_id=store.ben)
    again = found(engine, store)
    assert [(one.cell_id, one.reviewer, one.label) for one in again] == [
        (cell, "Ann", "hem"),
        (other, "Ann", "hem"),
    ]
    # Nobody had answered before Ann did: what others did later does not make her answer depend on theirs.
    assert all(one.independent and one.visible == ("others", "subject") for one in again)


def test_repeats_and_adjudications_stand_apart(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    seen = decide(engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=None)
    seen = decide(engine, cell_id=cell, label="all", reviewer_id=store.ann, seen=seen, repeat=True)
    seen = decide(engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=seen, adjudicates=True)
    last = decide(engine, cell_id=cell, label="unsure", reviewer_id=store.ben, seen=seen, adjudicates=True)
    rows = found(engine, store)
    assert [(r.reviewer, r.label, r.repeat, r.adjudication) for r in rows] == [
        ("Ann", "hem", False, False),
        ("Ann", "all", True, False),
        ("Ben", "unsure", False, True),
    ]
    assert by_cell(own_answers(rows)) == {cell: {"Ann": "hem"}}
    reverting.undo(engine, annotation_id=last, reviewer_id=store.ben)
    reverting.redo(engine, annotation_id=last, reviewer_id=store.ben)
    assert [(r.reviewer, r.adjudication) for r in found(engine, store)][-1] == ("Ben", True)
    reverting.undo(engine, annotation_id=found(engine, store)[-1].annotation_id, reviewer_id=store.ben)
    assert [(r.reviewer, r.label, r.adjudication) for r in found(engine, store)][-1] == ("Ann", "hem", True)


def test_independent_is_who_saw_nobodys_answer(engine: sa.Engine, store: Store) -> None:
    one, two, three = store.cells["1"]
    seen = {
        cell: decide(engine, cell_id=cell, label="all", reviewer_id=store.ann, seen=None)
        for cell in (one, two)
    }
    decide(engine, cell_id=one, label="hem", reviewer_id=store.ben, seen=seen[one], visible={"others"})
    decide(engine, cell_id=two, label="hem", reviewer_id=store.ben, seen=None, visible=(), independent=True)
    decide(engine, cell_id=three, label="hem", reviewer_id=store.ben, seen=None)
    independent = {(r.cell_id, r.reviewer): r.independent for r in found(engine, store)}
    assert independent == {
        (one, "Ann"): True,
        (one, "Ben"): False,
        (two, "Ann"): True,
        (two, "Ben"): True,
        (three, "Ben"): True,
    }


def entry(cell_id: int, part: str | None = None) -> QueueEntry:
    return QueueEntry(cell_id, "", None, part, "all", "all", "", 0.0, {})


def read(engine: sa.Engine, sitting: int, label: str) -> int:
    """Answer the cell on the desk; returns which it was."""
    cell = sittings.upcoming(engine, sitting)[0]
    sittings.answer(engine, sitting, cell, label, seen=cell.last_event_id)
    return cell.cell_id


def test_of_a_worklist_only_answers_of_its_sittings_count(engine: sa.Engine, store: Store) -> None:
    cells = store.cells["1"][:2]
    elsewhere = store.cells["H1"][0]
    made = worklists.create(
        engine,
        dataset_id=store.dataset,
        name="Study",
        strategy="filter",
        entries=[entry(cell) for cell in cells],
        overlap=2,
        hidden={"others"},
        readers=[store.ann, store.ben],
    )
    seen = decide(engine, cell_id=cells[0], label="unusable", reviewer_id=store.ben, seen=None)
    decide(engine, cell_id=elsewhere, label="all", reviewer_id=store.ann, seen=None)
    sitting = sittings.start(engine, worklist_id=made, reviewer_id=store.ann)
    assert read(engine, sitting, "hem") == cells[0]
    assert said(engine, store, made) == [("Ann", "hem")]
    assert sorted(said(engine, store)) == [("Ann", "all"), ("Ann", "hem"), ("Ben", "unusable")]
    with db.reading(engine) as session:
        last = max(reading.annotation_id for reading in readings(session, dataset_id=store.dataset))
    assert last > seen
    decide(engine, cell_id=cells[0], label="all", reviewer_id=store.ben, seen=last, adjudicates=True)
    assert said(engine, store, made) == [("Ann", "hem"), ("Ben", "all")]


def withheld(engine: sa.Engine, reviewer_id: int) -> set[int]:
    with db.reading(engine) as session:
        return withheld_worklists(session, reviewer_id)


def test_a_worklist_read_blind_is_withheld_until_it_is_read(engine: sa.Engine, store: Store) -> None:
    with db.writing(engine) as session:
        cleo = Reviewer(name="Cleo")
        session.add(cleo)
        session.flush()
        cleo_id = cleo.id
    common = {"dataset_id": store.dataset, "strategy": "filter", "readers": [store.ann, store.ben]}
    blind = worklists.create(
        engine,
        name="Blind",
        entries=[entry(cell) for cell in store.cells["1"]],
        hidden={"others"},
        overlap=2,
        **common,
    )
    worklists.create(engine, name="Open", entries=[entry(store.cells["H1"][0])], **common)
    test = worklists.create(engine, name="Test", entries=[entry(store.cells["H1"][1], "test")], **common)
    assert withheld(engine, store.ann) == withheld(engine, store.ben) == {blind, test}
    assert withheld(engine, cleo_id) == set()
    sitting = sittings.start(engine, worklist_id=blind, reviewer_id=store.ann)
    for _ in range(2):
        read(engine, sitting, "all")
        assert blind in withheld(engine, store.ann)
    sittings.skip(engine, sitting, sittings.upcoming(engine, sitting)[0].cell_id)
    assert blind in withheld(engine, store.ann)
    sittings.take_up_skipped(engine, sitting)
    read(engine, sitting, "all")
    assert withheld(engine, store.ann) == {test}
    assert blind in withheld(engine, store.ben)
    worklists.close(engine, blind)
    assert withheld(engine, store.ben) == {test}


def test_repeats_that_are_left_keep_a_worklist_withheld(
    sqlite_engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allreview.review.reading.claims._comes_again", lambda *_: True)
    store = small_store(sqlite_engine, {"1": ("all", 2)})
    made = worklists.create(
        sqlite_engine,
        dataset_id=store.dataset,
        name="Again",
        strategy="filter",
        entries=[entry(cell) for cell in store.cells["1"]],
        hidden={"others"},
        repeat_rate=0.5,
        readers=[store.ann],
    )
    sitting = sittings.start(sqlite_engine, worklist_id=made, reviewer_id=store.ann)
    repeats = 0
    while places := sittings.upcoming(sqlite_engine, sitting):
        assert withheld(sqlite_engine, store.ann) == {made}
        repeats += places[0].repeat
        read(sqlite_engine, sitting, "all")
    assert repeats == 2
    assert withheld(sqlite_engine, store.ann) == set()


def test_what_intervals_resample_is_the_leak_group(engine: sa.Engine, store: Store) -> None:
    with db.writing(engine) as session:
        alone = add_cell(session, store.dataset, None, "all", "alone")
    with db.reading(engine) as session:
        units = units_of(session, [*store.cells["1"], *store.cells["H1"], alone])
    assert len(units) == 6
    assert len({units[cell] for cell in (*store.cells["1"], *store.cells["H1"])}) == 1
    assert units[alone] == f"cell {alone}"
