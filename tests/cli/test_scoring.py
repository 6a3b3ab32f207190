"""`evaluate` and `predict`, with a real model and real cells."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

import db
from allreview.cells.decoding import read_rgb
from allreview.settings import current_settings
from allreview.training.inference import load_run_model
from db.tables import Run
from tests.cli.commands import command, process, refused, succeed
from tests.factory import finished_run, small_store


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.bmp"))


def test_evaluate_gives_the_figures_of_its_predictions(
    sqlite_engine: sa.Engine, run_with_model: int, few: Path, tmp_path: Path
) -> None:
    table = tmp_path / "predictions.csv"
    found = succeed("evaluate", run_with_model, few, "--predictions", table)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "subject", "label", "predicted", "probability", "all", "hem"]
    assert len(rows) == found["n"] == 24
    assert {row["path"] for row in rows} == {str(path.relative_to(few)) for path in _files(few)}
    truth, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    assert truth == [row["path"].split("/")[1] for row in rows]
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert found["weighted_f1"] == pytest.approx(
        f1_score(truth, predicted, average="weighted", zero_division=0), abs=1e-9
    )
    matrix = confusion_matrix(truth, predicted, labels=["all", "hem"])
    assert found["confusion"] == {"labels": ["all", "hem"], "matrix": matrix.tolist()}
    assert set(found["per_subject"]) == {row["subject"] for row in rows}
    assert sum(scores["n"] for scores in found["per_subject"].values()) == 24
    assert {"balanced_accuracy", "auroc", "ece", "per_class", "rejected"} <= set(found)
    for row in rows:
        assert float(row["all"]) + float(row["hem"]) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == max(float(row["all"]), float(row["hem"]))
    # Nothing was imported, and cells that the run was trained on are counted.
    assert succeed("check")["counts"]["cells"] == 24
    assert found["known_cells"] == {"train": 12, "validation": 6, "test": 6}
    assert found["new_patient"] is None


def test_what_to_expect_of_a_new_patient_is_told_only_where_no_patient_was_trained_on(
    run_with_model: int, few: Path, tmp_path: Path
) -> None:
    """By the patients' names: other cells of a patient that was trained on say nothing of a new one."""
    table, files = tmp_path / "labels.csv", _files(few)
    known = files[0].name.split("_")[1]
    for last, told in (("NEW9", True), (known, False)):
        subjects = [*(f"NEW{number % 9}" for number in range(len(files) - 1)), last]
        lines = [f"{file},all,{subject}" for file, subject in zip(files, subjects, strict=True)]
        table.write_text("path,label,subject\n" + "\n".join(lines) + "\n")
        found = succeed("evaluate", run_with_model, few, "--labels", table)
        assert (found["new_patient"] is not None) is told


def test_the_probabilities_are_those_of_the_model_in_the_order_of_the_files(
    sqlite_engine: sa.Engine, run_with_model: int, few: Path
) -> None:
    files = [*reversed(_files(few)), *_files(few)]  # 48: more than one batch
    found = succeed("predict", run_with_model, *files)
    assert [entry["path"] for entry in found] == [str(path) for path in files]
    settings = current_settings()
    model = load_run_model(sqlite_engine, settings, run_with_model)
    direct = model.probabilities(model.prepare([read_rgb(path, settings.max_pixels) for path in files]))
    given = np.array([[entry["probabilities"][name] for name in model.classes] for entry in found])
    assert given == pytest.approx(direct, abs=1e-5)
    assert [entry["label"] for entry in found] == [model.classes[row.argmax()] for row in given]


def test_predict_lists_bad_files_and_fails_only_without_a_good_one(
    run_with_model: int, few: Path, tmp_path: Path
) -> None:
    bad, good = tmp_path / "bad.bmp", _files(few)[0]
    bad.write_text("hello")
    found = succeed("predict", run_with_model, bad, good, tmp_path / "gone.png")
    assert [set(entry) for entry in found] == [
        {"path", "error"}, {"path", "label", "probabilities"}, {"path", "error"}
    ]  # fmt: skip
    assert "'" + str(bad) + "'" in refused("predict", run_with_model, bad, "--json")
    assert "None of the 2 files" in refused("predict", run_with_model, bad, tmp_path / "gone.png")
    assert "no file at" in refused("predict", run_with_model, tmp_path / "gone.png")


def test_the_real_program_keeps_stdout_and_stderr_clean(run_with_model: int, few: Path, home: Path) -> None:
    done = process("predict", run_with_model, _files(few)[0], "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 1
    assert done.stderr == ""
    assert (home / "logs" / "libraries.log").is_file()
    done = process("predict", run_with_model, "gone.bmp", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "There is no file at gone.bmp.\n"


def test_evaluate_reads_a_csv_and_reports_what_stays_out(
    run_with_model: int, few: Path, tmp_path: Path
) -> None:
    first, second, third = _files(few)[:3]
    broken = tmp_path / "broken.bmp"
    broken.write_bytes(b"BM")
    table = tmp_path / "labels.csv"
    lines = [f"{first},ALL,p1", f"{second},Normal (hem),p1", f"{broken},all,p2", f"{third},hem,"]
    table.write_text("path,label,subject\n" + "\n".join(lines) + "\n")
    found = succeed("evaluate", run_with_model, few, "--labels", table)
    assert found["n"] == 3
    assert found["per_class"]["hem"]["support"] == 2
    assert found["per_subject"]["P1"]["n"] == 2
    assert [entry["path"] for entry in found["rejected"]] == [str(broken)]


def test_labels_the_model_does_not_know_are_named(run_with_model: int, pbc: Path) -> None:
    said = refused("evaluate", run_with_model, pbc)
    assert "'basophil'" in said
    assert "'all', 'hem'" in said


def test_people_are_told_the_figures_and_that_they_flatter(run_with_model: int, few: Path) -> None:
    told = command("evaluate", run_with_model, few)
    assert told.exit_code == 0
    assert "24 cells: accuracy" in told.stdout
    assert f"18 of these 24 cells were used to train run {run_with_model}" in told.stderr


def test_bad_folders_are_refused(run_with_model: int, tmp_path: Path, few: Path) -> None:
    assert "no folder" in refused("evaluate", run_with_model, tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "no images" in refused("evaluate", run_with_model, tmp_path / "empty")
    assert "cannot be written" in refused(
        "evaluate", run_with_model, few, "--predictions", tmp_path / "gone" / "p.csv"
    )


@pytest.mark.parametrize(
    ("state", "words"), [("queued", "not begun"), ("stopped", "first epoch"), ("failed", "failed")]
)
def test_a_run_without_a_model_says_why(sqlite_engine: sa.Engine, few: Path, state: str, words: str) -> None:
    store = small_store(sqlite_engine)
    run = finished_run(sqlite_engine, store, {})
    with db.writing(sqlite_engine) as session:
        session.execute(sa.update(Run).where(Run.id == run).values(state=state))
    assert words in refused("predict", run, _files(few)[0])
    assert words in refused("evaluate", run, few)
