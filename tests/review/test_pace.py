"""Pace: cells an hour without the pauses, and how long it will still take; reasons as one text."""

import pytest
import sqlalchemy as sa

import db
from allreview.review.log.annotations import decide
from allreview.review.log.reverting import undo
from allreview.review.reading import pace, reasons
from db.tables import ReviewSession, Worklist
from tests.factory import Store, small_store


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([], None),
        ([9_000] * 4, None),
        ([9_000] * 5, 400.0),
        ([9_000] * 9 + [1_800_000], 400.0),
        ([100_000] * 6, 36.0),  # somebody who takes their time is not pausing
        ([0] * 6, 3_600_000.0),
    ],
)
def test_pauses_do_not_slow_the_pace(durations: list[int], expected: float | None) -> None:
    assert pace.cells_an_hour(durations) == expected


@pytest.mark.parametrize(
    ("per_hour", "left", "words"),
    [
        (None, 10, ""),
        (400.0, 0, "400 cells an hour"),
        (400.0, 1, "400 cells an hour, less than a minute left"),
        (400.0, 200, "400 cells an hour, about 30 min left"),
        (400.0, 500, "400 cells an hour, about 1¼ h left"),
        (1200.0, 10_000, "1,200 cells an hour, about 8¼ h left"),
    ],
)
def test_the_pace_in_words(per_hour: float | None, left: int, words: str) -> None:
    assert pace.pace_words(per_hour, left) == words


def test_durations_are_of_answers_that_stand_the_last_first(engine: sa.Engine) -> None:
    store = small_store(engine)
    sitting = _sitting(engine, store)
    for cell, took in zip(store.cells["1"], (1_000, 2_000, 3_000, None), strict=True):
        last = decide(
            engine,
            cell_id=cell,
            label="all",
            reviewer_id=store.ann,
            seen=None,
            session_id=sitting,
            duration_ms=took,
        )
        if took == 2_000:
            undo(engine, annotation_id=last, reviewer_id=store.ann, session_id=sitting)
    with db.reading(engine) as session:
        assert pace.recent_durations(session, sitting) == [3_000, 1_000]


def _sitting(engine: sa.Engine, store: Store) -> int:
    with db.writing(engine) as session:
        worklist = Worklist(
            dataset_id=store.dataset, name="All", strategy="misclassified", parts=["train"], key="k"
        )
        session.add(worklist)
        session.flush()
        sitting = ReviewSession(worklist_id=worklist.id, reviewer_id=store.ann)
        session.add(sitting)
        session.flush()
        return sitting.id


def test_reasons_go_into_one_text_and_come_back() -> None:
    assert reasons.joined([]) is None
    chosen = [reasons.REASONS[6], reasons.REASONS[0]]
    assert reasons.split(reasons.joined(chosen)) == sorted(chosen, key=reasons.REASONS.index)
    assert reasons.split("Something else; Size") == ["Size"]
    assert reasons.split(None) == []
