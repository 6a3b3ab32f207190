"""Whatever is done to the log in whatever order: the current label is what a replay of the log says."""

import contextlib
import itertools

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import db
from allreview.errors import UserError
from allreview.labels import in_force, wrongly_kept
from allreview.review.log import annotations, reverting
from allreview.review.log.events import StaleSelection, StaleView, last_event_id, last_event_ids
from allreview.review.reading import sittings, undoing, worklists
from db.tables import Annotation, Base, Cell
from tests.factory import entries_of, small_store

LABELS = ("all", "hem", "unsure", "unusable")
CELLS = 4
cells = st.integers(0, CELLS - 1)
people = st.booleans()
labels = st.sampled_from(LABELS)
choices = st.integers(0, 10_000)


def replayed(events: list[Annotation]) -> tuple[set[int], Annotation | None]:
    """What stands of one cell's events in their order, and which of them speaks: written apart from the query."""
    stands: dict[int, tuple[bool, Annotation]] = {}
    first: dict[int, Annotation] = {}
    for event in events:
        if event.kind in ("undo", "revert"):
            del stands[event.undoes_id]
            continue
        first[event.id] = first[event.redoes_id] if event.kind == "redo" else event
        stands[event.id] = (first[event.id].kind == "adjudication", event)
    outranking = [event for outranks, event in stands.values() if outranks]
    plain = [event for _, event in stands.values()]
    return set(stands), (outranking or plain or [None])[-1]


class Log(RuleBasedStateMachine):
    """Two reviewers decide, undo, redo, decide in bulk, adjudicate, revert and restore on four cells."""

    engine: sa.Engine

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
        self.store = small_store(self.engine, {"1": ("all", CELLS - 1), "H1": ("hem", 1)})
        self.cells = list(itertools.chain(*self.store.cells.values()))
        with db.reading(self.engine) as session:
            entries = entries_of(session, self.cells)
        worklist = worklists.create(
            self.engine, dataset_id=self.store.dataset, name="w", strategy="random", entries=entries
        )
        self.sitting = sittings.start(self.engine, worklist_id=worklist, reviewer_id=self.store.ann)
        self.events = 0
        self.batches: list[str] = []

    def who(self, ann: bool) -> int:
        return self.store.ann if ann else self.store.ben

    def pick(self, choice: int, *where: sa.ColumnElement[bool]) -> Annotation | None:
        with db.reading(self.engine) as session:
            found = session.scalars(sa.select(Annotation).where(*where).order_by(Annotation.id)).all()
        return found[choice % len(found)] if found else None

    @rule(cell=cells, label=labels, ann=people, adjudicates=st.booleans())
    def decide(self, cell: int, label: str, ann: bool, adjudicates: bool) -> None:
        with db.reading(self.engine) as session:
            seen = last_event_id(session, self.cells[cell])
        annotations.decide(
            self.engine,
            cell_id=self.cells[cell],
            label=label,
            reviewer_id=self.who(ann),
            seen=seen,
            adjudicates=adjudicates,
        )
        self.events += 1

    @precondition(lambda self: self.events)
    @rule(cell=cells, label=labels, ann=people)
    def decide_on_a_stale_view(self, cell: int, label: str, ann: bool) -> None:
        with db.reading(self.engine) as session:
            last = last_event_id(session, self.cells[cell])
        if last is not None:
            with pytest.raises(StaleView):
                annotations.decide(
                    self.engine, cell_id=self.cells[cell], label=label, reviewer_id=self.who(ann), seen=None
                )
            with pytest.raises(StaleSelection):
                annotations.decide_many(
                    self.engine,
                    cells=dict.fromkeys(self.cells),
                    label=label,
                    reviewer_id=self.who(ann),
                )

    @rule(given=st.dictionaries(cells, labels, min_size=1), ann=people, adjudicates=st.booleans())
    def decide_many(self, given: dict[int, str], ann: bool, adjudicates: bool) -> None:
        wanted = {self.cells[cell]: label for cell, label in given.items()}
        with db.reading(self.engine) as session:
            last = last_event_ids(session, wanted)
        batch = annotations.decide_many(
            self.engine,
            cells={cell: last.get(cell) for cell in wanted},
            label=wanted,
            reviewer_id=self.who(ann),
            adjudicates=adjudicates,
        )
        self.events += len(wanted)
        self.batches.append(batch)

    @rule(label=labels)
    def answer_on_the_desk(self, label: str) -> None:
        for cell in sittings.upcoming(self.engine, self.sitting, 1):
            sittings.answer(self.engine, self.sitting, cell, label, seen=cell.last_event_id)
            self.events += 1

    @rule(cell=cells)
    def skip_on_the_desk(self, cell: int) -> None:
        sittings.skip(self.engine, self.sitting, self.cells[cell])

    @rule()
    def undo_on_the_desk(self) -> None:
        self.events += undoing.undo_last(self.engine, self.sitting) == "decision"

    @rule()
    def redo_on_the_desk(self) -> None:
        with contextlib.suppress(StaleView):
            self.events += undoing.redo_last(self.engine, self.sitting) == "decision"

    @rule(choice=choices, ann=people)
    def undo(self, choice: int, ann: bool) -> None:
        target = self.pick(choice, in_force(), Annotation.reviewer_id == self.who(ann))
        if target is None:
            return
        reverting.undo(self.engine, annotation_id=target.id, reviewer_id=self.who(ann))
        self.events += 1
        with pytest.raises(UserError):  # once only
            reverting.undo(self.engine, annotation_id=target.id, reviewer_id=self.who(ann))

    @rule(choice=choices, ann=people)
    def redo(self, choice: int, ann: bool) -> None:
        target = self.pick(choice, Annotation.label.is_not(None), Annotation.reviewer_id == self.who(ann))
        if target is None:
            return
        with contextlib.suppress(UserError):  # it stands already
            reverting.redo(self.engine, annotation_id=target.id, reviewer_id=self.who(ann))
            self.events += 1

    @rule(choice=choices, ann=people)
    def revert(self, choice: int, ann: bool) -> None:
        target = self.pick(choice, in_force())
        if target is not None:
            self.batches.append(
                reverting.revert(self.engine, reviewer_id=self.who(ann), annotation_ids=[target.id])
            )
            self.events += 1

    @precondition(lambda self: self.batches)
    @rule(choice=choices, ann=people, back=st.booleans())
    def revert_or_restore_a_batch(self, choice: int, ann: bool, back: bool) -> None:
        batch = self.batches[choice % len(self.batches)]
        change = reverting.restore if back else reverting.revert_batch
        try:
            new = change(self.engine, batch=batch, reviewer_id=self.who(ann))
        except UserError:
            return
        self.batches.append(new)
        with db.reading(self.engine) as session:
            self.events += session.scalar(
                sa.select(sa.func.count()).select_from(Annotation).where(Annotation.batch == new)
            )

    @rule(ann=people)
    def revert_the_sitting(self, ann: bool) -> None:
        try:
            new = reverting.revert_session(
                self.engine, session_id=self.sitting, reviewer_id=self.who(ann), reason="machine"
            )
        except UserError:
            return
        self.batches.append(new)
        with db.reading(self.engine) as session:
            self.events += session.scalar(
                sa.select(sa.func.count()).select_from(Annotation).where(Annotation.batch == new)
            )

    @invariant()
    def the_current_label_is_a_replay_of_the_log(self) -> None:
        with db.reading(self.engine) as session:
            log = session.scalars(
                sa.select(Annotation).order_by(Annotation.cell_id, Annotation.sequence)
            ).all()
            kept = sa.select(Cell.id, Cell.source_label, Cell.current_label, Cell.standing_id)
            said = session.execute(kept).all()
            assert wrongly_kept(session) == []
            stand = set(session.scalars(sa.select(Annotation.id).where(in_force())))
        assert len(log) == self.events
        by_cell = {cell: list(events) for cell, events in itertools.groupby(log, lambda event: event.cell_id)}
        expected_stand: set[int] = set()
        for cell, source, current, standing_id in said:
            events = by_cell.get(cell, [])
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            before = [None, *(event.id for event in events)]
            assert all(event.supersedes_id == last for event, last in zip(events, before, strict=False))
            here, speaks = replayed(events)
            expected_stand |= here
            assert standing_id == (speaks.id if speaks else None)
            assert current == (speaks.label if speaks else source)
        assert stand == expected_stand


@pytest.mark.parametrize(
    ("examples", "steps"), [(6, 20), pytest.param(200, 40, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_the_current_label_always_equals_a_replay_of_the_log(
    engine: sa.Engine, examples: int, steps: int
) -> None:
    run_state_machine_as_test(
        type("LogHere", (Log,), {"engine": engine}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
