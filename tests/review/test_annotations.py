"""The log: nothing is overwritten, nothing is lost."""

import threading

import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.labels import current_label, standing
from allreview.review.log.annotations import decide, last_decision, reviewer_named
from allreview.review.log.events import StaleView, last_event_id
from allreview.review.log.reverting import undo
from db.tables import Annotation, Cell, Reviewer
from tests.factory import Store, small_store


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return small_store(engine, {"1": ("all", 2), "H1": ("hem", 2)})


def label_now(engine: sa.Engine, cell_id: int) -> str:
    now = standing()
    with db.reading(engine) as session:
        query = sa.select(current_label(now)).select_from(Cell).outerjoin(now, now.c.cell_id == Cell.id)
        return session.scalars(query.where(Cell.id == cell_id)).one()


def test_a_decision_becomes_the_current_label(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    assert label_now(engine, cell) == "all"
    decide(engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=None, duration_ms=1200, comment="c")
    assert label_now(engine, cell) == "hem"
    with db.reading(engine) as session:
        kept = session.scalars(sa.select(Annotation)).one()
        assert session.get_one(Cell, cell).source_label == "all"
    assert (kept.sequence, kept.supersedes_id, kept.duration_ms, kept.comment) == (1, None, 1200, "c")


def test_a_stale_decision_is_refused_and_both_are_known(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    first = decide(engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=None)
    with pytest.raises(StaleView) as caught:
        decide(engine, cell_id=cell, label="unsure", reviewer_id=store.ben, seen=None)
    assert (caught.value.newer.id, caught.value.newer.reviewer, caught.value.label) == (
        first,
        "Ann",
        "unsure",
    )
    assert "Ann said Normal (hem)" in str(caught.value)
    assert label_now(engine, cell) == "hem"
    decide(engine, cell_id=cell, label="unsure", reviewer_id=store.ben, seen=first)
    assert label_now(engine, cell) == "unsure"


def test_undo_is_an_event_and_brings_the_earlier_label_back(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    first = decide(engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=None)
    second = decide(engine, cell_id=cell, label="unusable", reviewer_id=store.ben, seen=first)
    undo(engine, annotation_id=second, reviewer_id=store.ben)
    assert label_now(engine, cell) == "hem"
    undo(engine, annotation_id=first, reviewer_id=store.ann)
    assert label_now(engine, cell) == "all"
    with db.reading(engine) as session:
        log = session.execute(sa.select(Annotation.sequence, Annotation.kind).order_by(Annotation.id)).all()
        assert last_decision(session, store.ann) is None
    assert log == [(1, "decision"), (2, "decision"), (3, "undo"), (4, "undo")]


def test_undo_refuses_what_is_not_there_to_undo(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    mine = decide(engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=None)
    with pytest.raises(UserError, match="your own"):
        undo(engine, annotation_id=mine, reviewer_id=store.ben)
    event = undo(engine, annotation_id=mine, reviewer_id=store.ann)
    with pytest.raises(UserError, match="undone already"):
        undo(engine, annotation_id=mine, reviewer_id=store.ann)
    for absent in (event, 999):
        with pytest.raises(UserError, match="no such decision"):
            undo(engine, annotation_id=absent, reviewer_id=store.ann)


def test_a_decision_after_an_undo_names_the_undo_as_seen(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    first = decide(engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=None)
    event = undo(engine, annotation_id=first, reviewer_id=store.ann)
    with pytest.raises(StaleView, match="took back"):
        decide(engine, cell_id=cell, label="hem", reviewer_id=store.ben, seen=first)
    with db.reading(engine) as session:
        assert last_event_id(session, cell) == event
    decide(engine, cell_id=cell, label="hem", reviewer_id=store.ben, seen=event)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"label": "ALL?"}, "Unknown label"),
        ({"cell_id": 12345}, "no cell 12345"),
        ({"reviewer_id": 999}, "who you are"),
    ],
)
def test_bad_decisions_are_refused_in_words(
    engine: sa.Engine, store: Store, change: dict[str, object], sentence: str
) -> None:
    values = {"cell_id": store.cells["1"][0], "label": "hem", "reviewer_id": store.ann, "seen": None} | change
    with pytest.raises(UserError, match=sentence):
        decide(engine, **values)  # type: ignore[arg-type]
    with db.reading(engine) as session:
        assert session.scalar(sa.select(sa.func.count(Annotation.id))) == 0


def test_of_many_who_saw_the_same_one_wins_and_nobody_is_lost(engine: sa.Engine, store: Store) -> None:
    """Eight threads decide on one cell at once, again and again: each round exactly one is written."""
    cell = store.cells["1"][0]
    seen: int | None = None
    for _ in range(5):
        outcomes: list[str] = []
        gate = threading.Barrier(8)

        def decide_once(
            seen: int | None = seen, gate: threading.Barrier = gate, out: list[str] = outcomes
        ) -> None:
            gate.wait()
            try:
                decide(engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=seen)
                out.append("written")
            except StaleView:
                out.append("refused")

        threads = [threading.Thread(target=decide_once) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["refused"] * 7 + ["written"]
        with db.reading(engine) as session:
            seen = last_event_id(session, cell)
    with db.reading(engine) as session:
        assert session.scalars(sa.select(Annotation.sequence).order_by(Annotation.id)).all() == [
            1,
            2,
            3,
            4,
            5,
        ]


def test_reviewers_are_known_by_name_in_any_case(engine: sa.Engine, store: Store) -> None:
    assert reviewer_named(engine, "  ann ") == store.ann
    assert reviewer_named(engine, "Cleo") == reviewer_named(engine, "CLEO")
    with pytest.raises(UserError, match="1 to 200"):
        reviewer_named(engine, "   ")
    with db.writing(engine) as session:
        session.get_one(Reviewer, store.ben).active = False
    with pytest.raises(UserError, match="deactivated"):
        reviewer_named(engine, "Ben")
