"""`assign`, `worklists` and `agreement`."""

import pytest
import sqlalchemy as sa

import db
from allreview.review.log.annotations import decide, reviewer_named
from allreview.review.reading import sittings
from db.tables import Annotation, Reviewer
from tests.cli.commands import command, refused, succeed
from tests.factory import Store, finished_run, small_store


@pytest.fixture
def store(sqlite_engine: sa.Engine) -> Store:
    return small_store(sqlite_engine)


@pytest.fixture
def run(sqlite_engine: sa.Engine, store: Store) -> int:
    """A run that contradicts the label of one cell of each subject."""
    said = {}
    for subject, cells in store.cells.items():
        label, other = ("hem", "all") if subject.startswith("H") else ("all", "hem")
        said |= {cell: (other if place == 0 else label, 0.9) for place, cell in enumerate(cells)}
    return finished_run(sqlite_engine, store, said)


def read(engine: sa.Engine, worklist: int, reviewer: int, labels: list[str]) -> None:
    sitting = sittings.start(engine, worklist_id=worklist, reviewer_id=reviewer)
    for label in labels:
        cell = sittings.upcoming(engine, sitting)[0]
        sittings.answer(engine, sitting, cell, label, seen=cell.last_event_id)


def test_from_assigning_to_agreement(sqlite_engine: sa.Engine, store: Store, run: int) -> None:
    made = succeed(
        "assign", run, "--readers", "Ann, ben,Cleo", "--overlap", 3, "--hide", "prediction,others",
        "--repeat", 0, "--control", 0, "--limit", 6, "--name", "Study",
    )  # fmt: skip
    assert (made["name"], made["run"], made["cells"], made["overlap"]) == ("Study", run, 6, 3)
    assert made["hidden"] == ["others", "prediction"]
    assert [reader["name"] for reader in made["readers"]] == ["Ann", "Ben", "Cleo"]
    cleo = reviewer_named(sqlite_engine, "Cleo")
    for reader, labels in (
        (store.ann, ["all", "hem", "all", "hem", "all", "hem"]),
        (store.ben, ["all", "hem", "all", "hem", "all", "unsure"]),
        (cleo, ["all", "hem", "all", "hem", "hem"]),
    ):
        read(sqlite_engine, made["worklist"], reader, labels)
    (listed,) = succeed("worklists")
    assert listed["readings_done"] == 17
    assert listed["readers"][2] == {"name": "Cleo", "read": 5, "repeated": 0, "left": 1}
    found = succeed("agreement", "--worklist", made["worklist"])
    assert (found["readers"], found["shared"], found["readings"]) == (["Ann", "Ben", "Cleo"], 6, 17)
    assert found["pairs"][0]["percent"]["value"] == pytest.approx(5 / 6)
    assert found["pairs"][0]["kappa"]["value"] is not None
    assert (found["waiting"], len(found["disputed"])) == (1, 1)
    assert "majority" in found["consensus"]["why"]
    told = command("agreement", "--worklist", made["worklist"]).stdout
    assert "Cohen's kappa, Ann and Ben" in told
    assert "disagree on 1 cell not settled, 1 of them with a majority" in told
    assert "left" in command("worklists").stdout
    recorded = succeed("agreement", "--worklist", made["worklist"], "--record-majority", "--reviewer", "Dora")
    assert recorded["recorded"]["cells"] == found["disputed"]
    assert recorded["disputed"] == []
    with db.reading(sqlite_engine) as session:
        written = session.scalars(sa.select(Annotation).where(Annotation.kind == "adjudication")).one()
        assert (written.label, written.batch) == ("all", recorded["recorded"]["batch"])
    assert succeed("worklists", "--close", made["worklist"]) == []
    assert succeed("worklists", "--all", "--dataset", "CELLS")[0]["closed_at"] is not None
    again = succeed("assign", "--worklist", made["worklist"])
    assert (again["name"], again["cells"], again["readers"]) == ("Study, again", 6, [])


def test_disagreements_become_a_worklist_without_a_run(sqlite_engine: sa.Engine, store: Store) -> None:
    cell = store.cells["1"][0]
    seen = decide(sqlite_engine, cell_id=cell, label="all", reviewer_id=store.ann, seen=None)
    decide(sqlite_engine, cell_id=cell, label="hem", reviewer_id=store.ben, seen=seen)
    made = succeed("assign", "--by", "readers-disagree", "--adjudicates")
    assert (made["cells"], made["adjudicates"], made["run"]) == (1, True, None)
    # Ben saw what Ann had said, so there is nothing to compare unless that is asked for.
    assert succeed("agreement")["dependent"] == 1
    assert succeed("agreement")["shared"] == 0
    assert succeed("agreement", "--with-dependent", "--classes-only")["shared"] == 1


def test_what_cannot_be_is_refused_and_adds_no_worklist(
    sqlite_engine: sa.Engine, store: Store, run: int
) -> None:
    assert "cannot be read by 3" in refused("assign", run, "--readers", "Ann,Zoe", "--overlap", 3)
    assert "cannot be hidden" in refused("assign", run, "--hide", "names")
    assert "choose a run" in refused("assign")
    assert "no run 99" in refused("assign", 99)
    assert "no worklist 7" in refused("assign", "--worklist", 7)
    assert "no worklist 7" in refused("agreement", "--worklist", 7)
    assert "no worklist 7" in refused("worklists", "--close", 7)
    assert "train, validation, test" in refused("assign", run, "--parts", "all")
    assert "--reviewer" in refused("agreement", "--record-majority")
    assert "no cell to record" in refused("agreement", "--record-majority", "--reviewer", "Zoe")
    assert "no dataset 'other'" in refused("worklists", "--dataset", "other")
    assert succeed("worklists", "--all") == []
    with db.reading(sqlite_engine) as session:
        assert set(session.scalars(sa.select(Reviewer.name))) == {"Ann", "Ben"}


def test_a_queue_without_cells_adds_no_reader(sqlite_engine: sa.Engine, store: Store) -> None:
    right = dict.fromkeys(store.cells["1"], ("all", 0.9))
    run = finished_run(sqlite_engine, store, right)
    assert "Nothing is left to read" in refused("assign", run, "--readers", "Zoe", "--control", 0)
    with db.reading(sqlite_engine) as session:
        assert not session.scalar(sa.select(sa.exists().where(Reviewer.name == "Zoe")))
