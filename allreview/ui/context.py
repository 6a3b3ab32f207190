"""What every page knows: the store, the dataset and the reviewer that were chosen in the sidebar.

The choices live in the URL (`?dataset=…&reviewer=…`), so a reload, a bookmark and a second tab keep them.
"""

import sqlalchemy as sa
import streamlit as st

import db
from allreview.settings import Settings, current_settings
from allreview.store import open_store
from db.tables import Dataset, Reviewer

DATASET_KEY = "dataset"
REVIEWER_KEY = "reviewer"
RUN_KEY = "run"
_NEXT = "_next_"
_LAST = "_last_"


def settings() -> Settings:
    """The settings of this process."""
    return current_settings()


def engine() -> sa.Engine:
    """The migrated store.

    Raises:
        UserError: it cannot be opened.
    """
    return open_store(current_settings())


def datasets() -> list[Dataset]:
    """Every dataset, in the order they were first imported."""
    with db.reading(engine()) as session:
        return list(session.scalars(sa.select(Dataset).order_by(Dataset.id)))


def active_reviewers() -> list[Reviewer]:
    """Who may decide, by name."""
    with db.reading(engine()) as session:
        found = session.scalars(sa.select(Reviewer).where(Reviewer.active)).all()
    return sorted(found, key=lambda reviewer: reviewer.name.casefold())


def current_dataset() -> Dataset | None:
    """The dataset chosen in the sidebar, else the first; None while the store is empty."""
    with db.reading(engine()) as session:
        chosen = st.session_state.get(DATASET_KEY)
        found = session.get(Dataset, chosen) if chosen is not None else None
        return found or session.scalar(sa.select(Dataset).order_by(Dataset.id).limit(1))


def current_reviewer() -> Reviewer | None:
    """Who sits at the screen; None until they said so."""
    chosen = st.session_state.get(REVIEWER_KEY)
    if chosen is None:
        return None
    with db.reading(engine()) as session:
        found = session.get(Reviewer, chosen)
    return found if found and found.active else None


def choose_dataset(dataset_id: int) -> None:
    """Choose the dataset for this tab, from the next rerun on."""
    st.session_state[_NEXT + DATASET_KEY] = dataset_id


def choose_reviewer(reviewer_id: int) -> None:
    """Choose the reviewer for this tab, from the next rerun on."""
    st.session_state[_NEXT + REVIEWER_KEY] = reviewer_id


def choose_run(run_id: int) -> None:
    """Choose the run that pages about runs show, from the next rerun on."""
    st.session_state[_NEXT + RUN_KEY] = run_id


def begin_choice(key: str, names: dict[int, str]) -> None:
    """Before the widget `key` is drawn, give it what `choose_…` asked for, else what the URL names.

    The URL is kept by hand and not with `bind`, which forbids `st.switch_page`.
    """
    if _NEXT + key in st.session_state:
        st.session_state[key] = st.session_state.pop(_NEXT + key)
    elif key not in st.session_state:
        asked = st.query_params.get(key, st.session_state.get(_LAST + key))
        found = [number for number, name in names.items() if name == asked]
        if found:
            st.session_state[key] = found[0]
    if st.session_state.get(key) not in names:
        st.session_state.pop(key, None)


def end_choice(key: str, name: str | None) -> None:
    """After the widget was drawn, write what is chosen into the URL, so that a reload keeps it."""
    st.session_state[_LAST + key] = name
    if name is None:
        st.query_params.pop(key, None)
    elif st.query_params.get(key) != name:
        st.query_params[key] = name
