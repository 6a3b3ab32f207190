"""How many cells there are of what."""

from collections.abc import Mapping, Sequence

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go

from allreview.evaluation.figures.look import QUIET, UNKNOWN_COLOUR, class_colours, laid_out, titles_of
from db.tables import PARTS

BAR_PIXELS = 22
"""Height of one bar with its gap, so that a name beside each of many bars stays readable."""


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
    titles = dict(zip(order, titles_of(order, class_titles), strict=True))
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
    return laid_out(
        figure,
        title,
        120 + BAR_PIXELS * max(len(groups), 3),
        barmode="stack",
        bargap=0.25,
        showlegend=len(order) > 1,
    )


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
