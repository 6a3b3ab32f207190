"""A reviewer's place in a queue."""

import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.review import sittings
from allreview.review.annotations import decide
from allreview.review.sittings import Progress
from tests.factory import Store, finished_run, small_store


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return small_store(engine, {"1": ("all", 4), "H1": ("hem", 2)})


@pytest.fixture
def run(engine: sa.Engine, store: Store) -> int:
    a, h = store.cells["1"], store.cells["H1"]
    predictions = {cell: ("hem", 0.9 - index / 10) for index, cell in enumerate(a)}
    predictions |= {h[0]: ("hem", 0.8), h[1]: ("all", 0.99)}
    return finished_run(engine, store, predictions, parts={h[1]: "test"})


def here(engine: sa.Engine, sitting: int) -> list[int]:
    with db.reading(engine) as session:
        return [cell.cell_id for cell in sittings.upcoming(session, sitting, 10)]


def answer(engine: sa.Engine, store: Store, sitting: int, label: str = "hem") -> int:
    with db.reading(engine) as session:
        cell = sittings.upcoming(session, sitting, 1)[0]
    decide(
        engine,
        cell_id=cell.cell_id,
        label=label,
        reviewer_id=store.ann,
        seen=cell.last_event_id,
        session_id=sitting,
    )
    return cell.cell_id


def test_cells_come_in_queue_order_and_the_place_is_kept(engine: sa.Engine, store: Store, run: int) -> None:
    a = store.cells["1"]
    sitting = sittings.start(engine, reviewer_id=store.ann, run_id=run)
    assert here(engine, sitting) == a
    answer(engine, store, sitting)
    assert sittings.start(engine, reviewer_id=store.ann, run_id=run) == sitting
    assert here(engine, sitting) == a[1:]
    with db.reading(engine) as session:
        assert sittings.progress(session, sitting) == Progress(decided=1, skipped=0, total=4)


def test_undo_goes_back_through_decisions_and_skips_in_their_order(
    engine: sa.Engine, store: Store, run: int
) -> None:
    a = store.cells["1"]
    sitting = sittings.start(engine, reviewer_id=store.ann, run_id=run)
    answer(engine, store, sitting)
    sittings.skip(engine, sitting, a[1])
    answer(engine, store, sitting)
    assert here(engine, sitting) == [a[3]]
    assert sittings.undo_last(engine, sitting, store.ann) == "decision"
    assert here(engine, sitting) == [a[2], a[3]]
    assert sittings.undo_last(engine, sitting, store.ann) == "skip"
    assert sittings.undo_last(engine, sitting, store.ann) == "decision"
    assert sittings.undo_last(engine, sitting, store.ann) is None
    assert here(engine, sitting) == a


def test_skipped_cells_can_be_taken_up_again(engine: sa.Engine, store: Store, run: int) -> None:
    sitting = sittings.start(engine, reviewer_id=store.ann, run_id=run)
    for cell in store.cells["1"]:
        sittings.skip(engine, sitting, cell)
    assert here(engine, sitting) == []
    sittings.take_up_skipped(engine, sitting)
    assert here(engine, sitting) == store.cells["1"]


def test_two_reviewers_have_sittings_of_their_own(engine: sa.Engine, store: Store, run: int) -> None:
    first = sittings.start(engine, reviewer_id=store.ann, run_id=run)
    second = sittings.start(engine, reviewer_id=store.ben, run_id=run)
    answered = answer(engine, store, first)
    assert answered not in here(engine, first)
    assert answered in here(engine, second)
    with db.reading(engine) as session:
        assert sittings.upcoming(session, second, 1)[0].last_event_id is not None


def test_test_cells_are_blind(engine: sa.Engine, store: Store, run: int) -> None:
    sitting = sittings.start(engine, reviewer_id=store.ann, run_id=run, parts=("test",))
    with db.reading(engine) as session:
        (cell,) = sittings.upcoming(session, sitting, 5)
    assert (cell.cell_id, cell.blind) == (store.cells["H1"][1], True)


def test_a_finished_sitting_starts_anew_on_what_is_left(engine: sa.Engine, store: Store, run: int) -> None:
    sitting = sittings.start(engine, reviewer_id=store.ann, run_id=run)
    answer(engine, store, sitting)
    sittings.end(engine, sitting)
    again = sittings.start(engine, reviewer_id=store.ann, run_id=run)
    assert again != sitting
    assert here(engine, again) == store.cells["1"][1:]
    for _ in range(3):
        answer(engine, store, again)
    sittings.end(engine, again)
    with pytest.raises(UserError, match="Nothing is left to read"):
        sittings.start(engine, reviewer_id=store.ann, run_id=run)


def test_the_strip_shows_the_subjects_other_cells(engine: sa.Engine, store: Store, run: int) -> None:
    sitting = sittings.start(engine, reviewer_id=store.ann, run_id=run)
    with db.reading(engine) as session:
        cell = sittings.upcoming(session, sitting, 1)[0]
        paths = [path for _, path in sittings.subject_strip(session, cell, 2)]
    assert paths == ["/nowhere/cells/1/1.bmp", "/nowhere/cells/1/2.bmp"]
