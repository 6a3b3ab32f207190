"""A cell's log, replayed: what its label was before and after each event."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from allreview.review.log.reverting import TAKES_BACK


class LoggedEvent(Protocol):
    """What replaying needs of an annotation."""

    @property
    def id(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def label(self) -> str | None: ...
    @property
    def undoes_id(self) -> int | None: ...
    @property
    def redoes_id(self) -> int | None: ...


@dataclass(frozen=True)
class LabelChange:
    """The cell's label before an event and after it."""

    before: str
    after: str


def replay(source_label: str, events: Sequence[LoggedEvent]) -> dict[int, LabelChange]:
    """What each of one cell's events, in their order, made of the cell's label; by event.

    Follows `allreview.labels`: the last adjudication in force speaks for the cell, else the last answer in force.
    """
    given: dict[int, LoggedEvent] = {}
    outranking: set[int] = set()
    found: dict[int, LabelChange] = {}
    label = source_label
    for event in events:
        before = label
        if event.kind in TAKES_BACK:
            given.pop(event.undoes_id or 0, None)
        else:
            given[event.id] = event
            if event.kind == "adjudication" or event.redoes_id in outranking:
                outranking.add(event.id)
        speaking = [each for each in given if each in outranking] or list(given)
        label = (given[speaking[-1]].label if speaking else None) or source_label
        found[event.id] = LabelChange(before, label)
    return found
