"""Choosing a recipe: what people change in sight, the rest one click away."""

import pandas as pd
import streamlit as st

import db
from allreview.cells.naming import class_title
from allreview.errors import UserError
from allreview.labels import NOT_CLASSES
from allreview.models.pretrained import availability
from allreview.recipe import Recipe, make_recipe
from allreview.training import jobs, snapshots
from allreview.ui import context
from allreview.ui.words import BACKBONE_TITLES, PART_TITLES, inert
from allreview.wording import plural

_REFUSED = "start-refused"
MODES = {"features": "Head only", "finetune": "Everything"}
OPTIMIZERS = {"adamax": "Adamax", "adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
BEST_BY = {
    "val_cross_entropy": "lowest validation cross-entropy",
    "val_loss": "lowest validation loss",
    "val_accuracy": "highest validation accuracy",
}
IMBALANCE = {
    "class_weights": "weigh them up",
    "augment": "show them more often, augmented",
    "none": "nothing",
}


def recipe_form() -> Recipe | None:
    """The recipe as chosen; None (with the reason shown) while the choices contradict each other."""
    defaults = Recipe()
    values: dict[str, object] = {}
    values["backbone"] = st.selectbox(
        "Backbone",
        list(BACKBONE_TITLES),
        format_func=BACKBONE_TITLES.__getitem__,
        key="backbone",
        persist_state="session",
        help="The network that turns a cell into features. All but AlexNet start from ImageNet weights.",
    )
    if values["backbone"] == "alexnet":
        values |= {"weights": "none", "mode": "finetune"}
        st.caption("AlexNet has no pretrained weights: it is trained from scratch, end to end.")
    else:
        values["mode"] = st.segmented_control(
            "What is trained",
            list(MODES),
            format_func=MODES.__getitem__,
            default="features",
            required=True,
            key="mode",
            persist_state="session",
            width="stretch",
            help="Head only: the backbone stays as it is and its features are computed once, so a retrain "
            "takes seconds. Everything: the backbone learns too, image by image.",
        )
    values["epochs"] = st.slider(
        "Epochs", 1, 60, defaults.epochs, key="epochs", persist_state="session", help="Passes over the cells."
    )
    with st.expander("More settings"):
        values |= _more(defaults)
    try:
        return make_recipe(values)
    except UserError as error:
        st.error(str(error))
        return None


def _more(defaults: Recipe) -> dict[str, object]:
    left, right = st.columns(2)
    whole_image = right.checkbox(
        "Use the whole image",
        defaults.crop is None,
        key="whole_image",
        persist_state="session",
        help="Off: keep only a centre square, so that cells fill more of the network's input.",
    )
    return {
        "learning_rate": left.number_input(
            "Learning rate", 1e-6, 1.0, defaults.learning_rate, format="%g", key="learning_rate"
        ),
        "optimizer": right.selectbox(
            "Optimiser", list(OPTIMIZERS), format_func=OPTIMIZERS.__getitem__, key="optimizer"
        ),
        "batch_size": left.number_input("Batch size", 1, 1024, defaults.batch_size, key="batch_size"),
        "dropout": right.slider("Dropout", 0.0, 0.9, defaults.dropout, key="dropout"),
        "image_size": left.number_input(
            "Input side (pixels)", 32, 1024, defaults.image_size, key="image_size"
        ),
        "crop": None
        if whole_image
        else right.number_input("Centre square (pixels)", 32, 4096, 300, key="crop"),
        "flip": left.checkbox("Mirror cells at random", defaults.flip, key="flip"),
        "imbalance": left.selectbox(
            "Rare classes", list(IMBALANCE), format_func=IMBALANCE.__getitem__, key="imbalance"
        ),
        "best_by": right.selectbox(
            "Keep the epoch with", list(BEST_BY), format_func=BEST_BY.__getitem__, key="best_by"
        ),
        "validation_fraction": left.slider(
            "Validation share", 0.05, 0.4, defaults.validation_fraction, 0.05, key="validation_fraction"
        ),
        "test_fraction": right.slider(
            "Test share", 0.05, 0.4, defaults.test_fraction, 0.05, key="test_fraction"
        ),
        "seed": left.number_input("Seed", 0, 2**31 - 1, defaults.seed, key="seed"),
    }


def what_it_uses(dataset_id: int, recipe: Recipe) -> None:
    """How many cells of each class train, validate and test, before anything starts."""
    try:
        with db.reading(context.engine()) as session:
            counts = snapshots.preview(session, dataset_id, recipe)
    except UserError as error:
        st.warning(str(error))
        return
    labels = sorted({label for _, label in counts if label not in NOT_CLASSES})
    table = pd.DataFrame(
        {class_title(label): [counts[part, label] for part in PART_TITLES] for label in labels},
        index=pd.Index(PART_TITLES.values(), name="Part"),
    )
    st.dataframe(table, width="stretch")
    left_out = sum(n for (_, label), n in counts.items() if label in NOT_CLASSES)
    note = "Subjects are never split between parts, and subjects that share identical cells stay together."
    if left_out:
        note += f" Left out: {plural(left_out, 'cell')} marked unsure or unusable."
    st.caption(note)


def start(dataset_id: int, recipe: Recipe) -> None:
    """Start a run, or, where its pretrained weights are not to be had, ask what to do instead."""
    if recipe.weights == "imagenet":
        with st.spinner("Looking for the pretrained weights…"):
            found = availability(recipe.backbone, context.settings(), probe=True)
        if found.kind not in ("file", "download"):
            _from_scratch_or_cancel(dataset_id, recipe, found.sentence)
            return
    _submit(dataset_id, recipe)
    st.rerun()


@st.dialog("Pretrained weights are missing")
def _from_scratch_or_cancel(dataset_id: int, recipe: Recipe, sentence: str) -> None:
    st.write(sentence)
    st.write("Training from scratch needs many more cells and epochs, and trains everything end to end.")
    scratch, cancel = st.columns(2)
    from_scratch = recipe.model_copy(update={"weights": "none", "mode": "finetune"})
    started = scratch.button(
        "Train from scratch",
        key="from_scratch",
        width="stretch",
        on_click=_submit,
        args=(dataset_id, from_scratch),
    )
    if started or cancel.button("Cancel", type="primary", key="cancel_scratch", width="stretch"):
        st.rerun()


def _submit(dataset_id: int, recipe: Recipe) -> None:
    try:
        run_id = jobs.submit(context.engine(), context.settings(), dataset_id=dataset_id, recipe=recipe)
    except UserError as error:
        st.session_state[_REFUSED] = str(error)
    else:
        context.choose_run(run_id)


def refusal() -> None:
    """Why the last try to start was refused, once."""
    sentence = st.session_state.pop(_REFUSED, None)
    if sentence:
        st.error(inert(sentence))
