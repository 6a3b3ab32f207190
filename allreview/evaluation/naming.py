"""What a recipe's model and split are called where figures stand: tables, charts, downloads."""

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
