"""What to look at next."""

import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.review.annotations import decide
from allreview.review.queues import queue_of
from db.tables import Run
from tests.factory import Store, finished_run, small_store


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return small_store(engine, {"1": ("all", 4), "H1": ("hem", 4)})


@pytest.fixture
def run(engine: sa.Engine, store: Store) -> int:
    a, h = store.cells["1"], store.cells["H1"]
    predictions = {a[0]: ("all", 0.9), a[1]: ("hem", 0.6), a[2]: ("hem", 0.99), a[3]: ("all", 0.51)}
    predictions |= {h[0]: ("hem", 0.8), h[1]: ("all", 0.7), h[2]: ("hem", 0.95), h[3]: ("all", 0.55)}
    return finished_run(engine, store, predictions, parts={a[1]: "test", h[1]: "validation"})


def ids(engine: sa.Engine, run: int, **options: object) -> list[int]:
    with db.reading(engine) as session:
        return [entry.cell_id for entry in queue_of(session, run, **options)]  # type: ignore[arg-type]


def test_misclassified_cells_come_worst_first_with_a_reason(
    engine: sa.Engine, store: Store, run: int
) -> None:
    a, h = store.cells["1"], store.cells["H1"]
    assert ids(engine, run) == [a[2], h[1], a[1], h[3]]
    with db.reading(engine) as session:
        first = queue_of(session, run)[0]
    assert first.score == pytest.approx(0.01)
    assert first.reason == "The model says Normal (hem) with 99\N{NO-BREAK SPACE}%, the label says ALL."
    assert first.path == "/nowhere/cells/1/2.bmp"


def test_parts_and_limit(engine: sa.Engine, store: Store, run: int) -> None:
    assert ids(engine, run, parts=("test",)) == [store.cells["1"][1]]
    assert ids(engine, run, limit=1) == [store.cells["1"][2]]


def test_decided_cells_leave_the_queue(engine: sa.Engine, store: Store, run: int) -> None:
    worst = store.cells["1"][2]
    decide(engine, cell_id=worst, label="all", reviewer_id=store.ann, seen=None)
    assert worst not in ids(engine, run)
    assert worst in ids(engine, run, include_decided=True)


def test_a_corrected_label_is_no_mistake_any_more(engine: sa.Engine, store: Store, run: int) -> None:
    worst = store.cells["1"][2]
    decide(engine, cell_id=worst, label="hem", reviewer_id=store.ann, seen=None)
    assert worst not in ids(engine, run, include_decided=True)


def test_uncertain_puts_the_narrowest_margin_first(engine: sa.Engine, store: Store, run: int) -> None:
    assert ids(engine, run, by="uncertain")[:2] == [store.cells["1"][3], store.cells["H1"][3]]


def test_what_cannot_be_queued_is_one_sentence(engine: sa.Engine, store: Store, run: int) -> None:
    with db.reading(engine) as session:
        with pytest.raises(UserError, match="The queues are: misclassified, uncertain"):
            queue_of(session, run, by="magic")
        with pytest.raises(UserError, match="no run 99"):
            queue_of(session, 99)
    empty = finished_run(engine, store, {})
    with db.writing(engine) as session:
        session.get_one(Run, empty).state = "running"
    with db.reading(engine) as session, pytest.raises(UserError, match="no predictions yet"):
        queue_of(session, empty)
