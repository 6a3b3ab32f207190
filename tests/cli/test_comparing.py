"""`compare`: Table I, paired differences, the leak, and the files it writes."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image

import db
from allreview.evaluation.naming import SHARED_PATIENTS
from allreview.evaluation.tables import COLUMNS, PAPER_TABLE
from allreview.recipe import Recipe
from db.tables import EpochMetric
from tests.cli.commands import command, refused, succeed
from tests.factory import finished_run, small_store

SUBJECTS = {f"{n}": ("all", 6) for n in range(1, 17)} | {f"H{n}": ("hem", 6) for n in range(1, 13)}


def _run(engine: sa.Engine, store, split: str, right: float, seed: int) -> int:
    random = np.random.default_rng(seed)
    said, parts = {}, {}
    for number, (subject, cells) in enumerate(store.cells.items()):
        label, other = ("hem", "all") if subject.startswith("H") else ("all", "hem")
        for place, cell in enumerate(cells):
            verdict = label if random.random() < right else other
            said[cell] = (verdict, float(random.uniform(0.55, 0.99)))
            at = number % 3 if split == "leak_group" else place % 3
            parts[cell] = ("test", "validation", "train")[at]
    run = finished_run(engine, store, said, parts=parts, recipe=Recipe(split=split))  # pyright: ignore
    with db.writing(engine) as session:
        for epoch in (1, 2):
            figures = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy", "seconds"), 1 / epoch)
            session.add(EpochMetric(run_id=run, epoch=epoch, **figures))
    return run


@pytest.fixture
def runs(sqlite_engine: sa.Engine) -> tuple[int, int, int]:
    """Two with patients apart, the second better; one with patients shared."""
    store = small_store(sqlite_engine, SUBJECTS)
    apart = [_run(sqlite_engine, store, "leak_group", right, 1) for right in (0.6, 0.85)]
    return apart[0], apart[1], _run(sqlite_engine, store, "image", 0.97, 2)


def test_runs_stand_beside_the_paper(runs: tuple[int, int, int], tmp_path: Path) -> None:
    table, tex = tmp_path / "table.csv", tmp_path / "table.tex"
    found = succeed("compare", *runs, "--csv", table, "--latex", tex)
    assert tuple(found["table"]["columns"]) == COLUMNS
    assert len(found["table"]["rows"]) == len(PAPER_TABLE) + 3
    marked = [SHARED_PATIENTS in row[0] for row in found["table"]["rows"]]
    assert marked == [False] * 6 + [True]
    assert [entry["shares_patients"] for entry in found["runs"]] == [False, False, True]
    assert found["pair"] is None
    assert found["files"] == [str(table), str(tex)]
    assert list(csv.reader(io.StringIO(table.read_text()))) == [list(COLUMNS), *found["table"]["rows"]]
    assert tex.read_text().count(r" \\") == len(found["table"]["rows"]) + 1 + len(found["table"]["notes"])
    for entry in found["runs"]:
        low, high = entry["test"]["intervals"]["accuracy"]
        assert low <= entry["test"]["accuracy"] <= high
    printed = command("compare", *runs).stdout
    assert "98.625" in printed
    assert SHARED_PATIENTS in printed
    assert "resampling subjects" in printed


def test_two_runs_are_compared_on_the_cells_they_share(runs: tuple[int, int, int]) -> None:
    pair = succeed("compare", *runs[:2])["pair"]
    accuracy = pair["differences"]["accuracy"]
    assert accuracy["value"] == pytest.approx(pair["b"]["accuracy"] - pair["a"]["accuracy"])
    assert 0 < accuracy["low"] < accuracy["value"] < accuracy["high"]
    counts = pair["mcnemar"]
    points = counts["only_b_right"] - counts["only_a_right"]
    assert points == round(accuracy["value"] * pair["cells"])
    printed = command("compare", *runs[:2]).stdout
    assert "McNemar's exact test" in printed
    assert f"+{100 * accuracy['value']:.1f} (" in printed


def test_two_protocols_show_the_leak(runs: tuple[int, int, int]) -> None:
    found = succeed("compare", runs[1], runs[2])
    (system,) = found["leak"]
    assert (system["title"], system["runs"]) == (
        "MobileNetV2",
        {"leak_group": [runs[1]], "image": [runs[2]]},
    )
    leak = system["differences"]["accuracy"]
    apart, shared = (entry["test"]["accuracy"] for entry in found["runs"])
    assert leak["value"] == pytest.approx(shared - apart)
    assert found["pair"]["shares_patients"]
    assert "what shared patients add: Accuracy" in command("compare", runs[1], runs[2]).stdout


def test_labels_as_they_are_now_can_judge(sqlite_engine: sa.Engine, runs: tuple[int, int, int]) -> None:
    from allreview.review.log.annotations import decide, reviewer_named

    with db.reading(sqlite_engine) as session:
        cell = session.scalar(sa.text("select min(cell_id) from snapshot_cells where part = 'test'"))
    decide(
        sqlite_engine,
        cell_id=cell,
        label="unusable",
        reviewer_id=reviewer_named(sqlite_engine, "Ann"),
        seen=None,
    )
    source, current = (
        succeed("compare", runs[0], "--on", on)["runs"][0]["test"]["n"] for on in ("source", "current")
    )
    assert source - current == 1


def test_without_a_browser_figures_are_pages_and_it_is_said(
    runs: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allreview.evaluation.pictures._browser", lambda: None)
    result = command("compare", *runs[1:], "--figures", tmp_path / "figures", "--json")
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1
    assert "Chrome or Chromium" in result.stderr
    names = {Path(path).name for path in json.loads(result.stdout)["files"]}
    numbered = {f"{kind}-run-{run}.html" for kind in ("confusion", "subjects") for run in runs[1:]}
    curves = {"roc.html", "precision-recall.html", "reliability.html", "histories.html"}
    assert names == numbered | curves | {"differences.html", "leak.html"}
    for name in names:
        assert "plotly.min.js" in (tmp_path / "figures" / name).read_text()
    assert (tmp_path / "figures" / "plotly.min.js").is_file()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_with_a_browser_figures_are_png_and_svg(runs: tuple[int, int, int], tmp_path: Path) -> None:
    found = succeed("compare", runs[0], "--figures", tmp_path)
    for path in map(Path, found["files"]):
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert picture.width == 1600
        else:
            assert path.read_text().startswith("<svg")
    assert {Path(path).suffix for path in found["files"]} == {".png", ".svg"}


def test_what_cannot_be_compared_is_one_line(
    sqlite_engine: sa.Engine, runs: tuple[int, int, int], tmp_path: Path
) -> None:
    assert "There is no run 99" in refused("compare", runs[0], 99)
    assert "RUN" in refused("compare")
    assert "cannot be written" in refused("compare", runs[0], "--csv", tmp_path / "nowhere" / "table.csv")
    assert "cannot be written" in refused("compare", runs[0], "--latex", tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("compare", runs[0], "--figures", tmp_path / "file")
    with db.writing(sqlite_engine) as session:
        session.execute(sa.text("delete from predictions"))
    assert "no predictions of test cells" in refused("compare", runs[0])
