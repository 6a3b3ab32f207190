"""Which recipe a retrain goes by, and what it may take from the run before."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe
from db.tables import Recipe as RecipeRow
from db.tables import Run


def head_of_run(recipe: Recipe, run_id: int) -> Recipe:
    """The recipe that retrains only the head of a run by `recipe`.

    Raises:
        UserError: the run trained only its head anyway, or is an ensemble.
    """
    if recipe.mode == "features":
        raise UserError(f"Run {run_id} trained only its head: retrain it as it is, which takes seconds.")
    if recipe.partner is not None:
        raise UserError(
            f"Run {run_id} is an ensemble, whose head is not retrained alone: retrain everything."
        )
    return recipe.of_its_head(run_id)


def require_lineage(engine: sa.Engine, recipe: Recipe, parent_id: int | None) -> None:
    """Only a retrain keeps the split of the run whose backbone it takes, and tests on patients that neither knows.

    Raises:
        UserError: the recipe takes the backbone of a run, and is no retrain of it, or the run trained no such backbone.
    """
    trained_by = recipe.backbone_run
    if trained_by is None:
        return
    if parent_id is None:
        raise UserError(
            f"The recipe takes the backbone that run {trained_by} trained: retrain that run's head instead of starting "
            "a run of its own, or leave backbone_run empty."
        )
    with db.reading(engine) as session:
        parent, before = (_existing(session, number) for number in (parent_id, trained_by))
    if trained_by not in (parent_id, parent.backbone_run):
        raise UserError(
            f"Run {parent_id} is no retrain of run {trained_by}, whose backbone the recipe takes: set backbone_run to "
            f"{parent_id}, or leave it empty."
        )
    if (
        before.mode != "finetune"
        or before.preparation != recipe.preparation
        or before.backbones != recipe.backbones
    ):
        raise UserError(
            f"Run {trained_by} trained no such backbone end to end: retrain everything instead of the head alone."
        )


def _existing(session: Session, run_id: int) -> Recipe:
    recipe = recipe_of(session, run_id)
    if recipe is None:
        raise UserError(f"There is no run {run_id}.")
    return recipe


def recipe_of(session: Session, run_id: int) -> Recipe | None:
    """The recipe of a run; None if there is no such run."""
    body = session.scalar(
        sa.select(RecipeRow.body).join(Run, RecipeRow.id == Run.recipe_id).where(Run.id == run_id)
    )
    return None if body is None else make_recipe(body)
