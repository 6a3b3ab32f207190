"""How much readers agree: one dot a pair, with its interval."""

from collections.abc import Sequence

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go

from allreview.evaluation.figures.look import GRID, QUIET, TEXT, VALIDATION_COLOUR, laid_out
from allreview.evaluation.metrics import Interval

_ROW_PIXELS = 40
_STRENGTHS = (0.2, 0.4, 0.6, 0.8)


def agreement_figure(rows: Sequence[tuple[str, float, Interval]], title: str | None = None) -> go.Figure:
    """Kappas in rows, each `(name, kappa, 95 % interval)`, with a line where agreement is as chance has it."""
    figure = go.Figure()
    for name, value, interval in rows:
        low, high = interval or (value, value)
        ends = f" ({low:.2f} to {high:.2f})" if interval else ""
        figure.add_trace(
            go.Scatter(
                x=[value],
                y=[name],
                mode="markers+text",
                marker={"color": VALIDATION_COLOUR, "size": 11},
                text=[f"{value:.2f}"],
                textposition="top center",
                textfont={"color": TEXT, "size": 12},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [high - value],
                    "arrayminus": [value - low],
                    "color": VALIDATION_COLOUR,
                    "thickness": 2,
                    "width": 0,
                },
                hovertemplate=f"{name}: {value:.2f}{ends}<extra></extra>".replace("-", "−"),
            )
        )
    figure.add_vline(x=0, line={"color": QUIET, "width": 1.5})
    for strength in _STRENGTHS:
        figure.add_vline(x=strength, line={"color": GRID, "width": 1, "dash": "dot"}, layer="below")
    lowest = min([0.0, *(end for _, value, interval in rows for end in (value, *(interval or ())))])
    figure.update_xaxes(
        title_text="Cohen's kappa",
        tickvals=[0, *_STRENGTHS, 1],
        range=[lowest - 0.05, 1.05],
        showgrid=False,
        fixedrange=True,
    )
    figure.update_yaxes(
        type="category", range=[len(rows) - 0.5, -0.7], showgrid=False, ticksuffix="  ", fixedrange=True
    )
    return laid_out(figure, title, 110 + _ROW_PIXELS * max(len(rows), 2), showlegend=False)
