"""The frame around every page: sidebar, synthetic banner, a little styling."""

import streamlit as st

from allreview.review.log.annotations import reviewer_named
from allreview.ui import context
from allreview.ui.errors import guarded
from db.tables import Dataset

STYLE = """<style>
/* A rerun that greys the page out for a moment reads as a fault. */
[data-stale="true"] { opacity: 1 !important; transition: none !important; }
[data-testid="stMainBlockContainer"] { padding-left: 3rem; padding-right: 3rem; padding-bottom: 4rem; }
[data-testid="stImage"] img { border-radius: 4px; }
.st-key-synthetic [data-testid="stAlertContainer"] { padding: 0.35rem 0.8rem; min-height: 0; }
.st-key-gallery [data-testid="stGridCell"] { padding: 0.5rem; }
.st-key-gallery img { aspect-ratio: 1; object-fit: contain; background: #000; }
.st-key-gallery button { min-height: 1.9rem; padding: 0.1rem; color: #2b6a8f; }
/* The bar under a selection keeps to the foot of the window: nothing moves under the hand that selects. */
div:has(> .st-key-bulk-bar) { position: sticky; bottom: 0; z-index: 50; }
.st-key-bulk-bar { padding: 0.5rem 0.75rem; background: #fff; border: 1px solid #e6e9ed; border-radius: 8px;
  box-shadow: 0 -2px 8px rgba(47, 58, 69, 0.08); }
</style>"""


def sidebar() -> None:
    """Dataset and reviewer, chosen once for all pages and kept in the URL."""
    st.html(STYLE)
    with st.sidebar:
        _dataset_choice(context.datasets())
        _reviewer_choice()


def synthetic_banner() -> None:
    """Says on every page that the chosen cells are no patients', when they are not."""
    dataset = context.current_dataset()
    if dataset is not None and dataset.synthetic:
        with st.container(key="synthetic"):
            st.warning("Synthetic demo cells: not patients", icon=":material/science:")


def _dataset_choice(datasets: list[Dataset]) -> None:
    if not datasets:
        return
    names = {dataset.id: dataset.name for dataset in datasets}
    context.begin_choice(context.DATASET_KEY, names)
    chosen = st.selectbox(
        "Cells",
        list(names),
        format_func=lambda dataset_id: names.get(dataset_id, ""),
        key=context.DATASET_KEY,
        filter_mode="contains",
        help="The set of cells that all pages work on.",
    )
    context.end_choice(context.DATASET_KEY, names.get(chosen))
    if any(dataset.id == chosen and dataset.synthetic for dataset in datasets):
        st.badge("Synthetic", icon=":material/science:", color="orange")


def _reviewer_choice() -> None:
    names = {reviewer.id: reviewer.name for reviewer in context.active_reviewers()}
    context.begin_choice(context.REVIEWER_KEY, names)
    chosen = st.selectbox(
        "You are",
        list(names),
        index=None,
        format_func=lambda reviewer_id: names.get(reviewer_id, ""),
        key=context.REVIEWER_KEY,
        filter_mode="contains",
        placeholder="Choose your name" if names else "Add your name below",
        help="Every decision you save carries this name.",
    )
    context.end_choice(context.REVIEWER_KEY, names.get(chosen) if chosen is not None else None)
    # A new key with every new name, so that the popover closes when one was added.
    with st.popover("Add a name", icon=":material/person_add:", width="stretch", key=f"add-{len(names)}"):
        _new_reviewer()


def _new_reviewer() -> None:
    with st.form("new-reviewer", clear_on_submit=True, border=False):
        name = st.text_input("Your name", max_chars=200, placeholder="First and last name")
        added = st.form_submit_button("Add", type="primary")
    if added:
        with guarded():
            context.choose_reviewer(reviewer_named(context.engine(), name))
            st.rerun()
