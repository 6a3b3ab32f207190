"""Which runs a request makes: the folds of a cross-validation, the two ways to split, or both at once."""

from collections.abc import Sequence
from typing import Any, Literal

from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe

Protocol = Literal["leak_group", "image", "both"]


def plan(
    recipe: Recipe,
    *,
    protocol: Protocol | None = None,
    cross_validate: bool = False,
    fold_names: Sequence[str] = (),
) -> list[Recipe]:
    """The recipes to train, in the order to train them; one where nothing else is asked for.

    `protocol` puts whole leak groups or single images into the test part, or makes each run both ways, so that
    the difference shows what shared patients add to the figures. `cross_validate` makes one run for each of
    `recipe.folds`, or of the dataset's own folds (`fold_names`) where the recipe splits by those.

    Raises:
        UserError: cross-validation without folds, or a protocol for a split by the dataset's own folds.
    """
    splits: list[dict[str, Any]] = [{}]
    if protocol is not None:
        if recipe.split == "dataset_folds":
            raise UserError(
                "The dataset's own folds are a split of their own: leave the protocol out, "
                "or set split to leak_group or image."
            )
        chosen = ("leak_group", "image") if protocol == "both" else (protocol,)
        splits = [{"split": split} for split in chosen]
    folds = _folds(recipe, fold_names) if cross_validate else [{}]
    return [_changed(recipe, split | fold) for split in splits for fold in folds]


def _folds(recipe: Recipe, fold_names: Sequence[str]) -> list[dict[str, Any]]:
    if recipe.split == "dataset_folds":
        if len(fold_names) < 2:
            raise UserError(
                "This dataset has no folds of its own to cross-validate on: set split to leak_group, and folds."
            )
        return [{"fold": number} for number in range(len(fold_names))]
    if recipe.folds is None:
        raise UserError("Cross-validation needs a number of folds: set folds to 5, say.")
    return [{"fold": number} for number in range(recipe.folds)]


def _changed(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    return make_recipe(recipe.model_dump() | settings) if settings else recipe
