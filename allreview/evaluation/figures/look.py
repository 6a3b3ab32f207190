"""The calm look all figures share: transparent, few lines, colours that the colour blind can tell apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go

CLASS_COLOURS = (
    "#D55E00",
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6D31",
    "#7F7F7F",
)
"""The palette of Okabe and Ito (2008), its yellow and black replaced by what reads on white."""
TRAINING_COLOUR, VALIDATION_COLOUR, BEST_COLOUR = "#9AA5B1", "#0072B2", "#D55E00"
TEXT, QUIET, GRID = "#2F3A45", "#66727F", "#E6E9ED"
UNKNOWN_COLOUR = "#B8BFC7"


_AXIS = {
    "gridcolor": GRID,
    "zeroline": False,
    "linecolor": GRID,
    "tickfont": {"color": QUIET, "size": 12},
    "title": {"font": {"color": QUIET, "size": 13}, "standoff": 8},
    "automargin": True,
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {
            "family": "Source Sans Pro, Source Sans, Helvetica, Arial, sans-serif",
            "color": TEXT,
            "size": 13,
        },
        "title": {"font": {"size": 15, "color": TEXT}, "x": 0, "xref": "paper", "xanchor": "left"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": CLASS_COLOURS,
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "hoverlabel": {"font": {"size": 13}},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.0,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
    }
)

Row = Mapping[str, Any]


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """The colour of each class, by its place among the dataset's classes; more than eight start over."""
    return {name: CLASS_COLOURS[place % len(CLASS_COLOURS)] for place, name in enumerate(classes)}


def titles_of(names: Sequence[str], class_titles: Mapping[str, str] | None) -> list[str]:
    return [(class_titles or {}).get(name, name) for name in names]


def laid_out(figure: go.Figure, title: str | None, height: int, **layout: Any) -> go.Figure:
    margin = {"l": 8, "r": 24, "t": 72 if title else 36, "b": 8}
    figure.update_layout(template=TEMPLATE, height=height, **{"margin": margin, **layout})
    if title:
        figure.update_layout(title_text=title)
    return figure
