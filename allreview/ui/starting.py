"""From a request to its runs: what they would use, and starting them."""

import pandas as pd
import streamlit as st

import db
from allreview.cells.naming import class_title
from allreview.errors import UserError
from allreview.evaluation.naming import SHARED_PATIENTS
from allreview.labels import NOT_CLASSES
from allreview.models.pretrained import availability
from allreview.recipe import Recipe
from allreview.training import jobs, series, snapshots
from allreview.ui import context
from allreview.ui.recipe_form import Request
from allreview.ui.words import PART_TITLES, inert
from allreview.wording import plural

_REFUSED = "start-refused"


def what_it_uses(dataset_id: int, request: Request) -> bool:
    """How many cells of each class train, validate and test, before anything starts; False if it cannot."""
    try:
        recipes = _recipes(dataset_id, request)
        with db.reading(context.engine()) as session:
            counts = snapshots.preview(session, dataset_id, recipes[0])
    except UserError as error:
        st.warning(inert(str(error)))
        return False
    labels = sorted({label for _, label in counts if label not in NOT_CLASSES})
    table = pd.DataFrame(
        {class_title(label): [counts[part, label] for part in PART_TITLES] for label in labels},
        index=pd.Index(PART_TITLES.values(), name="Part" if len(recipes) == 1 else "Part (first run)"),
    )
    st.dataframe(table, width="stretch")
    st.caption(_note(recipes, sum(n for (_, label), n in counts.items() if label in NOT_CLASSES)))
    return True


def _note(recipes: list[Recipe], left_out: int) -> str:
    sharing = sum(recipe.shares_patients for recipe in recipes)
    note = f"Makes {plural(len(recipes), 'run')}. " if len(recipes) > 1 else ""
    if sharing < len(recipes):
        note += (
            "Subjects are never split between parts, and subjects that share identical cells stay together."
        )
    if sharing:
        which = "In this split" if len(recipes) == 1 else f"In {plural(sharing, 'run')} of them"
        note += f" {which}, images are split at random: {SHARED_PATIENTS}."
    if left_out:
        note += f" Left out: {plural(left_out, 'cell')} marked unsure or unusable."
    return note.strip()


def start(dataset_id: int, request: Request) -> None:
    """Start the runs, or, where pretrained weights are not to be had, ask what to do instead."""
    if request.recipe.weights == "imagenet":
        with st.spinner("Looking for the pretrained weights…"):
            found = [availability(name, context.settings(), probe=True) for name in request.recipe.backbones]
        missing = [one for one in found if one.kind not in ("file", "download")]
        if missing:
            _from_scratch_or_cancel(dataset_id, request, missing[0].sentence)
            return
    _submit(dataset_id, request)
    st.rerun()


@st.dialog("Pretrained weights are missing")
def _from_scratch_or_cancel(dataset_id: int, request: Request, sentence: str) -> None:
    st.write(sentence)
    st.write("Training from scratch needs many more cells and epochs, and trains everything end to end.")
    scratch, cancel = st.columns(2)
    recipe = request.recipe.model_copy(update={"weights": "none", "mode": "finetune"})
    started = scratch.button(
        "Train from scratch",
        key="from_scratch",
        width="stretch",
        on_click=_submit,
        args=(dataset_id, Request(recipe, request.protocol, request.cross_validate)),
    )
    if started or cancel.button("Cancel", type="primary", key="cancel_scratch", width="stretch"):
        st.rerun()


def _recipes(dataset_id: int, request: Request) -> list[Recipe]:
    with db.reading(context.engine()) as session:
        names = snapshots.fold_names(session, dataset_id)
    return series.plan(
        request.recipe, protocol=request.protocol, cross_validate=request.cross_validate, fold_names=names
    )


def _submit(dataset_id: int, request: Request) -> None:
    try:
        recipes = _recipes(dataset_id, request)
        run_ids = jobs.submit_all(context.engine(), context.settings(), dataset_id, recipes)
    except UserError as error:
        st.session_state[_REFUSED] = str(error)
    else:
        context.choose_run(run_ids[0])


def refusal() -> None:
    """Why the last try to start was refused, once."""
    sentence = st.session_state.pop(_REFUSED, None)
    if sentence:
        st.error(inert(sentence))
