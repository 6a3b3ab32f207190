"""Disputed cells, adjudicating them one by one, and recording the majority of many at once."""

import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.labels import current_label, standing
from allreview.review.log import reverting
from allreview.review.log.annotations import StaleSelection, decide, reviewer_named
from allreview.review.readers import adjudication
from allreview.review.readers.adjudication import Disputes, disputes, make_worklist, record_majorities
from allreview.review.reading import desk_cells, sittings, worklists
from db.tables import Annotation, Cell, Worklist, WorklistItem
from tests.factory import Store, entries_of, finished_run, small_store


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return small_store(engine, {"1": ("all", 4), "H1": ("hem", 1)})


def say(engine: sa.Engine, cell: int, answers: dict[int, str]) -> None:
    """Each reviewer's answer to the cell, given without seeing the others'."""
    for reviewer, label in answers.items():
        decide(
            engine, cell_id=cell, label=label, reviewer_id=reviewer, seen=None, visible=(), independent=True
        )


def ask(engine: sa.Engine, store: Store, **kwargs: int) -> Disputes:
    with db.reading(engine) as session:
        return disputes(session, dataset_id=store.dataset, **kwargs)


def label_now(engine: sa.Engine, cell_id: int) -> str:
    now = standing()
    with db.reading(engine) as session:
        query = sa.select(current_label(now)).select_from(Cell).outerjoin(now, now.c.cell_id == Cell.id)
        return session.scalars(query.where(Cell.id == cell_id)).one()


@pytest.fixture
def disputed(engine: sa.Engine, store: Store) -> Disputes:
    """Two against one, one against one, and cells that nobody disputes."""
    cleo = reviewer_named(engine, "Cleo")
    two_to_one, tie, agreed, _ = store.cells["1"]
    say(engine, two_to_one, {store.ann: "all", store.ben: "all", cleo: "unsure"})
    say(engine, tie, {store.ann: "all", store.ben: "unusable"})
    say(engine, agreed, {store.ann: "unsure", store.ben: "unsure"})
    return ask(engine, store)


def test_disputed_cells_the_most_evenly_divided_first(store: Store, disputed: Disputes) -> None:
    two_to_one, tie, *_ = store.cells["1"]
    assert [dispute.cell.cell_id for dispute in disputed.cells] == [tie, two_to_one]
    first, second = disputed.cells
    assert (first.majority, first.lead, second.majority, second.lead) == (
        None,
        0.0,
        "all",
        pytest.approx(1 / 3),
    )
    assert second.answers == {"Ann": "all", "Ben": "all", "Cleo": "unsure"}
    assert [dispute.cell.cell_id for dispute in disputed.with_majority] == [two_to_one]


def test_an_adjudicated_cell_is_settled_until_that_is_undone(
    engine: sa.Engine, store: Store, disputed: Disputes
) -> None:
    made = make_worklist(engine, disputed.cells, dataset_id=store.dataset, reviewer_id=store.ann)
    # Pressed twice, or by two people: the same worklist.
    assert make_worklist(engine, disputed.cells, dataset_id=store.dataset, reviewer_id=store.ben) == made
    sitting = sittings.start(engine, worklist_id=made, reviewer_id=store.ann)
    (cell,) = sittings.upcoming(engine, sitting)
    assert cell.cell_id == disputed.cells[0].cell.cell_id
    assert cell.hidden == {"prediction", "source_label"}
    with db.reading(engine) as session:
        worklist = session.get_one(Worklist, made)
        assert (worklist.adjudicates, worklist.name, worklist.overlap) == (True, "Adjudication", 1)
        # Ann sees what Ben said: that is the question.
        assert [event.label for event in desk_cells.answers_of_others(session, cell, store.ann)] == [
            "unusable"
        ]
        reasons = session.scalars(sa.select(WorklistItem.reason).order_by(WorklistItem.position)).all()
    assert reasons == ["Its readers are divided 1 to 1.", "Its readers are divided 2 to 1."]
    event = sittings.answer(engine, sitting, cell, "unusable", seen=cell.last_event_id)
    assert label_now(engine, cell.cell_id) == "unusable"
    assert [d.cell.cell_id for d in ask(engine, store).cells] == [disputed.cells[1].cell.cell_id]
    # A later decision does not outrank it, and the dispute stays settled.
    decide(engine, cell_id=cell.cell_id, label="all", reviewer_id=store.ben, seen=event)
    assert label_now(engine, cell.cell_id) == "unusable"
    assert len(ask(engine, store).cells) == 1
    reverting.undo(engine, annotation_id=event, reviewer_id=store.ann)
    # Ben says "all" now, as Ann does.
    assert [d.cell.cell_id for d in ask(engine, store).cells] == [disputed.cells[1].cell.cell_id]


def test_majorities_are_one_batch_that_can_be_undone(
    engine: sa.Engine, store: Store, disputed: Disputes
) -> None:
    two_to_one, tie, *_ = store.cells["1"]
    assert label_now(engine, two_to_one) == "unsure"  # the last answer stands
    batch = record_majorities(engine, disputed.cells, reviewer_id=store.ben)
    with db.reading(engine) as session:
        (written,) = session.scalars(sa.select(Annotation).where(Annotation.batch == batch)).all()
        assert (written.kind, written.label, written.cell_id) == ("adjudication", "all", two_to_one)
        assert written.comment == adjudication.MAJORITY
        assert "others" in (written.visible or ())
    assert label_now(engine, two_to_one) == "all"
    assert [dispute.cell.cell_id for dispute in ask(engine, store).cells] == [tie]
    reverting.undo_batch(engine, batch=batch, reviewer_id=store.ben)
    assert label_now(engine, two_to_one) == "unsure"
    assert len(ask(engine, store).cells) == 2


def test_majorities_are_not_recorded_over_what_was_said_meanwhile(
    engine: sa.Engine, store: Store, disputed: Disputes
) -> None:
    two_to_one = store.cells["1"][0]
    seen = disputed.cells[1].seen
    decide(engine, cell_id=two_to_one, label="unusable", reviewer_id=store.ann, seen=seen)
    with pytest.raises(StaleSelection, match="Ann decided on 1 of these"):
        record_majorities(engine, disputed.cells, reviewer_id=store.ben)
    with pytest.raises(UserError, match="one by one"):
        record_majorities(engine, disputed.cells[:1], reviewer_id=store.ben)
    with pytest.raises(UserError, match="nothing to adjudicate"):
        make_worklist(engine, [], dataset_id=store.dataset)
    with db.reading(engine) as session:
        assert not session.scalars(sa.select(Annotation).where(Annotation.batch.is_not(None))).all()


def test_a_worklists_disputes_wait_for_all_readers_and_are_withheld_from_those_who_still_read(
    engine: sa.Engine, store: Store
) -> None:
    run = finished_run(
        engine,
        store,
        dict.fromkeys(store.cells["1"], ("all", 0.8)),
        parts={store.cells["1"][0]: "test"},
    )
    cleo = reviewer_named(engine, "Cleo")
    with db.reading(engine) as session:
        entries = entries_of(session, store.cells["1"][:2])
    made = worklists.create(
        engine,
        dataset_id=store.dataset,
        run_id=run,
        name="Study",
        strategy="filter",
        entries=entries,
        hidden={"others"},
        overlap=3,
        readers=[store.ann, store.ben, cleo],
    )

    def read(reviewer: int, label: str) -> None:
        sitting = sittings.start(engine, worklist_id=made, reviewer_id=reviewer)
        (cell,) = sittings.upcoming(engine, sitting)
        sittings.answer(engine, sitting, cell, label, seen=cell.last_event_id)

    for reviewer, label in ((store.ann, "all"), (store.ben, "unsure")):
        read(reviewer, label)
        read(reviewer, "all")
    assert ask(engine, store, worklist_id=made) == Disputes([], waiting=1)
    read(cleo, "all")
    assert len(ask(engine, store, worklist_id=made, viewer_id=store.ann).cells) == 1
    assert ask(engine, store, worklist_id=made, viewer_id=cleo) == Disputes([], withheld=1)
    assert ask(engine, store, viewer_id=cleo) == Disputes([], withheld=1)
    worklists.close(engine, made)
    (dispute,) = ask(engine, store, worklist_id=made, viewer_id=cleo).cells
    adjudicating = make_worklist(engine, [dispute], dataset_id=store.dataset, worklist_id=made)
    with db.reading(engine) as session:
        worklist = session.get_one(Worklist, adjudicating)
        assert (worklist.name, worklist.run_id) == ("Adjudication of Study", run)
        # Test cells are adjudicated blind, but with the readers' answers in view.
        sitting = sittings.start(engine, worklist_id=adjudicating, reviewer_id=store.ann)
    (cell,) = sittings.upcoming(engine, sitting)
    assert cell.shows("others")
    assert cell.blind
