"""Cells as cards: picture, class, prediction, subject."""

from collections.abc import Sequence

import streamlit as st

from allreview.cells.browsing import CellRow
from allreview.cells.naming import class_title
from allreview.cells.thumbnails import thumbnail
from allreview.settings import Settings
from allreview.ui import context
from allreview.ui.words import class_badge, inert
from allreview.wording import percent

CARD_WIDTH = 160
STRIP_WIDTH = 84


def gallery(rows: Sequence[CellRow], classes: Sequence[str], *, with_run: bool) -> int | None:
    """A grid of cards; the id of the cell whose card was opened in this rerun, else None."""
    opened, settings = None, context.settings()
    with st.container(key="gallery"):
        grid = st.grid(min_column_width=CARD_WIDTH, gap="xsmall", border=True)
        for row in rows:
            with grid.cell().container(gap="xxsmall"):
                st.image(picture(row, settings), alt=alt_text(row), width="stretch")
                st.markdown(card_text(row, classes, with_run=with_run))
                if st.button("Open", key=f"open-{row.cell_id}", width="stretch", type="tertiary"):
                    opened = row.cell_id
    return opened


def picture(row: CellRow, settings: Settings | None = None) -> bytes:
    """The cell's thumbnail. Who draws many hands over the settings: reading them takes longer than the thumbnail."""
    return thumbnail(settings or context.settings(), row.sha256, row.path)


def alt_text(row: CellRow) -> str:
    """What the picture shows, for those who cannot see it."""
    return f"Cell {row.cell_id}, {class_title(row.current_label)}"


def card_text(row: CellRow, classes: Sequence[str], *, with_run: bool) -> str:
    """Markdown: current class (and what it was), prediction, subject. One line each, so cards align."""
    label = class_badge(row.current_label, classes)
    if row.relabelled:
        label += f" :small[was {inert(class_title(row.source_label))}]"
    subject = f"Subject {inert(row.subject)}" if row.subject else "No subject"
    lines = [label, *([prediction_text(row)] if with_run else []), f":gray[:small[{subject}]]"]
    return "  \n".join(lines)


def prediction_text(row: CellRow) -> str:
    """Markdown: what the run says; a tick or a cross, besides the colour, tells right from wrong."""
    if row.predicted is None or row.probability is None:
        return (
            ":gray[:small[Test cell, read blind]]" if row.part == "test" else ":gray[:small[No prediction]]"
        )
    said = f"{inert(class_title(row.predicted))} {percent(row.probability)}"
    if row.wrong:
        return f":red[:material/close: :small[{said}]]"
    sign = "check" if row.predicted == row.current_label else "smart_toy"
    return f":gray[:material/{sign}: :small[{said}]]"
