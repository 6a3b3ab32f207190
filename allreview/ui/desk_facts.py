"""What is said beside the cell: the model's opinion, labels, the subject, other answers. Never what is hidden."""

from collections.abc import Sequence

import streamlit as st

from allreview.review.log.events import Event
from allreview.review.reading.blinding import HIDEABLE
from allreview.review.reading.desk_cells import DeskCell
from allreview.ui.words import PART_TITLES, class_badge, inert
from allreview.wording import listed, percent


def facts(cell: DeskCell, classes: Sequence[str], others: Sequence[Event]) -> None:
    """As one block of text, so that it changes at once."""
    lines = [
        *_blind(cell),
        *_labels(cell, classes),
        *(_answer(event, classes) for event in others),
        *_where(cell),
    ]
    if cell.reason:
        lines.append(f":small[{inert(cell.reason)}]")
    st.markdown("  \n".join(lines))


def _blind(cell: DeskCell) -> list[str]:
    if not cell.hidden:
        return []
    hidden = listed([words for name, words in HIDEABLE.items() if name in cell.hidden])
    title = "Test cell, read blind" if cell.part == "test" else "Read blind"
    return [f"**{title}**", f":small[Hidden: {hidden}.]"]


def _labels(cell: DeskCell, classes: Sequence[str]) -> list[str]:
    lines = []
    if cell.predicted is not None and cell.probability is not None:
        lines.append(f"Model: {class_badge(cell.predicted, classes)} **{percent(cell.probability)}**")
    if cell.source_label is not None:
        lines.append(f"Label: {class_badge(cell.source_label, classes)} (source)")
    return lines


def _answer(event: Event, classes: Sequence[str]) -> str:
    said = class_badge(event.label, classes) if event.label else ""
    why = "; ".join(inert(words) for words in (event.reason, event.comment) if words)
    return f"{inert(event.reviewer)}: {said}" + (f" :small[{why}]" if why else "")


def _where(cell: DeskCell) -> list[str]:
    words = [f"Subject {inert(cell.subject)}"] if cell.subject else []
    if cell.part:
        words.append(f"{PART_TITLES[cell.part]} cell")
    return [f":small[{' · '.join(words)}]"] if words else []
