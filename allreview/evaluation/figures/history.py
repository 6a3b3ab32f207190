"""Training histories: loss and accuracy by epoch."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from allreview.evaluation.figures.look import (
    BEST_COLOUR,
    LINE_PIXELS,
    QUIET,
    TRAINING_COLOUR,
    VALIDATION_COLOUR,
    Row,
    laid_out,
    legend_below,
    run_line,
)

HISTORY_HEIGHT = 340


def history_figure(
    rows: Sequence[Row], total_epochs: int, *, ended: bool = False, kept: int | None = None
) -> go.Figure:
    """Loss and accuracy of training and validation by epoch, side by side, the best epochs marked.

    The axes do not move while a run grows: epochs run from 1 to `total_epochs`, and zoom survives updates.
    Once it has `ended` they end where it did, which may be early.

    Args:
        rows: `epoch` (from 1), `loss`, `accuracy`, `val_loss`, `val_accuracy` of each epoch so far.
        total_epochs: how many epochs the recipe asks for.
        ended: no epoch will follow.
        kept: the epoch whose weights the run kept, marked with a line.
    """
    rows = sorted(rows, key=lambda row: row["epoch"])
    last = max([0 if ended and rows else total_epochs, 2, *(row["epoch"] for row in rows)])
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.16)
    for column, (name, best) in enumerate((("loss", min), ("accuracy", max)), start=1):
        for trace in _curves(rows, name, legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        if rows:
            _mark_best(figure, rows, f"val_{name}", best, column, last)
    if kept is not None:
        _mark_kept(figure, kept)
    figure.update_xaxes(**_epoch_axis(last))
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


def histories_figure(
    runs: Sequence[tuple[str, Sequence[Row]]], title: str | None = "Training histories"
) -> go.Figure:
    """Validation loss and accuracy by epoch of several runs over each other, each run's best epoch as a dot.

    Args:
        runs: each run's name, and its epochs as for `history_figure`. Runs may be of different length.
        title: stands above the figure.
    """
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.11)
    for place, (name, unsorted) in enumerate(runs):
        rows = sorted(unsorted, key=lambda row: row["epoch"])
        for column, (key, best) in enumerate((("val_loss", min), ("val_accuracy", max)), start=1):
            for trace in _overlaid(rows, key, best, name, place, legend=column == 1):
                figure.add_trace(trace, row=1, col=column)
    last = max([2, *(row["epoch"] for _, rows in runs for row in rows)])
    figure.update_xaxes(**_epoch_axis(last))
    figure.update_yaxes(title_text="Validation loss", rangemode="tozero", col=1)
    figure.update_yaxes(title_text="Validation accuracy", tickformat=".0%", col=2)
    below = legend_below(len(runs))
    below["legend"]["y"] = -54 / HISTORY_HEIGHT
    return laid_out(figure, title, HISTORY_HEIGHT + 90 + LINE_PIXELS * len(runs), **below)


def _overlaid(
    rows: Sequence[Row], key: str, best: Callable[..., Any], name: str, place: int, *, legend: bool
) -> list[go.Scatter]:
    line = run_line(place)
    value = "%{y:.1%}" if key == "val_accuracy" else "%{y:.3f}"
    curve = go.Scatter(
        name=name,
        legendgroup=name,
        showlegend=legend,
        x=[row["epoch"] for row in rows] or [None],
        y=[row[key] for row in rows] or [None],
        mode="lines",
        line=line,
        hovertemplate=f"{name}, epoch %{{x}}: {value}<extra></extra>",
    )
    if not rows:
        return [curve]
    chosen = best(rows, key=lambda row: row[key])
    dot = go.Scatter(
        name=name,
        legendgroup=name,
        showlegend=False,
        x=[chosen["epoch"]],
        y=[chosen[key]],
        mode="markers",
        marker={"color": line["color"], "size": 10, "line": {"color": "white", "width": 2}},
        hoverinfo="skip",
    )
    return [curve, dot]


def _mark_kept(figure: go.Figure, epoch: int) -> None:
    figure.add_vline(x=epoch, line={"color": QUIET, "width": 1, "dash": "dot"}, layer="below")
    figure.add_annotation(
        x=epoch,
        y=0,
        xref="x",
        yref="y domain",
        text=f"kept: epoch {epoch}",
        font={"color": QUIET, "size": 12},
        showarrow=False,
        xanchor="right" if epoch > 2 else "left",
        yanchor="bottom",
        xshift=-4 if epoch > 2 else 4,
    )


def _epoch_axis(last: int) -> dict[str, Any]:
    margin = max(0.3, (last - 1) * 0.03)
    return {"title_text": "Epoch", "range": [1 - margin, last + margin], **_epoch_ticks(last)}


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
    anchor = "right" if place > 0.7 else "left" if place < 0.15 or best is min else "center"
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
