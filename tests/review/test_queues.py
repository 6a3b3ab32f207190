"""What to look at next."""

import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.recipe import make_recipe
from allreview.review import rankings
from allreview.review.log.annotations import decide
from allreview.review.log.reverting import undo
from allreview.review.queues import PER_ROUND, STRATEGIES, QueueEntry, counts, queue_of
from allreview.review.rankings import Neighbours, OutOfFold
from allreview.settings import current_settings
from db.tables import Cell, Run
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


def entries(engine: sa.Engine, run: int | None, **options: object) -> list[QueueEntry]:
    with db.reading(engine) as session:
        return queue_of(session, run, **options)  # type: ignore[arg-type]


def ids(engine: sa.Engine, run: int | None, **options: object) -> list[int]:
    return [entry.cell_id for entry in entries(engine, run, **options)]


def hashes_of(engine: sa.Engine, cell_ids: list[int]) -> list[str]:
    with db.reading(engine) as session:
        return [session.get_one(Cell, cell_id).sha256 for cell_id in cell_ids]


def judge_out_of_fold(engine: sa.Engine, run: int, said: dict[int, tuple[float, float]]) -> None:
    """Store what classifiers say of each cell: the probabilities of all and hem."""
    hashes = hashes_of(engine, list(said))
    table = np.array(list(said.values()), dtype=np.float32)
    path = current_settings().run_folder(run) / rankings.OUT_OF_FOLD
    rankings.save(path, OutOfFold(hashes, ["all", "hem"], table))


def make_alike(
    engine: sa.Engine, run: int, cell_ids: list[int], twins: dict[int, int], typicality: dict[int, float]
) -> None:
    """Store neighbours: each cell's nearest is the next one with 0.9, its twin with 0.99."""
    place = {cell_id: number for number, cell_id in enumerate(cell_ids)}
    count = len(cell_ids)
    nearest = [place[twins.get(cell_id, cell_ids[(place[cell_id] + 1) % count])] for cell_id in cell_ids]
    near = Neighbours(
        sha256=hashes_of(engine, cell_ids),
        positions=np.array(nearest, dtype=np.int32)[:, None],
        similarities=np.array([[0.99 if c in twins else 0.9] for c in cell_ids], dtype=np.float32),
        typicality=np.array([typicality.get(c, 0.4) for c in cell_ids], dtype=np.float32),
        plane=np.zeros((count, 2), dtype=np.float32),
    )
    rankings.save(current_settings().run_folder(run) / rankings.NEIGHBOURS, near)


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
        with pytest.raises(
            UserError, match=r"queues are: misclassified \(prediction and label differ\), label-"
        ):
            queue_of(session, run, by="magic")
        with pytest.raises(UserError, match=r"from 0 to 0\.5, not 0\.7"):
            queue_of(session, run, control=0.7)
        with pytest.raises(UserError, match="uncertain ranks the cells of a run: choose a run"):
            queue_of(session, None, by="uncertain", dataset_id=store.dataset)
        with pytest.raises(UserError, match="no run 99"):
            queue_of(session, 99)
    empty = finished_run(engine, store, {})
    with db.writing(engine) as session:
        session.get_one(Run, empty).state = "running"
    with db.reading(engine) as session, pytest.raises(UserError, match="no predictions yet"):
        queue_of(session, empty)


def test_label_errors_are_judged_by_classifiers_against_current_labels(
    engine: sa.Engine, store: Store, run: int
) -> None:
    a, h = store.cells["1"], store.cells["H1"]
    unknown = float("nan")
    judge_out_of_fold(
        engine,
        run,
        {a[0]: (0.3, 0.7), a[1]: (0.05, 0.95), a[2]: (0.8, 0.2), a[3]: (0.6, 0.4)}
        | {h[0]: (0.9, 0.1), h[1]: (0.4, 0.6), h[2]: (1.0, unknown), h[3]: (0.5, 0.5)},
    )
    found = entries(engine, run, by="label-error")
    assert [entry.cell_id for entry in found] == [a[1], h[0], a[0]]
    assert [entry.score for entry in found] == pytest.approx([0.05, 0.1, 0.3])
    assert found[1].reason == (
        "Classifiers that never saw its subject say ALL with 90\N{NO-BREAK SPACE}%, the label says Normal (hem)."
    )
    decide(engine, cell_id=a[1], label="hem", reviewer_id=store.ann, seen=None)
    decide(engine, cell_id=a[2], label="hem", reviewer_id=store.ann, seen=None)
    assert ids(engine, run, by="label-error", include_decided=True) == [h[0], a[2], a[0]]


def test_label_errors_score_as_cleanlab_does(engine: sa.Engine, store: Store, run: int) -> None:
    from cleanlab.rank import get_label_quality_scores

    a = store.cells["1"]
    sure = dict(zip(a, (0.1, 0.35, 0.2, 0.49), strict=True))
    judge_out_of_fold(engine, run, {cell: (p, 1 - p) for cell, p in sure.items()})
    table = np.array([(p, 1 - p) for p in sure.values()])
    expected = dict(zip(a, get_label_quality_scores(np.zeros(4, dtype=int), table), strict=True))
    found = {entry.cell_id: entry.score for entry in entries(engine, run, by="label-error")}
    assert found == pytest.approx(expected)


def test_without_a_second_opinion_the_queue_says_what_to_do(
    engine: sa.Engine, store: Store, run: int
) -> None:
    with pytest.raises(UserError, match="no second opinion on its labels: retrain it"):
        ids(engine, run, by="label-error")
    with pytest.raises(UserError, match="which cells are alike: retrain it"):
        ids(engine, run, by="outlier")
    scratch = make_recipe({"backbone": "alexnet", "weights": "none", "mode": "finetune"})
    other = finished_run(engine, store, {store.cells["1"][0]: ("all", 0.9)}, recipe=scratch)
    with pytest.raises(UserError, match="trained from scratch, so nothing judges its labels independently"):
        ids(engine, other, by="label-error")


def test_runs_that_contradict_each_other_surely_come_first(engine: sa.Engine, store: Store) -> None:
    a = store.cells["1"]
    one = finished_run(
        engine, store, {a[0]: ("all", 0.9), a[1]: ("all", 0.9), a[2]: ("hem", 0.8), a[3]: ("all", 0.6)}
    )
    assert ids(engine, one, by="runs-disagree") == []
    finished_run(
        engine, store, {a[0]: ("all", 0.8), a[1]: ("hem", 0.9), a[2]: ("all", 0.6), a[3]: ("hem", 1.0)}
    )
    found = entries(engine, one, by="runs-disagree")
    assert [entry.cell_id for entry in found] == [a[1], a[2], a[3]]
    assert [entry.score for entry in found] == pytest.approx([0.0, 0.2 / 1.4, 0.4 / 1.6])
    assert found[0].reason == "This run says ALL, the other run says Normal (hem)."
    unfinished = finished_run(engine, store, {a[0]: ("hem", 0.9)})
    with db.writing(engine) as session:
        session.get_one(Run, unfinished).state = "stopped"
    finished_run(engine, store, {a[1]: ("hem", 0.7), a[2]: ("hem", 0.6)})
    found = entries(engine, one, by="runs-disagree")
    assert [entry.cell_id for entry in found] == [a[3], a[1], a[2]]
    assert found[1].score == pytest.approx((1.6 - 0.9) / 2.5)
    assert found[1].reason == "This run says ALL, all 2 other runs say Normal (hem)."
    assert found[2].reason == (
        "This run says Normal (hem); of 2 other runs 1 say ALL and 1 say Normal (hem)."
    )


def test_readers_disagree_until_one_adjudicates(engine: sa.Engine, store: Store, run: int) -> None:
    first, second, third = store.cells["1"][:3]
    seen = decide(engine, cell_id=first, label="all", reviewer_id=store.ann, seen=None)
    last = decide(engine, cell_id=first, label="unsure", reviewer_id=store.ben, seen=seen)
    for reviewer, cell in ((store.ann, second), (store.ben, second), (store.ann, third)):
        decide(engine, cell_id=cell, label="hem", reviewer_id=reviewer, seen=None, independent=True)
    (found,) = entries(engine, run, by="readers-disagree")
    assert (found.cell_id, found.score) == (first, 0.0)
    assert found.reason == "Ann says ALL and Ben says Unsure."
    assert ids(engine, None, by="readers-disagree", dataset_id=store.dataset) == [first]
    settled = decide(engine, cell_id=first, label="hem", reviewer_id=store.ann, seen=last, adjudicates=True)
    assert ids(engine, run, by="readers-disagree") == []
    undo(engine, annotation_id=settled, reviewer_id=store.ann)
    assert ids(engine, run, by="readers-disagree") == [first]


def test_outliers_come_by_how_untypical_they_are(engine: sa.Engine, store: Store, run: int) -> None:
    a, h = store.cells["1"], store.cells["H1"]
    make_alike(engine, run, [*a, *h], {}, {h[1]: 0.01, a[3]: 0.2})
    found = entries(engine, run, by="outlier")
    assert [entry.cell_id for entry in found][:2] == [h[1], a[3]]
    assert found[0].score == pytest.approx(0.01)
    assert found[0].reason == "The cell most like it has a similarity of 0.90; 0.90 is usual."


def test_random_is_drawn_by_the_seed_and_not_by_what_was_decided(
    engine: sa.Engine, store: Store, run: int
) -> None:
    drawn = ids(engine, run, by="random")
    assert sorted(drawn) == sorted([*store.cells["1"], *store.cells["H1"]])
    assert ids(engine, run, by="random") == drawn
    assert any(ids(engine, run, by="random", seed=seed) != drawn for seed in range(1, 4))
    decide(engine, cell_id=drawn[3], label="all", reviewer_id=store.ann, seen=None)
    assert ids(engine, run, by="random") == [cell for cell in drawn if cell != drawn[3]]
    everywhere = entries(engine, None, by="random", dataset_id=store.dataset)
    assert [entry.cell_id for entry in everywhere] == [cell for cell in drawn if cell != drawn[3]]
    assert {entry.part for entry in everywhere} == {None}


@pytest.fixture
def wide(sqlite_engine: sa.Engine) -> tuple[Store, int]:
    """Ten subjects of twenty cells; the model is wrong about the first eight cells of each."""
    store = small_store(sqlite_engine, {f"{number}": ("all", 20) for number in range(10)} | {"H": ("hem", 1)})
    predictions = {
        cell: ("hem", 0.99 - int(subject) / 100 - place / 1000) if place < 8 else ("all", 0.9)
        for subject, cells in store.cells.items()
        if subject != "H"
        for place, cell in enumerate(cells)
    }
    return store, finished_run(sqlite_engine, store, predictions)


def test_controls_are_cells_the_model_got_right(sqlite_engine: sa.Engine, wide: tuple[Store, int]) -> None:
    _, run = wide
    plain = ids(sqlite_engine, run)
    for limit, wrong, right in ((None, 80, 20), (50, 40, 10), (5, 4, 1)):
        found = entries(sqlite_engine, run, control=0.2, limit=limit)
        controls = [entry for entry in found if entry.control]
        assert [entry.cell_id for entry in found if not entry.control] == plain[:wrong]
        assert len(controls) == right
        assert all(entry.predicted == entry.current_label and entry.path for entry in controls)
        assert {entry.reason for entry in controls} == {
            "Mixed in at random: the model agrees with the label."
        }
        for start in range(0, len(found), 5):  # one in every stretch
            assert sum(entry.control for entry in found[start : start + 5]) == 1
    again = ids(sqlite_engine, run, control=0.2)
    assert again == ids(sqlite_engine, run, control=0.2)
    assert again != ids(sqlite_engine, run, control=0.2, seed=1)
    assert len({*again}) == len(again)


def test_controls_take_no_cell_twice_where_all_are_ranked(
    sqlite_engine: sa.Engine, wide: tuple[Store, int]
) -> None:
    _, run = wide
    found = ids(sqlite_engine, run, by="uncertain", control=0.3)
    assert sorted(found) == sorted(ids(sqlite_engine, run, by="uncertain"))
    assert not any(entry.control for entry in entries(sqlite_engine, run, by="random", control=0.3))


def test_a_subject_does_not_fill_the_queue(sqlite_engine: sa.Engine, wide: tuple[Store, int]) -> None:
    store, run = wide
    strict, diverse = ids(sqlite_engine, run, diverse=False), ids(sqlite_engine, run)
    assert strict[:8] == store.cells["0"][:8]
    assert sorted(diverse) == sorted(strict)
    subject_of = {cell: subject for subject, cells in store.cells.items() for cell in cells}
    for start, size in ((0, 3), (30, 3), (60, 2)):  # eight of each subject go into three rounds
        told = [subject_of[cell] for cell in diverse[start : start + 10 * size]]
        assert told == [f"{number}" for number in range(10) for _ in range(size)]
    assert PER_ROUND == 3
    assert ids(sqlite_engine, run, limit=30) == diverse[:30]


def test_of_cells_that_look_the_same_one_comes_a_round(
    sqlite_engine: sa.Engine, wide: tuple[Store, int]
) -> None:
    store, run = wide
    first, second, third, fourth = store.cells["0"][:4]
    everything = [cell for cells in store.cells.values() for cell in cells]
    make_alike(sqlite_engine, run, everything, {first: second, second: first}, {})
    found = ids(sqlite_engine, run)
    assert found[:3] == [first, third, fourth]
    assert found.index(second) == 30
    assert sorted(found) == sorted(ids(sqlite_engine, run, diverse=False))


def test_counts_are_the_lengths_of_the_queues(engine: sa.Engine, store: Store, run: int) -> None:
    a, h = store.cells["1"], store.cells["H1"]
    finished_run(engine, store, {a[0]: ("hem", 0.9)})
    seen = decide(engine, cell_id=h[2], label="all", reviewer_id=store.ann, seen=None)
    decide(engine, cell_id=h[2], label="hem", reviewer_id=store.ben, seen=seen)
    with db.reading(engine) as session:
        early = counts(session, run)
    assert (early["label-error"], early["outlier"]) == (None, None)
    judge_out_of_fold(engine, run, dict.fromkeys([*a, *h], (0.3, 0.7)))
    make_alike(engine, run, [*a, *h], {}, {})
    for options in ({}, {"parts": ("train",)}, {"include_decided": True}):
        with db.reading(engine) as session:
            found = counts(session, run, **options)  # type: ignore[arg-type]
        assert found == {name: len(ids(engine, run, by=name, **options)) for name in STRATEGIES}
    assert found["readers-disagree"] == 1


def test_a_long_queue_asks_the_store_no_more_often(sqlite_engine: sa.Engine, wide: tuple[Store, int]) -> None:
    store, run = wide
    make_alike(sqlite_engine, run, [cell for cells in store.cells.values() for cell in cells], {}, {})
    judge_out_of_fold(sqlite_engine, run, {c: (0.3, 0.7) for cells in store.cells.values() for c in cells})
    asked: list[str] = []
    sa.event.listen(sqlite_engine, "before_cursor_execute", lambda *found: asked.append(found[2]))
    for name in STRATEGIES:
        asked.clear()
        entries(sqlite_engine, run, by=name, control=0.1)
        assert 0 < len(asked) <= 8, name


def test_every_strategy_has_words() -> None:
    for name, kind in STRATEGIES.items():
        assert kind.name == name
        assert kind.title[0].isupper()
        assert kind.description.endswith(".")
