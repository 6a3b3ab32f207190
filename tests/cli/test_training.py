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
from allreview.cli import training
from allreview.cli.requests import Request, planned
from allreview.recipe import Recipe, make_recipe
from allreview.settings import current_settings
from allreview.training import jobs
from allreview.training.runs import get_run
from db.tables import Run
from tests import workers
from tests.cli.commands import ROOT, command, process, refused, succeed
from tests.factory import finished_run, small_store

SMALL = ("--backbone", "MobileNetV2", "--set", "image_size=96", "--epochs", 2)
ENDLESS = ("--set", "mode=finetune", "--set", "epochs=500")
RESULT = {
    "run", "state", "seconds", "recipe", "shares_patients", "snapshot", "parent", "series", "members",
    "best_epoch", "validation", "test", "message",
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
        [sys.executable, "-m", "allreview", "train", *map(str, SMALL), *ENDLESS, "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 240
        while command("show", 1).exit_code or succeed("show", 1)["state"] != "running":
            assert time.monotonic() < end
            time.sleep(0.2)
        os.kill(following.pid, signal.SIGINT)
        out, err = following.communicate(timeout=60)
    finally:
        following.kill()  # it would go on to start workers
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
    assert "MobileNetV2" in told.stdout
    assert "patients shared" not in told.stdout
    assert "The disk is full." in command("show", second).stdout
    assert succeed("stop", first) == {"run": first, "state": "finished", "stop_requested": False}
    assert "several" not in refused("runs", "--dataset", "none of these")
    assert current_settings().logs.exists() is False


def test_shared_patients_are_marked_wherever_a_run_is_told_of(engine: sa.Engine) -> None:
    store = small_store(engine)
    predicted = {store.cells["1"][0]: ("all", 0.9)}
    honest = finished_run(engine, store, predicted, series="both")
    leaky = finished_run(
        engine, store, predicted, recipe=Recipe(split="image", folds=3, fold=1), series="both"
    )
    scores = {"n": 4, **dict.fromkeys(("accuracy", "balanced_accuracy", "weighted_f1", "auroc", "ece"), 0.5)}
    with db.writing(engine) as session:
        session.execute(sa.update(Run).values(metrics={"test": scores}))
    marked = "patients shared between training and test"
    assert command("runs").stdout.count(marked) == 1
    assert command("show", leaky).stdout.count(marked) == 2
    assert marked not in command("show", honest).stdout
    shown = succeed("show", leaky)
    assert (shown["shares_patients"], shown["series"]) == (True, "both")
    assert succeed("show", honest)["shares_patients"] is False


def test_a_recipe_leaves_as_yaml_and_comes_back(engine: sa.Engine, tmp_path: Path) -> None:
    store = small_store(engine)
    recipe = Recipe(partner="vgg16", crop=300, rotation=12.5, split="image", folds=4, fold=3)
    run = finished_run(engine, store, {store.cells["1"][0]: ("all", 0.9)}, recipe=recipe)
    (tmp_path / "recipe.yaml").write_text(command("show", run, "--recipe").stdout)
    assert planned(engine, Request(recipe=str(tmp_path / "recipe.yaml")))[1] == [recipe]
    assert succeed("show", run, "--recipe") == recipe.model_dump()


def test_stopping_an_ensemble_tells_of_its_members(engine: sa.Engine, monkeypatch) -> None:
    store = small_store(engine)
    monkeypatch.setattr(jobs, "ensure_worker", lambda _settings: False)
    averaged = make_recipe({"weights": "none", "mode": "finetune", "partner": "vgg16", "combine": "average"})
    (run,) = jobs.submit_all(engine, current_settings(), store.dataset, [averaged])
    assert "mean of probabilities of runs 1 and 2" in command("show", run).stdout
    assert succeed("show", run)["members"] == [1, 2]
    stopped = command("stop", run)
    assert "its members, runs 1 and 2, go on" in stopped.stderr
    assert [one["state"] for one in succeed("runs")] == ["stopped", "queued", "queued"]


def test_a_series_is_told_with_what_shared_patients_add(
    engine: sa.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_store(engine)
    cells = [cell for ids in store.cells.values() for cell in ids]
    hem = {cell for subject, ids in store.cells.items() if subject.startswith("H") for cell in ids}
    right = {cell: ("hem" if cell in hem else "all", 0.8) for cell in cells}
    wrong: dict[int, tuple[str, float]] = dict.fromkeys(cells, ("all", 0.8))
    ids = [
        finished_run(
            engine, store, predicted, parts=dict.fromkeys(cells, "test"), recipe=recipe, series="both"
        )
        for recipe, predicted in (
            (Recipe(), wrong),
            (Recipe(split="image"), right),
        )
    ]
    with db.reading(engine) as session:
        found = [get_run(session, run_id) for run_id in ids]
    together = training._series_report(engine, found)
    training._tell(found, json=True, ended=True, together=together)
    told = json.loads(capsys.readouterr().out)
    assert (told["series"], [run["run"] for run in told["runs"]]) == ("both", ids)
    (system,) = told["summary"]["systems"]
    accuracy = {split: pooled["test"]["accuracy"] for split, pooled in system["by_split"].items()}
    assert accuracy == {"leak_group": 0.6, "image": 1.0}
    assert system["leak"]["accuracy"]["value"] == pytest.approx(0.4)
    training._tell(found, json=False, ended=True, together=together)
    shown = capsys.readouterr().out
    assert "what shared patients add, in points: accuracy +40.0" in shown
    marked = [line for line in shown.splitlines() if "patients shared between training and test" in line]
    assert "it was trained on patients it is tested on" in shown
    assert len(marked) == 2  # the run, and its line in the summary


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_protocols_of_an_averaged_ensemble_are_followed_to_the_end(worked: None, few: Path) -> None:
    succeed("import", few)
    small = ("--set", "image_size=64", "--set", "dense_units=8", "--epochs", 1, "--set", "weights=none")
    ensemble = ("--backbone", "MobileNetV2+AlexNet", "--set", "combine=average")
    done = process("train", *small, *ensemble, "--protocol", "both", "--json", timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(run["run"], run["members"]) for run in found["runs"]] == [(3, [1, 2]), (6, [4, 5])]
    assert [run["shares_patients"] for run in found["runs"]] == [False, True]
    assert {run["series"] for run in found["runs"]} == {found["series"]}
    (system,) = found["summary"]["systems"]
    assert set(system["by_split"]) == {"leak_group", "image"}
    assert "Run 1, a member of run 3: MobileNetV2." in done.stderr
    assert "Run 6, 2 of 2: MobileNetV2 + AlexNet, mean of probabilities of runs 4 and 5" in done.stderr
    assert [run["run"] for run in succeed("runs", "--state", "finished")] == [6, 5, 4, 3, 2, 1]
