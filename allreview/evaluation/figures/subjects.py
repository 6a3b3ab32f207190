"""Subject by subject: how often the model is right, and how many cells it calls blast."""

from collections.abc import Sequence

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from allreview.cells.naming import class_title
from allreview.evaluation.figures.look import (
    UNKNOWN_COLOUR,
    class_colours,
    laid_out,
    marked,
    share_axis,
)
from allreview.evaluation.reports import Report, SubjectRow

SUBJECT_PIXELS = 22


def subjects_figure(report: Report, title: str | None = "Subject by subject") -> go.Figure:
    """A dot for each subject with its 95 % interval, coloured by what the subject is; the worst first.

    Left the accuracy, right the share of cells called the positive class (blast).
    """
    rows = report.per_subject
    blast = class_title(report.positive)
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    colours = class_colours(report.classes)
    for name in dict.fromkeys(row.label for row in rows):
        of_class = [row for row in rows if row.label == name]
        colour = colours.get(name, UNKNOWN_COLOUR)
        figure.add_trace(
            _dots(
                of_class,
                [row.accuracy for row in of_class],
                [row.accuracy_interval for row in of_class],
                colour,
                "%{customdata[0]} of %{customdata[1]} cells right",
                name=name,
            ),
            row=1,
            col=1,
        )
        figure.add_trace(
            _dots(
                of_class,
                [row.share_positive for row in of_class],
                [row.share_positive_interval for row in of_class],
                colour,
                f"%{{customdata[2]}} of %{{customdata[1]}} cells called {blast}",
                name=name,
                legend=False,
            ),
            row=1,
            col=2,
        )
    figure.update_xaxes(**share_axis("Cells predicted right", fixedrange=True), col=1)
    figure.update_xaxes(**share_axis(f"Cells called {blast}", fixedrange=True), col=2)
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=[row.subject for row in rows],
        range=[len(rows) - 0.5, -0.5],
        dtick=1,
        ticksuffix="  ",
        fixedrange=True,
    )
    figure.update_yaxes(title_text="Subject", col=1)
    height = 130 + SUBJECT_PIXELS * max(len(rows), 3)
    margin = {"l": 8, "r": 24, "t": 96 if report.shares_patients else 76, "b": 8}
    figure = laid_out(figure, marked(title, report.shares_patients), height, showlegend=True, margin=margin)
    # Above the panels by pixels: a share of the height would drift away as subjects are added.
    figure.update_layout(
        legend={"y": 1 + 6 / max(height - 130, 1)}, title={"y": 1 - 22 / height, "yanchor": "middle"}
    )
    return figure


def _dots(
    rows: Sequence[SubjectRow],
    values: list[float],
    intervals: list[list[float]],
    colour: str,
    words: str,
    *,
    name: str,
    legend: bool = True,
) -> go.Scatter:
    return go.Scatter(
        name=class_title(name),
        legendgroup=name,
        showlegend=legend,
        x=values,
        y=[row.subject for row in rows],
        customdata=[(row.right, row.cells, row.called_positive) for row in rows],
        mode="markers",
        marker={"color": colour, "size": 9},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [high - value for value, (_, high) in zip(values, intervals, strict=True)],
            "arrayminus": [value - low for value, (low, _) in zip(values, intervals, strict=True)],
            "color": colour,
            "thickness": 1.5,
            "width": 0,
        },
        hovertemplate=f"Subject %{{y}}: {words}<extra></extra>",
    )
