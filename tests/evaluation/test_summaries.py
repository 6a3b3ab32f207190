"""The figures kept with a run: complete, plain JSON, and honest about shared patients."""

import json

import pytest
import sqlalchemy as sa

from allreview.errors import UserError
from allreview.evaluation.metrics import FIGURES
from allreview.evaluation.reports import run_report
from allreview.evaluation.summaries import run_metrics
from allreview.recipe import Recipe
from allreview.review.log.annotations import decide
from tests.factory import finished_run, small_store

SUBJECTS = {f"{n}": ("all", 6) for n in range(1, 9)} | {f"H{n}": ("hem", 6) for n in range(1, 9)}


@pytest.mark.parametrize("split", ["leak_group", "image"])
def test_a_run_keeps_every_figure_of_every_part(sqlite_engine: sa.Engine, split: str) -> None:
    store = small_store(sqlite_engine, SUBJECTS)
    said, parts = {}, {}
    for number, (subject, cells) in enumerate(store.cells.items()):
        for place, cell in enumerate(cells):
            wrong = (number + place) % 5 == 0
            said[cell] = ("hem" if subject.startswith("H") != wrong else "all", 0.6 + place / 20)
            parts[cell] = ("train", "validation", "test")[(place if split == "image" else number) % 3]
    run = finished_run(
        sqlite_engine,
        store,
        said,
        parts=parts,
        recipe=Recipe(split=split),
        temperature=1.5,  # pyright: ignore
    )
    first = next(cell for cell, part in parts.items() if part == "test")
    decide(sqlite_engine, cell_id=first, label="unsure", reviewer_id=store.ann, seen=None)
    found = run_metrics(sqlite_engine, run)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found) == ["train", "validation", "test", "split"]
    for part in ("train", "validation", "test"):
        for scores in (found[part], found[part]["current"]):
            assert set(FIGURES) < set(scores)
            assert set(scores["uncalibrated"]) == {"ece", "brier"}
    assert "intervals" not in found["train"]
    for part in ("validation", "test"):
        assert list(found[part]["intervals"]) == list(FIGURES)
    low, high = found["test"]["intervals"]["accuracy"]
    assert low < found["test"]["accuracy"] < high
    assert found["test"]["n"] - found["test"]["current"]["n"] == 1
    assert found["test"]["accuracy"] == run_report(sqlite_engine, run).figures["accuracy"]
    cells = sum(part == "test" for part in parts.values())
    shared = {"shares_patients": True, "test_cells_of_trained_subjects": cells}
    apart = {"shares_patients": False, "test_cells_of_trained_subjects": 0}
    assert found["split"] == (shared if split == "image" else apart)
    expected = found["test"]["new_patient"]
    assert "new_patient" not in found["validation"]
    if split == "image":
        assert expected is None
    else:
        assert expected["patients"] == 5
        assert expected["interval"][0] < expected["accuracy"] < expected["interval"][1]


def test_without_predictions_there_are_no_figures(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine, SUBJECTS)
    with pytest.raises(UserError, match="There is no run 5"):
        run_metrics(sqlite_engine, 5)
    with pytest.raises(UserError, match="no predictions"):
        run_metrics(sqlite_engine, finished_run(sqlite_engine, store, {}))
