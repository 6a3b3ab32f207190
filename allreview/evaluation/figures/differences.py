"""What differs between two runs, and between two ways to split: points with their intervals."""

from collections.abc import Mapping, Sequence

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go

from allreview.evaluation.figures.look import (
    BEST_COLOUR,
    QUIET,
    TEXT,
    TRAINING_COLOUR,
    VALIDATION_COLOUR,
    in_percent,
    laid_out,
    marked,
)
from allreview.evaluation.intervals import Difference
from allreview.evaluation.naming import FIGURE_TITLES, split_in_words
from allreview.evaluation.reports import Report, System

LEAK_FIGURES = ("accuracy", "weighted_f1")
_ROW_PIXELS = 44
_APART = 0.16
"""How far the two protocols' dots stand from the middle of their row."""


def in_points(difference: Difference) -> str:
    """'+3.1 points (1.2 to 5.0)'."""
    # Adding 0 turns the -0.0 of a difference that rounds to nothing into 0.0.
    words = f"{round(100 * difference.value, 1) + 0.0:+.1f} points".replace("-", "−")
    if difference.low is None or difference.high is None:
        return words
    ends = f"{100 * difference.low:.1f} to {100 * difference.high:.1f}"
    return f"{words} ({ends})".replace("-", "−")


def differences_figure(
    differences: Mapping[str, Difference],
    first: str,
    second: str,
    title: str | None = "Paired differences",
    *,
    shared_patients: bool = False,
) -> go.Figure:
    """By how many points the second run is better on each figure, with the 95 % interval and a line at none.

    What is surely better or worse is coloured, what might be chance is grey.
    """
    names = list(differences)
    figure = go.Figure()
    for name in names:
        difference = differences[name]
        known = difference.low is not None and difference.high is not None
        sure = known and (difference.low or 0) * (difference.high or 0) > 0
        colour = TRAINING_COLOUR
        if sure:
            colour = VALIDATION_COLOUR if difference.value > 0 else BEST_COLOUR
        figure.add_trace(
            _dot(
                FIGURE_TITLES[name],
                100 * difference.value,
                [100 * difference.low, 100 * difference.high]
                if difference.low is not None and difference.high is not None
                else None,
                colour,
                f"{FIGURE_TITLES[name]}: {in_points(difference)}",
                label=in_points(difference).split(" ")[0],
            )
        )
    figure.add_vline(x=0, line={"color": QUIET, "width": 1.5})
    ends = [100 * end for d in differences.values() for end in (d.value, d.low, d.high) if end is not None]
    reach = 1.25 * max([1.0, *map(abs, ends)])
    figure.update_xaxes(
        title_text=f"Points by which {second} is higher than {first}",
        range=[-reach, reach],
        tickformat="~g",
        fixedrange=True,
    )
    figure.update_yaxes(
        type="category", range=[len(names) - 0.5, -0.5], showgrid=False, ticksuffix="  ", fixedrange=True
    )
    height = 130 + _ROW_PIXELS * max(len(names), 2)
    return laid_out(figure, marked(title, shared_patients), height, showlegend=False)


def leak_figure(system: System, title: str | None = None) -> go.Figure:
    """Accuracy and weighted F1 under both ways to split, with intervals, and the leak in points between them.

    Raises:
        ValueError: the system was not trained under both ways to split.
    """
    shared = system.by_split.get("image")
    apart = system.by_split.get("leak_group") or system.by_split.get("dataset_folds")
    if system.leak is None or shared is None or apart is None:
        raise ValueError("there is no leak to show: the series needs a run of each way to split")
    figure = go.Figure()
    for report, words, colour, shift in (
        (apart, "Patients kept apart", VALIDATION_COLOUR, -_APART),
        (shared, "Patients shared between training and test", BEST_COLOUR, _APART),
    ):
        _add_protocol(
            figure, report, f"{words}: {split_in_words(report.recipe, with_fold=False)}", colour, shift
        )
    for place, name in enumerate(LEAK_FIGURES):
        _annotate_leak(figure, system.leak.get(name), place, (apart, shared), name)
    figure.update_xaxes(
        title_text="On test cells", tickformat=".0%", fixedrange=True, range=_reach(apart, shared)
    )
    figure.update_yaxes(
        tickvals=list(range(len(LEAK_FIGURES))),
        ticktext=[FIGURE_TITLES[name] for name in LEAK_FIGURES],
        range=[len(LEAK_FIGURES) - 0.35, -0.6],
        ticksuffix="  ",
        showgrid=False,
        fixedrange=True,
    )
    heading = title or f"{system.title}: what shared patients add"
    height = 190 + 92 * len(LEAK_FIGURES)
    figure = laid_out(figure, heading, height, margin={"l": 8, "r": 24, "t": 110, "b": 8})
    figure.update_layout(
        legend={"orientation": "v", "y": 1.02, "traceorder": "normal"}, title={"y": 1 - 22 / height}
    )
    return figure


def _add_protocol(figure: go.Figure, report: Report, words: str, colour: str, shift: float) -> None:
    intervals = report.scores.get("intervals", {})
    for place, name in enumerate(LEAK_FIGURES):
        value = report.scores.get(name)
        if value is not None:
            words_here = f"{words}<br>{FIGURE_TITLES[name]} {in_percent(value, intervals.get(name))}"
            dot = _dot(place + shift, value, intervals.get(name), colour, words_here)
            dot.update(name=words, legendgroup=words, showlegend=place == 0)
            figure.add_trace(dot)
            figure.add_annotation(
                x=value,
                y=place + shift,
                text=f"{100 * value:.1f} %",
                font={"size": 12, "color": colour},
                showarrow=False,
                yshift=14 if shift < 0 else -14,
            )


def _annotate_leak(
    figure: go.Figure, leak: Difference | None, place: int, reports: tuple[Report, Report], name: str
) -> None:
    """The leak in words beside the dots."""
    if leak is None:
        return
    ends = [
        end
        for report in reports
        for end in (report.scores.get(name), *(report.scores.get("intervals", {}).get(name) or ()))
        if end is not None
    ]
    figure.add_annotation(
        x=min(ends),
        y=place,
        text=f"<b>the leak: {in_points(leak).split(' (')[0]}</b>"
        + (f"<br>95 %: {in_points(leak).split(' (')[1].rstrip(')')}" if leak.low is not None else ""),
        font={"size": 13, "color": TEXT},
        align="right",
        xanchor="right",
        xshift=-14,
        showarrow=False,
    )


def _reach(*reports: Report) -> list[float]:
    """From well below the lowest interval, with room for the words, to a little above the highest."""
    ends = [
        end
        for report in reports
        for name in LEAK_FIGURES
        for end in (report.scores.get(name), *(report.scores.get("intervals", {}).get(name) or ()))
        if end is not None
    ]
    low, high = min(ends, default=0.0), min(1.0, max(ends, default=1.0))
    span = max(high - low, 0.02)
    return [low - 0.55 * span, high + 0.08 * span]


def _dot(
    row: str | float,
    value: float,
    interval: Sequence[float] | None,
    colour: str,
    words: str,
    label: str = "",
) -> go.Scatter:
    low, high = interval or (value, value)
    return go.Scatter(
        x=[value],
        y=[row],
        mode="markers+text",
        marker={"color": colour, "size": 11},
        text=[label],
        textposition="top center",
        textfont={"color": TEXT, "size": 12},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [high - value],
            "arrayminus": [value - low],
            "color": colour,
            "thickness": 2,
            "width": 0,
        },
        hovertemplate=f"{words}<extra></extra>",
    )
