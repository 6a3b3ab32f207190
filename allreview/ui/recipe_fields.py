"""The recipe's settings as widgets: one line for each, its words and its limits from the recipe itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from allreview.evaluation.naming import MODEL_TITLES
from allreview.recipe import Recipe

KEY = "recipe-"

Widget = Callable[[str, str, str], Any]
"""Draws a widget (title, key, help) and returns its value."""


@dataclass(frozen=True)
class RecipeField:
    """One setting: its name in the recipe, what people call it, and the widget it is chosen with."""

    name: str
    title: str
    widget: Widget

    def draw(self) -> Any:
        """Show the widget; its value is that of the session, else the recipe's default."""
        ensure(self.name, Recipe.model_fields[self.name].default)
        return self.widget(self.title, KEY + self.name, str(Recipe.model_fields[self.name].description))


def ensure(name: str, value: Any) -> None:
    """Give a setting's widget a value if it has none yet."""
    st.session_state.setdefault(KEY + name, value)


def kept(name: str) -> Any:
    """The value of a setting whose widget need not be in sight."""
    return st.session_state.get(KEY + name, Recipe.model_fields[name].default)


def fill(settings: Mapping[str, Any]) -> None:
    """Set the widgets of all settings: to `settings`, and the others to their defaults."""
    for name, field in Recipe.model_fields.items():
        st.session_state[KEY + name] = settings.get(name, field.default)
        for of_optional in ("-on", "-value"):
            st.session_state.pop(f"{KEY}{name}{of_optional}", None)


def choice(options: Mapping[str, str]) -> Widget:
    """One of few, by its words."""

    def draw(title: str, key: str, help_: str) -> Any:
        return st.selectbox(
            title,
            list(options),
            format_func=options.__getitem__,
            key=key,
            help=help_,
            persist_state="session",
        )

    return draw


def whole(low: int, high: int) -> Widget:
    """A whole number."""

    def draw(title: str, key: str, help_: str) -> Any:
        st.session_state[key] = int(st.session_state[key])
        return st.number_input(title, low, high, step=1, key=key, help=help_, persist_state="session")

    return draw


def decimal(low: float, high: float, step: float | None = None) -> Widget:
    """A number that people type."""

    def draw(title: str, key: str, help_: str) -> Any:
        st.session_state[key] = float(st.session_state[key])
        return st.number_input(
            title, low, high, step=step, format="%g", key=key, help=help_, persist_state="session"
        )

    return draw


def slide(low: float, high: float, step: float) -> Widget:
    """A number that people feel their way to."""

    def draw(title: str, key: str, help_: str) -> Any:
        st.session_state[key] = type(step)(st.session_state[key])
        return st.slider(title, low, high, step=step, key=key, help=help_, persist_state="session")

    return draw


def switch(title: str, key: str, help_: str) -> Any:
    """Yes or no."""
    return st.checkbox(title, key=key, help=help_, persist_state="session")


def optional(question: str, low: int, high: int, start: int) -> Widget:
    """A whole number, or none: a switch, and the number once it is on."""

    def draw(title: str, key: str, help_: str) -> Any:
        kept = st.session_state[key]
        st.session_state.setdefault(f"{key}-on", kept is not None)
        if not st.checkbox(question, key=f"{key}-on", help=help_, persist_state="session"):
            return None
        st.session_state.setdefault(f"{key}-value", kept if kept is not None else start)
        return st.number_input(title, low, high, step=1, key=f"{key}-value", persist_state="session")

    return draw


BACKBONE = RecipeField("backbone", "Backbone", choice({**MODEL_TITLES}))
WEIGHTS = RecipeField(
    "weights", "Start from", choice({"imagenet": "ImageNet weights", "none": "nothing (from scratch)"})
)
EPOCHS = RecipeField("epochs", "Epochs", slide(1, 60, 1))

IMAGE = (
    RecipeField("image_size", "Input side (pixels)", whole(32, 1024)),
    RecipeField("crop", "Centre square (pixels)", optional("Keep only a centre square", 32, 4096, 300)),
    RecipeField("colours", "Colours", choice({"original": "as photographed", "normalized": "normalised"})),
    RecipeField(
        "pooling",
        "Feature maps",
        choice(
            {
                "max": "maximum of the last",
                "average": "average of the last",
                "depths": "average and spread at several depths",
                "cell": "the same, within the cell",
            }
        ),
    ),
)
FIT = (
    RecipeField("learning_rate", "Learning rate", decimal(1e-6, 1.0)),
    RecipeField(
        "schedule",
        "Learning rate over the epochs",
        choice(
            {"constant": "stays", "cosine": "falls along a cosine", "exponential": "falls evenly (log scale)"}
        ),
    ),
    RecipeField("warmup_epochs", "Warm-up epochs", whole(0, 100)),
    RecipeField(
        "optimizer",
        "Optimiser",
        choice({"adamax": "Adamax", "adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}),
    ),
    RecipeField("weight_decay", "Weight decay (AdamW)", decimal(0.0, 1.0)),
    RecipeField("weight_averaging", "Averaging of weights (momentum)", decimal(0.0, 0.9999)),
    RecipeField("batch_size", "Batch size", whole(1, 1024)),
    RecipeField("label_smoothing", "Label smoothing", slide(0.0, 0.5, 0.01)),
    RecipeField(
        "best_by",
        "Keep the epoch with",
        choice(
            {
                "val_cross_entropy": "lowest validation cross-entropy",
                "val_loss": "lowest validation loss",
                "val_accuracy": "highest validation accuracy",
            }
        ),
    ),
    RecipeField("patience", "Epochs without a better one", optional("Stop early", 1, 500, 5)),
)
PRECISION = RecipeField(
    "precision", "Precision", choice({"float32": "32 bits", "mixed": "16 bits where it is faster"})
)
NORMALIZATION = RecipeField(
    "backbone_normalization",
    "Batch normalisation in the backbone",
    choice({"frozen": "as it came", "trained": "learns from the cells"}),
)
HEAD = (
    RecipeField("dense_units", "Hidden units", whole(1, 4096)),
    RecipeField("dropout", "Dropout", slide(0.0, 0.9, 0.05)),
    RecipeField("kernel_l2", "L2 on the weights", decimal(0.0, 10.0)),
    RecipeField("activity_l1", "L1 on the output", decimal(0.0, 10.0)),
    RecipeField("bias_l1", "L1 on the bias", decimal(0.0, 10.0)),
)
HEADS = RecipeField(
    "heads",
    "Heads side by side",
    whole(1, 10),
)
IMBALANCE = RecipeField(
    "imbalance",
    "Rare classes",
    choice(
        {
            "class_weights": "weigh them up in the loss",
            "augment": "show them more often, augmented",
            "none": "nothing",
        }
    ),
)
AUGMENTATION = (
    RecipeField("flip", "Mirror left to right", switch),
    RecipeField("flip_vertical", "Mirror upside down", switch),
    RecipeField("quarter_turns", "Quarter turns", switch),
    RecipeField("rotation", "Rotate (± degrees)", slide(0, 180, 5)),
    RecipeField("translation", "Shift (± share)", slide(0.0, 0.25, 0.01)),
    RecipeField("stain", "Stain", slide(0.0, 0.9, 0.05)),
    RecipeField("brightness", "Brightness", slide(0.0, 0.9, 0.05)),
    RecipeField("tint", "Brightness of each colour", slide(0.0, 0.9, 0.05)),
    RecipeField("mixup", "MixUp", slide(0.0, 4.0, 0.1)),
)
CUTMIX = RecipeField("cutmix", "CutMix", slide(0.0, 4.0, 0.1))
VIEWS = RecipeField("views", "Versions of each cell", whole(1, 32))
AVERAGING = RecipeField(
    "test_time_augmentation",
    "Predictions are of",
    choice(
        {
            "none": "the cell as it is",
            "flip": "it and its mirror image (mean)",
            "symmetries": "all eight ways it can lie (mean)",
        }
    ),
)
SPLIT = (
    RecipeField("validation_fraction", "Validation share", slide(0.05, 0.4, 0.05)),
    RecipeField("test_fraction", "Test share", slide(0.05, 0.4, 0.05)),
    RecipeField("seed", "Seed", whole(0, 2**31 - 1)),
)
