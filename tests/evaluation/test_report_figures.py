"""Figures of reports: the numbers drawn are those of the report, and shared patients are marked in sight."""

from dataclasses import replace
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from allreview.evaluation.figures import (
    differences_figure,
    histories_figure,
    history_figure,
    in_points,
    leak_figure,
    precision_recall_figure,
    reliability_figure,
    roc_figure,
    subjects_figure,
)
from allreview.evaluation.intervals import Difference
from allreview.evaluation.naming import SHARED_PATIENTS
from allreview.evaluation.reports import Report, System, leak_between
from allreview.recipe import Recipe


def _report(classes: list[str], *, run: int = 1, skill: float = 1.0, split: Any = "leak_group") -> Report:
    random = np.random.default_rng(run)
    n, k = 240, len(classes)
    truth = np.arange(n) // 12 % k
    logits = random.normal(size=(n, k)) + 0.8 * random.normal(size=(20, k))[np.arange(n) // 12]
    logits[np.arange(n), truth] += skill
    table = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    subjects = [f"S{cell // 12}" for cell in range(n)]
    return Report(
        runs=[run],
        dataset_id=1,
        recipe=Recipe(backbone="resnet50", split=split),
        part="test",
        on="source",
        classes=classes,
        cell_ids=list(range(n)),
        labels=[classes[k] for k in truth],
        predicted=[classes[k] for k in table.argmax(axis=1)],
        probabilities=table,
        subjects=[*subjects],
        units=subjects,
        left_out=0,
        shares_patients=split == "image",
        shared_cells=n if split == "image" else 0,
        untempered=None,
    )


TWO = _report(["all", "hem"])
SHARED = _report(["all", "hem"], run=2, skill=4.0, split="image")
FOUR = _report(["a", "b", "c", "d"])


def _named(figure: go.Figure) -> list[Any]:
    return [trace for trace in figure.data if trace.showlegend is not False]


def test_the_curve_of_two_classes_carries_its_area_in_words() -> None:
    (trace,) = _named(roc_figure([TWO]))
    assert (list(trace.x), list(trace.y)) == (TWO.roc[0].x, TWO.roc[0].y)
    assert trace.name == f"AUROC {100 * (TWO.figures['auroc'] or 0):.1f} %"
    (trace,) = _named(precision_recall_figure([TWO], with_intervals=True))
    low, high = TWO.scores.get("intervals", {})["average_precision"] or (0, 0)
    assert trace.name.endswith(f"({100 * low:.1f}–{100 * high:.1f})")
    assert list(trace.y) == TWO.precision_recall[0].y


def test_more_classes_have_a_curve_each() -> None:
    assert [trace.name for trace in _named(roc_figure([FOUR]))] == ["a", "b", "c", "d"]
    assert len({trace.line.color for trace in _named(roc_figure([FOUR]))}) == 4


@pytest.mark.parametrize("draw", [roc_figure, precision_recall_figure, reliability_figure])
def test_runs_over_each_other_are_told_apart_and_marked(draw: Any) -> None:
    figure = draw([TWO, SHARED])
    first, second = (trace for trace in _named(figure) if trace.type == "scatter")
    assert first.name.startswith("ResNet50, run 1")
    assert second.name.startswith("ResNet50, run 2")
    assert ["patients shared" in name for name in (first.name, second.name)] == [False, True]
    assert first.line.color != second.line.color
    assert f"some with {SHARED_PATIENTS}" in figure.layout.title.text
    assert SHARED_PATIENTS in draw([SHARED]).layout.title.text
    assert SHARED_PATIENTS not in draw([TWO]).layout.title.text


def test_reliability_shows_only_bins_with_cells_and_how_many() -> None:
    figure = reliability_figure(TWO)
    points, bars = _named(figure)[0], next(trace for trace in figure.data if trace.type == "bar")
    filled = [entry for entry in TWO.reliability if entry.cells]
    assert list(points.x) == [entry.confidence for entry in filled]
    assert list(points.y) == [entry.accuracy for entry in filled]
    assert list(bars.y) == [entry.cells for entry in filled]
    assert sum(bars.y) == len(TWO.labels)


def test_without_a_second_class_there_are_words_instead_of_a_curve() -> None:
    one = replace(TWO, labels=["all"] * len(TWO.labels))
    for draw in (roc_figure, precision_recall_figure):
        assert "only one class" in draw([one]).layout.annotations[0].text


def test_every_subject_has_a_dot_with_its_interval_in_the_colour_of_its_class() -> None:
    figure = subjects_figure(TWO)
    rows = TWO.per_subject
    drawn = {
        (subject, trace.xaxis): (value, value - below, value + above)
        for trace in figure.data
        for subject, value, above, below in zip(
            trace.y, trace.x, trace.error_x.array, trace.error_x.arrayminus, strict=True
        )
    }
    for row in rows:
        assert drawn[row.subject, "x"] == pytest.approx((row.accuracy, *row.accuracy_interval))
        assert drawn[row.subject, "x2"] == pytest.approx((row.share_positive, *row.share_positive_interval))
    assert len(drawn) == 2 * len(rows)
    assert list(figure.layout.yaxis.categoryarray) == [row.subject for row in rows]
    assert [trace.name for trace in _named(figure)] == ["ALL", "Normal (hem)"]
    assert SHARED_PATIENTS in subjects_figure(SHARED).layout.title.text


def test_differences_are_coloured_only_where_they_are_sure() -> None:
    found = {
        "accuracy": Difference(0.031, 0.012, 0.05),
        "weighted_f1": Difference(-0.02, -0.03, -0.01),
        "auroc": Difference(0.01, -0.01, 0.03),
        "macro_f1": Difference(0.02, None, None),
    }
    figure = differences_figure(found, "run 1", "run 2", shared_patients=True)
    colours = [trace.marker.color for trace in figure.data]
    assert len(set(colours[:3])) == 3
    assert colours[2] == colours[3]
    assert [trace.x[0] for trace in figure.data] == pytest.approx([3.1, -2, 1, 2])
    assert figure.data[0].error_x.array[0] == pytest.approx(1.9)
    assert figure.layout.shapes[0].x0 == 0
    assert SHARED_PATIENTS in figure.layout.title.text
    assert in_points(found["accuracy"]) == "+3.1 points (1.2 to 5.0)"
    assert in_points(found["weighted_f1"]) == "−2.0 points (−3.0 to −1.0)"
    assert in_points(found["macro_f1"]) == "+2.0 points"
    assert in_points(Difference(-0.0001, None, None)) == "+0.0 points"


def test_the_leak_is_written_in_points_beside_both_protocols() -> None:
    leak = leak_between(SHARED, TWO)
    figure = leak_figure(System("ResNet50", TWO.recipe, {"leak_group": TWO, "image": SHARED}, {}, leak))
    drawn = {(trace.name.split(":")[0], trace.x[0]) for trace in figure.data}
    for report, words in ((TWO, "Patients kept apart"), (SHARED, SHARED_PATIENTS.capitalize())):
        for name in ("accuracy", "weighted_f1"):
            assert (words, report.figures.get(name)) in drawn
    words = [note.text for note in figure.layout.annotations if "leak" in note.text]
    points = 100 * ((SHARED.figures["accuracy"] or 0) - (TWO.figures["accuracy"] or 0))
    assert f"the leak: {points:+.1f} points" in words[0]
    assert "95 %:" in words[0]
    with pytest.raises(ValueError, match="each way to split"):
        leak_figure(System("ResNet50", TWO.recipe, {"leak_group": TWO}, {}, None))


def _epochs(number: int) -> list[dict[str, float]]:
    return [
        {"epoch": e, "loss": 1 / e, "accuracy": 0.5, "val_loss": 1 + (e - 3) ** 2, "val_accuracy": 0.1 * e}
        for e in range(1, number + 1)
    ]


def test_a_run_that_ended_early_fills_its_figure() -> None:
    growing, ended = history_figure(_epochs(5), 20), history_figure(_epochs(5), 20, ended=True, kept=3)
    assert growing.layout.xaxis.range[1] > 20
    assert 5 < ended.layout.xaxis.range[1] < 6
    assert [note.text for note in ended.layout.annotations][-1] == "kept: epoch 3"
    assert {shape.x0 for shape in ended.layout.shapes} == {3}
    assert history_figure(_epochs(1), 1, ended=True, kept=1).layout.xaxis.tickvals == (1, 2)


def test_histories_of_several_runs_mark_each_best_epoch() -> None:
    figure = histories_figure([("run 1", _epochs(5)), ("run 2", _epochs(2)), ("run 3", [])])
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    assert [(dot.name, dot.x[0]) for dot in dots] == [("run 1", 3), ("run 1", 5), ("run 2", 2), ("run 2", 2)]
    assert [trace.name for trace in _named(figure)] == ["run 1", "run 2", "run 3"]
