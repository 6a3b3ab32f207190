"""Many processes write to one store: the count is exact, nothing twice, nothing lost."""

import multiprocessing
import os
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.review.reading import worklists
from allreview.settings import Settings
from db.tables import Annotation, Reviewer, ReviewSession
from tests.factory import entries_of, small_store

READERS = 4
CELLS = 60
FOUGHT_OVER = 12


def read_all(url: str, worklist: int, reviewer: int) -> list[int]:
    """Read the worklist to its end, as a desk does; the annotations this reader was told are saved."""
    from allreview.review.reading import sittings

    engine = db.engine_for(url)
    sitting = sittings.start(engine, worklist_id=worklist, reviewer_id=reviewer)
    saved = []
    while cells := sittings.upcoming(engine, sitting, 3):
        saved.append(
            sittings.answer(engine, sitting, cells[0], "hem", seen=cells[0].last_event_id, duration_ms=300)
        )
    return saved


def fight(url: str, cells: list[int], reviewer: int) -> tuple[list[int], int, int]:
    """Decide on cells that everybody decides on, many times: what was saved, in how many decisions, and how often
    somebody else was faster."""
    from allreview.review.log import annotations
    from allreview.review.log.events import StaleSelection, StaleView, last_event_id, last_event_ids

    engine = db.engine_for(url)
    saved, done, refused = [], 0, 0
    for turn in range(FOUGHT_OVER):
        cell = cells[turn % 3]
        with db.reading(engine) as session:
            seen = last_event_id(session, cell)
            seen_of = last_event_ids(session, cells)
        try:
            saved.append(
                annotations.decide(engine, cell_id=cell, label="all", reviewer_id=reviewer, seen=seen)
            )
            done += 1
        except StaleView:
            refused += 1
        if turn % 4 == 0:
            try:
                batch = annotations.decide_many(
                    engine, cells={c: seen_of.get(c) for c in cells}, label="hem", reviewer_id=reviewer
                )
            except StaleSelection:
                refused += 1
            else:
                done += 1
                with db.reading(engine) as session:
                    saved += session.scalars(sa.select(Annotation.id).where(Annotation.batch == batch))
    return saved, done, refused


@pytest.fixture
def pool(settings: Settings, home: Path):
    with multiprocessing.get_context("spawn").Pool(READERS) as processes:
        yield processes


def test_readers_in_processes_of_their_own_read_each_cell_once(
    engine: sa.Engine, settings: Settings, pool
) -> None:
    store = small_store(engine, {"1": ("all", CELLS), "H1": ("hem", 3)})
    with db.writing(engine) as session:
        people = [Reviewer(name=f"Reader {number}") for number in range(READERS)]
        session.add_all(people)
        session.flush()
        readers = [person.id for person in people]
        entries = entries_of(session, store.cells["1"])
    worklist = worklists.create(
        engine, dataset_id=store.dataset, name="w", strategy="random", entries=entries
    )
    told = pool.starmap(read_all, [(settings.url, worklist, reader) for reader in readers])
    with db.reading(engine) as session:
        rows = session.execute(
            sa.select(
                Annotation.id, Annotation.cell_id, ReviewSession.reviewer_id, Annotation.reviewer_id
            ).join(ReviewSession, ReviewSession.id == Annotation.session_id)
        ).all()
    assert Counter(cell for _, cell, _, _ in rows) == Counter(store.cells["1"])
    assert sorted(number for saved in told for number in saved) == sorted(row[0] for row in rows)
    assert all(sitter == decider for *_, sitter, decider in rows)
    assert os.cpu_count() == 1 or sum(bool(saved) for saved in told) > 1  # they did work side by side

    fought = pool.starmap(fight, [(settings.url, store.cells["H1"], reader) for reader in readers])
    with db.reading(engine) as session:
        log = session.execute(
            sa.select(Annotation.id, Annotation.cell_id, Annotation.sequence)
            .where(Annotation.cell_id.in_(store.cells["H1"]))
            .order_by(Annotation.cell_id, Annotation.sequence)
        ).all()
    assert sorted(number for saved, _, _ in fought for number in saved) == sorted(row[0] for row in log)
    for cell in store.cells["H1"]:
        sequences = [sequence for _, of, sequence in log if of == cell]
        assert sequences == list(range(1, len(sequences) + 1))
    tries = (FOUGHT_OVER + FOUGHT_OVER // 4) * READERS
    assert sum(done + refused for _, done, refused in fought) == tries
