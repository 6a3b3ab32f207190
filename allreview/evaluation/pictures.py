"""Figures as files: PNG and SVG where a browser is found to draw them, else HTML pages that any browser opens."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas  # noqa: F401 - plotly reads a half-imported pandas when two sessions start at once
import plotly.graph_objects as go
import plotly.io

from allreview.errors import UserError

WIDTH = 800
"""Of a picture, in CSS pixels; PNGs have twice as many, so that they stay sharp in print."""
_PNG_SCALE = 2


@dataclass(frozen=True)
class Pictures:
    """The files that were written, and why they are HTML where they are."""

    files: list[Path]
    note: str | None


def save_pictures(figures: Mapping[str, go.Figure], folder: Path) -> Pictures:
    """Write each figure as `name.png` and `name.svg` into the folder, or as `name.html` where that fails.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = {name: _on_white(figure) for name, figure in figures.items()}
        reason = _write_images(drawn, folder)
        if reason is None:
            names = [f"{name}.{kind}" for name in drawn for kind in ("png", "svg")]
            return Pictures([folder / name for name in names], None)
        for name, figure in drawn.items():
            # One copy of Plotly's library beside the pages, so that they open without a network.
            figure.write_html(folder / f"{name}.html", include_plotlyjs="directory", default_width=WIDTH)
    except OSError as error:
        raise UserError(
            f"The figures cannot be written to {folder}: {error.strerror or error}. Name a folder of yours."
        ) from None
    return Pictures(
        [folder / f"{name}.html" for name in drawn], f"The figures are HTML pages, because {reason}."
    )


def _on_white(figure: go.Figure) -> go.Figure:
    return go.Figure(figure).update_layout(paper_bgcolor="white", width=WIDTH)


def _write_images(figures: Mapping[str, go.Figure], folder: Path) -> str | None:
    """Draw all in one browser; the reason where that did not work, in words that follow 'because'."""
    if not _browser():
        return "PNG and SVG need Chrome or Chromium and none was found (BROWSER_PATH can name one)"
    for kind, scale in (("png", _PNG_SCALE), ("svg", 1)):
        files: list[str | Path] = [folder / f"{name}.{kind}" for name in figures]
        try:
            plotly.io.write_images(
                list(figures.values()),
                files,
                scale=scale,
                width=WIDTH,
                height=[int(figure.to_dict()["layout"]["height"]) for figure in figures.values()],
            )
        except OSError:
            raise
        except Exception as error:  # whatever a browser can do wrong
            first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            return f"the browser could not draw PNG and SVG ({first[:200]})"
    return None


def _browser() -> str | None:
    """The browser Kaleido will use: its own, the one BROWSER_PATH names, or one that is installed."""
    from choreographer.browsers.chromium import Chromium

    found = Chromium.find_browser(skip_local=False)
    return found if found and os.access(found, os.X_OK) else None
