"""How right recipes are about patients they have never seen.

    python -m benchmarks.accuracy [VARIANT …] --pictures FOLDER --home FOLDER [--seeds 3] [--folds 5] [--json]

Every variant is a recipe. It is cross-validated by leak group, once for each seed, which decides the folds, the start
and the order: each cell is judged by a model that was trained on none of its subject's cells. Figures are of all cells
at once, the mean over the seeds, with the spread between them and a 95 % interval from resampling leak groups. The
models calibrate themselves on validation subjects of the training folds, as they do in the app. Beside that stands what
cells come to that are read in their company, which is another thing (`allreview.evaluation.company`).

The home folder is kept: what was trained is not trained again, so that a study may be broken off, gone on with, and
added to. Without names, all variants; `--list` lists them. A variant may also be one of the named recipes, a recipe
file, or settings: `colours=normalized,dropout=0.2`.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

import db
from allreview.cells.importing import import_cells
from allreview.errors import UserError
from allreview.evaluation.company import judged_in_company
from allreview.evaluation.intervals import subject_intervals
from allreview.evaluation.metrics import evaluate
from allreview.evaluation.stored import JudgedCell, judged_cells
from allreview.recipe import Recipe, make_recipe
from allreview.recipes import NAMED, named_settings, settings_in
from allreview.settings import Settings, current_settings
from allreview.store import open_store
from allreview.training import jobs, series
from allreview.training.runs import get_run
from db.tables import Dataset, Run
from db.tables import Recipe as RecipeRow

DATASET = "Study"
FIGURES = ("weighted_f1", "balanced_accuracy", "auroc", "ece")
BASE: dict[str, Any] = {"backbone": "mobilenet_v2", "crop": 300}
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "whole picture": {"crop": None},
    "300 pixels": {"image_size": 300},
    "colours": {"colours": "normalized"},
    "colours, 300 pixels": {"colours": "normalized", "image_size": 300},
    "colours, 300 pixels, depths": {"colours": "normalized", "image_size": 300, "pooling": "depths"},
    "colours, 300 pixels, depths, turns": {
        "colours": "normalized",
        "image_size": 300,
        "pooling": "depths",
        "quarter_turns": True,
        "test_time_augmentation": "symmetries",
    },
}
"""What the study compares: each is `BASE` with these settings."""


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", metavar="VARIANT")
    parser.add_argument("--list", action="store_true", help="list the variants and end")
    parser.add_argument("--pictures", type=Path, help="a folder of real cells, in any layout that is read")
    parser.add_argument("--home", type=Path, help="a folder that the study is kept in")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(f"{name}: {settings}" for name, settings in VARIANTS.items()))
        return
    if asked.pictures is None or asked.home is None:
        parser.error("--pictures and --home are needed")
    try:
        chosen = {name: _settings_of(name) for name in asked.variants or VARIANTS}
        recipes = {name: make_recipe(settings) for name, settings in chosen.items()}
        os.environ["ALLREVIEW_HOME"] = str(asked.home)
        found = study(current_settings(), asked.pictures, recipes, asked.seeds, asked.folds)
    except UserError as error:
        raise SystemExit(str(error)) from None
    print(json.dumps(found) if asked.json else as_table(found))


def _settings_of(name: str) -> dict[str, Any]:
    if name in VARIANTS:
        return BASE | VARIANTS[name]
    if name in NAMED:
        return named_settings(name)
    if Path(name).is_file():
        return settings_in(Path(name).read_text(encoding="utf-8-sig"))
    if "=" in name:
        return BASE | {key: value for key, _, value in (part.partition("=") for part in name.split(","))}
    raise UserError(f"There is no variant {name!r}: the variants are {', '.join([*VARIANTS, *NAMED])}.")


def study(
    settings: Settings, pictures: Path, recipes: dict[str, Recipe], seeds: int, folds: int
) -> dict[str, dict[str, Any]]:
    """The figures of each recipe, by its name; what is missing is trained."""
    engine = open_store(settings)
    with db.reading(engine) as session:
        dataset_id = session.scalar(sa.select(Dataset.id).where(Dataset.name == DATASET))
    if dataset_id is None:
        dataset_id = import_cells(engine, settings, pictures, dataset=DATASET).dataset_id
    found = {}
    for name, recipe in recipes.items():
        by_seed, together = [], []
        for seed in range(seeds):
            started = time.monotonic()
            runs = _trained(engine, settings, dataset_id, _folds(recipe, seed, folds))
            with db.reading(engine) as session:
                validation, test = (judged_cells(session, runs, part) for part in ("validation", "test"))
            by_seed.append(test)
            together.append(judged_in_company(validation, test))
            took = time.monotonic() - started
            print(f"{name}, seed {seed}: runs {runs}, {took:.0f} s", file=sys.stderr, flush=True)
        found[name] = figures_of(by_seed, recipe)
        read = [cells for cells in together if cells is not None]
        found[name]["in_company"] = figures_of(read, recipe)["figures"] if len(read) == seeds else None
        print(as_table({name: found[name]}), file=sys.stderr, flush=True)
    return found


def _folds(recipe: Recipe, seed: int, folds: int) -> list[Recipe]:
    whole = make_recipe(recipe.model_dump() | {"seed": seed, "folds": folds, "split": "leak_group"})
    return series.plan(whole, cross_validate=True)


def _trained(engine: sa.Engine, settings: Settings, dataset_id: int, recipes: Sequence[Recipe]) -> list[int]:
    """The finished runs of these recipes, in their order."""
    with db.reading(engine) as session:
        known = {recipe.hash: _known(session, recipe) for recipe in recipes}
    missing = [recipe for recipe in recipes if known[recipe.hash] is None]
    if missing:
        submitted = jobs.submit_all(engine, settings, dataset_id, missing)
        known |= {recipe.hash: run for recipe, run in zip(missing, submitted, strict=True)}
    runs = [run for run in known.values() if run is not None]
    for run_id in runs:
        _wait(engine, settings, run_id)
    return runs


def _known(session: Session, recipe: Recipe) -> int | None:
    query = (
        sa.select(sa.func.max(Run.id))
        .join(RecipeRow, RecipeRow.id == Run.recipe_id)
        .where(RecipeRow.hash == recipe.hash, Run.state.not_in(("failed", "stopped")))
    )
    return session.scalar(query)


def _wait(engine: sa.Engine, settings: Settings, run_id: int) -> None:
    while True:
        with db.reading(engine) as session:
            run = get_run(session, run_id, with_epochs=False)
        if run.state in ("failed", "stopped"):
            raise UserError(f"Run {run_id} is {run.state}: {run.message or 'somebody stopped it'}.")
        if not run.unfinished:
            return
        jobs.resume_unfinished(engine, settings)
        time.sleep(1)


def figures_of(by_seed: Sequence[Sequence[JudgedCell]], recipe: Recipe) -> dict[str, Any]:
    """The mean of each figure over the seeds, the standard deviation between them, and the interval of the mean.

    The interval resamples leak groups, each with what all seeds say of its cells. `per_subject` has the share of each
    subject's cells that are right, over all seeds.
    """
    classes = sorted(by_seed[0][0].probabilities)
    each = [_figures(cells, classes) for cells in by_seed]
    cells = [cell for found in by_seed for cell in found]
    intervals = subject_intervals(
        [cell.source_label for cell in cells], _table(cells, classes), classes, [cell.unit for cell in cells]
    )
    right: dict[str, list[bool]] = {}
    for cell in cells:
        right.setdefault(cell.subject or "", []).append(cell.predicted == cell.source_label)
    return {
        "recipe": recipe.identity,
        "cells": len(by_seed[0]),
        "seeds": len(by_seed),
        "figures": {
            name: {
                "mean": statistics.fmean(one[name] for one in each),
                "deviation": statistics.stdev(one[name] for one in each) if len(each) > 1 else None,
                "interval": intervals[name],
                "each": [one[name] for one in each],
            }
            for name in FIGURES
        },
        "per_subject": {subject: statistics.fmean(found) for subject, found in sorted(right.items())},
    }


def _figures(cells: Sequence[JudgedCell], classes: list[str]) -> dict[str, Any]:
    return {**evaluate([cell.source_label for cell in cells], _table(cells, classes), classes)}


def _table(cells: Sequence[JudgedCell], classes: list[str]) -> np.ndarray:
    return np.array([[cell.probabilities[name] for name in classes] for cell in cells])


def as_table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown, a row a variant: means of the seeds ± their standard deviation, and 95 % intervals."""
    lines = [
        "| variant | weighted F1 | balanced accuracy | AUROC | ECE | in company: weighted F1 |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        cells = [_in_words(one["figures"][figure]) for figure in FIGURES]
        cells.append(_in_words(one["in_company"]["weighted_f1"]) if one["in_company"] else "–")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_words(figure: dict[str, Any]) -> str:
    spread = f" ± {figure['deviation']:.3f}" if figure["deviation"] is not None else ""
    between = "" if figure["interval"] is None else " ({:.3f} to {:.3f})".format(*figure["interval"])
    return f"{figure['mean']:.3f}{spread}{between}"


if __name__ == "__main__":
    main()
