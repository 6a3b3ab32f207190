"""What a run leaves in its folder, and what its card says. No Keras."""

import csv
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.evaluation.summaries import run_metrics
from allreview.recipe import Recipe, make_recipe
from allreview.recipes import from_text
from allreview.settings import current_settings
from allreview.training.keeping import keep
from db.tables import EpochMetric, Run
from tests.factory import Store, finished_run, small_store

PARTS = {"1": "train", "2": "train", "3": "validation", "4": "test", "5": "test", "6": "train"} | {
    "H1": "train", "H2": "validation", "H3": "test", "H4": "train",
}  # fmt: skip


@pytest.fixture
def store(sqlite_engine: sa.Engine) -> Store:
    return small_store(sqlite_engine)


def evaluated_run(engine: sa.Engine, store: Store, recipe: Recipe | None = None, **values: object) -> Path:
    """A run with predictions, figures, epochs and a model, made by hand; its folder."""
    predictions, parts = {}, {}
    for subject, cells in store.cells.items():
        for place, cell in enumerate(cells):
            right = "hem" if subject.startswith("H") else "all"
            wrong = place == 0
            predictions[cell] = ("all" if wrong else right, 0.6 + place / 10)
            parts[cell] = PARTS[subject]
    run_id = finished_run(engine, store, predictions, parts=parts, recipe=recipe)
    with db.writing(engine) as session:
        for epoch in (1, 2):
            session.add(
                EpochMetric(
                    run_id=run_id, epoch=epoch, loss=1 / epoch, accuracy=0.5, val_loss=0.9, val_accuracy=0.6,
                    val_cross_entropy=0.8, learning_rate=0.001, seconds=1.5,
                )
            )  # fmt: skip
        found = {"metrics": run_metrics(engine, run_id), "best_epoch": 2, "temperature": 1.25}
        session.execute(sa.update(Run).where(Run.id == run_id).values({**found, **values}))
    folder = current_settings().run_folder(run_id)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("model.weights.h5", b"the weights")
    (folder / "model.json").write_text(
        json.dumps({"model_sha256": "cd" * 32, "weights_sha256": "ab" * 32, "versions": {"keras": "3.15"}})
    )
    return folder


def kept(engine: sa.Engine, folder: Path, state: str = "finished") -> str:
    keep(engine, current_settings(), int(folder.name), state=state)
    return (folder / "model-card.md").read_text()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_file_is_there_and_whole(sqlite_engine, store):
    recipe = make_recipe({"backbone": "resnet50", "epochs": 7, "crop": 300})
    folder = evaluated_run(sqlite_engine, store, recipe)
    kept(sqlite_engine, folder)
    assert {path.name for path in folder.iterdir()} == {
        "model.keras", "model.json", "model.weights.h5", "recipe.yaml", "history.csv", "snapshot.csv",
        "predictions.csv", "figures", "model-card.md",
    }  # fmt: skip
    assert (folder / "model.weights.h5").read_bytes() == b"the weights"
    assert from_text((folder / "recipe.yaml").read_text()) == recipe
    assert [row["epoch"] for row in rows(folder / "history.csv")] == ["1", "2"]
    snapshot = rows(folder / "snapshot.csv")
    assert len(snapshot) == 40
    assert {(row["subject"], row["part"]) for row in snapshot} == set(PARTS.items())
    predictions = {row["sha256"]: row for row in rows(folder / "predictions.csv")}
    assert predictions.keys() == {row["sha256"] for row in snapshot}
    for row in predictions.values():
        assert float(row["all"]) + float(row["hem"]) == pytest.approx(1)
        assert float(row["probability"]) == float(row[row["predicted"]])
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {
        "plotly.min.js", "history.html", "confusion.html", "roc.html", "precision-recall.html",
        "reliability.html", "subjects.html",
    }  # fmt: skip
    for page in (folder / "figures").glob("*.html"):
        text = page.read_text()
        assert 'src="plotly.min.js"' in text
        assert "https://cdn" not in text


def test_the_card_tells_what_the_store_holds(sqlite_engine, store):
    folder = evaluated_run(sqlite_engine, store)
    card = kept(sqlite_engine, folder)
    sections = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert sections == [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
    ]  # fmt: skip
    assert "# Model card: MobileNetV2, run" in card
    assert "not a diagnostic device" in card
    assert "12 test cells of 3 subjects" in card
    assert "No cell of these subjects" in card
    assert "patients shared" not in card.lower()
    # train: three ALL and two normal subjects of four cells each
    assert "| train | 12 (3) | 8 (2) | 20 (5) |" in card
    # of 12 test cells only the first normal one is called ALL wrongly: every first cell is called ALL
    assert "| Accuracy | 91.7 % | 87.5 % |" in card
    assert "temperature of 1.25" in card
    assert "Epoch 2 of 2 was kept" in card
    assert "ab" * 32 in card
    assert "cd" * 32 in card
    assert all(f"| {subject} |" in card for subject in ("4", "5", "H3"))
    assert "stopped" not in card


def test_shared_patients_are_marked_first_of_all(sqlite_engine, store):
    folder = evaluated_run(sqlite_engine, store, make_recipe({"split": "image"}))
    card = kept(sqlite_engine, folder)
    assert "**Patients shared between training and test.**" in card.split("## Model details")[0]
    for page in (folder / "figures").glob("*.html"):
        if page.name != "history.html":
            assert "patients shared between training and test" in page.read_text(), page.name


def test_a_stopped_run_keeps_what_it_has(sqlite_engine, store):
    folder = evaluated_run(sqlite_engine, store, metrics={}, temperature=None)
    with db.writing(sqlite_engine) as session:
        session.execute(sa.text("delete from predictions"))
    card = kept(sqlite_engine, folder, state="stopped")
    assert "**This run was stopped by a person, after 2 epochs of 20.**" in card
    assert "Nothing was evaluated." in card
    names = {path.name for path in folder.iterdir()}
    assert {"model.weights.h5", "recipe.yaml", "history.csv", "snapshot.csv", "model-card.md"} <= names
    assert "predictions.csv" not in names
    assert (folder / "figures" / "history.html").is_file()


def test_a_run_stopped_before_its_first_epoch_has_no_model(sqlite_engine, store):
    folder = evaluated_run(sqlite_engine, store, metrics={}, best_epoch=None)
    for name in ("model.keras", "model.json"):
        (folder / name).unlink()
    with db.writing(sqlite_engine) as session:
        session.execute(sa.text("delete from predictions"))
        session.execute(sa.text("delete from epoch_metrics"))
    card = kept(sqlite_engine, folder, state="stopped")
    assert "before its first epoch was complete.** It has no model" in card
    assert {path.name for path in folder.iterdir()} == {"recipe.yaml", "snapshot.csv", "model-card.md"}


def test_keeping_again_replaces_and_leaves_nothing_behind(sqlite_engine, store):
    folder = evaluated_run(sqlite_engine, store)
    kept(sqlite_engine, folder)
    before = {
        path: path.read_bytes() for path in folder.rglob("*") if path.suffix in (".csv", ".yaml", ".md")
    }
    (folder / "history.csv").write_text("cut sho")
    kept(sqlite_engine, folder)
    assert {path: path.read_bytes() for path in before} == before
    assert not list(folder.rglob("*.part"))


def test_a_card_stands_figures_that_are_not_there(sqlite_engine, store):
    bare = {"test": {"n": 12, "accuracy": 0.5, "per_class": {}, "auroc": None, "ece": 0.1}}
    bare["test"]["intervals"] = {"accuracy": [0.25, 0.75], "ece": [0.05, 0.2], "auroc": None}
    card = kept(sqlite_engine, evaluated_run(sqlite_engine, store, metrics=bare, temperature=None))
    assert "| Accuracy | 50.0 % (25.0–75.0) |" in card
    assert "| Expected calibration error | 0.100 (0.050–0.200) |" in card
    assert "Area under" not in card.split("## Quantitative analyses")[1]


def test_it_does_not_load_keras():
    code = "import sys, allreview.training.keeping; print({'keras', 'tensorflow'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
