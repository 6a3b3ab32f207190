"""The map of a run's cells, on which similar cells lie together; what a lasso catches can be looked at beside it."""

import functools
import html
from collections.abc import Mapping
from typing import Any

import numpy as np
import streamlit as st

import db
from allreview.cells.browsing import Filters, ids_of_cells, rows_of_cells
from allreview.cells.naming import class_title, shown
from allreview.errors import UserError
from allreview.labels import NOT_CLASSES
from allreview.review.rankings import MapPoints, map_points
from allreview.ui import bulk, context, detail, selection
from allreview.ui.errors import guarded
from allreview.ui.select_grid import select_grid, tiles
from allreview.ui.words import inert
from db.tables import Dataset

COLOURINGS = {"label": "Label", "prediction": "Prediction", "subject": "Subject", "suspicion": "Suspicion"}
BLIND = "Test cell, read blind"
NO_SUBJECT = "No subject"
HEIGHT = 440
SIDE_CELLS = 24
HINT = "Draw around points to select their cells; a click selects one, Shift adds. Double-click on the map clears."
_SHOWN = "_map_side_cells"
_TILE = 108
_CHART = {"scrollZoom": True, "displaylogo": False, "modeBarButtonsToRemove": ["toImage", "autoScale2d"]}


def choose_colouring() -> str:
    """What the points are coloured by; kept in the URL."""
    with st.container(horizontal=True, vertical_alignment="center", width="content"):
        st.caption("Coloured by", width="content")
        return _colouring()


def _colouring() -> str:
    return st.segmented_control(
        "Coloured by",
        list(COLOURINGS),
        default="label",
        required=True,
        format_func=COLOURINGS.__getitem__,
        key="colour",
        bind="query-params",
        label_visibility="collapsed",
        help="What the points are coloured by. Suspicion: how little a model that never saw the subject believes "
        "the label.",
    )


def cell_map(dataset: Dataset, wanted: Filters, colouring: str) -> None:
    """The map with what is selected on it, or a sentence that says why there is none."""
    if wanted.run_id is None:
        st.info(
            "The map is drawn from a run's features: choose a run under Predictions.", icon=":material/map:"
        )
        return
    try:
        with db.reading(context.engine()) as session:
            points = map_points(session, context.settings(), wanted.run_id)
            inside = ids_of_cells(session, dataset.id, wanted)
    except UserError as error:
        st.info(inert(str(error)), icon=":material/map:")
        return
    hidden = _hidden(points, wanted)
    figure = _figure(points, inside, hidden, dataset.classes, colouring)
    st.fragment(_map, key="map-view")(dataset, wanted, figure, _ranks(points, inside, hidden))


def _map(dataset: Dataset, wanted: Filters, figure: Any, ranks: Mapping[int, int]) -> None:
    with guarded():
        bulk.reload_if_changed()
        left, right = st.columns([3, 2], gap="medium")
        with left:
            key = f"cell-map-{selection.current().map_revision}"
            st.plotly_chart(
                figure,
                key=key,
                on_select=functools.partial(_caught, key, ranks),
                selection_mode=("lasso", "box", "points"),
                config=_CHART,
                width="stretch",
                alt="Map of the cells: similar cells lie together",
            )
        with right, st.container(height=HEIGHT, border=False, key="map-side"):
            opened = _beside(dataset, wanted)
        bulk.bulk_bar(dataset, wanted, hint=HINT)
        if opened is not None:
            detail.open_cell(opened, run_id=wanted.run_id, test_predictions=wanted.test_predictions)


def _beside(dataset: Dataset, wanted: Filters) -> int | None:
    """The selected cells as pictures, the most suspicious first; the cell that was opened, else None."""
    now = selection.current()
    offered = list(dict.fromkeys((*now.offered, *now.cells)))
    if not offered:
        st.caption("The cells that you select on the map appear here, to be looked at before you decide.")
        return None
    limit = st.session_state.get(_SHOWN, SIDE_CELLS)
    with db.reading(context.engine()) as session:
        rows = rows_of_cells(
            session, offered[:limit], run_id=wanted.run_id, test_predictions=wanted.test_predictions
        )
    if len(offered) > len(rows):
        st.caption(
            f"The first {len(rows):,} of {len(offered):,}, the most suspicious first. A click drops a cell."
        )
    else:
        st.caption("A click drops a cell, or takes it back in.")
    opened = select_grid(
        tiles(rows, dataset.classes, with_run=True),
        key="map-grid",
        label="Cells selected on the map",
        toggles=True,
        tile=_TILE,
    )
    if len(offered) > len(rows):
        st.button("Show more", key="map-more", on_click=_show_more, args=(limit,), width="stretch")
    return opened


def _show_more(limit: int) -> None:
    st.session_state[_SHOWN] = limit + SIDE_CELLS


def _caught(key: str, ranks: Mapping[int, int]) -> None:
    """What was caught on the map becomes the selection; cells outside the filters are never caught."""
    points = st.session_state[key].selection.points
    caught = {point["customdata"] for point in points if "customdata" in point}
    st.session_state.pop(_SHOWN, None)
    selection.choose(sorted(caught & ranks.keys(), key=ranks.__getitem__), on_map=True)


def _hidden(points: MapPoints, wanted: Filters) -> np.ndarray:
    """Which cells are read blind: neither what is predicted of them nor what is suspected may be seen."""
    if wanted.test_predictions:
        return np.zeros(len(points), dtype=bool)
    return np.array([part == "test" for part in points.part], dtype=bool)


def _ranks(points: MapPoints, inside: set[int], hidden: np.ndarray) -> dict[int, int]:
    """The cells that can be selected, each with its place: the most suspicious first, what is hidden last."""
    suspicion = np.where(hidden | np.isnan(points.suspicion), np.inf, points.suspicion)
    ordered = points.cell_id[np.lexsort((points.cell_id, suspicion))].tolist()
    return {cell: place for place, cell in enumerate(ordered) if cell in inside}


def _figure(
    points: MapPoints, inside: set[int], hidden: np.ndarray, classes: list[str], colouring: str
) -> Any:
    from allreview.evaluation.figures.cell_map import (
        MapCells,
        kinds_map_figure,
        many_colours,
        suspicion_map_figure,
    )
    from allreview.evaluation.figures.look import CLASS_COLOURS, class_colours

    ids = points.cell_id.tolist()
    chosen = set(selection.current().cells)
    cells = MapCells(
        cell_id=points.cell_id,
        x=points.x,
        y=points.y,
        words=[_words(points, place, hidden[place]) for place in range(len(points))],
        inside=np.array([cell in inside for cell in ids], dtype=bool),
        selected=np.array([cell in chosen for cell in ids], dtype=bool),
    )
    if colouring == "suspicion":
        suspicion = np.where(hidden, np.nan, points.suspicion)
        unknown = f"{BLIND}, or not known" if hidden.any() else "Not known"
        return suspicion_map_figure(cells, suspicion, unknown, height=HEIGHT)
    if colouring == "subject":
        names = sorted({name for name in points.subject if name})
        palette = dict(zip(names, CLASS_COLOURS, strict=False))
        colours = palette if len(names) <= len(CLASS_COLOURS) else many_colours(names)
        return kinds_map_figure(cells, points.subject, colours, NO_SUBJECT, height=HEIGHT)
    titles = {class_title(name): colour for name, colour in class_colours(classes).items()}
    if colouring == "prediction":
        said = [
            None if blind else class_title(name) for name, blind in zip(points.predicted, hidden, strict=True)
        ]
        return kinds_map_figure(cells, said, titles, BLIND, height=HEIGHT)
    titles |= {class_title(name): colour for name, colour in zip(NOT_CLASSES, _SET_ASIDE, strict=True)}
    labels = [class_title(label) for label in points.current_label]
    return kinds_map_figure(cells, labels, titles, "Other", height=HEIGHT)


_SET_ASIDE = ("#4D5761", "#8A949E")


def _words(points: MapPoints, place: int, blind: bool) -> str:
    subject = points.subject[place]
    lines = [
        f"<b>Cell {points.cell_id[place]}</b>",
        html.escape(class_title(points.current_label[place])),
        f"Subject {html.escape(shown(subject))}" if subject else NO_SUBJECT,
        BLIND if blind else f"Model: {html.escape(class_title(points.predicted[place]))}",
    ]
    return "<br>".join(lines)
