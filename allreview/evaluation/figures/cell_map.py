"""Cells on a plane, the similar ones together, to be selected with a lasso."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go
from numpy.typing import NDArray

from allreview.evaluation.figures.look import QUIET, UNKNOWN_COLOUR, laid_out

OUTSIDE = "Outside the filters"
LEGEND_ENTRIES = 12
"""With more kinds than this there is no legend: hovering tells them."""
_FAINT, _DIMMED = 0.25, 0.12
_MANY = 2_000
_SUSPICION = [[0.0, "#B2182B"], [0.3, "#EF8A62"], [0.5, "#E3CBB8"], [0.7, "#7FB3D5"], [1.0, "#2A6F9E"]]
"""Red where the label is hardly believed, blue where it is."""


@dataclass(frozen=True)
class MapCells:
    """Cells on the map, one place of each an entry. `words` is what hovering says, in Plotly's markup.

    `inside` marks the cells that can be selected, `selected` those that are.
    """

    cell_id: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    words: Sequence[str]
    inside: NDArray[np.bool_]
    selected: NDArray[np.bool_]


def kinds_map_figure(
    cells: MapCells, kinds: Sequence[str | None], colours: Mapping[str, str], unknown: str, *, height: int
) -> go.Figure:
    """The map with a colour for each kind (a label, a subject).

    Args:
        kinds: of each cell; None is drawn in grey.
        colours: of the kinds, in the order of the legend; of more than `LEGEND_ENTRIES` there is none.
        unknown: what the grey cells are called.
    """
    figure = go.Figure(_outside(cells))
    if len(colours) > LEGEND_ENTRIES:
        shades = np.array([colours.get(kind or "", UNKNOWN_COLOUR) for kind in kinds], dtype=object)
        figure.add_trace(_points(cells, np.ones(len(kinds), dtype=bool), "Cells", {}, shades=shades))
        return _drawn(figure, height, legend=False)
    of_cells = np.array([kind or "" for kind in kinds], dtype=object)
    for kind, name, colour in [*((kind, kind, colour) for kind, colour in colours.items()), _grey(unknown)]:
        which = of_cells == kind
        if (which & cells.inside).any():
            figure.add_trace(_points(cells, which, name, {"color": colour}))
    return _drawn(figure, height)


def suspicion_map_figure(
    cells: MapCells, suspicion: NDArray[np.float32], unknown: str, *, height: int
) -> go.Figure:
    """The map with the suspicious cells in red. `suspicion` in [0, 1], low is suspicious, NaN is drawn in grey."""
    known = ~np.isnan(suspicion)
    bar = {
        "title": {"text": "Label believed", "side": "right", "font": {"color": QUIET}},
        "tickformat": ".0%",
        "thickness": 12,
        "len": 0.6,
        "outlinewidth": 0,
    }
    scale = {"colorscale": _SUSPICION, "cmin": 0, "cmax": 1, "colorbar": bar}
    figure = go.Figure(_outside(cells))
    if (~known & cells.inside).any():
        figure.add_trace(_points(cells, ~known, unknown, {"color": UNKNOWN_COLOUR}))
    # The most suspicious last, so that no other point covers them.
    order = np.argsort(-np.where(known, suspicion, np.inf), kind="stable")
    shaded = _points(cells, known, "Cells", scale, shades=suspicion, order=order)
    figure.add_trace(shaded.update(showlegend=False))
    return _drawn(figure, height)


def many_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each of any number of names, neighbours far apart on the colour circle."""
    return {name: f"hsl({place * 137.508 % 360:.0f},62%,46%)" for place, name in enumerate(names)}


def _grey(unknown: str) -> tuple[str, str, str]:
    return "", unknown, UNKNOWN_COLOUR


def _outside(cells: MapCells) -> list[go.Scattergl]:
    out = ~cells.inside
    if not out.any():
        return []
    # Without custom data: the page cannot take these for selectable cells.
    marker = {"color": UNKNOWN_COLOUR, "size": _size(cells) - 1, "opacity": _FAINT}
    same = {"marker": {"opacity": _FAINT}}
    return [
        go.Scattergl(
            x=cells.x[out],
            y=cells.y[out],
            mode="markers",
            name=OUTSIDE,
            marker=marker,
            hoverinfo="skip",
            selected=same,
            unselected=same,
        )
    ]


def _points(
    cells: MapCells,
    which: NDArray[np.bool_],
    name: str,
    marker: dict[str, Any],
    *,
    shades: NDArray[Any] | None = None,
    order: NDArray[np.intp] | None = None,
) -> go.Scattergl:
    order = np.arange(len(cells.cell_id)) if order is None else order
    places = order[(which & cells.inside)[order]]
    if shades is not None:
        marker = {**marker, "color": shades[places]}
    return go.Scattergl(
        x=cells.x[places],
        y=cells.y[places],
        mode="markers",
        name=name,
        customdata=cells.cell_id[places],
        text=[cells.words[place] for place in places],
        hovertemplate="%{text}<extra></extra>",
        marker={"size": _size(cells), "opacity": 0.85, **marker},
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": _DIMMED}},
        selectedpoints=np.flatnonzero(cells.selected[places]) if cells.selected.any() else None,
    )


def _size(cells: MapCells) -> int:
    return 5 if len(cells.cell_id) > _MANY else 8


def _drawn(figure: go.Figure, height: int, *, legend: bool = True) -> go.Figure:
    bare = {"visible": False, "showgrid": False}
    return laid_out(
        figure,
        None,
        height,
        xaxis=bare,
        yaxis=bare,
        dragmode="lasso",
        hovermode="closest",
        showlegend=legend,
        legend={"itemsizing": "constant"},
        margin={"l": 4, "r": 4, "t": 40, "b": 4},
    )
