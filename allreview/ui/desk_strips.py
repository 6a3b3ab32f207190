"""Other cells to compare with: the subject's, and those that look most alike."""

from collections.abc import Sequence
from html import escape

import streamlit as st

import db
from allreview.cells.naming import class_title, shown
from allreview.cells.thumbnails import thumbnail
from allreview.review.reading import desk_cells
from allreview.review.reading.blinding import hidden_of
from allreview.review.reading.desk_cells import DeskCell
from allreview.review.reading.sittings import SittingInfo
from allreview.review.similar import SimilarCell, similar_cells
from allreview.ui import context
from allreview.ui.viewer import data_uri

_OTHERS = 10
_ALIKE = 8
_STYLE = """<style>
.desk-strips { display: flex; flex-wrap: wrap; gap: 0.4rem 1.6rem; }
.desk-strip > p { margin: 0 0 0.2rem; font-size: 0.85rem; opacity: 0.75; }
.desk-strip > div { display: flex; gap: 4px; }
.desk-strip figure { margin: 0; width: 64px; }
.desk-strip img { width: 64px; height: 64px; display: block; border-radius: 4px; background: #000; }
.desk-strip figcaption {
  font-size: 0.72rem; line-height: 1.5; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
}
</style>"""


def strips(sitting: SittingInfo, cell: DeskCell) -> None:
    """Both strips, each only where there is something to show."""
    with db.reading(context.engine()) as session:
        others = desk_cells.subject_strip(session, cell, _OTHERS)
        alike = (
            similar_cells(session, context.settings(), sitting.run_id, cell.cell_id, _ALIKE)
            if sitting.run_id is not None
            else []
        )
    drawn = ""
    if others:
        pictures = [_figure(sha, path) for sha, path in others]
        drawn += _strip(f"Other cells of subject {shown(cell.subject or '')}", pictures)
    if alike:
        pictures = [_figure(one.sha256, one.path, _label(sitting, cell, one)) for one in alike]
        drawn += _strip("Cells that look most alike", pictures)
    if drawn:
        st.html(f'{_STYLE}<div class="desk-strips">{drawn}</div>')


def _label(sitting: SittingInfo, cell: DeskCell, other: SimilarCell) -> str | None:
    """The label of a cell that looks alike, as far as this sitting may know it.

    Where the source label of the cell on the desk is hidden there are no labels at all: those of its neighbours
    would give it away.
    """
    hidden = hidden_of(sitting.hidden, other.part, adjudicates=sitting.adjudicates)
    if not cell.shows("source_label") or "source_label" in hidden:
        return None
    return other.source_label if "others" in cell.hidden | hidden else other.current_label


def _strip(title: str, pictures: Sequence[str]) -> str:
    return f'<div class="desk-strip"><p>{escape(title)}</p><div>{"".join(pictures)}</div></div>'


def _figure(sha256: str, path: str, label: str | None = None) -> str:
    picture = data_uri(thumbnail(context.settings(), sha256, path), "webp")
    caption = f"<figcaption>{escape(class_title(label))}</figcaption>" if label else ""
    return f'<figure><img src="{picture}" alt="">{caption}</figure>'
