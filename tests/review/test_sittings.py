"""A reviewer's place in a worklist, alone and beside others."""

from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.review.log.events import StaleView
from allreview.review.reading import claims, desk_cells, sittings, undoing, worklists
from allreview.review.reading.desk_cells import DeskCell
from allreview.review.reading.sittings import Progress
from db.tables import Annotation, Claim
from db.types import now
from tests.factory import Store, entries_of, finished_run, small_store


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return small_store(engine, {"1": ("all", 4), "H1": ("hem", 2)})


def made(engine: sa.Engine, store: Store, cells: list[int] | None = None, **options) -> int:
    """A worklist over subject 1's cells, or these."""
    with db.reading(engine) as session:
        entries = entries_of(session, cells or store.cells["1"], part=options.pop("part", "train"))
    return worklists.create(
        engine, dataset_id=store.dataset, name="Doubtful", strategy="random", entries=entries, **options
    )


def desk(engine: sa.Engine, sitting: int) -> DeskCell | None:
    """The cell on the desk."""
    return next(iter(sittings.upcoming(engine, sitting, 1)), None)


def here(engine: sa.Engine, sitting: int) -> list[int]:
    return [cell.cell_id for cell in sittings.upcoming(engine, sitting, 10)]


def answer(engine: sa.Engine, sitting: int, label: str = "hem") -> int:
    cell = desk(engine, sitting)
    assert cell is not None
    sittings.answer(engine, sitting, cell, label, seen=cell.last_event_id)
    return cell.cell_id


def progress(engine: sa.Engine, sitting: int) -> Progress:
    with db.reading(engine) as session:
        return sittings.progress(session, sitting)


def test_cells_come_in_queue_order_and_the_place_is_kept(engine: sa.Engine, store: Store) -> None:
    a = store.cells["1"]
    worklist = made(engine, store)
    sitting = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ann)
    assert here(engine, sitting) == a
    answer(engine, sitting)
    assert sittings.start(engine, worklist_id=worklist, reviewer_id=store.ann) == sitting
    assert here(engine, sitting) == a[1:]
    assert progress(engine, sitting) == Progress(decided=1, skipped=0, by_others=0, total=4)


def test_undo_and_redo_go_through_decisions_and_skips_in_their_order(engine: sa.Engine, store: Store) -> None:
    a = store.cells["1"]
    sitting = sittings.start(engine, worklist_id=made(engine, store), reviewer_id=store.ann)
    answer(engine, sitting)
    sittings.skip(engine, sitting, a[1])
    answer(engine, sitting, "unsure")
    assert here(engine, sitting) == [a[3]]
    undone, on_desk = [], []
    while what := undoing.undo_last(engine, sitting):
        undone.append(what)
        on_desk.append(desk(engine, sitting).cell_id)
    assert undone == ["decision", "skip", "decision"]
    assert on_desk == [a[2], a[1], a[0]]  # what was undone lies on the desk
    redone = []
    while what := undoing.redo_last(engine, sitting):
        redone.append(what)
    assert redone == ["decision", "skip", "decision"]
    assert here(engine, sitting) == [a[3]]
    assert [undoing.undo_last(engine, sitting) for _ in range(2)] == ["decision", "skip"]
    assert undoing.redo_last(engine, sitting) == "skip"
    answer(engine, sitting)  # something new: what was undone before cannot be redone any more
    assert undoing.redo_last(engine, sitting) is None


def test_redo_gives_back_reason_and_note(engine: sa.Engine, store: Store) -> None:
    sitting = sittings.start(engine, worklist_id=made(engine, store), reviewer_id=store.ann)
    cell = desk(engine, sitting)
    sittings.answer(engine, sitting, cell, "hem", seen=None, reason="Size", comment="small", duration_ms=900)
    undoing.undo_last(engine, sitting)
    again = desk(engine, sitting)
    assert (again.draft_reason, again.draft_comment) == ("Size", "small")  # to change it, or say it again
    undoing.redo_last(engine, sitting)
    with db.reading(engine) as session:
        log = session.scalars(sa.select(Annotation).order_by(Annotation.id)).all()
    assert [(event.kind, event.label, event.reason, event.comment) for event in log] == [
        ("decision", "hem", "Size", "small"),
        ("undo", None, None, None),
        ("redo", "hem", "Size", "small"),
    ]
    assert (log[1].undoes_id, log[2].redoes_id) == (log[0].id, log[0].id)


def test_a_redo_does_not_pass_over_what_somebody_said_meanwhile(engine: sa.Engine, store: Store) -> None:
    cells = store.cells["1"][:1]
    first = sittings.start(engine, worklist_id=made(engine, store, cells), reviewer_id=store.ann)
    answer(engine, first)
    undoing.undo_last(engine, first)
    second = sittings.start(engine, worklist_id=made(engine, store, cells), reviewer_id=store.ben)
    answer(engine, second, "all")
    with pytest.raises(StaleView, match="Ben said"):
        undoing.redo_last(engine, first)


def test_skipped_cells_can_be_taken_up_again(engine: sa.Engine, store: Store) -> None:
    sitting = sittings.start(engine, worklist_id=made(engine, store), reviewer_id=store.ann)
    for cell in store.cells["1"]:
        sittings.skip(engine, sitting, cell)
    assert here(engine, sitting) == []
    assert progress(engine, sitting).skipped == 4
    sittings.take_up_skipped(engine, sitting)
    assert here(engine, sitting) == store.cells["1"]


def test_two_readers_never_hold_the_same_cell_and_read_each_once(engine: sa.Engine, store: Store) -> None:
    worklist = made(engine, store)
    ann = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ann)
    ben = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ben)
    read = []
    while (mine := desk(engine, ann)) and (theirs := desk(engine, ben)):
        assert mine.cell_id != theirs.cell_id
        with db.reading(engine) as session:
            assert sittings.shared_with(session, ann) == ["Ben"]
        read += [answer(engine, ann), answer(engine, ben)]
    assert sorted(read) == store.cells["1"]
    assert progress(engine, ann) == Progress(decided=2, skipped=0, by_others=2, total=4)
    for sitting in (ann, ben):
        sittings.end(engine, sitting)
    with db.reading(engine) as session:
        assert worklists.rows(session, store.dataset) == []  # it is read, and closed


def test_a_cell_left_lying_comes_to_the_other_reader(
    engine: sa.Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = store.cells["1"]
    worklist = made(engine, store)
    ann = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ann)
    ben = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ben)
    assert (desk(engine, ann).cell_id, desk(engine, ben).cell_id) == (a[0], a[1])
    sittings.save_draft(engine, ann, a[0], reason="Size", comment="hm")
    sittings.leave(engine, ann)
    assert desk(engine, ann).draft_comment == "hm"  # back at once: the same cell, with what was written
    with db.writing(engine) as session:  # her browser died, and the claim ran out
        session.execute(
            sa.update(Claim).where(Claim.session_id == ann).values(expires_at=now() - timedelta(seconds=1))
        )
    answer(engine, ben)
    assert desk(engine, ben).cell_id == a[0]
    assert desk(engine, ann).cell_id == a[2]


def test_with_overlap_everybody_reads_on_their_own(engine: sa.Engine, store: Store) -> None:
    cells = store.cells["1"][:2]
    worklist = made(
        engine, store, cells, overlap=2, readers=[store.ann, store.ben], hidden=["others", "prediction"]
    )
    ann = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ann)
    ben = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ben)
    mine, theirs = desk(engine, ann), desk(engine, ben)
    assert mine.cell_id == theirs.cell_id == cells[0]
    sittings.answer(engine, ben, theirs, "all", seen=theirs.last_event_id)
    # Ben's answer is hidden from Ann: it neither shows nor makes her view stale.
    with db.reading(engine) as session:
        assert desk_cells.answers_of_others(session, mine, store.ann) == []
    assert desk(engine, ann).last_event_id is None
    sittings.answer(engine, ann, mine, "hem", seen=mine.last_event_id)
    with pytest.raises(StaleView, match="Ann said"):  # but her own second tab does
        sittings.answer(engine, ann, mine, "all", seen=mine.last_event_id)
    with db.reading(engine) as session:
        log = session.scalars(sa.select(Annotation).order_by(Annotation.id)).all()
        assert worklists.rows(session, store.dataset)[0].readings_done == 2
    assert [(event.reviewer_id, event.label, event.visible) for event in log] == [
        (store.ben, "all", ["source_label", "subject"]),
        (store.ann, "hem", ["source_label", "subject"]),
    ]


def test_an_assigned_worklist_is_for_its_readers(engine: sa.Engine, store: Store) -> None:
    worklist = made(engine, store, readers=[store.ben])
    with pytest.raises(UserError, match="is assigned to Ben"):
        sittings.start(engine, worklist_id=worklist, reviewer_id=store.ann)
    with db.reading(engine) as session:
        assert worklists.rows(session, store.dataset, reviewer_id=store.ann) == []
        assert [row.readers for row in worklists.rows(session, store.dataset)] == [{store.ben: "Ben"}]
    sitting = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ben)
    worklists.close(engine, worklist)
    with pytest.raises(UserError, match="is closed"):
        sittings.start(engine, worklist_id=worklist, reviewer_id=store.ben)
    with db.reading(engine) as session:
        assert sittings.info(session, sitting).ended_at is not None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"overlap": 2, "readers": [1]}, "cannot be read by 2 reviewers: the worklist is assigned to 1"),
        ({"overlap": 0}, "at least one reviewer"),
        ({"repeat_rate": 0.9}, "Between 0 and 50 %"),
        ({"hidden": ["everything"]}, "'everything' cannot be hidden"),
        ({"parts": ["moon"]}, "no 'moon' cells"),
        ({"readers": [99]}, "active reviewers only"),
    ],
)
def test_a_worklist_that_cannot_be_is_refused(
    engine: sa.Engine, store: Store, options: dict, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        made(engine, store, **options)
    with db.reading(engine) as session:
        assert worklists.rows(session, store.dataset) == []


@pytest.mark.parametrize("name", ["prediction", "source_label", "subject", "others"])
def test_each_thing_is_hidden_by_itself(engine: sa.Engine, store: Store, name: str) -> None:
    cell = store.cells["1"][0]
    run = finished_run(engine, store, {cell: ("hem", 0.9)})
    first = sittings.start(engine, worklist_id=made(engine, store, [cell]), reviewer_id=store.ben)
    answer(engine, first, "unsure")
    worklist = made(engine, store, [cell], hidden=[name], run_id=run)
    sitting = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ann)
    shown = desk(engine, sitting)
    with db.reading(engine) as session:
        others = desk_cells.answers_of_others(session, shown, store.ann)
    seen = {
        "prediction": (shown.predicted, shown.probability) == ("hem", 0.9),
        "source_label": shown.source_label == "all",
        "subject": shown.subject == "1",
        "others": [event.label for event in others] == ["unsure"],
    }
    assert seen == {what: what != name for what in seen}
    assert bool(shown.reason) == (name == "subject")
    sittings.answer(engine, sitting, shown, "hem", seen=shown.last_event_id)
    with db.reading(engine) as session:
        last = session.scalars(sa.select(Annotation).order_by(Annotation.id.desc())).first()
    assert set(last.visible) == {"prediction", "source_label", "subject", "others"} - {name}
    assert last.visible_run_id == (None if name == "prediction" else run)


def test_test_cells_are_always_blind_and_adjudicators_see_the_answers(
    engine: sa.Engine, store: Store
) -> None:
    cell = store.cells["1"][0]
    run = finished_run(engine, store, {cell: ("hem", 0.9)}, parts={cell: "test"})
    sitting = sittings.start(
        engine, worklist_id=made(engine, store, [cell], part="test", run_id=run), reviewer_id=store.ben
    )
    shown = desk(engine, sitting)
    assert (shown.predicted, shown.source_label, shown.reason, shown.subject) == (None, None, "", "1")
    assert shown.hidden == {"prediction", "source_label", "others"}
    answer(engine, sitting, "all")
    deciding = sittings.start(
        engine,
        worklist_id=made(engine, store, [cell], part="test", run_id=run, adjudicates=True),
        reviewer_id=store.ann,
    )
    shown = desk(engine, deciding)
    with db.reading(engine) as session:
        others = desk_cells.answers_of_others(session, shown, store.ann)
    assert (shown.predicted, [event.label for event in others]) == (None, ["all"])
    sittings.answer(engine, deciding, shown, "hem", seen=shown.last_event_id)
    with db.reading(engine) as session:
        assert session.scalars(sa.select(Annotation.kind).order_by(Annotation.id)).all() == [
            "decision",
            "adjudication",
        ]


def test_repeats_come_again_after_other_cells(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "REPEAT_AFTER", 3)
    store = small_store(engine, {"1": ("all", 10), "H1": ("hem", 1)})
    worklist = made(engine, store, repeat_rate=0.5, hidden=["others"])
    sitting = sittings.start(engine, worklist_id=worklist, reviewer_id=store.ann)
    order, again = [], []
    while cell := desk(engine, sitting):
        order.append(cell.cell_id)
        if cell.repeat:
            again.append(cell.cell_id)
            since = order[order.index(cell.cell_id) + 1 : -1]
            assert len(order) > 10 or len(set(since) - set(again)) >= 3
        sittings.answer(engine, sitting, cell, "hem", seen=cell.last_event_id)
    assert sorted(set(order)) == store.cells["1"]
    assert again
    assert sorted(order) == sorted(store.cells["1"] + again)
    with db.reading(engine) as session:
        marked = session.scalars(sa.select(Annotation.cell_id).where(Annotation.repeat)).all()
        assert marked == again
        assert worklists.rows(session, store.dataset)[0].readings_done == 10
    undoing.undo_last(engine, sitting)
    assert desk(engine, sitting).repeat == (order[-1] in again)


def test_who_asks_the_same_question_joins(engine: sa.Engine, store: Store) -> None:
    cells = store.cells["1"]
    run = finished_run(engine, store, dict.fromkeys(cells, ("hem", 0.9)))
    settings = None

    def ask(reviewer: int, **options) -> int:
        return worklists.join_or_create(
            engine, settings, run_id=run, reviewer_id=reviewer, parts=["train"], **options
        )

    first = ask(store.ann)
    assert ask(store.ben) == first
    assert ask(store.ben, hidden=["subject"]) != first
    sitting = sittings.start(engine, worklist_id=first, reviewer_id=store.ann)
    for _ in cells:
        answer(engine, sitting)
    with pytest.raises(UserError, match="Nothing is left to read"):
        ask(store.ben)


def test_the_strip_shows_the_subjects_other_cells_unless_hidden(engine: sa.Engine, store: Store) -> None:
    def strip(**options) -> list[str]:
        sitting = sittings.start(engine, worklist_id=made(engine, store, **options), reviewer_id=store.ann)
        with db.reading(engine) as session:
            found = desk_cells.subject_strip(session, desk(engine, sitting), 2)
        return [Path(path).name for _, path in found]

    assert strip() == ["1.bmp", "2.bmp"]
    assert strip(hidden=["subject"]) == []


def test_a_sitting_that_does_not_exist_is_one_sentence(engine: sa.Engine) -> None:
    with pytest.raises(UserError, match="no such sitting"):
        sittings.upcoming(engine, 7)
