"""Metrics against scikit-learn, against cases worked by hand, and where they are undefined."""

import json
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk
from statsmodels.stats.proportion import proportion_confint

from allreview.errors import UserError
from allreview.evaluation.metrics import FIGURES, Scores, evaluate, per_subject, positive_class
from allreview.evaluation.proportions import wilson

EIGHT = ["basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet"]


def _random_case(classes: list[str], n: int, seed: int) -> tuple[list[str], np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, len(classes), n)
    scores = generator.normal(size=(n, len(classes)))
    scores[np.arange(n), truth] += 1.0
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return [classes[k] for k in truth], probabilities


@pytest.mark.parametrize("classes", [["all", "hem"], EIGHT])
def test_agrees_with_scikit_learn(classes: list[str]) -> None:
    labels, probabilities = _random_case(classes, 400, seed=1)
    predicted = [classes[k] for k in probabilities.argmax(axis=1)]
    scores = evaluate(labels, probabilities, classes)
    assert scores["n"] == 400
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert scores["weighted_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="weighted"))
    assert scores["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert scores["confusion"]["matrix"] == sk.confusion_matrix(labels, predicted, labels=classes).tolist()
    report = sk.precision_recall_fscore_support(labels, predicted, labels=classes)
    for name, precision, recall, f1, support in zip(classes, *report, strict=True):
        expected = {"precision": precision, "recall": recall, "f1": f1, "support": support}
        assert scores["per_class"][name] == pytest.approx(expected)


def test_binary_auroc_is_that_of_the_positive_class() -> None:
    labels, probabilities = _random_case(["all", "hem"], 200, seed=2)
    expected = sk.roc_auc_score([label == "all" for label in labels], probabilities[:, 0])
    assert evaluate(labels, probabilities, ["all", "hem"])["auroc"] == pytest.approx(expected)
    assert 0.6 < expected < 0.95


def test_auroc_of_many_classes_is_macro_one_against_the_rest() -> None:
    labels, probabilities = _random_case(EIGHT, 300, seed=3)
    expected = sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro", labels=EIGHT)
    assert evaluate(labels, probabilities, EIGHT)["auroc"] == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    # Two cells at 0.9, one of them wrong: gap 0.4. Two at 0.6, both right: gap 0.4. Together 0.4.
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]
    scores = evaluate(["all", "hem", "hem", "hem"], probabilities, ["all", "hem"])
    assert scores["ece"] == pytest.approx(0.4)
    sure = evaluate(["all", "hem"], [[1, 0], [0, 1]], ["all", "hem"])
    assert sure["ece"] == pytest.approx(0.0)


def _as_scikit_learn_says(labels: list[str], probabilities: np.ndarray, classes: list[str]) -> Scores:
    """Every figure by scikit-learn's own functions and defaults."""
    predicted = [classes[k] for k in probabilities.argmax(axis=1)]
    found: dict = {"accuracy": sk.accuracy_score(labels, predicted)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["balanced_accuracy"] = sk.balanced_accuracy_score(labels, predicted)
        for average in ("macro", "weighted"):
            rates = sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
            for name, value in zip(("precision", "recall", "f1"), rates[:3], strict=True):
                found[f"{average}_{name}"] = value
    present = sorted(set(labels))
    one_hot = np.array([[label == name for name in classes] for label in labels], dtype=int)
    columns = [classes.index(name) for name in (["all"] if len(classes) == 2 else present)]
    if len(present) > 1:
        found["auroc"] = sk.roc_auc_score(one_hot[:, columns], probabilities[:, columns], average="macro")
        found["average_precision"] = sk.average_precision_score(
            one_hot[:, columns], probabilities[:, columns], average="macro"
        )
    else:
        found["auroc"] = found["average_precision"] = None
    if len(classes) == 2:
        found["brier"] = sk.brier_score_loss([label == "all" for label in labels], probabilities[:, 0])
    else:
        found["brier"] = sk.brier_score_loss(labels, probabilities, labels=classes, scale_by_half=False)
    return found  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("case", ["two", "eight", "ties", "one class", "absent class", "never predicted"])
def test_every_figure_is_scikit_learns(case: str) -> None:
    classes = ["all", "hem"] if case in ("two", "ties", "one class") else sorted(EIGHT)
    labels, probabilities = _random_case(classes, 300, seed=5)
    if case == "ties":
        share = np.round(probabilities[:, 0], 1)
        probabilities = np.stack([share, 1 - share], axis=1)
    elif case == "one class":
        labels = ["hem"] * len(labels)
    elif case == "absent class":  # no cell has it, yet the model names it
        labels = [name if name != "ig" else "monocyte" for name in labels]
    elif case == "never predicted":  # cells have it, yet the model never names it
        probabilities[:, 3] *= 1e-3
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    scores, expected = (
        evaluate(labels, probabilities, classes),
        _as_scikit_learn_says(labels, probabilities, classes),
    )
    for name in set(FIGURES) - {"ece"}:
        assert scores[name] == (None if expected[name] is None else pytest.approx(expected[name])), name


def test_the_brier_score_of_two_classes_is_half_that_of_the_sum() -> None:
    two = evaluate(["all"], [[0.7, 0.3]], ["all", "hem"])["brier"]
    three = evaluate(["all"], [[0.7, 0.3, 0.0]], ["all", "hem", "ig"])["brier"]
    assert two == pytest.approx(0.09)
    assert three == pytest.approx(0.18)


def test_calibration_bins_include_their_upper_edge() -> None:
    # 0.6 and 0.65 lie on different sides of 9/15: gaps +0.4 and -0.65 would cancel to 0.25 in one bin.
    scores = evaluate(["all", "hem"], [[0.6, 0.4], [0.65, 0.35]], ["all", "hem"])
    assert scores["ece"] == pytest.approx((0.4 + 0.65) / 2)


def test_a_class_without_cells_is_undefined_and_left_out_of_means() -> None:
    scores = evaluate(["a", "b"], [[0.8, 0.1, 0.1], [0.7, 0.2, 0.1]], ["a", "b", "c"])
    assert scores["per_class"]["c"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert scores["per_class"]["b"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1}
    assert scores["balanced_accuracy"] == 0.5
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert scores["auroc"] == 1.0


def test_a_single_cell_is_json_without_nan() -> None:
    scores = evaluate(["hem"], [[0.25, 0.75]], ["all", "hem"])
    assert (scores["accuracy"], scores["balanced_accuracy"], scores["auroc"]) == (1.0, 1.0, None)
    assert scores["ece"] == pytest.approx(0.25)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_no_cells_leave_everything_undefined() -> None:
    scores = evaluate([], np.zeros((0, 2)), ["all", "hem"])
    assert scores["n"] == 0
    assert [scores.get(name) for name in FIGURES] == [None] * len(FIGURES)
    assert scores["confusion"]["matrix"] == [[0, 0], [0, 0]]
    assert evaluate([], [], ["all", "hem"]) == scores
    json.dumps(scores, allow_nan=False)


def test_a_given_verdict_outranks_the_most_probable_class() -> None:
    tie = [[0.5, 0.5]]
    assert evaluate(["hem"], tie, ["all", "hem"])["accuracy"] == 0.0
    assert evaluate(["hem"], tie, ["all", "hem"], ["hem"])["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("labels", "probabilities", "classes", "message"),
    [
        (["blast"], [[1, 0]], ["all", "hem"], "'blast' is not one of the classes all, hem"),
        (["all"], [[1, 0, 0]], ["all", "hem"], "one column for each class"),
        (["all", "hem"], [[1, 0]], ["all", "hem"], "one row for each cell"),
        (["all"], [[float("nan"), 0]], ["all", "hem"], "between 0 and 1"),
        (["all"], [[1, 0]], ["all", "all"], "named twice"),
    ],
)
def test_bad_input_is_refused_in_words(
    labels: list[str], probabilities: list, classes: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(labels, probabilities, classes)


def test_positive_class() -> None:
    assert positive_class(["hem", "all"]) == "all"
    assert positive_class(EIGHT) == "basophil"
    with pytest.raises(UserError):
        positive_class([])


def test_per_subject_counts_each_subject_alone() -> None:
    found = per_subject(
        ["H3", "11", "11", None, "11"],
        ["hem", "all", "all", "all", "all"],
        ["hem", "all", "hem", "all", "all"],
    )
    assert list(found) == ["11", "H3"]
    assert found["11"]["n"] == 3
    assert found["11"]["accuracy"] == pytest.approx(2 / 3)
    assert found["11"]["share_by_predicted_class"] == pytest.approx({"all": 2 / 3, "hem": 1 / 3})
    assert (found["H3"]["n"], found["H3"]["accuracy"]) == (1, 1.0)
    assert found["H3"]["share_by_predicted_class"] == {"all": 0.0, "hem": 1.0}


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (3, 7), (50, 50), (199, 250)])
def test_intervals_of_shares_are_those_of_statsmodels(right: int, n: int) -> None:
    expected = proportion_confint(right, n, alpha=0.05, method="wilson")
    assert wilson(right, n) == pytest.approx(expected, abs=1e-12)
    labels, predicted = ["all"] * n, ["all"] * right + ["hem"] * (n - right)
    found = per_subject(["1"] * n, labels, predicted)["1"]
    assert found["accuracy_interval"] == pytest.approx(expected, abs=1e-12)
    for name, interval in found["share_interval_by_predicted_class"].items():
        called = predicted.count(name)
        assert interval == pytest.approx(proportion_confint(called, n, method="wilson"), abs=1e-12)
