"""From the options of `train` to the recipes of the runs it makes."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import db
from allreview.cli import output
from allreview.cli.recipes import completed, find_dataset, recipe_settings, spelled
from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe
from allreview.recipes import DEFAULT
from allreview.training import series, snapshots
from allreview.training.retraining import head_of_run
from allreview.training.runs import get_run

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.orm import Session

_OF_THE_SPLIT = ("split", "folds", "fold")


@dataclass(frozen=True)
class Request:
    """What somebody typed. `settings` are those of options, `changes` those of --set, which go first."""

    dataset: str | None = None
    recipe: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)
    parent: int | None = None
    head_only: bool = False
    protocol: series.Protocol | None = None
    folds: str | None = None

    def __post_init__(self) -> None:
        if self.parent is not None and (self.protocol or self.folds):
            raise UserError(
                "A retrain keeps its parent's split: leave out --protocol and --folds with --parent."
            )
        if self.head_only and self.parent is None:
            raise UserError("--head-only retrains the head of a run: name the run with --parent.")
        if self.head_only and (self.recipe is not None or {"mode", "backbone"} & set(self.settings)):
            raise UserError(
                "--head-only keeps its parent's network and cells: leave out --recipe, --mode and --backbone."
            )
        if self.protocol and "split" in self.changes:
            raise UserError("--protocol and --set split both choose the split: give one of them.")
        if self.folds and {"folds", "fold"} & set(self.changes):
            raise UserError(
                "--folds makes a run of every fold; for one of them use --set folds=5 --set fold=2."
            )


def planned(engine: "sa.Engine", request: Request) -> tuple[int, list[Recipe]]:
    """The id of the dataset to train on, and the recipe of each run.

    Raises:
        UserError: no such dataset, parent, recipe or fold, or settings that contradict each other.
    """
    with db.reading(engine) as session:
        dataset_id, start = _start(session, request)
        wanted = spelled(request.settings) | spelled(request.changes) | _folds(request.folds)
        values = completed(start, wanted)
        _check_folds(values, request.folds)
        recipe = make_recipe(values)
        recipes = series.plan(
            recipe,
            protocol=request.protocol,
            cross_validate=request.folds is not None,
            fold_names=snapshots.fold_names(session, dataset_id),
        )
    return dataset_id, recipes


def say_if_from_scratch(recipe: Recipe) -> None:
    """Training without pretrained weights may follow from a backbone, so it is said."""
    if recipe.weights == "none":
        names = " and ".join(recipe.backbones)
        verb = "is" if recipe.partner is None else "are"
        output.say(f"{names} {verb} trained from scratch, without pretrained weights (mode={recipe.mode}).")


def _start(session: "Session", request: Request) -> tuple[int, dict[str, Any]]:
    """The dataset's id, and the settings that options change: the recipe's, or the parent's."""
    start = recipe_settings(request.recipe if request.recipe is not None else DEFAULT)
    if request.parent is None:
        return find_dataset(session, request.dataset).id, start
    before = get_run(session, request.parent, with_epochs=False)
    if request.dataset is not None and find_dataset(session, request.dataset).id != before.dataset_id:
        raise UserError(
            f"Run {request.parent} was trained on {before.dataset!r}: a retrain stays on the same dataset."
        )
    whole = head_of_run(before.recipe, before.id) if request.head_only else before.recipe
    own = whole.model_dump()
    if request.recipe is not None:
        return before.dataset_id, {name: own[name] for name in _OF_THE_SPLIT} | start
    wanted = spelled(request.settings) | spelled(request.changes)
    if any(wanted.get(name, own[name]) != own[name] for name in ("backbone", "partner")):
        # The weights and mode of another backbone need not be possible for this one.
        own = {name: value for name, value in own.items() if name not in ("weights", "mode")}
    return before.dataset_id, own


def _folds(text: str | None) -> dict[str, Any]:
    return {} if text is None or text.strip().lower() == "all" else {"folds": text.strip(), "fold": 0}


def _check_folds(values: dict[str, Any], folds: str | None) -> None:
    if folds is None:
        return
    of_dataset = values.get("split") == "dataset_folds"
    if of_dataset and values.get("folds") is not None:
        raise UserError("The dataset's own folds decide how many there are: use --folds all.")
    if not of_dataset and values.get("folds") is None:
        raise UserError(
            "--folds all trains once for each fold of the recipe or the dataset, and here there are none: "
            "give their number, as in --folds 5, or set split=dataset_folds."
        )
