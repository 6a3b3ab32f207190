"""Work shared out among workers: what is missing is covered once, and what comes of it is what comes of one worker."""

import os
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import db
from allreview.cells.importing import import_cells
from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe
from allreview.review import rankings
from allreview.settings import Settings, current_settings
from allreview.training import jobs, pipeline, ranking, shards, sharing, slots, threads
from allreview.training.epochs import StopRequested
from allreview.training.features import lacking_features
from allreview.training.progress import RunProgress
from allreview.training.runs import get_run
from allreview.training.shards import plan
from allreview.training.snapshots import lines
from allreview.training.views import training_views
from db.tables import Run

HOW = ("openvino", "float32")
RECIPE = make_recipe({"image_size": 64, "crop": 300, "rotation": 90, "views": 3})


def sha(number: int) -> str:
    return f"{number:064x}"


@given(
    st.dictionaries(
        st.sampled_from(["vgg16", "resnet50"]), st.dictionaries(st.integers(0, 10**6), st.integers(0, 9))
    ),
    st.integers(1, 40),
    st.integers(1, 20),
)
def test_a_plan_covers_what_is_missing_once(missing, least: int, most: int) -> None:
    by_kind: dict[Any, dict[str, int]] = {
        (name, *HOW): {sha(number): views for number, views in cells.items()}
        for name, cells in missing.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "LEAST", least)
        patch.setattr(shards, "MOST", most)
        found = plan(by_kind)
        assert plan({kind: dict(reversed(cells.items())) for kind, cells in by_kind.items()}) == found
    total = sum(views for cells in by_kind.values() for views in cells.values())
    if total < 2 * least:
        assert found == []
        return
    for kind, cells in by_kind.items():
        mine = [shard for shard in found if (shard.backbone, shard.engine, shard.precision) == kind]
        taken = Counter(
            cell
            for shard in mine
            for cell, views in cells.items()
            if views and shard.first <= cell <= shard.last
        )
        assert set(taken) == {cell for cell, views in cells.items() if views}
        assert set(taken.values()) <= {1}
        assert all(before.last < after.first for before, after in pairwise(mine))
    assert len(found) <= most + len(by_kind)


@pytest.fixture
def run(sqlite_engine: sa.Engine, cnmc_few: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A run on real cells that has begun, with nobody at it, in a world where shards are small."""
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    monkeypatch.setattr(jobs, "ensure_worker", lambda _settings: False)
    monkeypatch.setattr(shards, "LEAST", 64)
    return begun(sqlite_engine, current_settings(), cnmc_few, RECIPE)


def begun(engine: sa.Engine, settings: Settings, cells: Path, recipe: Recipe) -> int:
    dataset = import_cells(engine, settings, cells, dataset="C-NMC").dataset_id
    run_id = jobs.submit(engine, settings, dataset_id=dataset, recipe=recipe)
    with db.writing(engine) as session:
        session.execute(sa.update(Run).values(state="running"))
    return run_id


def read(engine: sa.Engine, settings: Settings, run_id: int) -> list[np.ndarray]:
    """All features of the run as they are in the cache; nothing may be missing."""
    found, cells = pipeline.load(engine, run_id)
    recipe, weights = found.recipe, pipeline.weights_of(found.recipe, settings)
    assert lacking_features(pipeline.wanted_features(recipe, cells), recipe, weights, settings).left == 0
    progress = RunProgress(engine, run_id)
    train = pipeline.fitted(cells, "train")
    return [
        pipeline.features_of(recipe, cells, settings, progress),
        *(
            pipeline.features_of(recipe, train, settings, progress, view=view)
            for view in training_views(recipe)
        ),
    ]


def test_shards_give_the_features_that_one_worker_gives(
    sqlite_engine: sa.Engine, run: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = current_settings()
    parts = pipeline.compute_features(sqlite_engine, settings, run, share=True)
    assert len(parts) > 3
    assert not list(settings.features.glob("*/*.vectors"))
    for shard in [*parts[::-1], parts[0]]:  # in any order, and one of them twice
        sharing.compute_shard(sqlite_engine, settings, run, shard)
    assert pipeline.compute_features(sqlite_engine, settings, run, share=True) == []
    shared = read(sqlite_engine, settings, run)
    plain = settings.model_copy(update={"home": tmp_path / "plain"})
    pipeline.compute_features(sqlite_engine, plain, run)
    for one, other in zip(shared, read(sqlite_engine, plain, run), strict=True):
        np.testing.assert_array_equal(one, other)


def test_little_work_is_not_shared(
    sqlite_engine: sa.Engine, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "LEAST", 10_000)
    assert pipeline.compute_features(sqlite_engine, current_settings(), run, share=True) == []
    assert read(sqlite_engine, current_settings(), run)


def test_a_shard_ends_in_words_when_it_must(
    sqlite_engine: sa.Engine, run: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a file is gone, when the run was stopped, and where the machine computes otherwise."""
    settings = current_settings()
    shard = pipeline.compute_features(sqlite_engine, settings, run, share=True)[0]
    monkeypatch.setattr(sharing, "_DECLINE_AFTER", 0.2)
    sharing.compute_shard(sqlite_engine, settings, run, shard._replace(precision="float8"))
    assert not list(settings.features.glob("*/*.vectors"))
    with db.reading(sqlite_engine) as session:
        cell = lines(session, get_run(session, run).snapshot_id, (shard.first, shard.last))[0]
    with db.writing(sqlite_engine) as session:
        session.execute(
            sa.text("update cell_files set path = '/nowhere/cell.bmp' where cell_id = :cell"),
            {"cell": cell.cell_id},
        )
    with pytest.raises(UserError, match=r"/nowhere/cell\.bmp"):
        sharing.compute_shard(sqlite_engine, settings, run, shard)
    jobs.stop(sqlite_engine, run)
    with pytest.raises(StopRequested):
        sharing.compute_shard(sqlite_engine, settings, run, shard)


def test_lines_between_two_hashes_are_those_of_the_whole(sqlite_engine: sa.Engine, run: int) -> None:
    with db.reading(sqlite_engine) as session:
        snapshot = get_run(session, run).snapshot_id
        everything = lines(session, snapshot)
        assert lines(session, snapshot, (everything[3].sha256, everything[9].sha256)) == everything[3:10]


def test_folds_by_other_workers_give_what_one_gives(
    sqlite_engine: sa.Engine, run: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = current_settings()
    assert ranking.folds_to_share(sqlite_engine, settings, run) == []  # so few cells
    monkeypatch.setattr(ranking, "SHARED_FROM", 10)
    assert ranking.folds_to_share(sqlite_engine, settings, run) == []  # nobody to share with
    held = [slots.take_slot(settings) for _ in range(2)]
    folds = ranking.folds_to_share(sqlite_engine, settings, run)
    assert len(folds) == ranking.FOLDS
    ranking.rank(sqlite_engine, settings, run)
    alone = rankings.out_of_fold(settings, run)
    assert alone is not None
    (settings.run_folder(run) / rankings.OUT_OF_FOLD).unlink()
    for fold in folds[1:]:  # the first is lost, and made up for
        ranking.judge_fold(sqlite_engine, settings, run, fold)
    classifier = ranking._classifier
    fitted = []
    monkeypatch.setattr(ranking, "_classifier", lambda n: fitted.append(n) or classifier(n))
    ranking.rank(sqlite_engine, settings, run)
    assert len(fitted) == 1
    shared = rankings.out_of_fold(settings, run)
    assert shared is not None
    np.testing.assert_array_equal(shared.probabilities, alone.probabilities)
    assert not (settings.run_folder(run) / "folds").exists()
    for slot in held:
        assert slot is not None
        slot[1].release()


def test_a_slot_tells_the_dead_from_the_living(home: Path) -> None:
    settings = current_settings()
    first, second = slots.take_slot(settings), slots.take_slot(settings)
    assert first is not None
    assert second is not None
    assert slots.living(settings) == 2
    with slots.taken_over(settings, second[0]) as dead:
        assert not dead
    second[1].release()
    assert slots.living(settings) == 1
    with slots.taken_over(settings, second[0]) as dead:
        assert dead
        with slots.taken_over(settings, second[0]) as dead_too:  # somebody is looking already
            assert not dead_too
        third = slots.take_slot(settings)  # nobody gets the slot meanwhile
        assert third is not None
        assert third[0] not in (first[0], second[0])
    with slots.taken_over(settings, f"another-home-{second[0]}") as dead:
        assert not dead
    first[1].release()
    third[1].release()


def test_a_worker_keeps_to_its_threads(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads._TOLD_BY:
        monkeypatch.setenv(name, "7")
    threads.tell_libraries(current_settings())
    assert os.environ["OMP_NUM_THREADS"] == "7"
    monkeypatch.setenv("ALLREVIEW_THREADS", "1")
    threads.tell_libraries(current_settings())
    assert {os.environ[name] for name in threads._TOLD_BY} == {"1"}
    assert threads.count() == 1
