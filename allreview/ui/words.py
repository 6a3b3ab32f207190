"""How things are said on the pages: words for stored names, and text from outside made inert."""

import re
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from allreview.cells.naming import class_title, shown
from allreview.evaluation.naming import model_title
from allreview.recipe import Recipe

PART_TITLES = {"train": "Training", "validation": "Validation", "test": "Test"}
STATE_TITLES = {
    "queued": "Waiting",
    "running": "Running",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
}
# In the order of evaluation.figures.CLASS_COLOURS, so that a class looks alike in charts and on cards.
_CLASS_COLOURS = ("orange", "blue", "green", "violet", "yellow", "primary", "gray", "red")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>$~&|#])")


def inert(text: str) -> str:
    """Text from outside (file names, comments) for places that read Markdown: it shows as it is."""
    return _MARKDOWN.sub(r"\\\1", " ".join(shown(text).split()))


def class_colour(name: str, classes: Sequence[str]) -> str:
    """Streamlit's name of the class's colour; grey when it is no class (unsure, unusable)."""
    if name not in classes:
        return "gray"
    return _CLASS_COLOURS[list(classes).index(name) % len(_CLASS_COLOURS)]


def class_badge(name: str, classes: Sequence[str]) -> str:
    """The class as a coloured Markdown badge."""
    return f":{class_colour(name, classes)}-badge[{inert(class_title(name))}]"


def viewers_zone() -> ZoneInfo:
    """The viewer's own time zone, as the browser says it."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def when(moment: datetime) -> str:
    """The moment in the viewer's own time zone, to the minute."""
    return moment.astimezone(viewers_zone()).strftime("%-d %b %Y, %H:%M")


def run_title(run_id: int, recipe: Recipe) -> str:
    """A run as people tell it from others: 'Run 3, MobileNetV2', with its fold, and marked where patients are
    shared."""
    words = [f"Run {run_id}", model_title(recipe)]
    if recipe.split == "dataset_folds" or recipe.folds is not None:
        words.append(f"fold {recipe.fold + 1}" + (f" of {recipe.folds}" if recipe.folds else ""))
    if recipe.shares_patients:
        words.append("patients shared")
    return ", ".join(words)
