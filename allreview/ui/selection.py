"""Which cells are selected on Browse: kept while pages and views change, dropped with another question."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import streamlit as st

_KEY = "_selection"


@dataclass(frozen=True)
class Selection:
    """The selected cells, in the order they were picked.

    `asked` is the question whose answer they were picked from. `offered` are the cells that were selected together,
    on the map for example: each can be dropped and picked again. `revision` changes whenever anything but a grid
    changed the selection, `map_revision` whenever anything but a grid or the map did.
    """

    asked: object = None
    cells: tuple[int, ...] = ()
    offered: tuple[int, ...] = ()
    revision: int = 0
    map_revision: int = 0

    def __len__(self) -> int:
        return len(self.cells)


def current() -> Selection:
    """What is selected now."""
    return st.session_state.get(_KEY, Selection())


def begin(asked: object) -> None:
    """The page is about the cells of this question: what was selected from another one is let go."""
    if current().asked != asked:
        clear()
        st.session_state[_KEY] = replace(current(), asked=asked)


def choose(cells: Iterable[int], *, on_map: bool = False) -> None:
    """Select these cells instead."""
    now, chosen = current(), tuple(dict.fromkeys(cells))
    st.session_state[_KEY] = replace(
        now,
        cells=chosen,
        offered=chosen,
        revision=now.revision + 1,
        map_revision=now.map_revision if on_map else now.map_revision + 1,
    )


def clear() -> None:
    """Select nothing."""
    choose(())


def picked(shown: Iterable[int], cells: Iterable[int], *, everywhere: bool = False) -> None:
    """A grid says what is selected of the cells it shows; `everywhere` lets go of what was picked elsewhere."""
    now, gone = current(), set(shown)
    elsewhere = () if everywhere else tuple(cell for cell in now.cells if cell not in gone)
    st.session_state[_KEY] = replace(now, cells=(*elsewhere, *cells))
