"""The map of cells as a figure: what can be caught, and what is shown of it."""

import numpy as np

from allreview.evaluation.figures.cell_map import (
    LEGEND_ENTRIES,
    OUTSIDE,
    MapCells,
    kinds_map_figure,
    many_colours,
    suspicion_map_figure,
)
from allreview.evaluation.figures.look import UNKNOWN_COLOUR


def cells(number: int, *, outside: tuple[int, ...] = (), selected: tuple[int, ...] = ()) -> MapCells:
    return MapCells(
        cell_id=np.arange(100, 100 + number),
        x=np.arange(number, dtype=np.float32),
        y=np.zeros(number, dtype=np.float32),
        words=[f"cell {place}" for place in range(number)],
        inside=np.array([place not in outside for place in range(number)]),
        selected=np.array([place in selected for place in range(number)]),
    )


def test_each_kind_has_its_colour_and_cells_outside_cannot_be_caught() -> None:
    figure = kinds_map_figure(
        cells(5, outside=(4,)), ["a", "b", None, "a", "b"], {"a": "#111", "b": "#222"}, "Hidden", height=300
    )
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces) == [OUTSIDE, "a", "b", "Hidden"]
    assert traces[OUTSIDE].customdata is None
    assert list(traces[OUTSIDE].x) == [4]
    assert [list(traces[name].customdata) for name in ("a", "b", "Hidden")] == [[100, 103], [101], [102]]
    assert traces["Hidden"].marker.color == UNKNOWN_COLOUR
    assert list(traces["a"].text) == ["cell 0", "cell 3"]


def test_what_is_selected_stands_out_in_every_trace() -> None:
    figure = kinds_map_figure(
        cells(3, selected=(2,)), ["a", "b", "a"], {"a": "#111", "b": "#222"}, "", height=300
    )
    assert [list(trace.selectedpoints) for trace in figure.data] == [[1], []]
    untouched = kinds_map_figure(cells(1), ["a"], {"a": "#111"}, "", height=300)
    assert untouched.data[0].selectedpoints is None


def test_very_many_kinds_are_one_trace_without_a_legend() -> None:
    names = [f"S{number}" for number in range(LEGEND_ENTRIES + 1)]
    colours = many_colours(names)
    assert len(set(colours.values())) == len(names)
    figure = kinds_map_figure(cells(len(names) + 1), [*names, None], colours, "", height=300)
    (trace,) = figure.data
    assert list(trace.marker.color) == [*colours.values(), UNKNOWN_COLOUR]
    assert figure.layout.showlegend is False


def test_the_most_suspicious_is_drawn_last_and_the_unknown_grey() -> None:
    suspicion = np.array([0.1, np.nan, 0.9, 0.05], dtype=np.float32)
    figure = suspicion_map_figure(cells(4), suspicion, "Not known", height=300)
    grey, shaded = figure.data
    assert (grey.name, list(grey.customdata)) == ("Not known", [101])
    assert list(shaded.customdata) == [102, 100, 103]
    assert np.allclose(shaded.marker.color, [0.9, 0.1, 0.05])
