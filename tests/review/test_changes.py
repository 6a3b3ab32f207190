"""What changed since a run was trained."""

import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.review.log import reverting
from allreview.review.log.annotations import decide
from allreview.review.log.events import last_event_id
from allreview.review.record import record_csv
from allreview.review.record.changes import changed_cells, changes_since
from tests.factory import Store, add_cell, finished_run, small_store


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return small_store(engine)


def say(engine: sa.Engine, cell: int, label: str, reviewer: int) -> int:
    with db.reading(engine) as session:
        seen = last_event_id(session, cell)
    return decide(engine, cell_id=cell, label=label, reviewer_id=reviewer, seen=seen)


def test_counts_and_cells_of_what_changed(engine: sa.Engine, store: Store) -> None:
    cells = store.cells["1"]
    everything = [cell for some in store.cells.values() for cell in some]
    run = finished_run(
        engine,
        store,
        dict.fromkeys(everything, ("all", 0.9)),
        parts={cells[0]: "test", cells[1]: "validation"},
    )
    say(engine, cells[0], "hem", store.ann)
    say(engine, cells[1], "unsure", store.ben)
    back = say(engine, cells[2], "hem", store.ann)
    reverting.undo(engine, annotation_id=back, reviewer_id=store.ann)
    say(engine, cells[3], "all", store.ann)  # as it was: no change
    with db.writing(engine) as session:
        new = add_cell(session, store.dataset, None, "hem", "new")
    with db.reading(engine) as session:
        since = changes_since(session, run)
        assert (since.relabelled, since.left_out, since.taken_in, since.new) == (1, 1, 0, 1)
        assert since.moves == {
            ("all", "hem"): {"train": 0, "validation": 0, "test": 1},
            ("all", "unsure"): {"train": 0, "validation": 1, "test": 0},
        }
        found = changed_cells(session, run)
        assert [(cell.cell_id, cell.part, cell.before, cell.after, cell.reviewer) for cell in found] == [
            (cells[0], "test", "all", "hem", "Ann"),
            (cells[1], "validation", "all", "unsure", "Ben"),
        ]
        assert [cell.cell_id for cell in changed_cells(session, run, part="test")] == [cells[0]]
        assert [cell.cell_id for cell in changed_cells(session, run, after=cells[0], limit=1)] == [cells[1]]
        assert b",test,all,hem,Ann,20" in record_csv.changes_csv(found)
        hidden = changes_since(session, run, withheld={cells[0], new})
        assert (hidden.cells, hidden.new, hidden.withheld) == (1, 0, 1)
        assert [cell.cell_id for cell in changed_cells(session, run, withheld={cells[0]})] == [cells[1]]


def test_who_took_an_old_answer_back_is_who_changed_the_cell(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    answer = say(engine, cell, "hem", store.ann)
    run = finished_run(engine, store, {cell: ("all", 0.9)})
    with db.writing(engine) as session:  # the snapshot says what the answer said
        session.execute(sa.text("update snapshot_cells set label = 'hem'"))
    reverting.revert(engine, reviewer_id=store.ben, annotation_ids=[answer])
    with db.reading(engine) as session:
        (found,) = changed_cells(session, run)
    assert (found.before, found.after, found.reviewer) == ("hem", "all", "Ben")


def test_nothing_changed_and_no_such_run(engine: sa.Engine, store: Store) -> None:
    cells = {cell: ("all", 0.9) for some in store.cells.values() for cell in some}
    run = finished_run(engine, store, cells)
    with db.reading(engine) as session:
        assert changes_since(session, run).nothing
        with pytest.raises(UserError, match="no run 99"):
            changes_since(session, 99)
