"""`queue`, `label` and `undo`."""

from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.labels import current_label, standing
from db.tables import Annotation, Cell, Reviewer
from tests.cli.commands import command, refused, succeed
from tests.factory import Store, finished_run, small_store


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return small_store(engine)


def _label(engine: sa.Engine, cell: int) -> str:
    now = standing()
    query = sa.select(current_label(now)).select_from(Cell).outerjoin(now, now.c.cell_id == Cell.id)
    with db.reading(engine) as session:
        return session.scalars(query.where(Cell.id == cell)).one()


def test_a_decision_is_recorded_and_taken_back(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    saved = succeed(
        "label", cell, "Normal (HEM)", "--reviewer", "Ann", "--reason", "size", "--comment", "small"
    )
    assert (saved["cell"], saved["label"], saved["previous"]) == (cell, "hem", "all")
    with db.reading(engine) as session:
        event = session.get_one(Annotation, saved["annotation"])
        assert (event.reviewer_id, event.reason, event.comment) == (store.ann, "size", "small")
        assert saved["sha256"] == session.get_one(Cell, cell).sha256
    assert _label(engine, cell) == "hem"
    second = succeed("label", cell, "unsure", "--reviewer", "ben")
    assert second["previous"] == "hem"
    undone = succeed("undo", "--reviewer", "Ben")
    assert undone["cell"] == cell
    assert undone["undone"] == second["annotation"]
    assert _label(engine, cell) == "hem"
    succeed("undo", cell, "--reviewer", "ann")
    assert _label(engine, cell) == "all"
    with db.reading(engine) as session:
        log = list(session.scalars(sa.select(Annotation.kind).order_by(Annotation.sequence)))
    assert log == ["decision", "decision", "undo", "undo"]


def test_undo_of_one_cell_leaves_later_decisions_alone(engine: sa.Engine, store: Store) -> None:
    first, second = store.cells["1"][:2]
    saved = succeed("label", first, "hem", "--reviewer", "Ann")
    succeed("label", second, "hem", "--reviewer", "Ann")
    assert succeed("undo", first, "--reviewer", "Ann")["undone"] == saved["annotation"]
    assert (_label(engine, first), _label(engine, second)) == ("all", "hem")


def test_a_cell_is_found_by_hash_and_by_path(
    sqlite_engine: sa.Engine, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed("import", few)
    monkeypatch.chdir(few)
    relative = next(Path("fold_0/all").iterdir())
    by_path = succeed("label", relative, "hem", "--reviewer", "Ann")
    by_hash = succeed(
        "label", by_path["sha256"][:12].upper(), "all", "--reviewer", "Ann", "--dataset", "CELLS"
    )
    assert by_hash["cell"] == by_path["cell"]


def test_bad_decisions_are_refused_and_add_nobody(engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    assert "all, hem, unsure, unusable" in refused("label", cell, "blast", "--reviewer", "Zoe")
    assert "99999" in refused("label", 99999, "all", "--reviewer", "Zoe")
    assert "no dataset 'other'" in refused("label", cell, "all", "--reviewer", "Zoe", "--dataset", "other")
    assert "Zoe" in refused("undo", "--reviewer", "Zoe")
    assert "no decision" in refused("undo", "--reviewer", "Ann")
    assert "1 to 200" in refused("label", cell, "all", "--reviewer", " ")
    with db.reading(engine) as session:
        assert set(session.scalars(sa.select(Reviewer.name))) == {"Ann", "Ben"}
        assert session.scalar(sa.select(sa.func.count(Annotation.id))) == 0


@pytest.fixture
def judged(engine: sa.Engine, store: Store) -> tuple[int, dict[str, int]]:
    """A run that is wrong about one cell of each part, the training cell most surely."""
    train, validation, test = (store.cells[subject][0] for subject in ("1", "2", "3"))
    right = store.cells["4"][0]
    run = finished_run(
        engine,
        store,
        {train: ("hem", 0.9), validation: ("hem", 0.7), test: ("hem", 0.99), right: ("all", 0.6)},
        parts={validation: "validation", test: "test"},
    )
    return run, {"train": train, "validation": validation, "test": test, "right": right}


def test_the_queue_says_what_to_look_at_and_why(judged: tuple[int, dict[str, int]]) -> None:
    run, cells = judged
    found = succeed("queue", run)
    assert [entry["cell"] for entry in found] == [cells["train"], cells["validation"]]
    worst = found[0]
    assert worst["subject"] == "1"
    assert worst["part"] == "train"
    assert (worst["source_label"], worst["current_label"], worst["predicted"]) == ("all", "all", "hem")
    assert worst["probability"] == pytest.approx(0.9)
    assert worst["score"] == pytest.approx(0.1)
    assert "Normal (hem)" in worst["reason"]
    assert worst["path"].endswith("cells/1/0.bmp")
    assert len(worst["sha256"]) == 64


def test_the_queue_takes_parts_strategy_and_limit(judged: tuple[int, dict[str, int]]) -> None:
    run, cells = judged
    assert [entry["cell"] for entry in succeed("queue", run, "--parts", "test")] == [cells["test"]]
    everything = succeed("queue", run, "--parts", "train, validation,TEST", "--limit", 2)
    assert [entry["cell"] for entry in everything] == [cells["test"], cells["train"]]
    wavering = succeed("queue", run, "--by", "uncertain")
    assert [entry["cell"] for entry in wavering] == [cells["right"], cells["validation"], cells["train"]]
    succeed("label", cells["train"], "all", "--reviewer", "Ann")
    assert [entry["cell"] for entry in succeed("queue", run)] == [cells["validation"]]
    told = command("queue", run)
    assert "cells/2/0.bmp" in told.stdout


def test_bad_queues_are_refused(judged: tuple[int, dict[str, int]]) -> None:
    run, _ = judged
    assert "label-error (doubtful labels)" in refused("queue", run, "--by", "magic")
    assert "train, validation, test" in refused("queue", run, "--parts", "all")
