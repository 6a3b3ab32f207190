"""What a recipe's model and split are called where figures stand: tables, charts, downloads."""

from collections.abc import Mapping, Sequence
from typing import Any

from allreview.recipe import BackboneName, Recipe

SHARED_PATIENTS = "patients shared between training and test"
"""Stands wherever a figure comes from cells of patients that the model was trained on."""

FIGURE_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "macro_f1": "Macro F1",
    "weighted_precision": "Weighted precision",
    "weighted_recall": "Weighted recall",
    "weighted_f1": "Weighted F1",
    "auroc": "Area under the ROC curve",
    "average_precision": "Average precision",
    "brier": "Brier score",
    "ece": "Expected calibration error",
}
"""In the order of `metrics.FIGURES`. Of the last two, lower is better."""

MODEL_TITLES: dict[BackboneName, str] = {
    "mobilenet_v2": "MobileNetV2",
    "resnet50": "ResNet50",
    "efficientnet_b3": "EfficientNetB3",
    "vgg16": "VGG16",
    "alexnet": "AlexNet",
}


def model_title(recipe: Recipe) -> str:
    """'ResNet50', or 'ResNet50 + EfficientNetB3, joined features'."""
    title = " + ".join(MODEL_TITLES[name] for name in recipe.backbones)
    if recipe.partner is None:
        return title
    return f"{title}, {'joined features' if recipe.combine == 'concatenate' else 'mean of probabilities'}"


def split_in_words(recipe: Recipe, *, with_fold: bool = True) -> str:
    """How test cells were chosen: 'split by leak group', 'split by single images, fold 2 of 5'."""
    if recipe.split == "dataset_folds":
        return f"the dataset's own fold {recipe.fold + 1}" if with_fold else "the dataset's own folds"
    words = "split by leak group" if recipe.split == "leak_group" else "split by single images"
    if recipe.folds is None:
        return words
    return (
        f"{words}, fold {recipe.fold + 1} of {recipe.folds}"
        if with_fold
        else f"{words}, {recipe.folds} folds"
    )


NEW_PATIENT = "A new patient's cells right"
"""Heads a column of `new_patient_briefly`."""


def new_patient_in_words(found: Mapping[str, Any] | None, *, shares_patients: bool) -> str:
    """What `new_patients.new_patient` found, for people; why there is nothing to expect, where it found nothing."""
    if shares_patients:
        return (
            "Nothing here tells how right it is about a new patient: it was trained on patients it is tested on. "
            "Split by leak group to know."
        )
    if found is None:
        return "Too few patients were kept out of training to say how right it is about a new one."
    interval = found["interval"]
    sure = f"95 % interval {_span(interval)}, " if interval else ""
    return (
        f"Of a new patient's cells, expect {100 * found['accuracy']:.0f} % to be right ({sure}from "
        f"{found['patients']} patients it never saw). Patients differ: for eight in ten of them it was "
        f"{_span(found['most'])}."
    )


IN_COMPANY = (
    "Each cell read together with what the model says of the other cells of its patient, as one reads a smear. This "
    "rests on more than the cell: it is no figure of single cells, and stands apart from them."
)
"""What the figures of `company.judged_in_company` are."""


def in_company_in_words(scores: Mapping[str, Any] | None) -> str:
    """What cells read in their company came to, in one sentence; why there is nothing, where there is nothing."""
    if scores is None:
        return (
            "Cells were not read in their company: that takes a patient for every cell, validation cells of five or "
            "more, and patients that are not in training and test at once."
        )
    interval = (scores.get("intervals") or {}).get("accuracy")
    sure = f" (95 % interval {_span(interval)})" if interval else ""
    return (
        f"Read in their company, {100 * scores['accuracy']:.1f} % of the {scores['n']:,} test cells are right{sure}, "
        f"weighted F1 {100 * scores['weighted_f1']:.1f} %."
    )


def new_patient_briefly(found: Mapping[str, Any] | None, *, shares_patients: bool) -> str:
    """The same for a column of a table: '74 % (65 to 82 %)', and a dash where nothing can be said."""
    if shares_patients or found is None:
        return "–"
    interval = f" ({_span(found['interval'])})" if found["interval"] else ""
    return f"{100 * found['accuracy']:.0f} %{interval}"


def _span(ends: Sequence[float]) -> str:
    return f"{100 * ends[0]:.0f} to {100 * ends[1]:.0f} %"
