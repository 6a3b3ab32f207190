"""How figures stand on a page: as shares, with intervals, and in charts."""

from typing import Any

import streamlit as st

CHART: dict[str, Any] = {
    "displaylogo": False,
    "modeBarButtonsToRemove": [
        "zoom",
        "pan",
        "select",
        "lasso",
        "zoomIn",
        "zoomOut",
        "autoScale",
        "resetScale",
    ],
    "toImageButtonOptions": {"format": "svg"},
}
"""A chart's only button saves it as SVG."""


def chart(figure: Any, key: str) -> None:
    """A chart as wide as its column."""
    st.plotly_chart(figure, key=key, config=CHART, width="stretch")


def share(value: Any) -> str:
    """A share as people read it; a dash when it is not defined."""
    return "–" if value is None else f"{100 * value:.1f} %"


def interval(scores: dict[str, Any], key: str) -> str | None:
    """The 95 % interval of a figure: '68.1 to 79.2 %'."""
    found = (scores.get("intervals") or {}).get(key)
    return None if found is None else f"{100 * found[0]:.1f} to {100 * found[1]:.1f} %"


def with_interval(scores: dict[str, Any], key: str) -> str:
    """A figure with its interval in brackets. The Brier score is no share and stands as it is."""
    found = (scores.get("intervals") or {}).get(key)
    if key == "brier" and scores.get(key) is not None:
        return f"{scores[key]:.3f}" + (f" ({found[0]:.3f}–{found[1]:.3f})" if found else "")
    return share(scores.get(key)) + (f" ({span(found)})" if found else "")


def span(ends: list[float]) -> str:
    """The ends of an interval in per cent: '68.1–79.2'."""
    return f"{100 * ends[0]:.1f}–{100 * ends[1]:.1f}"
