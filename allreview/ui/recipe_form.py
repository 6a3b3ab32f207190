"""Choosing what to train: what people change in sight, the rest one click away."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import streamlit as st

from allreview.errors import UserError
from allreview.evaluation.naming import MODEL_TITLES, SHARED_PATIENTS
from allreview.recipe import Recipe, make_recipe
from allreview.recipes import DEFAULT, NAMED, as_yaml, named_settings, settings_in
from allreview.training.series import Protocol
from allreview.ui import recipe_fields
from allreview.ui.recipe_fields import KEY, RecipeField
from allreview.ui.words import inert

MODES = {"features": "Head only", "finetune": "Everything"}
COMBINE = {"concatenate": "One head on both", "average": "Mean of two models"}
NOBODY = "none"
Testing = Literal["new_patients", "cross_validation", "dataset_folds", "image", "both"]
TESTING: dict[Testing, str] = {
    "new_patients": "New patients",
    "cross_validation": "New patients, in folds",
    "dataset_folds": "Dataset's own folds",
    "image": "Random images (paper)",
    "both": "Both, to see the leak",
}
_PREVIEW = "preview_augmentation"
_REFUSED = "recipe-file-refused"


@dataclass(frozen=True)
class Request:
    """What somebody wants trained: one recipe, and the ways to split that make several runs of it."""

    recipe: Recipe
    protocol: Protocol | None
    cross_validate: bool


def request_form() -> Request | None:
    """What was chosen; None (with the reason shown) while the choices contradict each other."""
    _start_from()
    values = _network()
    left, right = st.columns(2)
    with left:
        testing, split = _testing()
    with right:
        values["epochs"] = recipe_fields.EPOCHS.draw()
    values |= split | _more(values)
    try:
        recipe = make_recipe(values)
    except UserError as error:
        st.error(inert(str(error)))
        return None
    _as_file(recipe)
    return Request(
        recipe,
        protocol="both" if testing == "both" else None,
        cross_validate=testing in ("cross_validation", "dataset_folds"),
    )


def preview_wanted() -> bool:
    """Whether somebody asked to see the augmentation."""
    return bool(st.session_state.get(_PREVIEW))


def _start_from() -> None:
    if "named_recipe" not in st.session_state:
        recipe_fields.fill(named_settings(DEFAULT))
    named, file = st.columns([5, 1], vertical_alignment="bottom")
    chosen = named.selectbox(
        "Recipe",
        list(NAMED),
        format_func=lambda name: NAMED[name].title,
        key="named_recipe",
        persist_state="session",
        on_change=_use_named,
        help="Where the settings below start from; each can be changed.",
    )
    with file.popover("", icon=":material/upload_file:", help="A recipe from a file", width="stretch"):
        st.file_uploader(
            "Recipe file",
            ["yaml", "yml", "json"],
            key="recipe_file",
            on_change=_use_file,
            help="YAML or JSON.",
        )
    st.caption(NAMED[chosen].description)
    sentence = st.session_state.pop(_REFUSED, None)
    if sentence:
        st.error(inert(sentence))


def _use_named() -> None:
    _fill(named_settings(st.session_state["named_recipe"]) | {"backbone": st.session_state[KEY + "backbone"]})


def _use_file() -> None:
    uploaded = st.session_state["recipe_file"]
    if uploaded is None:
        return
    try:
        recipe = make_recipe(settings_in(uploaded.getvalue().decode("utf-8-sig")))
    except UnicodeDecodeError:
        st.session_state[_REFUSED] = f"{uploaded.name} is not text: choose a YAML or JSON file."
    except UserError as error:
        st.session_state[_REFUSED] = f"{uploaded.name} was not used. {error}"
    else:
        if recipe.backbone_run is not None:
            st.session_state[_REFUSED] = (
                f"{uploaded.name} was not used. It takes the backbone that run {recipe.backbone_run} trained: choose "
                "that run, and retrain its head."
            )
            return
        _fill(recipe.model_dump())


def _fill(settings: dict[str, Any]) -> None:
    recipe_fields.fill(settings)
    folds = {"leak_group": "new_patients", "dataset_folds": "dataset_folds", "image": "image"}
    testing = folds[settings.get("split", "leak_group")]
    if settings.get("folds") and testing == "new_patients":
        testing = "cross_validation"
    st.session_state["testing"] = testing


def _network() -> dict[str, Any]:
    first, second = st.columns(2)
    with first:
        values: dict[str, Any] = {"backbone": recipe_fields.BACKBONE.draw()}
    with second:
        values["partner"] = _partner(values["backbone"])
    if values["partner"] is not None:
        values["combine"] = _combine()
    if "alexnet" in (values["backbone"], values["partner"]):
        st.caption("AlexNet has no pretrained weights: it is trained from scratch, end to end.")
        return values | {"weights": "none", "mode": "finetune"}
    recipe_fields.ensure("weights", "imagenet")
    if st.session_state[KEY + "weights"] == "none":
        return values | {"weights": "none", "mode": "finetune"}
    recipe_fields.ensure("mode", "features")
    values["mode"] = st.segmented_control(
        "What is trained",
        list(MODES),
        format_func=MODES.__getitem__,
        required=True,
        key=KEY + "mode",
        persist_state="session",
        width="stretch",
        help="Head only: the backbone stays as it is and its features are computed once, so a retrain "
        "takes seconds. Everything: the backbone learns too, image by image.",
    )
    return values


def _partner(backbone: str) -> str | None:
    """The second backbone of an ensemble."""
    options = [NOBODY, *(name for name in MODEL_TITLES if name != backbone)]
    recipe_fields.ensure("partner", None)
    if st.session_state[KEY + "partner"] not in options:
        st.session_state[KEY + "partner"] = NOBODY
    partner = st.selectbox(
        "Ensemble with",
        options,
        format_func=lambda name: MODEL_TITLES.get(name, "None"),
        key=KEY + "partner",
        persist_state="session",
        help="A second backbone that looks at the same cells. The paper's ensemble is ResNet50 with EfficientNetB3.",
    )
    return None if partner == NOBODY else partner


def _combine() -> Any:
    recipe_fields.ensure("combine", "concatenate")
    return st.segmented_control(
        "How they are combined",
        list(COMBINE),
        format_func=COMBINE.__getitem__,
        required=True,
        key=KEY + "combine",
        persist_state="session",
        width="stretch",
        help="One head on both: the features of the two are joined and one head is trained on them. Mean of two "
        "models: each is trained as a run of its own, and their probabilities are averaged.",
    )


def _testing() -> tuple[Testing, dict[str, Any]]:
    testing: Testing = st.selectbox(
        "Tested on",
        list(TESTING),
        format_func=TESTING.__getitem__,
        key="testing",
        persist_state="session",
        help="New patients: whole subjects are kept out of training, so the figures are those to expect for a patient "
        "the model has not seen; in folds, every subject is tested once. Random images, as in the paper, put cells "
        "of one patient into training and test. Both trains both ways and shows the difference.",
    )
    if testing == "cross_validation":
        st.session_state.setdefault("testing-folds", st.session_state.get(KEY + "folds") or 5)
        folds = st.number_input("Folds", 2, 50, key="testing-folds", persist_state="session")
        return testing, {"split": "leak_group", "folds": int(folds)}
    if testing == "image":
        st.caption(f":orange[:material/warning: {SHARED_PATIENTS.capitalize()}: the figures will flatter.]")
    return testing, {"split": {"image": "image", "dataset_folds": "dataset_folds"}.get(testing, "leak_group")}


def _more(values: dict[str, Any]) -> dict[str, Any]:
    finetune = values["mode"] == "finetune"
    # Out of sight in this mode, without meaning, and kept: the same named recipe is the same recipe.
    without_meaning = ("backbone_normalization", "views", "heads")
    found: dict[str, Any] = {name: recipe_fields.kept(name) for name in without_meaning}
    with st.expander("More settings"):
        cells, fit, head, rest = st.tabs(["Cells", "Fit", "Head", "Image and split"])
        with cells:
            found["imbalance"] = recipe_fields.IMBALANCE.draw()
            mixing = recipe_fields.CUTMIX if finetune else recipe_fields.VIEWS
            found |= _drawn((*recipe_fields.AUGMENTATION, mixing, recipe_fields.AVERAGING))
            st.button("Show on real cells", key=_PREVIEW, width="stretch")
        with fit:
            end_to_end = (recipe_fields.NORMALIZATION, recipe_fields.PRECISION) if finetune else ()
            found |= _drawn((*recipe_fields.FIT, *end_to_end))
        with head:
            found |= _drawn((*recipe_fields.HEAD, *(() if finetune else (recipe_fields.HEADS,))))
        with rest:
            if "alexnet" not in (values["backbone"], values["partner"]):
                found |= _drawn((recipe_fields.WEIGHTS,))
            found |= _drawn((*recipe_fields.IMAGE, *recipe_fields.SPLIT))
    return found


def _drawn(fields: Iterable[RecipeField]) -> dict[str, Any]:
    """The fields two by two, side by side, and their values."""
    waiting = list(fields)
    found: dict[str, Any] = {}
    for place in range(0, len(waiting), 2):
        columns = st.columns(2, vertical_alignment="bottom")
        for field, column in zip(waiting[place : place + 2], columns, strict=False):
            with column:
                found[field.name] = field.draw()
    return found


def _as_file(recipe: Recipe) -> None:
    st.download_button(
        "Save this recipe",
        as_yaml(recipe),
        file_name="recipe.yaml",
        mime="application/yaml",
        key="save_recipe",
        type="tertiary",
        icon=":material/download:",
        on_click="ignore",
    )
