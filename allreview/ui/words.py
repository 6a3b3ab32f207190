"""How things are said on the pages: words for stored names, and text from outside made inert."""

import re
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from allreview.cells.naming import class_title, shown

PART_TITLES = {"train": "Training", "validation": "Validation", "test": "Test"}
STATE_TITLES = {
    "queued": "Waiting",
    "running": "Running",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
}
BACKBONE_TITLES = {
    "mobilenet_v2": "MobileNetV2",
    "resnet50": "ResNet50",
    "efficientnet_b3": "EfficientNetB3",
    "vgg16": "VGG16",
    "alexnet": "AlexNet",
}
# In the order of evaluation.figures.CLASS_COLOURS, so that a class looks alike in charts and on cards.
_CLASS_COLOURS = ("orange", "blue", "green", "violet", "yellow", "primary", "gray", "red")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>$~&|#])")


def inert(text: str) -> str:
    """Text from outside (file names, comments) for places that read Markdown: it shows as it is."""
    return _MARKDOWN.sub(r"\\\1", " ".join(shown(text).split()))


def class_badge(name: str, classes: Sequence[str]) -> str:
    """The class as a coloured Markdown badge; grey when it is no class (unsure, unusable)."""
    colour = "gray"
    if name in classes:
        colour = _CLASS_COLOURS[list(classes).index(name) % len(_CLASS_COLOURS)]
    return f":{colour}-badge[{inert(class_title(name))}]"


def percent(fraction: float) -> str:
    """0.974 as '97 %'. What is not certain is never rounded to 100 %, nor what is possible to 0 %."""
    if 0.995 <= fraction < 1:
        return ">\N{NO-BREAK SPACE}99\N{NO-BREAK SPACE}%"
    if 0 < fraction < 0.005:
        return "<\N{NO-BREAK SPACE}1\N{NO-BREAK SPACE}%"
    return f"{fraction:.0%}".replace("%", "\N{NO-BREAK SPACE}%")


def when(moment: datetime) -> str:
    """The moment in the viewer's own time zone, to the minute."""
    try:
        zone = ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        zone = ZoneInfo("UTC")
    return moment.astimezone(zone).strftime("%-d %b %Y, %H:%M")


def backbone_title(name: str) -> str:
    """`mobilenet_v2` as 'MobileNetV2'."""
    return BACKBONE_TITLES.get(name, name)


def run_title(run_id: int, backbone: str) -> str:
    """A run as people tell it from others: 'Run 3, MobileNetV2'."""
    return f"Run {run_id}, {backbone_title(backbone)}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """'1 cell', '4,353 cells'."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """'20', '20 and 21', '20, 21 and H3'."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
