"""Giving cells to several readers."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.review.log.annotations import decide, reviewer_named
from allreview.review.readers.assigning import Assignment, assign, progress_of_readers
from allreview.review.reading import sittings, worklists
from allreview.review.reading.worklists import WorklistRow
from allreview.settings import current_settings
from db.tables import WorklistItem
from tests.factory import Store, finished_run, small_store


def run_of(engine: sa.Engine, store: Store) -> int:
    """A run that contradicts the label of two cells of each subject."""
    predictions = {}
    for subject, cells in store.cells.items():
        label, other = ("hem", "all") if subject.startswith("H") else ("all", "hem")
        predictions |= {cell: (other if place < 2 else label, 0.8) for place, cell in enumerate(cells)}
    return finished_run(engine, store, predictions, parts={store.cells["1"][0]: "test"})


def row(engine: sa.Engine, store: Store, worklist_id: int) -> WorklistRow:
    with db.reading(engine) as session:
        return next(row for row in worklists.rows(session, store.dataset) if row.id == worklist_id)


def test_a_queue_is_given_to_readers(sqlite_engine: sa.Engine) -> None:
    engine, store = sqlite_engine, small_store(sqlite_engine)
    run = run_of(engine, store)
    made = assign(
        engine,
        current_settings(),
        Assignment(
            dataset_id=store.dataset,
            run_id=run,
            limit=10,
            readers=(store.ann, store.ben),
            overlap=2,
            hidden=frozenset({"others", "prediction"}),
        ),
        reviewer_id=store.ann,
    )
    found = row(engine, store, made)
    assert (found.cells, found.overlap, found.readers) == (10, 2, {store.ann: "Ann", store.ben: "Ben"})
    assert (found.name, found.repeat_rate) == (f"Prediction and label differ, run {run}", 0.05)
    assert found.hidden == {"others", "prediction"}
    assert found.parts == ["train"]
    with db.reading(engine) as session:
        controls = session.scalar(
            sa.select(sa.func.count()).where(WorklistItem.worklist_id == made, WorklistItem.control)
        )
    assert controls == 1
    again = assign(
        engine,
        current_settings(),
        Assignment(dataset_id=store.dataset, worklist_id=made, name=" Second look "),
    )
    with db.reading(engine) as session:
        kept = [
            session.execute(
                sa.select(WorklistItem.cell_id, WorklistItem.part, WorklistItem.reason, WorklistItem.control)
                .where(WorklistItem.worklist_id == worklist_id)
                .order_by(WorklistItem.position)
            ).all()
            for worklist_id in (made, again)
        ]
    assert kept[0] == kept[1]
    assert (row(engine, store, again).name, row(engine, store, again).run_id) == ("Second look", run)


def test_progress_of_each_reader(engine: sa.Engine) -> None:
    store = small_store(engine)
    run = run_of(engine, store)
    cleo = reviewer_named(engine, "Cleo")
    made = assign(
        engine,
        current_settings(),
        Assignment(
            dataset_id=store.dataset,
            run_id=run,
            limit=4,
            control=0.0,
            readers=(store.ann, store.ben, cleo),
            overlap=2,
            repeat_rate=0.0,
        ),
    )

    def read(reviewer: int, times: int) -> None:
        sitting = sittings.start(engine, worklist_id=made, reviewer_id=reviewer)
        for _ in range(times):
            cell = sittings.upcoming(engine, sitting)[0]
            sittings.answer(engine, sitting, cell, "all", seen=cell.last_event_id)

    read(store.ann, 3)
    read(store.ben, 1)
    with db.reading(engine) as session:
        found = progress_of_readers(session, made)
    assert [(one.reviewer, one.read, one.repeated, one.left) for one in found] == [
        ("Ann", 3, 0, 1),
        ("Ben", 1, 0, 3),
        ("Cleo", 0, 0, 3),  # of one cell both answers are there
    ]


def test_what_cannot_be_is_refused_in_words(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    run = finished_run(sqlite_engine, store, {store.cells["1"][0]: ("hem", 0.9)})
    wanted = Assignment(dataset_id=store.dataset, run_id=run, readers=(store.ann, store.ben))
    for refused, sentence in (
        (replace(wanted, overlap=3), "cannot be read by 3 reviewers"),
        (replace(wanted, hidden=frozenset({"name"})), "cannot be hidden"),
        (replace(wanted, repeat_rate=0.9), "Between 0 and 50 %"),
        (replace(wanted, by="magic"), "Unknown queue"),
        (replace(wanted, readers=(999,)), "active reviewers"),
        (replace(wanted, worklist_id=99), "no worklist 99"),
        (replace(wanted, parts=("validation",)), "Nothing is left to read"),
        (replace(wanted, name="x" * 201), "1 to 200 characters"),
    ):
        with pytest.raises(UserError, match=sentence):
            assign(sqlite_engine, current_settings(), refused)
    with db.reading(sqlite_engine) as session:
        assert worklists.rows(session, store.dataset) == []


def test_decided_cells_only_on_request(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    cell = store.cells["1"][0]
    run = finished_run(sqlite_engine, store, {cell: ("hem", 0.9)})
    decide(sqlite_engine, cell_id=cell, label="all", reviewer_id=store.ann, seen=None)
    wanted = Assignment(dataset_id=store.dataset, run_id=run)
    with pytest.raises(UserError, match="decided before"):
        assign(sqlite_engine, current_settings(), wanted)
    made = assign(sqlite_engine, current_settings(), replace(wanted, include_decided=True))
    assert row(sqlite_engine, store, made).cells == 1
