"""`train`, `runs`, `show`, `stop`: through a real worker, on real cells."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.settings import current_settings
from db.tables import Run
from tests import workers
from tests.cli.commands import ROOT, command, process, refused, succeed
from tests.factory import finished_run, small_store

SMALL = ("--backbone", "MobileNetV2", "--set", "image_size=96", "--epochs", 2)
RESULT = {
    "run", "state", "seconds", "recipe", "snapshot", "parent", "best_epoch", "validation", "test", "message"
}  # fmt: skip


@pytest.fixture
def worked(home: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A home whose workers find the weights, and are killed at the end."""
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(weights))
    yield
    workers.kill_workers(home.resolve())


def test_the_loop_from_the_command_line(worked: None, cnmc: Path, few: Path, home: Path) -> None:
    """Import, train, look, correct, retrain, score: each as a person would type it."""
    assert succeed("import", cnmc / "fold_2", "--dataset", "C-NMC")["cells"] > 100
    done = process("train", "--dataset", "c-nmc", *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == RESULT
    assert result["state"] == "finished"
    assert result["parent"] is None
    assert result["recipe"]["image_size"] == 96
    assert result["best_epoch"] in (1, 2)
    assert result["seconds"] > 0
    for part in ("validation", "test"):
        assert 0 <= result[part]["accuracy"] <= 1
        assert result[part]["current"]["n"] == result[part]["n"] > 0
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "Run 1, epoch 1 of 2", "Run 1, epoch 2 of 2"
    ]  # fmt: skip

    shown = succeed("show", 1)
    assert [row["epoch"] for row in shown["epochs"]] == [1, 2]
    assert {key: shown[key] for key in RESULT} == result
    assert [run["run"] for run in succeed("runs")] == [1]
    assert "best" in command("show", 1).stdout

    queue = succeed("queue", 1, "--by", "uncertain")
    assert len(queue) + result["test"]["n"] == succeed("check")["counts"]["cells"]
    first = queue[0]["cell"]
    succeed("label", first, "unusable", "--reviewer", "Ann")

    again = process("train", "--parent", 1, "--set", "epochs=1", "--json")
    assert again.returncode == 0, again.stderr
    retrained = json.loads(again.stdout)
    assert (retrained["run"], retrained["parent"], retrained["state"]) == (2, 1, "finished")
    assert retrained["recipe"] == {**result["recipe"], "epochs": 1}
    assert retrained["snapshot"] != result["snapshot"]
    assert retrained["test"]["n"] == result["test"]["n"]
    assert first not in {entry["cell"] for entry in succeed("queue", 2, "--by", "uncertain")}

    scored = succeed("evaluate", 2, few)
    assert scored["n"] == 24
    assert succeed("check")["ok"]


def test_ctrl_c_while_following_leaves_the_run_going_and_stop_ends_it(
    worked: None, few: Path, home: Path
) -> None:
    succeed("import", few)
    following = subprocess.Popen(
        [sys.executable, "-m", "allreview", "train", *map(str, SMALL), "--set", "epochs=500", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not workers.workers_of(home.resolve()) and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(1)  # the worker is started just before the following begins
    os.kill(following.pid, signal.SIGINT)
    out, err = following.communicate(timeout=60)
    assert following.returncode == 0, err
    assert json.loads(out)["state"] in ("queued", "running")
    assert "Run 1 goes on without you" in err
    assert workers.workers_of(home.resolve())
    assert succeed("stop", 1)["state"] in ("stopped", "running")
    end = time.monotonic() + 120
    while succeed("show", 1)["state"] != "stopped" and time.monotonic() < end:
        time.sleep(0.5)
    assert succeed("show", 1)["state"] == "stopped"


def test_a_run_that_fails_says_so_and_leaves_with_1(worked: None, few: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(few, tmp_path / "own"))
    succeed("import", own)
    for path in own.rglob("*.bmp"):
        path.unlink()
    done = process("train", *SMALL, "--json")
    assert done.returncode == 1
    result = json.loads(done.stdout)
    assert result["state"] == "failed"
    assert done.stderr == f"Run 1 failed: {result['message']}\n"


def test_detach_enqueues_and_stop_takes_it_back(worked: None, few: Path) -> None:
    succeed("import", few)
    started = succeed("train", *SMALL, "--set", "epochs=400", "--detach")
    assert set(started) == {"run", "state"}
    assert started["state"] in ("queued", "running")
    assert succeed("stop", started["run"])["state"] in ("stopped", "running")


def test_weights_that_are_not_there_are_refused(few: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ALLREVIEW_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    succeed("import", few)
    said = refused("train", *SMALL)
    assert "mobilenet_v2" in said
    assert "weights=none" in said
    assert succeed("runs") == []


def test_runs_are_listed_by_dataset_and_state(engine: sa.Engine) -> None:
    store = small_store(engine)
    first = finished_run(engine, store, {store.cells["1"][0]: ("all", 0.9)})
    second = finished_run(engine, store, {store.cells["1"][0]: ("hem", 0.9)})
    with db.writing(engine) as session:
        session.execute(
            sa.update(Run).where(Run.id == second).values(state="failed", message="The disk is full.")
        )
    assert [run["run"] for run in succeed("runs")] == [second, first]
    assert [run["run"] for run in succeed("runs", "--state", "failed", "--dataset", "Cells")] == [second]
    told = command("runs")
    assert "mobilenet_v2" in told.stdout
    assert "The disk is full." in command("show", second).stdout
    assert succeed("stop", first) == {"run": first, "state": "finished", "stop_requested": False}
    assert "several" not in refused("runs", "--dataset", "none of these")
    assert current_settings().logs.exists() is False
