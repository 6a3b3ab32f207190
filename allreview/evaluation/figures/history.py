"""Training histories: loss and accuracy by epoch."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from allreview.evaluation.figures.look import (
    BEST_COLOUR,
    TRAINING_COLOUR,
    VALIDATION_COLOUR,
    Row,
    laid_out,
)

HISTORY_HEIGHT = 340


def history_figure(rows: Sequence[Row], total_epochs: int) -> go.Figure:
    """Loss and accuracy of training and validation by epoch, side by side, the best epochs marked.

    The axes do not move while a run grows: epochs run from 1 to `total_epochs`, and zoom survives updates.

    Args:
        rows: `epoch` (from 1), `loss`, `accuracy`, `val_loss`, `val_accuracy` of each epoch so far.
        total_epochs: how many epochs the recipe asks for.
    """
    rows = sorted(rows, key=lambda row: row["epoch"])
    last = max([total_epochs, 2, *(row["epoch"] for row in rows)])
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.11)
    for column, (name, best) in enumerate((("loss", min), ("accuracy", max)), start=1):
        for trace in _curves(rows, name, legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        if rows:
            _mark_best(figure, rows, f"val_{name}", best, column, last)
    margin = max(0.3, (last - 1) * 0.03)
    figure.update_xaxes(title_text="Epoch", range=[1 - margin, last + margin], **_epoch_ticks(last))
    figure.update_yaxes(title_text="Loss", automargin=False, col=1, range=_loss_range(rows))
    figure.update_yaxes(
        title_text="Accuracy", automargin=False, col=2, range=[0, 1.06], tickformat=".0%", dtick=0.2
    )
    # Fixed margins: labels of another width would move the panels while a run grows.
    figure.update_xaxes(automargin=False)
    margin_pixels = {"l": 64, "r": 24, "t": 40, "b": 52}
    return laid_out(
        figure, None, HISTORY_HEIGHT, hovermode="x unified", uirevision="history", margin=margin_pixels
    )


def _curves(rows: Sequence[Row], name: str, *, legend: bool) -> list[go.Scatter]:
    series = (("Training", name, TRAINING_COLOUR), ("Validation", f"val_{name}", VALIDATION_COLOUR))
    value = "%{y:.1%}" if name == "accuracy" else "%{y:.3f}"
    return [
        go.Scatter(
            name=title,
            legendgroup=title,
            showlegend=legend,
            # A line without points still has its entry in the legend.
            x=[row["epoch"] for row in rows] or [None],
            y=[row[key] for row in rows] or [None],
            mode="lines" if len(rows) != 1 else "markers",
            line={"color": colour, "width": 2.5},
            marker={"color": colour, "size": 6},
            hovertemplate=f"{title} {value}<extra></extra>",
        )
        for title, key, colour in series
    ]


def _mark_best(
    figure: go.Figure, rows: Sequence[Row], key: str, best: Callable[..., Any], column: int, last: int
) -> None:
    """A marker at the best validation figure (the first of equals), with the epoch in words."""
    row = best(rows, key=lambda row: row[key])
    place = row["epoch"] / last
    # The loss falls towards its best epoch from the left, so there the words keep to the right.
    anchor = "right" if place > 0.8 else "left" if place < 0.15 or best is min else "center"
    figure.add_trace(
        go.Scatter(
            name="Best epoch",
            showlegend=False,
            x=[row["epoch"]],
            y=[row[key]],
            mode="markers",
            marker={"color": BEST_COLOUR, "size": 11, "line": {"color": "white", "width": 2}},
            hoverinfo="skip",
        ),
        row=1,
        col=column,
    )
    figure.add_annotation(
        x=row["epoch"],
        y=row[key],
        text=f"best epoch {row['epoch']}",
        font={"color": BEST_COLOUR, "size": 13},
        showarrow=False,
        # Away from the training curve, which lies below the validation loss and above its accuracy.
        yshift=18 if best is min else -18,
        xanchor=anchor,
        row=1,
        col=column,
    )


def _loss_range(rows: Sequence[Row]) -> list[float]:
    """From 0 to a little above the highest loss, with room for the annotation."""
    highest = max((max(row["loss"], row["val_loss"]) for row in rows), default=1.0)
    return [0, 1.12 * (highest or 1.0)]


def _epoch_ticks(last: int) -> dict[str, Any]:
    if last <= 12:
        return {"tickvals": list(range(1, last + 1))}
    step = next(step for step in (5, 10, 20, 50, 100) if last / step <= 10)
    return {"tickvals": [1, *range(step, last + 1, step)]}
