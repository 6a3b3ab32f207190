"""Second opinions on labels, neighbours and maps: on made-up cells, and on a run of real ones."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import db
from allreview.review import rankings
from allreview.settings import current_settings
from allreview.store import open_store
from allreview.training import failures, jobs, keeping, ranking, workflows
from allreview.training.epochs import StopRequested
from allreview.training.pipeline import features_of, load
from allreview.training.progress import RunProgress
from allreview.training.runs import RunRow, get_run
from allreview.training.snapshots import SnapshotLine
from tests.conftest import Trained

CLASSES = ["all", "hem"]


class Unwatched(RunProgress):
    """Nobody looks on, and nobody stops it."""

    def __init__(self) -> None:
        pass

    def check(self) -> None:
        pass

    def on_batch(self, *_: object) -> None:
        pass


def cell(number: int, label: str, group: str, source: str | None = None) -> SnapshotLine:
    return SnapshotLine(number, f"{number:064d}", "", label, "train", source or label, group, group)


def cells_of(sizes: dict[str, tuple[str, int]]) -> list[SnapshotLine]:
    """`{group: (label, cells)}`"""
    found: list[SnapshotLine] = []
    for group, (label, size) in sizes.items():
        found += [cell(len(found) + place, label, group) for place in range(size)]
    return found


def features(cells: list[SnapshotLine], seed: int = 0) -> np.ndarray:
    """Noise of 8 numbers, in which the first tells the classes apart."""
    drawn = np.random.default_rng(seed).normal(size=(len(cells), 8)).astype(np.float32)
    drawn[:, 0] += [6.0 if cell.source_label == "hem" else 0.0 for cell in cells]
    return drawn


def judged(found: np.ndarray, cells: list[SnapshotLine]) -> np.ndarray | None:
    return ranking.out_of_fold(found, cells, CLASSES, Unwatched())


@settings(max_examples=12, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.sampled_from(CLASSES), st.integers(1, 6)), min_size=2, max_size=9),
    chosen=st.integers(0, 8),
)
def test_no_cell_is_judged_by_labels_of_its_own_leak_group(sizes: list[tuple[str, int]], chosen: int) -> None:
    """Whatever the labels of a group's cells, their own probabilities stay the same."""
    cells = cells_of({f"group {number}": found for number, found in enumerate(sizes)})
    group = f"group {chosen % len(sizes)}"
    turned = [
        replace(found, label="hem" if found.label == "all" else "all") if found.group == group else found
        for found in cells
    ]
    table = features(cells)
    before, after = judged(table, cells), judged(table, turned)
    own = [place for place, found in enumerate(cells) if found.group == group]
    if before is not None:
        assert after is not None
        assert np.array_equal(before[own], after[own], equal_nan=True)


def test_real_leak_groups_are_whole_in_every_fold(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifiers are shown the number of each cell, and note which they saw."""
    _, found_cells = load(open_store(current_settings()), trained.run)
    one, other = sorted({found.group for found in found_cells})[:2]  # as if these two shared an image
    cells = [replace(found, group=one) if found.group == other else found for found in found_cells]
    groups = [found.group for found in cells]
    assert len(set(groups)) < len({found.subject for found in cells}) < len(cells)
    asked: list[int] = []

    class Noting:
        classes_ = np.array(CLASSES)

        def fit(self, numbers: np.ndarray, _labels: np.ndarray) -> "Noting":
            self.seen = {groups[int(number)] for number in numbers[:, 0]}
            return self

        def predict_proba(self, numbers: np.ndarray) -> np.ndarray:
            asked.extend(int(number) for number in numbers[:, 0])
            assert not {groups[int(number)] for number in numbers[:, 0]} & self.seen
            return np.full((len(numbers), 2), 0.5)

    monkeypatch.setattr(ranking, "_classifier", lambda _n: Noting())
    judged(np.arange(len(cells))[:, None], cells)
    assert sorted(asked) == list(range(len(cells)))


def test_unsure_cells_are_judged_but_not_learned_from() -> None:
    cells = cells_of({f"{number}": (CLASSES[number % 2], 5) for number in range(16)})
    doubtful = [
        replace(found, label="unsure") if place in (3, 7) else found for place, found in enumerate(cells)
    ]
    table = features(cells)
    first = judged(table, doubtful)
    odd = table.copy()
    odd[[3, 7]] = 1000.0
    second = judged(odd, doubtful)
    assert first is not None
    assert second is not None
    others = [place for place in range(len(cells)) if place not in (3, 7)]
    assert np.array_equal(first[others], second[others])
    assert np.allclose(first.sum(axis=1), 1)
    assert np.mean(first.argmax(axis=1) == [CLASSES.index(found.source_label) for found in cells]) > 0.85


def test_what_no_classifier_can_know_is_left_open() -> None:
    alone = cells_of({"a": ("all", 4), "b": ("all", 4), "c": ("all", 4), "h": ("hem", 4)})
    table = judged(features(alone), alone)
    assert table is not None
    assert np.isnan(table[12:]).all()  # all normal cells are of one group: without it there is one class
    assert np.isfinite(table[:12]).any()
    assert judged(features(alone[:4]), alone[:4]) is None


def test_neighbours_are_the_most_similar_cells() -> None:
    angles = np.radians([0, 1, 3, 80, 82, 170])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    near = ranking.neighbours_of([points * [[1], [5], [2], [1], [3], [1]]], [f"{n}" for n in range(6)])
    assert near.positions.shape == (6, 5)  # all others, where there are few
    assert near.positions[:, 0].tolist() == [1, 0, 1, 4, 3, 4]
    assert near.similarities[0] == pytest.approx(np.cos(angles[[1, 2, 3, 4, 5]]), abs=1e-6)
    assert near.typicality.argmin() == 5
    assert ranking.map_of(near) is near.plane


def test_networks_count_the_same_whatever_the_size_of_their_numbers() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(30, 4)), random.normal(size=(30, 6))
    names = [f"{n}" for n in range(30)]
    plain = ranking.neighbours_of([one, other], names)
    scaled = ranking.neighbours_of([one * 1000, other], names)
    assert np.array_equal(plain.positions, scaled.positions)
    assert not np.array_equal(plain.positions, ranking.neighbours_of([one], names).positions)


def test_typicality_is_that_of_cleanlab() -> None:
    from cleanlab.outlier import OutOfDistribution

    points = np.random.default_rng(0).normal(size=(60, 5))
    near = ranking.neighbours_of([points], [f"{n}" for n in range(60)])
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert near.typicality == pytest.approx(OutOfDistribution().fit_score(features=unit), abs=1e-5)


def test_a_run_has_its_rankings_and_a_retrain_takes_the_map_that_is_there(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = current_settings()
    _, cells = load(open_store(home), trained.run)
    names = [found.sha256 for found in cells]
    first, second = (rankings.neighbours(home, run) for run in (trained.run, trained.retrain))
    said = rankings.out_of_fold(home, trained.run)
    drawn = rankings.cell_map(home, trained.run)
    assert first is not None
    assert second is not None
    assert said is not None
    assert drawn is not None
    assert first.sha256 == said.sha256 == drawn.sha256 == names
    assert said.probabilities.shape == (len(cells), 2)
    assert np.allclose(said.probabilities.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(first.positions, second.positions)
    assert drawn.points.shape == (len(cells), 2)
    assert np.isfinite(drawn.points).all()
    assert not np.array_equal(drawn.points, first.plane)
    kept = home.run_folder(trained.retrain) / rankings.MAP
    kept.unlink(missing_ok=True)
    monkeypatch.setitem(sys.modules, "umap", None)  # importing it now is an error
    ranking.draw_map(home, trained.retrain)
    again = rankings.read_map(kept)
    assert again is not None
    assert np.array_equal(again.points, drawn.points)
    ranking.draw_map(home, 99)  # a run without neighbours has no map
    assert not home.run_folder(99).exists()


def test_wrong_labels_of_real_cells_are_found_better_than_by_chance(trained: Trained) -> None:
    """Thirty labels turned, five times: the turned ones are doubted more than the others."""
    home = current_settings()
    run, cells = load(open_store(home), trained.run)
    table = features_of(run.recipe, cells, home, Unwatched())
    training = [place for place, found in enumerate(cells) if found.part == "train"]
    names = [cells[place].sha256 for place in training]
    found = []
    for seed in range(5):
        turned = list(cells)
        wrong = np.random.default_rng(seed).choice(training, 30, replace=False)
        for place in wrong:
            turned[place] = replace(cells[place], label="hem" if cells[place].label == "all" else "all")
        said = judged(table, turned)
        assert said is not None
        opinion = rankings.OutOfFold([cell.sha256 for cell in cells], run.classes, said)
        quality = rankings.believed(opinion, names, [turned[place].label for place in training])
        found.append(roc_auc_score(np.isin(training, wrong), -np.asarray(quality)))
    assert np.mean(found) > 0.6  # 0.5 ± 0.025 by chance


def test_a_run_is_as_good_without_its_rankings(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def stopped(*_: object) -> None:
        raise StopRequested

    monkeypatch.setattr(ranking, "rank", full)
    monkeypatch.setattr(ranking, "draw_map", full)
    workflows.rank_step(trained.run)
    workflows.map_step(trained.run)
    monkeypatch.setattr(ranking, "rank", stopped)
    with pytest.raises(StopRequested):
        workflows.rank_step(trained.run)


def test_a_finished_run_is_complete_once_its_folder_is(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = current_settings()
    engine = open_store(home)
    card = home.run_folder(trained.run) / "model-card.md"
    card.unlink()

    def run() -> RunRow:
        with db.reading(engine) as session:
            return get_run(session, trained.run)

    workflows.conclude(trained.run, "finished", None)
    assert (run().state, run().unfinished, run().complete) == ("finished", False, False)
    started: list[object] = []
    monkeypatch.setattr(jobs, "ensure_worker", lambda settings: not started.append(settings))
    assert jobs.resume_unfinished(engine, home)  # one that was killed now is replaced
    # and a worker that is handed the run anew only completes it
    assert workflows.begin(trained.run) == "over"
    workflows.keep_step(trained.run)
    assert card.is_file()
    assert (run().complete, run().message) == (True, None)
    assert not jobs.resume_unfinished(engine, home)
    assert len(started) == 1


def test_a_folder_that_cannot_be_written_does_not_undo_the_run(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    workflows.conclude(trained.run, "finished", None)
    monkeypatch.setattr(keeping, "keep", full)
    workflows.keep_step(trained.run)
    with db.reading(open_store(current_settings())) as session:
        run = get_run(session, trained.run)
    assert (run.state, run.complete) == ("finished", True)
    assert run.message == f"Its files are not complete. {failures.DISK_FULL}"


def test_folds_at_the_same_time_give_what_folds_one_after_another_give() -> None:
    cells = cells_of({f"group {number}": (CLASSES[number % 2], 12) for number in range(7)})
    table = features(cells)
    groups, labels = np.array([found.group for found in cells]), np.array([found.label for found in cells])
    folds = ranking._folds(groups, labels)
    assert folds is not None
    expected = np.zeros((len(cells), 2))
    for fold in np.unique(folds):
        fitted = folds != fold
        model = ranking._classifier(int(fitted.sum())).fit(table[fitted], labels[fitted])
        expected[~fitted] = model.predict_proba(table[~fitted])
    assert judged(table, cells) == pytest.approx(expected, abs=1e-5)


def test_a_stop_between_folds_is_heard() -> None:
    class Stopping(Unwatched):
        def check(self) -> None:
            raise StopRequested

    cells = cells_of({f"group {number}": (CLASSES[number % 2], 3) for number in range(7)})
    with pytest.raises(StopRequested):
        ranking.out_of_fold(features(cells), cells, CLASSES, Stopping())
