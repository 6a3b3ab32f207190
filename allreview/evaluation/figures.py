"""Plotly figures in one calm look: transparent, few lines, colours that the colour blind can tell apart."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from db.tables import PARTS

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
SHARE_SCALE = ((0.0, "#F3F6F8"), (1.0, "#00558A"))
DARK_FROM = 0.62
"""From this share on the fill is so dark that white text reads better."""
UNKNOWN_COLOUR = "#B8BFC7"

HISTORY_HEIGHT = 340
BAR_PIXELS = 22
"""Height of one bar with its gap, so that a name beside each of many bars stays readable."""

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
    return _laid_out(
        figure, None, HISTORY_HEIGHT, hovermode="x unified", uirevision="history", margin=margin_pixels
    )


def confusion_figure(
    confusion: Row, title: str | None = None, class_titles: Mapping[str, str] | None = None
) -> go.Figure:
    """A confusion matrix: counts, with the share of each row (the recall) in colour and words.

    Args:
        confusion: `labels` and `matrix`, as `metrics.evaluate` gives them.
        title: stands above the figure.
        class_titles: what people call the classes.
    """
    titles = _titles(confusion["labels"], class_titles)
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
    return _laid_out(figure, title, 130 + max(200, 58 * size))


def counts_figure(
    counts: Sequence[tuple[str, str, int]],
    title: str | None = None,
    classes: Sequence[str] | None = None,
    class_titles: Mapping[str, str] | None = None,
) -> go.Figure:
    """How many cells each group has, as lying bars stacked by class, the largest group on top.

    Parts keep their order: train, validation, test.

    Args:
        counts: (group, class, n): groups are subjects, parts, or the classes themselves.
        title: stands above the figure.
        classes: the dataset's classes in their order, which fixes their colours; those seen when not given.
        class_titles: what people call the classes.
    """
    totals: dict[str, int] = {}
    for group, _, n in counts:
        totals[group] = totals.get(group, 0) + n
    groups = sorted(totals, key=lambda group: (-totals[group], group))
    if set(groups) <= set(PARTS):
        groups = [part for part in PARTS if part in totals]
    seen = sorted({name for _, name, _ in counts})
    colours = class_colours(classes or seen)
    order = [name for name in colours if name in seen] + [name for name in seen if name not in colours]
    titles = dict(zip(order, _titles(order, class_titles), strict=True))
    table: dict[tuple[str, str], int] = {}
    for group, name, n in counts:
        table[group, name] = table.get((group, name), 0) + n
    bars = [
        go.Bar(
            name=titles[name],
            orientation="h",
            y=groups,
            x=[table.get((group, name), 0) for group in groups],
            marker={"color": colours.get(name, UNKNOWN_COLOUR), "line": {"width": 0}},
            hovertemplate="%{y}: %{x:,} " + titles[name] + "<extra></extra>",
        )
        for name in order
    ]
    figure = go.Figure(bars)
    _write_totals(figure, groups, totals)
    longest = max([1, *totals.values()])
    figure.update_xaxes(title_text="Cells", range=[0, longest * 1.08], tickformat=",", fixedrange=True)
    figure.update_yaxes(
        type="category",
        range=[len(groups) - 0.5, -0.5],
        showgrid=False,
        dtick=1,
        ticksuffix="  ",
        fixedrange=True,
    )
    return _laid_out(
        figure,
        title,
        120 + BAR_PIXELS * max(len(groups), 3),
        barmode="stack",
        bargap=0.25,
        showlegend=len(order) > 1,
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


def _write_totals(figure: go.Figure, groups: list[str], totals: dict[str, int]) -> None:
    figure.add_trace(
        go.Scatter(
            x=[totals[group] for group in groups],
            y=groups,
            text=[f"  {totals[group]:,}" for group in groups],
            mode="text",
            textposition="middle right",
            textfont={"color": QUIET, "size": 12},
            cliponaxis=False,
            hoverinfo="skip",
            showlegend=False,
        )
    )


def _titles(names: Sequence[str], class_titles: Mapping[str, str] | None) -> list[str]:
    return [(class_titles or {}).get(name, name) for name in names]


def _laid_out(figure: go.Figure, title: str | None, height: int, **layout: Any) -> go.Figure:
    margin = {"l": 8, "r": 24, "t": 72 if title else 36, "b": 8}
    figure.update_layout(template=TEMPLATE, height=height, **{"margin": margin, **layout})
    if title:
        figure.update_layout(title_text=title)
    return figure
