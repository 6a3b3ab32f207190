"""Several runs at once: which they are, all or none, and an ensemble's members before it."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import db
from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe
from allreview.review.log.annotations import decide
from allreview.settings import Settings
from allreview.training import jobs
from allreview.training.runs import RunRow, get_run, list_runs
from allreview.training.series import Protocol, plan
from db.tables import Recipe as RecipeRow
from db.tables import Run, Snapshot
from tests.factory import Store, small_store

SCRATCH = {"weights": "none", "mode": "finetune"}
AVERAGED = make_recipe({**SCRATCH, "partner": "resnet50", "combine": "average"})


@pytest.fixture
def store(engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(jobs, "ensure_worker", lambda _settings: False)
    return small_store(engine)


def runs(engine: sa.Engine) -> list[RunRow]:
    with db.reading(engine) as session:
        return list_runs(session)[::-1]


def queue(settings: Settings) -> list[str]:
    """What waits, in the order in which a worker takes it. Of the same instant and priority any may be first."""
    waiting = jobs._client(settings.url).list_queued_workflows()
    assert len({one.priority for one in waiting}) == len(waiting)
    return [one.workflow_id for one in sorted(waiting, key=lambda one: one.priority or 0)]


def test_one_recipe_makes_one_run_unless_more_is_asked_for() -> None:
    recipe = Recipe(folds=5, fold=2)
    assert plan(recipe) == [recipe]
    assert plan(recipe, protocol="image") == [Recipe(folds=5, fold=2, split="image")]


@pytest.mark.parametrize(
    ("protocol", "splits"),
    [
        (None, ["leak_group"]),
        ("leak_group", ["leak_group"]),
        ("image", ["image"]),
        ("both", ["leak_group", "image"]),
    ],
)
def test_every_fold_of_every_split_is_one_run(protocol: Protocol | None, splits: list[str]) -> None:
    made = plan(Recipe(folds=3, fold=1, seed=4), protocol=protocol, cross_validate=True)
    assert [(one.split, one.fold) for one in made] == [(split, fold) for split in splits for fold in range(3)]
    assert {(one.folds, one.seed) for one in made} == {(3, 4)}


def test_the_datasets_own_folds_are_one_run_each() -> None:
    recipe = Recipe(split="dataset_folds", fold=1)
    made = plan(recipe, cross_validate=True, fold_names=["fold_0", "fold_1", "fold_2"])
    assert [one.fold for one in made] == [0, 1, 2]
    assert plan(recipe, fold_names=["fold_0", "fold_1"]) == [recipe]
    with pytest.raises(UserError, match="no folds of its own"):
        plan(recipe, cross_validate=True, fold_names=["fold_0"])
    with pytest.raises(UserError, match="a split of their own"):
        plan(recipe, protocol="both", fold_names=["fold_0", "fold_1"])
    with pytest.raises(UserError, match="number of folds"):
        plan(Recipe(), cross_validate=True)


def test_runs_of_a_series_are_submitted_together_in_order(
    engine: sa.Engine, settings: Settings, store: Store
) -> None:
    recipe = make_recipe({**SCRATCH, "folds": 2})
    recipes = plan(recipe, protocol="both", cross_validate=True)
    ids = jobs.submit_all(engine, settings, store.dataset, recipes)
    found = runs(engine)
    assert [run.id for run in found] == ids
    assert [run.recipe for run in found] == recipes
    assert len({run.series for run in found}) == 1
    assert found[0].series is not None
    assert len({run.snapshot_hash for run in found}) == 4
    assert queue(settings) == [f"run-{run_id}" for run_id in ids]
    alone = jobs.submit(engine, settings, dataset_id=store.dataset, recipe=recipe)
    assert runs(engine)[-1].id == alone
    assert runs(engine)[-1].series is None


@pytest.mark.parametrize("how", ["a recipe is refused", "the queue fails"])
def test_one_that_cannot_be_submitted_leaves_none(
    engine: sa.Engine, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    recipes = [AVERAGED, make_recipe({**SCRATCH, "folds": 5 if how == "a recipe is refused" else 2})]
    client = jobs._client(settings.url)
    enqueue, calls = client.enqueue_in_transaction, []

    def fails_at_the_fourth(*arguments: Any) -> object:
        calls.append(arguments)
        if len(calls) == 4:
            raise ZeroDivisionError
        return enqueue(*arguments)

    monkeypatch.setattr(client, "enqueue_in_transaction", fails_at_the_fourth)
    refusal = UserError if how == "a recipe is refused" else ZeroDivisionError
    with pytest.raises(refusal):
        jobs.submit_all(engine, settings, store.dataset, recipes)
    assert len(calls) >= 3
    with db.reading(engine) as session:
        for table in (Run, Snapshot, RecipeRow):
            assert session.scalar(sa.select(sa.func.count()).select_from(table)) == 0
    assert queue(settings) == []


def test_weights_of_every_backbone_must_be_there(
    engine: sa.Engine, settings: Settings, store: Store, weights: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    found = settings.model_copy(update={"weights": weights})
    with pytest.raises(UserError, match="vgg16"):
        jobs.submit_all(engine, found, store.dataset, [Recipe(), Recipe(partner="vgg16")])
    assert runs(engine) == []


def test_members_come_before_their_ensemble_and_share_its_snapshot(
    engine: sa.Engine, settings: Settings, store: Store
) -> None:
    (average,) = jobs.submit_all(engine, settings, store.dataset, [AVERAGED])
    first, second, ensemble = runs(engine)
    assert (ensemble.id, ensemble.members) == (average, [first.id, second.id])
    assert (first.recipe, second.recipe) == AVERAGED.members
    assert [first.members, second.members] == [[], []]
    assert first.snapshot_id == second.snapshot_id == ensemble.snapshot_id
    assert queue(settings) == [f"run-{run.id}" for run in (first, second, ensemble)]


def test_members_are_reused_while_they_have_or_will_have_a_model(
    engine: sa.Engine, settings: Settings, store: Store
) -> None:
    def members() -> list[int]:
        (run_id,) = jobs.submit_all(engine, settings, store.dataset, [AVERAGED])
        with db.reading(engine) as session:
            return get_run(session, run_id).members

    def change(run_id: int, **values: object) -> None:
        with db.writing(engine) as session:
            session.execute(sa.update(Run).where(Run.id == run_id).values(**values))

    first, second = members()
    assert members() == [first, second]  # they are queued
    change(first, state="finished")
    change(second, stop_requested=True)
    third, fourth = members()
    assert {third, fourth}.isdisjoint({first, second})  # one has no model on disk, one will have none
    folder = settings.run_folder(first)
    folder.mkdir(parents=True)
    (folder / "model.keras").touch()
    change(third, state="failed")
    assert members() == [first, fourth]
    decide(engine, cell_id=store.cells["1"][0], label="hem", reviewer_id=store.ann, seen=None)
    assert set(members()).isdisjoint({first, second, third, fourth})  # the labels are others now


def test_a_retrained_ensemble_retrains_its_members(
    engine: sa.Engine, settings: Settings, store: Store
) -> None:
    (parent,) = jobs.submit_all(engine, settings, store.dataset, [AVERAGED])
    old = runs(engine)[-1].members
    decide(engine, cell_id=store.cells["1"][0], label="hem", reviewer_id=store.ann, seen=None)
    child = jobs.retrain(engine, settings, parent)
    with db.reading(engine) as session:
        ensemble = get_run(session, child)
        members = [get_run(session, one) for one in ensemble.members]
    assert ensemble.parent_id == parent
    assert [one.parent_id for one in members] == old
    assert {one.snapshot_id for one in members} == {ensemble.snapshot_id}
