"""A recipe in words, a sentence for each thing it decides."""

from allreview.evaluation.naming import MODEL_TITLES, split_in_words
from allreview.recipe import Recipe

_OPTIMIZERS = {"adamax": "Adamax", "adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
_BEST = {
    "val_cross_entropy": "lowest validation cross-entropy",
    "val_loss": "lowest validation loss (with penalties)",
    "val_accuracy": "highest validation accuracy",
}
_IMBALANCE = {
    "class_weights": "Rare classes: weighed up in the loss.",
    "augment": "Rare classes: their cells shown more often, in augmented versions.",
    "none": "Rare classes: nothing done.",
}
_AVERAGED = {
    "none": [],
    "flip": ["Predictions: the mean over the cell and its mirror image."],
    "symmetries": ["Predictions: the mean over the eight ways a square can lie, mirrored or not."],
}
_POOLING = {
    "max": "global max pooling",
    "average": "global average pooling",
    "depths": "average and spread of feature maps at several depths",
    "cell": "average and spread of feature maps at several depths, within the cell",
}
_SCHEDULES = {"constant": "", "cosine": ", falling along a cosine", "exponential": ", falling to a hundredth"}


def in_words(recipe: Recipe) -> list[str]:
    """The recipe's network, head, fit, classes, augmentation, split, and what a prediction is the mean of, in that
    order."""
    return [
        _network(recipe),
        f"Head: {_POOLING[recipe.pooling]}, batch normalisation, {recipe.dense_units} ReLU units (L2 "
        f"{recipe.kernel_l2:g} on weights, L1 {recipe.activity_l1:g} on outputs, L1 {recipe.bias_l1:g} on biases), "
        f"dropout {recipe.dropout:g}, softmax.{_heads(recipe)}",
        _fit(recipe),
        _IMBALANCE[recipe.imbalance],
        f"Augmentation: {', '.join(_augmentation(recipe)) or 'none'}.",
        f"Test cells: {split_in_words(recipe)}; seed {recipe.seed}.",
        *_AVERAGED[recipe.test_time_augmentation],
    ]


def _heads(recipe: Recipe) -> str:
    if recipe.n_heads == 1:
        return ""
    return (
        f" {recipe.n_heads} of them side by side, each without another part of the training and validation subjects, "
        "which judged it; the model is their mean."
    )


def _network(recipe: Recipe) -> str:
    names = " and ".join(MODEL_TITLES[name] for name in recipe.backbones)
    many = recipe.partner is not None
    if recipe.backbone_run is not None:
        start = f"with the weights that run {recipe.backbone_run} trained, frozen"
    elif recipe.weights == "none":
        start = "from scratch, trained end to end"
    elif recipe.mode == "features":
        start = "with ImageNet weights, frozen"
    else:
        start = "with ImageNet weights, trained end to end, batch normalisation "
        start += "as it came" if recipe.backbone_normalization == "frozen" else "learning from the cells"
    joined = ""
    if many:
        joined = (
            ", one head on the features of both"
            if recipe.combine == "concatenate"
            else ", each with a head of its own; the mean of their probabilities"
        )
    crop = f" of the centre {recipe.crop} pixels" if recipe.crop else ""
    size = f"{recipe.image_size} × {recipe.image_size}"
    colours = ", each cell's colours normalised" if recipe.colours == "normalized" else ""
    return f"Network: {names}, {start}{joined}; images of {size} pixels{crop}{colours}."


def _fit(recipe: Recipe) -> str:
    warmup = f" after {recipe.warmup_epochs} epochs of warm-up" if recipe.warmup_epochs else ""
    smoothing = f", labels smoothed by {recipe.label_smoothing:g}" if recipe.label_smoothing else ""
    patience = f", ended after {recipe.patience} epochs without a better one" if recipe.patience else ""
    averaged = f", weights averaged (momentum {recipe.weight_averaging:g})" if recipe.weight_averaging else ""
    precision = ", in mixed precision where the machine gains by it" if recipe.precision == "mixed" else ""
    rate = f"{recipe.learning_rate:g}{_SCHEDULES[recipe.schedule]}{warmup}{averaged}"
    return (
        f"Fit: up to {recipe.epochs} epochs in batches of {recipe.batch_size} by {_OPTIMIZERS[recipe.optimizer]} at "
        f"{rate}, on categorical cross-entropy{smoothing}{patience}{precision}; the epoch with the "
        f"{_BEST[recipe.best_by]} kept."
    )


def _augmentation(recipe: Recipe) -> list[str]:
    done = {
        "mirrored left to right": recipe.flip,
        "mirrored top to bottom": recipe.flip_vertical,
        "turned by quarters": recipe.quarter_turns,
        f"rotated by up to {recipe.rotation:g}°": recipe.rotation,
        f"shifted by up to {recipe.translation:.0%}": recipe.translation,
        f"stain varied by {recipe.stain:g}": recipe.stain,
        f"brightness varied by {recipe.brightness:.0%}": recipe.brightness,
        f"brightness of each colour varied by {recipe.tint:.0%}": recipe.tint,
        f"MixUp {recipe.mixup:g}": recipe.mixup,
        f"CutMix {recipe.cutmix:g}": recipe.cutmix,
    }
    return [words for words, used in done.items() if used]
