"""ROC, precision-recall and reliability curves of one run or of several over each other."""

from collections.abc import Sequence
from typing import Any, Literal

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from allreview.cells.naming import class_title
from allreview.evaluation.curves import Curve
from allreview.evaluation.figures.look import (
    GRID,
    LINE_PIXELS,
    QUIET,
    TRAINING_COLOUR,
    in_percent,
    laid_out,
    legend_below,
    marked,
    run_line,
    share_axis,
)
from allreview.evaluation.metrics import Scores
from allreview.evaluation.reports import Report

PLOT_HEIGHT = 330
"""Of the panel with the curves, in pixels."""
_SHORT = {"auroc": "AUROC", "average_precision": "average precision"}


def roc_figure(
    reports: Sequence[Report], title: str | None = "ROC curve", *, with_intervals: bool = False
) -> go.Figure:
    """True against false positive rate at every threshold, with the area under the curve in words.

    Of two classes the positive one's curve, of more each class's against the rest. `with_intervals` computes
    the 95 % intervals of the areas, which takes a moment.
    """
    figure = go.Figure()
    _line(figure, [0, 1], [0, 1], "guessing")
    names = _add_curves(figure, reports, "auroc", with_intervals)
    figure.update_xaxes(**share_axis("False positive rate"))
    figure.update_yaxes(**share_axis("True positive rate"))
    return _finished(figure, reports, title, len(names))


def precision_recall_figure(
    reports: Sequence[Report], title: str | None = "Precision-recall curve", *, with_intervals: bool = False
) -> go.Figure:
    """Precision against recall at every threshold, with the average precision in words; as `roc_figure`.

    The dashed line is the precision of guessing: the share of the class, where all curves have one.
    """
    figure = go.Figure()
    shares = {round(curve.share, 3) for report in reports for curve in report.precision_recall}
    if len(shares) == 1:
        share = shares.pop()
        _line(figure, [0, 1], [share, share], "guessing")
    names = _add_curves(figure, reports, "average_precision", with_intervals)
    figure.update_xaxes(**share_axis("Recall"))
    figure.update_yaxes(**share_axis("Precision"))
    return _finished(figure, reports, title, len(names))


def reliability_figure(
    reports: Report | Sequence[Report], title: str | None = "Reliability", *, with_intervals: bool = False
) -> go.Figure:
    """How often the verdict is right at each level of certainty, and below how many cells have that level.

    On the dashed line probabilities mean what they say; below it the model is too sure.
    """
    shown = [reports] if isinstance(reports, Report) else list(reports)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.76, 0.24], vertical_spacing=0.06)
    lowest = min((entry.low for report in shown for entry in report.reliability if entry.cells), default=0.0)
    _line(figure, [lowest, 1], [lowest, 1], "as sure as right", row=1, col=1)
    names = [_name(report, None, "ece", with_intervals, len(shown) > 1) for report in shown]
    for place, (report, name) in enumerate(zip(shown, names, strict=True)):
        _add_bins(figure, report, name, place)
    figure.update_xaxes(range=[lowest - 0.02, 1.02], tickformat=".0%", dtick=0.1)
    figure.update_xaxes(title_text="Probability of the verdict", row=2, col=1)
    figure.update_yaxes(**share_axis("Share right"), row=1, col=1)
    figure.update_yaxes(title_text="Cells", rangemode="tozero", tickformat=",", nticks=4, row=2, col=1)
    return _finished(figure, shown, title, len(names), extra=90, barmode="group", bargap=0.15)


def _add_curves(
    figure: go.Figure,
    reports: Sequence[Report],
    area: Literal["auroc", "average_precision"],
    with_intervals: bool,
) -> list[str]:
    names = []
    for report in reports:
        curves = report.roc if area == "auroc" else report.precision_recall
        for curve in curves:
            only = curve if len(curves) > 1 else None
            name = _name(report, only, area, with_intervals, len(reports) > 1)
            figure.add_trace(
                go.Scatter(
                    name=name,
                    x=curve.x,
                    y=curve.y,
                    mode="lines",
                    line={**run_line(len(names)), "shape": "linear" if area == "auroc" else "vh"},
                    hovertemplate="%{x:.1%}, %{y:.1%}<extra></extra>",
                )
            )
            names.append(name)
    return names


def _name(
    report: Report,
    curve: Curve | None,
    figure: Literal["auroc", "average_precision", "ece"],
    with_intervals: bool,
    several: bool,
) -> str:
    """What a curve is called in the legend: whose it is, of which class, and the figure that sums it up."""
    parts = [report.title] if several else []
    if curve is not None:
        parts.append(class_title(curve.name))
    else:
        parts.append(_summary(report.scores if with_intervals else report.figures, figure))
    if several and report.shares_patients:
        parts.append("patients shared")  # the title says with what
    return ", ".join(parts)


def _summary(scores: Scores, figure: Literal["auroc", "average_precision", "ece"]) -> str:
    interval = scores.get("intervals", {}).get(figure)
    name = "calibration error" if figure == "ece" else _SHORT[figure]
    return f"{name} {in_percent(scores[figure], interval)}"


def _add_bins(figure: go.Figure, report: Report, name: str, place: int) -> None:
    filled = [entry for entry in report.reliability if entry.cells]
    most = max((entry.cells for entry in filled), default=1)
    line = run_line(place)
    figure.add_trace(
        go.Scatter(
            name=name,
            legendgroup=name,
            x=[entry.confidence for entry in filled],
            y=[entry.accuracy for entry in filled],
            customdata=[entry.cells for entry in filled],
            mode="lines+markers",
            line=line,
            # The more cells, the more a point can be trusted.
            marker={
                "size": [6 + 12 * (entry.cells / most) ** 0.5 for entry in filled],
                "color": line["color"],
                "opacity": 1,
            },
            hovertemplate="%{customdata:,} cells, on average %{x:.1%} sure, %{y:.1%} right<extra></extra>",
        ),
        row=1,
        col=1,
    )
    figure.add_trace(
        go.Bar(
            name=name,
            legendgroup=name,
            showlegend=False,
            x=[(entry.low + entry.high) / 2 for entry in filled],
            y=[entry.cells for entry in filled],
            marker={"color": line["color"], "opacity": 0.65, "line": {"width": 0}},
            hovertemplate="%{y:,} cells<extra></extra>",
        ),
        row=2,
        col=1,
    )


def _line(figure: go.Figure, x: list[float], y: list[float], name: str, **at: Any) -> None:
    """A quiet dashed line for what would be without any skill, or with perfect honesty."""
    figure.add_trace(
        go.Scatter(
            name=name,
            x=x,
            y=y,
            mode="lines",
            line={"color": TRAINING_COLOUR, "width": 1.5, "dash": "dash"},
            hoverinfo="skip",
            showlegend=False,
        ),
        **at,
    )


def _finished(
    figure: go.Figure,
    reports: Sequence[Report],
    title: str | None,
    entries: int,
    *,
    extra: int = 0,
    **layout: Any,
) -> go.Figure:
    # One class only, or no cell: there is no curve, and an empty panel would look like a fault.
    if not entries:
        figure.add_annotation(
            text="There is no curve: only one class has cells.",
            font={"color": QUIET, "size": 14},
            showarrow=False,
            x=0.5,
            y=0.5,
            xref="paper",
            yref="paper",
            bgcolor="white",
            bordercolor=GRID,
        )
    shared = [report.shares_patients for report in reports]
    below = legend_below(max(entries, 1))
    below["legend"]["y"] = -54 / (PLOT_HEIGHT + extra)
    return laid_out(
        figure,
        marked(title, any(shared), only_some=not all(shared)),
        PLOT_HEIGHT + extra + 120 + LINE_PIXELS * max(entries, 1),
        **{**below, **layout},
    )
