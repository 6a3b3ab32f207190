"""Two runs on the test cells they share, from rows in a real store."""

import dataclasses
import json

import pytest
import sqlalchemy as sa
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar

import db
from allreview.errors import UserError
from allreview.evaluation.comparison import LabelChanges, compare_runs, labels_changed
from allreview.labels import keep_standing
from db.tables import (
    Annotation,
    Cell,
    CellFile,
    Dataset,
    LeakGroup,
    Prediction,
    Recipe,
    Reviewer,
    Run,
    Snapshot,
    SnapshotCell,
    Subject,
)
from tests.factory import finished_run, small_store

CLASSES = ["all", "hem"]


class Store:
    """Writes the rows of small made-up datasets and runs."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        with db.writing(engine) as session:
            recipe, reviewer = Recipe(hash="r", body={}), Reviewer(name="Ada")
            session.add_all([recipe, reviewer])
            session.flush()
            self.recipe_id, self.reviewer_id = recipe.id, reviewer.id

    def dataset(self, name: str, labels: list[str]) -> tuple[int, list[int]]:
        """A dataset with one cell of subject S1 for each label; the first cell has two files."""
        with db.writing(self.engine) as session:
            dataset = Dataset(name=name, classes=CLASSES)
            session.add(dataset)
            session.flush()
            group = LeakGroup(dataset_id=dataset.id)
            session.add(group)
            session.flush()
            subject = Subject(dataset_id=dataset.id, name="S1", leak_group_id=group.id)
            session.add(subject)
            session.flush()
            common = {"dataset_id": dataset.id, "subject_id": subject.id}
            cells = [
                Cell(sha256=f"{place:064}", source_label=label, width=9, height=9, size_bytes=9, **common)
                for place, label in enumerate(labels)
            ]
            session.add_all(cells)
            session.flush()
            for place, cell in enumerate(cells):
                session.add(CellFile(cell_id=cell.id, path=f"/{place}.bmp", **common))
                session.flush()
            session.add(CellFile(cell_id=cells[0].id, path="/again.bmp", **common))
            return dataset.id, [cell.id for cell in cells]

    def run(
        self,
        dataset_id: int,
        snapshot: dict[int, tuple[str, str]],
        says: dict[int, float],
        state: str = "finished",
    ) -> int:
        """A run on `snapshot` (cell: label, part); its model `says` how probably a cell is `all`."""
        with db.writing(self.engine) as session:
            count = session.scalar(sa.select(sa.func.count(Snapshot.id)))
            taken = Snapshot(dataset_id=dataset_id, hash=f"s{count}")
            session.add(taken)
            session.flush()
            for cell_id, (label, part) in snapshot.items():
                session.add(SnapshotCell(snapshot_id=taken.id, cell_id=cell_id, label=label, part=part))
            run = Run(
                dataset_id=dataset_id,
                recipe_id=self.recipe_id,
                snapshot_id=taken.id,
                classes=CLASSES,
                state=state,
            )
            session.add(run)
            session.flush()
            for cell_id, p in says.items():
                session.add(
                    Prediction(
                        run_id=run.id,
                        cell_id=cell_id,
                        label="all" if p > 0.5 else "hem",
                        probability=max(p, 1 - p),
                        probabilities={"all": p, "hem": 1 - p},
                    )
                )
            return run.id

    def decide(self, cell_id: int, label: str) -> None:
        with db.writing(self.engine) as session:
            session.add(
                Annotation(
                    cell_id=cell_id, sequence=1, kind="decision", label=label, reviewer_id=self.reviewer_id
                )
            )
            keep_standing(session, [cell_id])


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return Store(engine)


@pytest.fixture
def pair(store: Store) -> tuple[Store, list[int], int, int]:
    """Six cells labelled all, all, all, hem, hem, hem; all in test. B turns four verdicts of A."""
    dataset_id, cells = store.dataset("six", ["all"] * 3 + ["hem"] * 3)
    snapshot = {cell: ("all" if place < 3 else "hem", "test") for place, cell in enumerate(cells)}
    a = store.run(dataset_id, snapshot, dict(zip(cells, [0.9, 0.2, 0.3, 0.8, 0.1, 0.4], strict=True)))
    b = store.run(dataset_id, snapshot, dict(zip(cells, [0.8, 0.7, 0.6, 0.9, 0.6, 0.95], strict=True)))
    return store, cells, a, b


def test_both_runs_are_measured_on_the_same_cells(pair: tuple[Store, list[int], int, int]) -> None:
    store, _, a, b = pair
    found = compare_runs(store.engine, a, b)
    assert (found.cells, found.left_out, found.without_prediction) == (6, 0, 0)
    assert found.source.a["confusion"]["matrix"] == [[1, 2], [1, 2]]
    assert found.source.b["confusion"]["matrix"] == [[3, 0], [3, 0]]
    assert (found.source.a["accuracy"], found.source.b["accuracy"]) == (0.5, 0.5)
    assert found.current == found.source
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_changed_cells_carry_everything_a_page_needs(pair: tuple[Store, list[int], int, int]) -> None:
    store, cells, a, b = pair
    found = compare_runs(store.engine, a, b)
    assert [(cell.cell_id, cell.outcome) for cell in found.changed] == [
        (cells[5], "became wrong"),
        (cells[4], "became wrong"),
        (cells[1], "became right"),
        (cells[2], "became right"),
    ]
    assert found.outcomes == {"became wrong": 2, "became right": 2, "still wrong": 0, "not judged": 0}
    first = found.changed[0]
    assert (first.sha256, first.path, first.subject) == (f"{5:064}", "/5.bmp", "S1")
    assert (first.source_label, first.current_label) == ("hem", "hem")
    assert (first.label_a, first.label_b) == ("hem", "all")
    assert (first.probability_a, first.probability_b) == pytest.approx((0.6, 0.95))


def test_the_path_is_that_of_the_first_file(store: Store) -> None:
    dataset_id, cells = store.dataset("one", ["all"])
    snapshot = {cells[0]: ("all", "test")}
    a = store.run(dataset_id, snapshot, {cells[0]: 0.9})
    b = store.run(dataset_id, snapshot, {cells[0]: 0.1})
    assert [cell.path for cell in compare_runs(store.engine, a, b).changed] == ["/0.bmp"]


def test_current_labels_decide_what_became_right(pair: tuple[Store, list[int], int, int]) -> None:
    store, cells, a, b = pair
    store.decide(cells[5], "all")
    store.decide(cells[4], "unsure")
    store.decide(cells[3], "unusable")
    found = compare_runs(store.engine, a, b)
    assert found.left_out == 2
    assert (found.source.a["n"], found.current.a["n"]) == (6, 4)
    assert found.source.b["accuracy"] == 0.5
    assert (found.current.a["accuracy"], found.current.b["accuracy"]) == (0.25, 1.0)
    outcomes = {cell.cell_id: (cell.current_label, cell.outcome) for cell in found.changed}
    assert outcomes[cells[5]] == ("all", "became right")
    assert outcomes[cells[4]] == ("unsure", "not judged")


def test_a_label_neither_run_knew_is_judged_as_wrong(pair: tuple[Store, list[int], int, int]) -> None:
    store, cells, a, b = pair
    store.decide(cells[5], "monocyte")
    found = compare_runs(store.engine, a, b)
    assert found.classes == ["all", "hem", "monocyte"]
    assert found.current.b["per_class"]["monocyte"]["recall"] == 0.0
    assert {cell.cell_id: cell.outcome for cell in found.changed}[cells[5]] == "still wrong"


def test_mcnemar_counts_the_disagreements(store: Store) -> None:
    dataset_id, cells = store.dataset("twelve", ["all"] * 12)
    snapshot = dict.fromkeys(cells, ("all", "test"))
    a = store.run(
        dataset_id, snapshot, {cell: 0.9 if place == 0 else 0.1 for place, cell in enumerate(cells)}
    )
    b = store.run(dataset_id, snapshot, {cell: 0.1 if place < 2 else 0.9 for place, cell in enumerate(cells)})
    test = compare_runs(store.engine, a, b).current.mcnemar
    assert (test.only_a_right, test.only_b_right) == (1, 10)
    assert test.p_value == pytest.approx(binomtest(1, 11).pvalue)
    assert test.p_value == pytest.approx(2 * (1 + 11) / 2**11)
    table = [[0, 1], [10, 1]]  # rows: A right, A wrong; columns: B right, B wrong
    assert test.p_value == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert compare_runs(store.engine, a, a).current.mcnemar.p_value == 1.0


def test_only_cells_in_both_test_parts_count(store: Store) -> None:
    dataset_id, cells = store.dataset("parts", ["all", "hem", "all", "hem"])
    parts_a, parts_b = ("test", "test", "train", "test"), ("test", "train", "test", "test")
    says = dict.fromkeys(cells, 0.9)
    a = store.run(dataset_id, {c: ("all", p) for c, p in zip(cells, parts_a, strict=True)}, says)
    b_says = dict.fromkeys(cells[:3], 0.1)
    b = store.run(dataset_id, {c: ("all", p) for c, p in zip(cells, parts_b, strict=True)}, b_says)
    found = compare_runs(store.engine, a, b)
    assert (found.cells, found.without_prediction) == (1, 1)
    assert [cell.cell_id for cell in found.changed] == [cells[0]]


def test_what_cannot_be_compared_is_refused_in_words(store: Store) -> None:
    dataset_id, cells = store.dataset("one", ["all", "hem"])
    other_id, other = store.dataset("other", ["all"])
    first, second = ({cells[place]: ("all", "test")} for place in (0, 1))
    a = store.run(dataset_id, first, {cells[0]: 0.9})
    disjoint = store.run(dataset_id, second, {cells[1]: 0.9})
    running = store.run(dataset_id, first, {}, state="running")
    elsewhere = store.run(other_id, {other[0]: ("all", "test")}, {other[0]: 0.9})
    for b, message in [
        (disjoint, "share no test cell"),
        (running, "is running, not finished"),
        (elsewhere, "different datasets"),
        (999, "no run 999"),
    ]:
        with pytest.raises(UserError, match=message):
            compare_runs(store.engine, a, b)


def test_label_changes_between_snapshots(store: Store) -> None:
    dataset_id, cells = store.dataset("labels", ["all"] * 5)
    a = store.run(dataset_id, dict.fromkeys(cells[:4], ("all", "train")), {})
    labels = dict(zip(cells, ["hem", "all", "unsure", "unusable", "all"], strict=True))
    b = store.run(dataset_id, {cell: (label, "train") for cell, label in labels.items()}, {}, state="running")
    assert labels_changed(store.engine, a, b) == LabelChanges(changed=1, left_out=2, added=1, in_training=3)
    assert labels_changed(store.engine, a, a) == LabelChanges(changed=0, left_out=0, added=0, in_training=0)


def test_differences_are_paired_by_subject(sqlite_engine: sa.Engine) -> None:
    """Subjects differ wildly, but B is better by one cell in each: the difference is known far better than either
    figure."""
    subjects = {f"{n}": ("all", 10) for n in range(8)} | {f"H{n}": ("hem", 10) for n in range(6)}
    made = small_store(sqlite_engine, subjects)
    said_a, said_b = {}, {}
    for number, (subject, cells) in enumerate(made.cells.items()):
        label, other = ("hem", "all") if subject.startswith("H") else ("all", "hem")
        for place, cell in enumerate(cells):
            said_a[cell] = (label if place < number % 9 else other, 0.8)
            said_b[cell] = (label if place < number % 9 + 1 else other, 0.8)
    parts = dict.fromkeys(said_a, "test")
    a, b = (finished_run(sqlite_engine, made, said, parts=parts) for said in (said_a, said_b))
    found = compare_runs(sqlite_engine, a, b)
    assert not found.shared_patients
    difference = found.current.differences["accuracy"]
    assert difference.value == pytest.approx(0.1)
    assert (difference.low, difference.high) == (None, None)  # each resample finds exactly 0.1
    assert found.current.differences["balanced_accuracy"].value == pytest.approx(0.1)
    back = compare_runs(sqlite_engine, b, a).current.differences
    for name, forth in found.current.differences.items():
        assert back[name].value == pytest.approx(-forth.value)
        if forth.low is not None and forth.high is not None:
            assert (back[name].low, back[name].high) == pytest.approx((-forth.high, -forth.low))
    assert found.current.differences["weighted_f1"].low is not None
    assert json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))["current"]["differences"]


def test_runs_that_share_patients_are_marked(sqlite_engine: sa.Engine) -> None:
    made = small_store(sqlite_engine)
    said = {cell: ("all", 0.9) for cells in made.cells.values() for cell in cells}
    whole = {cell: "test" for subject in ("1", "H1") for cell in made.cells[subject]}
    single = {cells[0]: "test" for cells in made.cells.values()}
    apart = finished_run(sqlite_engine, made, said, parts=whole)
    shared = finished_run(sqlite_engine, made, said, parts=single)
    assert compare_runs(sqlite_engine, apart, shared).shared_patients
    assert not compare_runs(sqlite_engine, apart, apart).shared_patients
