"""What a bulk decision would meet."""

import sqlalchemy as sa

import db
from allreview.review.log.annotations import decide, decide_many
from allreview.review.log.bulk import ALWAYS_VISIBLE, before_deciding
from allreview.review.log.reverting import undo
from db.tables import Annotation
from tests.factory import finished_run, small_store


def test_what_would_change_and_what_was_decided(engine: sa.Engine) -> None:
    store = small_store(engine, {"1": ("all", 4), "H1": ("hem", 1)})
    first, second, third, fourth = store.cells["1"]
    (normal,) = store.cells["H1"]
    by_ann = decide(engine, cell_id=first, label="hem", reviewer_id=store.ann, seen=None)
    by_ben = decide(engine, cell_id=second, label="unsure", reviewer_id=store.ben, seen=None)
    taken = decide(engine, cell_id=third, label="hem", reviewer_id=store.ben, seen=None)
    undone = undo(engine, annotation_id=taken, reviewer_id=store.ben)
    decide(engine, cell_id=fourth, label="hem", reviewer_id=store.ann, seen=None)
    with db.reading(engine) as session:
        before = before_deciding(session, [first, second, third, fourth, normal], "hem")
    assert before.seen == {
        first: by_ann,
        second: by_ben,
        third: undone,
        fourth: before.seen[fourth],
        normal: None,
    }
    assert before.changing == 2  # the unsure one, and the one whose decision was taken back
    assert before.decided == [("hem", "Ann", 2), ("unsure", "Ben", 1)]
    assert before.decided_cells == 3


def test_each_cell_records_what_was_visible_of_it(engine: sa.Engine) -> None:
    store = small_store(engine, {"1": ("all", 3), "H1": ("hem", 1)})
    trained, tested, unknown = store.cells["1"]
    predictions = {trained: ("hem", 0.9), tested: ("hem", 0.9)}
    run = finished_run(engine, store, predictions, parts={tested: "test"})
    with db.reading(engine) as session:
        before = before_deciding(session, [trained, tested, unknown], "hem", run_id=run)
        asked = before_deciding(session, [tested], "hem", run_id=run, test_predictions=True)
        without_run = before_deciding(session, [trained], "hem")
    seen = ALWAYS_VISIBLE | {"prediction"}
    assert before.visible == {trained: seen, tested: ALWAYS_VISIBLE, unknown: ALWAYS_VISIBLE}
    assert asked.visible == {tested: seen}
    assert without_run.visible == {trained: ALWAYS_VISIBLE}

    decide_many(
        engine,
        cells=before.seen,
        label="hem",
        reviewer_id=store.ann,
        visible_run_id=run,
        visible=before.visible,
    )
    with db.reading(engine) as session:
        written = session.execute(
            sa.select(Annotation.cell_id, Annotation.visible, Annotation.visible_run_id)
        ).all()
    assert {cell: (set(visible), shown) for cell, visible, shown in written} == {
        trained: (seen, run),
        tested: (ALWAYS_VISIBLE, None),
        unknown: (ALWAYS_VISIBLE, None),
    }


def test_more_cells_than_one_query_may_name(engine: sa.Engine) -> None:
    store = small_store(engine, {"1": ("all", 520)})
    cells = store.cells["1"]
    decide_many(engine, cells=dict.fromkeys(cells[:510]), label="unsure", reviewer_id=store.ben)
    with db.reading(engine) as session:
        before = before_deciding(session, cells, "all")
    assert (len(before.seen), before.changing, before.decided) == (520, 510, [("unsure", "Ben", 510)])
