"""Curves agree with the figures that summarise them."""

import numpy as np
import pytest

from allreview.evaluation.curves import precision_recall, reliability, roc
from allreview.evaluation.metrics import evaluate


def _case(classes: list[str], n: int = 300) -> tuple[list[str], np.ndarray]:
    random = np.random.default_rng(8)
    truth = random.integers(0, len(classes), n)
    logits = random.normal(size=(n, len(classes)))
    logits[np.arange(n), truth] += 1
    table = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return [classes[k] for k in truth], table


@pytest.mark.parametrize("classes", [["all", "hem"], ["a", "b", "c"]])
def test_areas_under_the_curves_are_the_figures(classes: list[str]) -> None:
    labels, table = _case(classes)
    scores = evaluate(labels, table, classes)
    curves = roc(labels, table, classes)
    assert [curve.name for curve in curves] == (["all"] if len(classes) == 2 else classes)
    areas = [np.trapezoid(curve.y, curve.x) for curve in curves]
    assert np.mean(areas) == pytest.approx(scores["auroc"])
    for curve in curves:
        assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
        assert curve.share == pytest.approx(labels.count(curve.name) / len(labels))
    steps = [
        float(np.sum(np.diff(curve.x) * np.array(curve.y[1:])))
        for curve in precision_recall(labels, table, classes)
    ]
    assert np.mean(steps) == pytest.approx(scores["average_precision"])


def test_the_gaps_of_the_bins_are_the_calibration_error() -> None:
    labels, table = _case(["all", "hem"])
    bins = reliability(labels, table, ["all", "hem"])
    assert [(entry.low, entry.high) for entry in bins] == [(m / 15, (m + 1) / 15) for m in range(15)]
    filled = [entry for entry in bins if entry.cells]
    assert sum(entry.cells for entry in filled) == len(labels)
    assert all(entry.low < (entry.confidence or 0) <= entry.high for entry in filled)
    assert min(entry.high for entry in filled) > 0.5
    gap = sum(entry.cells * abs((entry.confidence or 0) - (entry.accuracy or 0)) for entry in filled)
    assert gap / len(labels) == pytest.approx(evaluate(labels, table, ["all", "hem"])["ece"])
    empty = next(entry for entry in bins if not entry.cells)
    assert (empty.confidence, empty.accuracy) == (None, None)


def test_a_given_verdict_decides_what_is_right() -> None:
    bins = reliability(["hem"], [[0.5, 0.5]], ["all", "hem"], ["hem"])
    assert [entry.accuracy for entry in bins if entry.cells] == [1.0]


def test_one_class_or_no_cell_has_no_curve() -> None:
    assert roc(["all"] * 3, [[0.5, 0.5]] * 3, ["all", "hem"]) == []
    assert precision_recall(["all"] * 3, [[0.5, 0.5]] * 3, ["all", "hem"]) == []
    assert roc([], [], ["all", "hem"]) == []
    assert [entry.cells for entry in reliability([], [], ["all", "hem"])] == [0] * 15
