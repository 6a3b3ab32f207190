"""The calm look all figures share: transparent, few lines, colours that the colour blind can tell apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go

from allreview.evaluation.naming import SHARED_PATIENTS

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
RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
RUN_DASHES = ("solid", "dash", "dot", "dashdot")
LINE_PIXELS = 21
"""Height of one line of a legend that stands under the figure."""

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


def run_line(place: int) -> dict[str, Any]:
    """The line of the run at a place among several: eight colours, then the same ones dashed."""
    round_, colour = divmod(place, len(RUN_COLOURS))
    return {"color": RUN_COLOURS[colour], "dash": RUN_DASHES[round_ % len(RUN_DASHES)], "width": 2.5}


def marked(title: str | None, shared_patients: bool, *, only_some: bool = False) -> str | None:
    """The title, with the mark where figures (or `only_some` of them) come from patients that were trained on."""
    if not shared_patients:
        return title
    words = f"some with {SHARED_PATIENTS}" if only_some else SHARED_PATIENTS
    mark = f'<span style="font-size:12px;color:{BEST_COLOUR}">{words}</span>'
    return f"{title}<br>{mark}" if title else mark


def share_axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis from 0 to 100 %, with room for a point at either end."""
    return {
        "title_text": title,
        "range": [-0.02, 1.02],
        "tickformat": ".0%",
        "tickvals": [0, 0.2, 0.4, 0.6, 0.8, 1],
        **more,
    }


def in_percent(value: float | None, interval: Sequence[float] | None = None) -> str:
    """'93.1 %', or '93.1 % (90.2–95.4)'."""
    if value is None:
        return "–"
    ends = f" ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})" if interval else ""
    shown = ">99.9" if 0.9995 <= value < 1 else f"{100 * value:.1f}"
    return f"{shown} %{ends}"


def legend_below(lines: int) -> dict[str, Any]:
    """A legend under the figure, an entry a line, so that long names cover nothing."""
    return {
        "legend": {
            "orientation": "v",
            "x": 0,
            "xanchor": "left",
            "y": -0.16,
            "yanchor": "top",
            "font": {"size": 13},
        },
        "margin": {"l": 8, "r": 24, "t": 64, "b": 52 + LINE_PIXELS * lines},
        "showlegend": True,
    }


def titles_of(names: Sequence[str], class_titles: Mapping[str, str] | None) -> list[str]:
    return [(class_titles or {}).get(name, name) for name in names]


def laid_out(figure: go.Figure, title: str | None, height: int, **layout: Any) -> go.Figure:
    margin = {"l": 8, "r": 24, "t": 72 if title else 36, "b": 8}
    figure.update_layout(template=TEMPLATE, height=height, **{"margin": margin, **layout})
    if title:
        figure.update_layout(title_text=title)
    return figure
