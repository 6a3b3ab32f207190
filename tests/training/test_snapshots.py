"""Freezing labels and parts: nothing leaks, nothing moves."""

from collections import defaultdict
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import db
from allreview.errors import UserError
from allreview.recipe import Recipe
from allreview.review.log.annotations import decide
from allreview.training import snapshots
from db.tables import Cell, Dataset, LeakGroup, Snapshot, SnapshotCell, Subject
from tests.factory import Store, add_cell, add_run, small_store

RECIPE = Recipe()


def freeze(engine: sa.Engine, store: Store, recipe: Recipe = RECIPE, parent: int | None = None) -> Snapshot:
    with db.writing(engine) as session:
        return snapshots.freeze(session, store.dataset, recipe, parent)


def parts(engine: sa.Engine, snapshot: Snapshot) -> dict[int, str]:
    with db.reading(engine) as session:
        return {line.cell_id: line.part for line in snapshots.lines(session, snapshot.id)}


def run_on(engine: sa.Engine, snapshot: Snapshot, recipe: Recipe = RECIPE) -> int:
    with db.writing(engine) as session:
        return add_run(session, snapshot.id, recipe).id


def new_subject(engine: sa.Engine, store: Store, name: str) -> int:
    """A subject that is tied to nobody, with one cell; gives the cell's id."""
    with db.writing(engine) as session:
        group = LeakGroup(dataset_id=store.dataset)
        session.add(group)
        session.flush()
        subject = Subject(dataset_id=store.dataset, name=name, leak_group_id=group.id)
        session.add(subject)
        session.flush()
        return add_cell(session, store.dataset, subject.id, "all", f"new/{name}")


def put_in_folds(
    engine: sa.Engine, store: Store, folds: dict[str, str], *, default: str | None = None
) -> None:
    """Say in which of the dataset's own folds each subject's cells came; the others in `default`."""
    with db.writing(engine) as session:
        for subject in session.scalars(sa.select(Subject).where(Subject.dataset_id == store.dataset)):
            if (fold := folds.get(subject.name, default)) is not None:
                session.execute(sa.update(Cell).where(Cell.subject_id == subject.id).values(fold=fold))


def test_no_leak_group_is_cut(engine: sa.Engine) -> None:
    store = small_store(engine, tied=(("1", "2"), ("H1", "H2")))
    found = parts(engine, freeze(engine, store))
    assert set(found.values()) == {"train", "validation", "test"}
    for tied in (("1", "2"), ("H1", "H2")):
        assert len({found[cell] for subject in tied for cell in store.cells[subject]}) == 1


def test_the_same_labels_give_the_same_snapshot(engine: sa.Engine) -> None:
    store = small_store(engine)
    assert freeze(engine, store).id == freeze(engine, store).id
    assert freeze(engine, store, Recipe(seed=7)).hash != freeze(engine, store).hash


def test_relabelling_changes_the_label_and_never_the_part(engine: sa.Engine) -> None:
    store = small_store(engine)
    before = freeze(engine, store)
    cell, other = store.cells["1"][0], store.cells["2"][0]
    decide(engine, cell_id=cell, label="hem", reviewer_id=store.ann, seen=None)
    decide(engine, cell_id=other, label="unusable", reviewer_id=store.ann, seen=None)
    for parent in (None, run_on(engine, before)):
        after = freeze(engine, store, parent=parent)
        assert after.hash != before.hash
        assert parts(engine, after) == parts(engine, before)
        with db.reading(engine) as session:
            labels = {line.cell_id: line.label for line in snapshots.lines(session, after.id)}
        assert (labels[cell], labels[other]) == ("hem", "unusable")


def test_a_retrain_keeps_the_parts_and_places_new_subjects(engine: sa.Engine) -> None:
    store = small_store(engine)
    before = freeze(engine, store)
    parent = run_on(engine, before)
    new = new_subject(engine, store, "99")
    after = parts(engine, freeze(engine, store, parent=parent))
    assert after.pop(new) == "train"
    assert after == parts(engine, before)


def test_a_test_subject_tied_to_a_training_subject_since_goes_to_training(engine: sa.Engine) -> None:
    store = small_store(engine)
    before = freeze(engine, store)
    parent = run_on(engine, before)
    found = parts(engine, before)
    by_part = defaultdict(list)
    for subject, cells in store.cells.items():
        by_part[found[cells[0]]].append(subject)
    tested, trained = by_part["test"][0], by_part["train"][0]
    with db.writing(engine) as session:
        rows = {row.name: row for row in session.scalars(sa.select(Subject))}
        rows[tested].leak_group_id = rows[trained].leak_group_id
    after = parts(engine, freeze(engine, store, parent=parent))
    assert {after[cell] for cell in store.cells[tested]} == {"train"}


def test_a_retrain_by_image_keeps_each_cell_where_it_was(engine: sa.Engine) -> None:
    store = small_store(engine)
    recipe = Recipe(split="image", seed=1)
    before = freeze(engine, store, recipe)
    parent = run_on(engine, before, recipe)
    found = parts(engine, before)
    assert any(len({found[cell] for cell in cells}) > 1 for cells in store.cells.values())
    with db.writing(engine) as session:
        subject = session.scalars(sa.select(Subject)).first()
        assert subject is not None
        new = add_cell(session, store.dataset, subject.id, "all", "new")
    after = parts(engine, freeze(engine, store, recipe, parent))
    assert after.pop(new) == "train"
    assert after == found


@pytest.mark.parametrize("split", [{"folds": 2, "fold": 1}, {"split": "dataset_folds", "fold": 1}])
def test_a_retrain_of_a_fold_keeps_its_parts(engine: sa.Engine, split: dict[str, Any]) -> None:
    store = small_store(engine)
    put_in_folds(engine, store, {"1": "b", "2": "b", "H1": "b", "H2": "b"}, default="d")
    recipe = Recipe(**split)
    before = freeze(engine, store, recipe)
    parent = run_on(engine, before, recipe)
    decide(engine, cell_id=store.cells["1"][0], label="hem", reviewer_id=store.ann, seen=None)
    after = freeze(engine, store, recipe, parent)
    assert after.hash != before.hash
    assert parts(engine, after) == parts(engine, before)


def test_a_retrain_tests_on_the_fold_of_the_same_name_when_folds_were_added(engine: sa.Engine) -> None:
    store = small_store(engine)
    put_in_folds(engine, store, {"1": "b", "2": "b", "H1": "b", "H2": "b"}, default="d")
    recipe = Recipe(split="dataset_folds", fold=1)
    before = freeze(engine, store, recipe)
    parent = run_on(engine, before, recipe)
    new = {name: new_subject(engine, store, name) for name in ("98", "99")}
    put_in_folds(engine, store, {"98": "c", "99": "d"})
    after = parts(engine, freeze(engine, store, recipe, parent))
    assert after.pop(new["98"]) != "test"
    assert after.pop(new["99"]) == "test"
    assert after == parts(engine, before)


@pytest.mark.parametrize("change", [{"split": "image"}, {"folds": 2}])
def test_a_retrain_by_another_split_is_refused(engine: sa.Engine, change: dict[str, Any]) -> None:
    store = small_store(engine)
    parent = run_on(engine, freeze(engine, store))
    with pytest.raises(UserError, match="keeps its parent's split"):
        freeze(engine, store, Recipe(**change), parent)
    assert freeze(engine, store, Recipe(seed=9, fold=3), parent).hash == freeze(engine, store).hash


def test_the_datasets_folds_are_listed_and_a_missing_one_is_refused(engine: sa.Engine) -> None:
    store = small_store(engine)
    with db.reading(engine) as session:
        assert snapshots.fold_names(session, store.dataset) == []
    with pytest.raises(UserError, match="no folds of its own"):
        freeze(engine, store, Recipe(split="dataset_folds"))
    put_in_folds(engine, store, {"1": "fold_10", "H1": "fold_10"}, default="fold_9")
    with db.reading(engine) as session:
        assert snapshots.fold_names(session, store.dataset) == ["fold_9", "fold_10"]
        recipe = Recipe(split="dataset_folds", fold=1)
        counts = snapshots.preview(session, store.dataset, recipe)
        assert (counts["test", "all"], counts["test", "hem"]) == (4, 4)
    with pytest.raises(UserError, match=r"no fold 2 in this dataset: its folds are 0 \(fold_9\), 1"):
        freeze(engine, store, Recipe(split="dataset_folds", fold=2))
    with pytest.raises(UserError, match="'hem' has 4"):
        freeze(engine, store, Recipe(folds=5))


def test_too_little_to_train_on_is_said(engine: sa.Engine) -> None:
    one_class = small_store(engine, {f"{n}": ("all", 2) for n in range(4)}, name="one class")
    with pytest.raises(UserError, match="two classes"):
        freeze(engine, one_class)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=6, max_size=14),
    ties=st.lists(st.tuples(st.integers(0, 13), st.integers(0, 13)), max_size=4),
    seed=st.integers(0, 1000),
    split=st.sampled_from([{}, {"folds": 3, "fold": 2}, {"split": "dataset_folds"}, {"split": "image"}]),
)
def test_groups_never_straddle_whatever_the_data(
    sqlite_engine: sa.Engine, sizes: list[int], ties: list[tuple[int, int]], seed: int, split: dict[str, Any]
) -> None:
    """Nor do they in folds; only a recipe that says so, which marks its figures, splits by image."""
    recipe = Recipe(seed=seed, **split)
    assert recipe.shares_patients == (recipe.split == "image")
    names = [("H" if number % 2 else "") + str(number) for number in range(len(sizes))]
    subjects = {
        name: ("hem" if name.startswith("H") else "all", size)
        for name, size in zip(names, sizes, strict=True)
    }
    tied = tuple((names[a], names[b]) for a, b in ties if a < b < len(names))
    with db.writing(sqlite_engine) as session:
        for table in (SnapshotCell, Snapshot):
            session.execute(sa.delete(table))
        count = session.scalar(sa.select(sa.func.count(Dataset.id)))
        session.execute(sa.text("delete from reviewers"))
    store = small_store(sqlite_engine, subjects, tied=tied, name=f"set {count}")
    put_in_folds(sqlite_engine, store, {name: f"fold_{number % 3}" for number, name in enumerate(names)})
    try:
        found = parts(sqlite_engine, freeze(sqlite_engine, store, recipe))
    except UserError:
        return  # so many ties that fewer than three groups, or a class, are left: refused in words
    with db.reading(sqlite_engine) as session:
        rows = session.execute(
            sa.select(Subject.leak_group_id, Cell.id)
            .join(Cell, Cell.subject_id == Subject.id)
            .where(Cell.dataset_id == store.dataset)
        ).all()
    of_group = defaultdict(set)
    for group, cell in rows:
        of_group[group].add(found[cell])
    if recipe.shares_patients:
        assert len(found) == sum(sizes)
    else:
        assert all(len(held) == 1 for held in of_group.values())
