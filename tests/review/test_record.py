"""The log, read: pages, filters, batches in one line, words, and what a reader must not see yet."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

import db
from allreview.labels import current_label, standing
from allreview.review.log import reverting
from allreview.review.log.annotations import decide, decide_many, reviewer_named
from allreview.review.log.events import last_event_id
from allreview.review.reading import sittings, worklists
from allreview.review.record import record_csv, record_words
from allreview.review.record.entries import Entry, Log, LogFilters, Totals, last_undone
from db.tables import Annotation, Cell
from db.types import now
from tests.factory import Store, entries_of, small_store


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return small_store(engine)


def say(engine: sa.Engine, cell: int, label: str, reviewer: int, **more) -> int:
    with db.reading(engine) as session:
        seen = last_event_id(session, cell)
    return decide(engine, cell_id=cell, label=label, reviewer_id=reviewer, seen=seen, **more)


def page(engine: sa.Engine, store: Store, viewer: int | None = None, **filters) -> list[Entry]:
    with db.reading(engine) as session:
        return Log(session, store.dataset, viewer).page(LogFilters(**filters)).entries


def words(entries: list[Entry]) -> list[str]:
    return [f"{entry.reviewer} {record_words.what(entry)}" for entry in entries]


def test_every_kind_of_event_is_told_in_words(engine: sa.Engine, store: Store) -> None:
    first, second, third = store.cells["1"][:3]
    answer = say(engine, first, "hem", store.ann, reason="Size", visible=("subject",), duration_ms=4200)
    reverting.undo(engine, annotation_id=answer, reviewer_id=store.ann)
    reverting.redo(engine, annotation_id=answer, reviewer_id=store.ann)
    say(engine, first, "all", store.ben, adjudicates=True)
    say(engine, first, "hem", store.ann)
    batch = decide_many(engine, cells={second: None, third: None}, label="unsure", reviewer_id=store.ann)
    taken = reverting.revert_batch(engine, batch=batch, reviewer_id=store.ben, reason="too soon")
    reverting.restore(engine, batch=taken, reviewer_id=store.ben)
    entries = page(engine, store)
    assert words(entries) == [
        "Ben brought back 2 answers of Ann",
        "Ben reverted 2 answers of Ann",
        "Ann Unsure, 2 cells in one decision",
        "Ann ALL → Normal (hem)",
        "Ben adjudicated: Normal (hem) → ALL",
        "Ann brought back Normal (hem)",
        "Ann took back Normal (hem)",
        "Ann ALL → Normal (hem)",
    ]
    assert [record_words.state(entry) for entry in entries] == [
        None, None, "Taken back", None, None, None, None, "Taken back by Ann",
    ]  # fmt: skip
    assert record_words.outcome(entries[3]) == "The label stays ALL, as adjudicated."
    assert record_words.outcome(entries[6]) == "The label is again ALL."
    assert record_words.seen(entries[-1].visible, None) == "Saw the subject"
    assert (entries[-1].reason, record_words.seconds(entries[-1].duration_ms)) == ("Size", "4.2 s")
    assert [entry.restorable for entry in entries[:2]] == [0, 0]  # brought back already


def test_what_the_log_replays_is_what_the_labels_say(engine: sa.Engine, store: Store) -> None:
    cells = store.cells["1"][:2]
    one = say(engine, cells[0], "hem", store.ann)
    two = say(engine, cells[0], "unsure", store.ben, adjudicates=True)
    reverting.undo(engine, annotation_id=two, reviewer_id=store.ben)
    reverting.redo(engine, annotation_id=two, reviewer_id=store.ben)
    say(engine, cells[0], "all", store.ann)
    reverting.revert(engine, reviewer_id=store.ann, annotation_ids=[one])
    say(engine, cells[1], "hem", store.ann)
    now_ = standing()
    query = sa.select(Cell.id, current_label(now_)).outerjoin(now_, now_.c.cell_id == Cell.id)
    with db.reading(engine) as session:
        labels = dict(session.execute(query.where(Cell.id.in_(cells))).all())
    for cell in cells:
        assert page(engine, store, cell_id=cell)[0].change.after == labels[cell]
    assert labels == {cells[0]: "unsure", cells[1]: "hem"}


def test_pages_meet_without_gap_or_overlap_both_ways(engine: sa.Engine, store: Store) -> None:
    cells = [cell for some in store.cells.values() for cell in some]
    for cell in cells[:7]:
        say(engine, cell, "hem", store.ann)
    decide_many(engine, cells=dict.fromkeys(cells[10:20]), label="all", reviewer_id=store.ben)
    for cell in cells[:4]:
        say(engine, cell, "all", store.ben)
    with db.reading(engine) as session:
        log = Log(session, store.dataset)
        pages, before = [], None
        while True:
            found = log.page(LogFilters(), before=before, size=5)
            pages.append([entry.id for entry in found.entries])
            before = found.older
            if before is None:
                break
        ids = [number for some in pages for number in some]
        assert [len(some) for some in pages] == [5, 5, 2]  # the batch of ten is one line
        assert ids == sorted(ids, reverse=True)
        back = log.page(LogFilters(), after=pages[2][0], size=5)
        assert [entry.id for entry in back.entries] == pages[1]
        top = log.page(LogFilters(), after=back.newer, size=5)
        assert ([entry.id for entry in top.entries], top.newer) == (pages[0], None)
        assert log.totals(LogFilters()) == Totals(events=21, cells=17)
        assert len(list(log.every(LogFilters()))) == 21


def test_filters_choose_events_and_count_what_they_show(engine: sa.Engine, store: Store) -> None:
    first, second = store.cells["1"][0], store.cells["H1"][0]
    early = say(engine, first, "hem", store.ann)
    gone = say(engine, second, "all", store.ben)
    reverting.undo(engine, annotation_id=gone, reviewer_id=store.ben)
    batch = decide_many(engine, cells=dict.fromkeys(store.cells["2"]), label="unsure", reviewer_id=store.ann)
    noon = now() - timedelta(days=2)
    with db.writing(engine) as session:
        session.execute(sa.update(Annotation).where(Annotation.id == early).values(created_at=noon))
    for filters, events in (
        ({"cell_id": first}, 1),
        ({"subject": "H1"}, 2),
        ({"reviewer_id": store.ben}, 2),
        ({"kind": "undo"}, 1),
        ({"label": "unsure"}, 4),
        ({"until": noon}, 1),
        ({"since": noon + timedelta(days=1)}, 6),
        ({"only_in_force": True}, 5),
        ({"batch": batch}, 4),
        ({"subject": "2", "only_in_force": True, "reviewer_id": store.ben}, 0),
    ):
        with db.reading(engine) as session:
            log = Log(session, store.dataset)
            assert log.totals(LogFilters(**filters)).events == events, filters
            assert len(list(log.every(LogFilters(**filters)))) == events, filters
            assert sum(entry.events for entry in log.page(LogFilters(**filters)).entries) == events, filters


def test_a_batch_counts_only_what_the_filters_let_through(engine: sa.Engine, store: Store) -> None:
    cells = [store.cells["1"][0], store.cells["2"][0], store.cells["2"][1]]
    batch = decide_many(
        engine, cells=dict.fromkeys(cells), label=dict(zip(cells, ("hem", "hem", "unsure"), strict=True)),
        reviewer_id=store.ann,
    )  # fmt: skip
    with db.reading(engine) as session:
        first = session.scalar(sa.select(Annotation.id).where(Annotation.cell_id == cells[0]))
    reverting.revert(engine, reviewer_id=store.ben, annotation_ids=[first])
    (taken, whole) = page(engine, store)
    assert (whole.batch, whole.events, whole.standing, record_words.state(whole)) == (
        batch, 3, 2, "1 of them taken back",
    )  # fmt: skip
    assert record_words.what(whole) == "2 labels, 3 cells in one decision"
    assert taken.restorable == 1
    (of_one,) = page(engine, store, subject="2")
    assert (of_one.cell_id in cells[1:], of_one.events) == (True, 2)


def test_another_datasets_events_are_not_here(engine: sa.Engine, store: Store) -> None:
    with db.writing(engine) as session:  # the second store brings reviewers of the same names
        session.execute(sa.text("update reviewers set name = name || ' the First'"))
    other = small_store(engine, {"1": ("all", 2), "H1": ("hem", 2)}, name="other")
    say(engine, other.cells["1"][0], "hem", other.ann)
    say(engine, store.cells["1"][0], "hem", store.ann)
    assert [entry.cell_id for entry in page(engine, store)] == [store.cells["1"][0]]
    with db.reading(engine) as session:
        assert Log(session, other.dataset).totals(LogFilters()) == Totals(1, 1)
        assert list(Log(session, store.dataset).reviewers().values()) == ["Ann the First"]


def test_takeable_answers_are_those_in_force_with_whose_they_are(engine: sa.Engine, store: Store) -> None:
    cells = store.cells["1"]
    batch = decide_many(engine, cells=dict.fromkeys(cells), label="unsure", reviewer_id=store.ann)
    with db.reading(engine) as session:
        ids = list(session.scalars(sa.select(Annotation.id).order_by(Annotation.id)))
    taken = reverting.revert(engine, reviewer_id=store.ben, annotation_ids=ids[:1])
    again = reverting.restore(engine, batch=taken, reviewer_id=store.ben)
    with db.reading(engine) as session:
        log = Log(session, store.dataset)
        found = log.takeable(batch=batch)
        assert (found.annotation_ids, found.cells, found.answers_by) == (ids[1:], 3, {"Ann": 3})
        assert log.takeable(batch=again).answers_by == {"Ann": 1}  # Ben brought it back; Ann gave it
        assert log.takeable(batch=taken).annotation_ids == []
        assert (log.stand(ids[1:]), log.stand(ids)) == (True, False)


def test_a_reader_does_not_see_others_answers_to_cells_still_to_be_read_blind(
    engine: sa.Engine, store: Store
) -> None:
    cells = store.cells["1"][:2]
    with db.reading(engine) as session:
        entries = entries_of(session, cells)
    worklist = worklists.create(
        engine, dataset_id=store.dataset, name="Blind", strategy="chosen", entries=entries, parts=("train",),
        hidden=("others",), overlap=2, readers=(store.ann, store.ben),
    )  # fmt: skip
    for reader, number in ((store.ann, 2), (store.ben, 1)):
        sitting = sittings.start(engine, worklist_id=worklist, reviewer_id=reader)
        for _ in range(number):
            (cell,) = sittings.upcoming(engine, sitting)
            sittings.answer(engine, sitting, cell, "hem", seen=cell.last_event_id)
    chris = reviewer_named(engine, "Chris")
    with db.reading(engine) as session:
        counts = {
            who: Log(session, store.dataset, who).totals(LogFilters())
            for who in (store.ann, store.ben, chris)
        }
        log = Log(session, store.dataset, store.ben)
        (unread,) = log.withheld
        labels = {row["cell"]: row["current_label"] for row in log.current_labels()}
        exported = record_csv.events_csv(log, LogFilters()).decode()
    assert (counts[store.ann].events, counts[store.ben].events, counts[chris].events) == (3, 2, 3)
    assert page(engine, store, store.ben, cell_id=unread) == []
    assert (labels[unread], labels[next(cell for cell in cells if cell != unread)]) == (None, "hem")
    assert len(exported.splitlines()) == 3
    worklists.close(engine, worklist)
    assert len(page(engine, store, store.ben, cell_id=unread)) == 1


def test_exports_hold_what_a_spreadsheet_needs(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    say(
        engine,
        cell,
        "hem",
        store.ann,
        reason='a "quoted", word',
        duration_ms=1500,
        visible=("prediction", "subject"),
    )
    with db.reading(engine) as session:
        log = Log(session, store.dataset)
        head, row = record_csv.events_csv(log, LogFilters()).decode().splitlines()
        labels = record_csv.labels_csv(log).decode().splitlines()
    assert head.startswith("annotation,when,cell,sha256,path")
    assert ',decision,hem,all,hem,Ann,,,,,"a ""quoted"", word",,prediction subject,,0,1.5,' in row
    assert len(labels) == 1 + sum(map(len, store.cells.values()))
    assert ",all,hem,Ann,20" in next(line for line in labels if line.startswith(f"{cell},"))


def test_what_was_undone_last_and_does_not_stand_again(engine: sa.Engine, store: Store) -> None:
    first, second = (say(engine, cell, "hem", store.ann) for cell in store.cells["1"][:2])
    events = [reverting.undo(engine, annotation_id=each, reviewer_id=store.ann) for each in (first, second)]

    def undone() -> int | None:
        with db.reading(engine) as session:
            found = last_undone(session, store.ann)
            return found.id if found else None

    assert undone() == events[1]
    reverting.redo(engine, annotation_id=second, reviewer_id=store.ann)
    assert undone() == events[0]
    reverting.redo(engine, annotation_id=first, reviewer_id=store.ann)
    assert undone() is None


@pytest.mark.parametrize(
    ("passed", "said"),
    [
        (timedelta(seconds=20), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=3), "3 hours ago"),
        (timedelta(days=1), "yesterday"),
        (timedelta(days=12), "12 days ago"),
        (timedelta(days=60), "24 Sep 2026"),
    ],
)
def test_how_long_ago(passed: timedelta, said: str) -> None:
    today = now().replace(year=2026, month=11, day=23, hour=12)
    assert record_words.ago(today - passed, today) == said
