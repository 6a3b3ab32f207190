"""A look at what a recipe's augmentation does to real cells."""

import streamlit as st

import db
from allreview.cells.naming import class_title
from allreview.recipe import Recipe
from allreview.training.previews import Preview, previews
from allreview.training.views import ORIGINAL, training_views
from allreview.ui import context
from allreview.ui.errors import guarded
from allreview.ui.words import inert

_VERSIONS = 4


@st.dialog("What the augmentation does", width="large")
def show(dataset_id: int, recipe: Recipe) -> None:
    """Real cells beside versions of them, as training would meet them."""
    with guarded():
        st.session_state.setdefault("preview-draw", 0)
        with db.reading(context.engine()) as session:
            found = previews(
                session,
                context.settings(),
                dataset_id,
                recipe,
                versions=_VERSIONS,
                draw=st.session_state["preview-draw"],
            )
        st.caption(_words(recipe))
        for cell in found:
            _row(cell)
        st.button("Other cells", key="preview_more", icon=":material/refresh:", on_click=_draw_again)


def _draw_again() -> None:
    st.session_state["preview-draw"] += 1


def _words(recipe: Recipe) -> str:
    words = "Left: the cell as it is. Then versions of it, drawn as in training."
    if recipe.mode == "features":
        count = len([view for view in training_views(recipe) if view != ORIGINAL])
        words += f" Features are computed of the cell as it is and of {count or 'no'} further version"
        words += "s." if count > 1 else "."
    if recipe.mixup or recipe.cutmix:
        words += f" Last: mixed with another cell of these by {'MixUp' if recipe.mixup else 'CutMix'}"
        words += "; in features mode it is the features that are mixed." if recipe.mode == "features" else "."
    return words


def _row(cell: Preview) -> None:
    pictures = [cell.original, *cell.versions, *([cell.mixed] if cell.mixed else [])]
    for place, (column, picture) in enumerate(
        zip(st.columns(len(pictures), gap="xsmall"), pictures, strict=True)
    ):
        column.image(picture, width="stretch", alt=f"{class_title(cell.label)}, version {place}")
        if place == 0:
            subject = f", subject {inert(cell.subject)}" if cell.subject else ""
            column.caption(f"{inert(class_title(cell.label))}{subject}")
        elif cell.own_share is not None and place == len(pictures) - 1:
            column.caption(f"{100 * cell.own_share:.0f} % of its own label")
