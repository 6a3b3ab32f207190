"""A recipe from a file, options and --set; a dataset from what a person types."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.cli.options import LARGEST_ID
from allreview.errors import UserError
from allreview.recipe import BackboneName
from db.tables import Dataset

BACKBONES: tuple[str, ...] = get_args(BackboneName)


def backbone_name(text: str) -> str:
    """The recipe's name of a backbone, however it is spelled: `EfficientNetB3`, `efficientnet-b3`.

    Raises:
        UserError: no backbone has that name.
    """
    for name in BACKBONES:
        if _key(text) == _key(name):
            return name
    raise UserError(f"There is no backbone {text!r}: use one of {', '.join(BACKBONES)}.")


def recipe_file(text: str) -> dict[str, Any]:
    """The settings in a YAML or JSON file, as `show --json` prints them under `recipe`.

    Raises:
        UserError: there is no such file, or it holds no settings.
    """
    import yaml

    path = Path(text).expanduser()
    if not path.is_file():
        raise UserError(f"There is no recipe file {text!r}: name a YAML or JSON file with recipe settings.")
    try:
        content = path.read_text(encoding="utf-8-sig")
        values = json.loads(content) if path.suffix.lower() == ".json" else yaml.safe_load(content)
    except OSError as error:
        raise UserError(f"The recipe file {text!r} cannot be read: {error.strerror or error}.") from None
    except (ValueError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"The recipe file {text!r} is not valid YAML or JSON: {first}.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"The recipe file {text!r} must hold settings by name, such as 'epochs: 20'.")
    return values


def set_values(pairs: Iterable[str]) -> dict[str, Any]:
    """KEY=VALUE pairs as a dict of strings; the recipe converts them. An empty crop is None.

    Raises:
        UserError: a pair without a key or an equals sign.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not key or not equals:
            raise UserError(f"--set takes KEY=VALUE, as in --set epochs=10, not {pair!r}.")
        values[key] = None if key == "crop" and value.lower() in ("", "none") else value
    return values


def spelled(values: dict[str, Any]) -> dict[str, Any]:
    """The same values with the backbone's name as recipes spell it."""
    backbone = values.get("backbone")
    return {**values, "backbone": backbone_name(backbone)} if isinstance(backbone, str) else values


def from_scratch_if_it_must(values: dict[str, Any]) -> dict[str, Any]:
    """AlexNet has no pretrained weights: where nothing else was asked for, it trains from scratch."""
    if values.get("backbone") != "alexnet":
        return values
    return {"weights": "none", "mode": "finetune", **values}


def find_dataset(session: Session, text: str | None) -> Dataset:
    """The dataset of that name (any case) or id; without one, the only one there is.

    Raises:
        UserError: there is none, or it is not clear which is meant.
    """
    datasets = list(session.scalars(sa.select(Dataset).order_by(Dataset.id)))
    if not datasets:
        raise UserError("There are no cells yet: import some first, or the demo set with `allreview demo`.")
    names = ", ".join(dataset.name for dataset in datasets)
    if text is None:
        if len(datasets) > 1:
            raise UserError(f"There are several datasets: name one with --dataset ({names}).")
        return datasets[0]
    wanted = text.strip()
    for found in (
        [dataset for dataset in datasets if dataset.name == wanted],
        [dataset for dataset in datasets if dataset.name.casefold() == wanted.casefold()],
        [
            dataset
            for dataset in datasets
            if wanted.isdecimal() and dataset.id == min(int(wanted), LARGEST_ID)
        ],
    ):
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"Several datasets are called {text!r}: give the id of one.")
    raise UserError(f"There is no dataset {text!r}: the datasets are {names}.")


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())
