"""Confusion matrices."""

from collections.abc import Mapping
from typing import Any

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go

from allreview.evaluation.figures.look import QUIET, TEXT, Row, laid_out, titles_of

SHARE_SCALE = ((0.0, "#F3F6F8"), (1.0, "#00558A"))
DARK_FROM = 0.62
"""From this share on the fill is so dark that white text reads better."""


def confusion_figure(
    confusion: Row, title: str | None = None, class_titles: Mapping[str, str] | None = None
) -> go.Figure:
    """A confusion matrix: counts, with the share of each row (the recall) in colour and words.

    Args:
        confusion: `labels` and `matrix`, as `metrics.evaluate` gives them.
        title: stands above the figure.
        class_titles: what people call the classes.
    """
    titles = titles_of(confusion["labels"], class_titles)
    matrix: list[list[int]] = confusion["matrix"]
    shares = [[count / sum(row) if sum(row) else 0.0 for count in row] for row in matrix]
    size = max(len(titles), 2)
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=titles,
            y=titles,
            customdata=matrix,
            zmin=0,
            zmax=1,
            colorscale=SHARE_SCALE,
            showscale=False,
            xgap=3,
            ygap=3,
            hovertemplate="%{customdata:,} cells labelled %{y}<br>predicted %{x}: %{z:.1%}<extra></extra>",
        )
    )
    for row, (title_row, counts) in enumerate(zip(titles, matrix, strict=True)):
        for column, title_column in enumerate(titles):
            _write_count(figure, (title_column, title_row), counts[column], shares[row][column], size)
    plain: dict[str, Any] = {"showgrid": False, "showline": False, "ticks": "", "fixedrange": True}
    figure.update_xaxes(title_text="Predicted", type="category", **plain)
    figure.update_yaxes(title_text="Label", type="category", autorange="reversed", ticksuffix=" ", **plain)
    return laid_out(figure, title, 130 + max(200, 58 * size))


def _write_count(figure: go.Figure, at: tuple[str, str], count: int, share: float, size: int) -> None:
    figure.add_annotation(
        x=at[0],
        y=at[1],
        text=f"<b>{count:,}</b><br>{_percent(share)}" if count else "0",
        font={
            "size": 15 if size <= 4 else 11,
            "color": "#FFFFFF" if share >= DARK_FROM else TEXT if count else QUIET,
        },
        showarrow=False,
    )


def _percent(share: float) -> str:
    """Whole per cent, but never 0 % of something nor 100 % of less than all."""
    if 0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"
