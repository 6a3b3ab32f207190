"""Reports from rows in a real store: which cells, on which labels, pooled over folds, and what a leak adds."""

import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.evaluation.calibration import tempered
from allreview.evaluation.intervals import subject_intervals
from allreview.evaluation.metrics import FIGURES, evaluate
from allreview.evaluation.reports import On, run_report, run_reports, series_report, subject_rows
from allreview.recipe import Recipe
from allreview.review.log.annotations import decide
from db.tables import Dataset, Run
from tests.factory import Store, add_cell, finished_run, small_store

SUBJECTS = {f"{n}": ("all", 6) for n in range(1, 9)} | {f"H{n}": ("hem", 6) for n in range(1, 7)}


def _said(store: Store, right: float, seed: int = 0) -> dict[int, tuple[str, float]]:
    """What a model says of every cell, right on about the share `right` of them."""
    random = np.random.default_rng(seed)
    said = {}
    for subject, cells in store.cells.items():
        label, other = ("hem", "all") if subject.startswith("H") else ("all", "hem")
        for cell in cells:
            said[cell] = (label if random.random() < right else other, float(random.uniform(0.55, 0.95)))
    return said


def _parts(store: Store, test: list[str]) -> dict[int, str]:
    return {cell: "test" for subject in test for cell in store.cells[subject]}


TEST = ["1", "2", "3", "H1", "H2", "H3"]


@pytest.fixture
def store(sqlite_engine: sa.Engine) -> Store:
    return small_store(sqlite_engine, SUBJECTS)


def test_a_report_holds_the_test_cells_and_their_figures(engine: sa.Engine) -> None:
    store = small_store(engine, SUBJECTS, tied=(("1", "2"),))
    said = _said(store, 0.8)
    run = finished_run(engine, store, said, parts=_parts(store, TEST))
    report = run_report(engine, run)
    assert report.cell_ids == sorted(cell for subject in TEST for cell in store.cells[subject])
    assert report.predicted == [said[cell][0] for cell in report.cell_ids]
    assert report.scores["accuracy"] == np.mean(np.array(report.predicted) == np.array(report.labels))
    expected = evaluate(report.labels, report.probabilities, ["all", "hem"], report.predicted)
    assert {name: report.scores[name] for name in FIGURES} == {name: expected[name] for name in FIGURES}
    assert not report.shares_patients
    assert (report.title, report.split) == (f"MobileNetV2, run {run}", "split by leak group")
    # Subjects 1 and 2 are tied by identical cells, and so are one unit of the intervals.
    assert len(set(report.units)) == len(TEST) - 1
    again = ["1" if subject == "2" else subject for subject in report.subjects]
    intervals = subject_intervals(
        report.labels, report.probabilities, ["all", "hem"], again, report.predicted
    )
    assert (report.scores.get("intervals") or {})["accuracy"] == pytest.approx(
        intervals["accuracy"], abs=0.05
    )


def test_current_labels_leave_out_what_has_no_class(sqlite_engine: sa.Engine, store: Store) -> None:
    run = finished_run(sqlite_engine, store, _said(store, 1.0), parts=_parts(store, TEST))
    for cell, label in zip(store.cells["1"], ("unsure", "unusable", "hem"), strict=False):
        decide(sqlite_engine, cell_id=cell, label=label, reviewer_id=store.ann, seen=None)
    source, current = (run_report(sqlite_engine, run, on=on) for on in ("source", "current"))
    assert (source.figures["n"], source.left_out, source.figures["accuracy"]) == (36, 0, 1.0)
    assert (current.figures["n"], current.left_out) == (34, 2)
    assert current.figures["accuracy"] == pytest.approx(33 / 34)


def test_a_class_the_run_never_knew_counts_as_a_mistake(sqlite_engine: sa.Engine, store: Store) -> None:
    run = finished_run(sqlite_engine, store, _said(store, 1.0), parts=_parts(store, TEST))
    with db.writing(sqlite_engine) as session:  # an import has brought a third class since
        session.execute(sa.update(Dataset).values(classes=["all", "hem", "monocyte"]))
    decide(sqlite_engine, cell_id=store.cells["1"][0], label="monocyte", reviewer_id=store.ann, seen=None)
    report = run_report(sqlite_engine, run, on="current")
    assert report.classes == ["all", "hem", "monocyte"]
    assert report.figures["per_class"]["monocyte"]["recall"] == 0.0


def test_temperature_is_taken_back_for_what_was_before(sqlite_engine: sa.Engine, store: Store) -> None:
    parts = _parts(store, TEST)
    run = finished_run(sqlite_engine, store, _said(store, 0.7), parts=parts, temperature=2.0)
    report = run_report(sqlite_engine, run)
    before = evaluate(report.labels, tempered(report.probabilities, 0.5), ["all", "hem"])
    assert report.uncalibrated == {"ece": before["ece"], "brier": before["brier"]}
    assert report.uncalibrated["brier"] != report.figures["brier"]
    assert report.scores.get("uncalibrated") == report.uncalibrated
    plain = run_report(sqlite_engine, finished_run(sqlite_engine, store, _said(store, 0.7), parts=parts))
    assert plain.uncalibrated is None
    assert "uncalibrated" not in plain.scores


def test_shared_patients_are_noticed_in_the_snapshot_itself(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine, SUBJECTS, tied=(("1", "8"),))
    one_cell_each = {cells[0]: "test" for cells in store.cells.values()}
    image = finished_run(
        sqlite_engine, store, _said(store, 0.9), parts=one_cell_each, recipe=Recipe(split="image")
    )
    tied = finished_run(sqlite_engine, store, _said(store, 0.9), parts=_parts(store, ["1", "H1"]))
    apart = finished_run(sqlite_engine, store, _said(store, 0.9), parts=_parts(store, ["2", "H1"]))
    found = run_reports(sqlite_engine, [image, tied, apart])
    assert [(report.shared_cells, report.shares_patients) for report in found] == [
        (len(SUBJECTS), True),
        (6, True),
        (0, False),
    ]


def test_cells_without_a_subject_stand_alone(sqlite_engine: sa.Engine, store: Store) -> None:
    with db.writing(sqlite_engine) as session:
        lonely = [add_cell(session, store.dataset, None, "all", f"lonely/{n}") for n in range(3)]
    said = _said(store, 1.0) | dict.fromkeys(lonely, ("all", 0.9))
    parts = _parts(store, TEST) | dict.fromkeys(lonely, "test")
    report = run_report(sqlite_engine, finished_run(sqlite_engine, store, said, parts=parts))
    assert len(set(report.units)) == len(TEST) + 3
    assert [row.subject for row in report.per_subject] == TEST


def test_rows_of_subjects_say_how_many_were_called_blast() -> None:
    rows = subject_rows(
        ["1", "1", "1", "H3", "H3", None],
        ["all", "all", "all", "hem", "hem", "all"],
        ["all", "hem", "all", "hem", "all", "all"],
        "all",
    )
    assert [(row.subject, row.label, row.cells, row.right, row.called_positive) for row in rows] == [
        ("1", "all", 3, 2, 2),
        ("H3", "hem", 2, 1, 1),
    ]
    for row in rows:
        low, high = row.share_positive_interval
        assert 0 <= low < row.share_positive < high <= 1
        assert row.accuracy_interval[0] < row.accuracy < row.accuracy_interval[1]


def _fold(engine: sa.Engine, store: Store, split: str, fold: int, right: float, **more) -> int:
    """A run of one of two folds by leak group, or by single images."""
    names = list(store.cells)
    if split == "leak_group":
        parts = _parts(store, names[fold::2])
    else:
        parts = {cell: "test" for cells in store.cells.values() for cell in cells[fold::2]}
    recipe = Recipe(split=split, folds=2, fold=fold, **more)  # pyright: ignore[reportArgumentType]
    return finished_run(
        engine, store, _said(store, right, fold + 3), parts=parts, recipe=recipe, series="both"
    )


def test_a_series_pools_its_folds_and_measures_the_leak(engine: sa.Engine) -> None:
    store = small_store(engine, SUBJECTS)
    apart = [_fold(engine, store, "leak_group", fold, 0.7) for fold in (0, 1)]
    shared = [_fold(engine, store, "image", fold, 0.98) for fold in (0, 1)]
    other = _fold(engine, store, "leak_group", 0, 0.5, backbone="resnet50")
    with db.writing(engine) as session:
        session.execute(sa.update(Run).where(Run.id == other).values(state="running"))
    found = series_report(engine, "both")
    assert found.unfinished == {other: "running"}
    (system,) = found.systems
    assert {split: report.runs for split, report in system.by_split.items()} == {
        "leak_group": apart,
        "image": shared,
    }
    every = sorted(cell for cells in store.cells.values() for cell in cells)
    for report in system.by_split.values():
        assert sorted(report.cell_ids) == every
    assert system.by_split["image"].shares_patients
    assert not system.by_split["leak_group"].shares_patients
    assert system.by_split["image"].split == "split by single images, 2 folds"
    accuracies = [system.by_split[split].figures["accuracy"] or 0 for split in ("leak_group", "image")]
    leak = (system.leak or {})["accuracy"]
    assert leak.value == pytest.approx(accuracies[1] - accuracies[0])
    assert 0 < (leak.low or 0) < leak.value < (leak.high or 0) < 0.6


def test_a_fold_trained_twice_counts_once(sqlite_engine: sa.Engine, store: Store) -> None:
    _fold(sqlite_engine, store, "leak_group", 0, 0.1)
    newest = [_fold(sqlite_engine, store, "leak_group", fold, 1.0) for fold in (0, 1)]
    (system,) = series_report(sqlite_engine, "both").systems
    assert system.by_split["leak_group"].runs == newest
    assert system.by_split["leak_group"].figures["accuracy"] == 1.0
    assert system.leak is None


def test_folds_take_back_each_its_own_temperature(sqlite_engine: sa.Engine, store: Store) -> None:
    runs = [_fold(sqlite_engine, store, "leak_group", fold, 0.8) for fold in (0, 1)]
    with db.writing(sqlite_engine) as session:
        for run, temperature in zip(runs, (0.5, 3.0), strict=True):
            session.execute(sa.update(Run).where(Run.id == run).values(temperature=temperature))
    pooled = series_report(sqlite_engine, "both").systems[0].by_split["leak_group"]
    alone = [run_report(sqlite_engine, run) for run in runs]
    briers = [(report.uncalibrated or {})["brier"] for report in alone]
    cells = [report.figures["n"] for report in alone]
    assert (pooled.uncalibrated or {})["brier"] == pytest.approx(np.average(briers, weights=cells))


@pytest.mark.parametrize("on", ["source", "current"])
def test_what_has_no_figures_is_said_in_words(sqlite_engine: sa.Engine, store: Store, on: On) -> None:
    with pytest.raises(UserError, match="There is no run 9"):
        run_report(sqlite_engine, 9, on=on)
    with pytest.raises(UserError, match="no series 'none'"):
        series_report(sqlite_engine, "none", on)
    run = finished_run(sqlite_engine, store, {}, series="empty")
    with pytest.raises(UserError, match="no predictions of test cells"):
        run_report(sqlite_engine, run, on=on)
    with db.writing(sqlite_engine) as session:
        session.execute(sa.update(Run).where(Run.id == run).values(state="failed"))
    with pytest.raises(UserError, match="None of these runs is finished"):
        series_report(sqlite_engine, "empty", on)
