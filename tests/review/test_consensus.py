"""What readers say together, on readers whose skill is known."""

import numpy as np
import pytest
import sqlalchemy as sa

import db
from allreview.review import rankings
from allreview.review.log.readings import Reading
from allreview.review.readers import consensus
from allreview.review.readers.consensus import CellConsensus, Consensus, consensus_of, majority
from allreview.settings import current_settings
from db.tables import Cell
from tests.factory import finished_run, small_store

SKILLS = {"Ann": 0.95, "Ben": 0.85, "Cleo": 0.7, "Dora": 0.6}


def test_a_majority_is_more_than_half() -> None:
    assert majority(["all", "hem", "all"]) == "all"
    assert majority(["all", "hem"]) is None
    assert majority(["all", "all", "hem", "unsure"]) is None
    assert majority(["hem"]) == "hem"
    assert majority([]) is None


def test_one_reader_alone_is_no_majority_and_repeats_and_adjudications_have_no_vote() -> None:
    found = consensus_of(
        [
            Reading(1, 1, "Ann", "all"),
            Reading(2, 1, "Ann", "unsure"),
            Reading(2, 2, "Ben", "unsure"),
            Reading(2, 1, "Ann", "hem", repeat=True),
            Reading(1, 3, "Dora", "hem", adjudication=True),
        ]
    )
    assert found == Consensus(
        [CellConsensus(1, {"all": 1}, None), CellConsensus(2, {"unsure": 2}, "unsure")],
        why=consensus.NO_MODEL,
    )


def study(seed: int, cells: int = 300) -> tuple[list[Reading], dict[int, dict[str, float]], list[str]]:
    """Each cell read by two or three of four readers; a model that is right in about nine of ten cells."""
    random = np.random.default_rng(seed)
    truth = [("all", "hem")[bit] for bit in random.integers(0, 2, cells)]
    other = {"all": "hem", "hem": "all"}
    readings, probabilities = [], {}
    for cell, label in enumerate(truth):
        for number in random.choice(4, random.integers(2, 4), replace=False):
            name = list(SKILLS)[number]
            said = label if random.random() < SKILLS[name] else other[label]
            readings.append(Reading(cell, int(number), name, said))
        sure = float(np.clip(random.normal(0.8, 0.23), 0.02, 0.98))
        probabilities[cell] = {label: sure, other[label]: 1 - sure}
    return readings, probabilities, truth


def right(labels: dict[int, str | None], truth: list[str]) -> float:
    """The share of cells whose label is the true one; a tie is half right, as a coin would be."""
    return float(
        np.mean([0.5 if labels[cell] is None else labels[cell] == truth[cell] for cell in range(len(truth))])
    )


def test_majority_and_crowdlab_on_readers_of_known_skill() -> None:
    majorities, crowds, worst = [], [], []
    for seed in range(5):
        readings, probabilities, truth = study(seed)
        found = consensus_of(readings, probabilities)
        assert found.why is None
        assert sorted(found.readers, key=lambda name: -found.readers[name]) == list(SKILLS)
        assert sum(found.weights.values()) == pytest.approx(1)
        assert found.weights["Ann"] > found.weights["Dora"]
        assert all(0 <= (cell.quality or -1) <= 1 for cell in found.cells)
        majorities.append(right({cell.cell_id: cell.majority for cell in found.cells}, truth))
        crowds.append(right({cell.cell_id: cell.label for cell in found.cells}, truth))
        doras = [r.label == truth[r.cell_id] for r in readings if r.reviewer == "Dora"]
        worst.append(float(np.mean(doras)))
        sure = [cell.label == truth[cell.cell_id] for cell in found.cells if (cell.quality or 0) > 0.9]
        unsure = [cell.label == truth[cell.cell_id] for cell in found.cells if (cell.quality or 0) < 0.7]
        assert np.mean(sure) > np.mean(unsure)
    assert all(m > w for m, w in zip(majorities, worst, strict=True))
    assert all(c > m for c, m in zip(crowds, majorities, strict=True))


def test_crowdlab_counts_classes_only_and_says_when_there_are_too_few() -> None:
    readings, probabilities, _ = study(9, cells=40)
    doubts = [Reading(50, 1, "Ben", "unsure"), Reading(50, 2, "Cleo", "unusable")]
    found = consensus_of([*readings, *doubts], {**probabilities, 50: {"all": 0.9, "hem": 0.1}})
    doubtful = next(cell for cell in found.cells if cell.cell_id == 50)
    assert doubtful == CellConsensus(50, {"unsure": 1, "unusable": 1}, None)
    few = {cell: probabilities[cell] for cell in range(4)}
    assert consensus_of(readings, few).why == consensus.TOO_FEW
    held_out = {cell: probabilities[cell] for cell in range(30)}
    partly = consensus_of(readings, held_out)
    assert {cell.cell_id for cell in partly.cells if cell.label is not None} == set(held_out)


def test_readers_who_always_agree_are_of_the_highest_quality() -> None:
    labels = ["all", "hem"] * 10
    readings = [
        Reading(cell, number, name, label)
        for cell, label in enumerate(labels)
        for number, name in enumerate(("Ann", "Ben"))
    ]
    probabilities = {cell: {"all": 0.5, "hem": 0.5} for cell in range(20)}
    found = consensus_of(readings, probabilities)
    assert [cell.label for cell in found.cells] == labels
    assert min(found.readers.values()) > 0.9


def test_the_model_speaks_only_of_cells_it_was_not_trained_on(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    train, validation, test, other = store.cells["1"]
    cells = [train, validation, test, other]
    parts = {train: "train", validation: "validation", test: "test", other: "train"}
    run = finished_run(sqlite_engine, store, dict.fromkeys(cells, ("hem", 0.8)), parts=parts)
    settings = current_settings()
    with db.reading(sqlite_engine) as session:
        known = consensus.held_out_probabilities(session, settings, run, cells)
        assert known == {cell: {"hem": 0.8, "all": pytest.approx(0.2)} for cell in (validation, test)}
        assert consensus.cells_of_test_part(session, run, cells) == {test}
        assert consensus.run_of(session, dataset_id=store.dataset) == run
        assert consensus.run_of(session, dataset_id=store.dataset + 1) is None
        hashes = [session.get_one(Cell, cell).sha256 for cell in (train, other)]
        # Of a class that the classifier of a row did not know it says nothing; a row of nothing is no opinion.
        rows = np.array([[0.25, np.nan], [np.nan, np.nan]], dtype=np.float32)
        ordered = sorted(range(2), key=hashes.__getitem__)
        rankings.save(
            settings.run_folder(run) / rankings.OUT_OF_FOLD,
            rankings.OutOfFold([hashes[place] for place in ordered], ["all", "hem"], rows[ordered]),
        )
        known = consensus.held_out_probabilities(session, settings, run, cells)
    assert set(known) == {train, validation, test}
    assert known[train] == {"all": 0.25, "hem": 0.0}
