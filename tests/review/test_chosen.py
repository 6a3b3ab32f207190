"""Worklists made from a filter or a selection."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

import db
from allreview.cells.browsing import Filters, Sort
from allreview.review import chosen
from allreview.review.log.annotations import decide
from allreview.review.reading import sittings, worklists
from allreview.review.reading.blinding import BLIND_TEST
from db.tables import WorklistItem
from tests.factory import finished_run, small_store

SURE = 0.9


def test_a_filter_becomes_entries_in_the_order_asked_for(engine: sa.Engine) -> None:
    store = small_store(engine, {"1": ("all", 3), "H1": ("hem", 2)})
    first, second, third = store.cells["1"]
    predictions = {first: ("all", 0.6), second: ("hem", 0.8), third: ("hem", SURE)}
    run = finished_run(engine, store, predictions, parts={first: "train", second: "validation"})
    wanted = Filters(labels=("all",), run_id=run)
    with db.reading(engine) as session:
        entries = chosen.entries_of_filter(session, store.dataset, wanted, Sort.MOST_CONFIDENT)
        few = chosen.entries_of_filter(session, store.dataset, wanted, Sort.MOST_CONFIDENT, limit=2)
    assert [entry.cell_id for entry in entries] == [third, second, first]
    assert [entry.cell_id for entry in few] == [third, second]
    assert [entry.part for entry in entries] == ["train", "validation", "train"]
    assert (entries[0].subject, entries[0].predicted, entries[0].path) == (
        "1",
        "hem",
        "/nowhere/cells/1/2.bmp",
    )


def test_predictions_of_test_cells_neither_choose_nor_order(engine: sa.Engine) -> None:
    store = small_store(engine, {"1": ("all", 3), "H1": ("hem", 1)})
    first, second, third = store.cells["1"]
    predictions = {first: ("all", 0.6), second: ("hem", 0.7), third: ("hem", SURE)}
    run = finished_run(engine, store, predictions, parts={third: "test"})
    shown = Filters(subjects=("1",), run_id=run, test_predictions=True)
    with db.reading(engine) as session:
        ordered = chosen.entries_of_filter(session, store.dataset, shown, Sort.MOST_CONFIDENT)
        wrong = chosen.entries_of_filter(
            session, store.dataset, replace(shown, verdict="wrong"), Sort.IMPORTED
        )
    assert [entry.cell_id for entry in ordered] == [second, first, third]
    assert ordered[-1].predicted == ""
    assert [entry.cell_id for entry in wrong] == [second]


def test_a_selection_keeps_its_order_and_becomes_a_worklist(engine: sa.Engine) -> None:
    store = small_store(engine, {"1": ("all", 3)})
    first, second, third = store.cells["1"]
    decide(engine, cell_id=third, label="unsure", reviewer_id=store.ann, seen=None)
    with db.reading(engine) as session:
        entries = chosen.entries_of_cells(session, [third, first])
    assert [(entry.cell_id, entry.current_label) for entry in entries] == [(third, "unsure"), (first, "all")]
    worklist = worklists.create(
        engine, dataset_id=store.dataset, name="Two", strategy=chosen.STRATEGY, entries=entries
    )
    with db.reading(engine) as session:
        items = session.execute(
            sa.select(WorklistItem.cell_id, WorklistItem.part)
            .where(WorklistItem.worklist_id == worklist)
            .order_by(WorklistItem.position)
        ).all()
    assert [tuple(item) for item in items] == [(third, None), (first, None)]
    assert second not in {item.cell_id for item in items}


def test_without_a_run_test_cells_are_still_read_blind(sqlite_engine: sa.Engine) -> None:
    engine = sqlite_engine
    store = small_store(engine, {"1": ("all", 3), "H1": ("hem", 1)})
    first, second, third = store.cells["1"]
    predictions = dict.fromkeys((first, second, third), ("all", 0.9))
    finished_run(engine, store, predictions, parts={third: "test"})
    finished_run(engine, store, predictions, parts={second: "test"})
    with db.reading(engine) as session:
        entries = chosen.entries_of_cells(session, [first, second, third])
    made = worklists.create(
        engine, dataset_id=store.dataset, name="Three", strategy=chosen.STRATEGY, entries=entries
    )
    sitting = sittings.start(engine, worklist_id=made, reviewer_id=store.ann)
    hidden = {cell.cell_id: cell.hidden for cell in sittings.upcoming(engine, sitting, count=3)}
    assert hidden == {first: frozenset(), second: BLIND_TEST, third: frozenset()}


@pytest.mark.parametrize(
    ("filters", "name"),
    [
        (Filters(), "All cells"),
        (
            Filters(labels=("hem",), subjects=("H3",), run_id=1, verdict="wrong"),
            "Normal (hem), subject H3, wrong predictions",
        ),
        (Filters(verdict="wrong", parts=("test",)), "All cells"),  # without a run these do not restrict
        (Filters(run_id=1, parts=("train", "validation")), "Training and validation cells"),
        (Filters(subjects=("1", "2")), "Subjects 1 and 2"),
        (Filters(subjects=("1", "2", "3", "4")), "4 subjects"),
        (Filters(text=" UID ", labelled="not labelled"), "Not labelled yet, “UID”"),
        (
            Filters(run_id=1, confidence=(0.5, 0.9)),
            "Certainty 50\N{NO-BREAK SPACE}% to 90\N{NO-BREAK SPACE}%",
        ),
    ],
)
def test_a_filter_in_words(filters: Filters, name: str) -> None:
    assert chosen.name_in_words(filters) == name


def test_a_long_filter_fits_into_a_worklists_name() -> None:
    name = chosen.name_in_words(Filters(text="x" * 300))
    assert len(name) == chosen.LONGEST_NAME
    assert name.endswith("…")
