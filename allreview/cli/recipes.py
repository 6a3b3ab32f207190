"""A recipe from its name, a file, options and --set; a dataset from what a person types."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.cli.options import LARGEST_ID
from allreview.errors import UserError
from allreview.recipe import BACKBONE_NAMES, Recipe
from allreview.recipes import NAMED, named_settings
from db.tables import Dataset

ENSEMBLE = "resnet50", "efficientnet_b3"
"""The paper's ensemble."""
_OPTIONAL = {name for name, field in Recipe.model_fields.items() if field.default is None}


def backbone_name(text: str) -> str:
    """The recipe's name of a backbone, however it is spelled: `EfficientNetB3`, `efficientnet-b3`.

    Raises:
        UserError: no backbone has that name.
    """
    for name in BACKBONE_NAMES:
        if _key(text) == _key(name):
            return name
    raise UserError(
        f"There is no backbone {text!r}: use one of {', '.join(BACKBONE_NAMES)}, "
        "two of them joined by +, or ensemble."
    )


def backbone_names(text: str) -> tuple[str, str | None]:
    """The backbone and its partner: of `A+B` both, of `ensemble` the paper's, else there is no partner.

    Raises:
        UserError: no backbone has such a name, or there are more than two.
    """
    if _key(text) == "ensemble":
        return ENSEMBLE
    names = [backbone_name(part) for part in text.split("+")]
    if len(names) > 2:
        raise UserError(f"An ensemble has two backbones, as in resnet50+efficientnet_b3, not {len(names)}.")
    return names[0], names[1] if len(names) == 2 else None


def recipe_settings(text: str) -> dict[str, Any]:
    """The settings of a named recipe, or of a file: what has a file suffix or a separator is a file.

    Raises:
        UserError: there is no such recipe, nor such a file, or it holds no settings.
    """
    path = Path(text).expanduser()
    if not path.suffix and path.name == text:
        if text.strip().casefold() in NAMED:
            return named_settings(text)
        if not path.is_file():
            raise UserError(
                f"There is no recipe {text!r}: the named recipes are {', '.join(NAMED)}; "
                "or name a YAML or JSON file with recipe settings."
            )
    return recipe_file(text)


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
    """KEY=VALUE pairs as a dict of strings; the recipe converts them. A setting that may be empty is None
    when nothing, or none, is given.

    Raises:
        UserError: a pair without a key or an equals sign.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not key or not equals:
            raise UserError(f"--set takes KEY=VALUE, as in --set epochs=10, not {pair!r}.")
        values[key] = None if key in _OPTIONAL and value.lower() in ("", "none") else value
    return values


def spelled(values: dict[str, Any]) -> dict[str, Any]:
    """The same values with backbones as recipes spell them, an `A+B` as backbone and partner. A backbone alone
    has no partner.

    Raises:
        UserError: there is no such backbone, or a partner is named twice.
    """
    found = dict(values)
    if isinstance(values.get("partner"), str):
        found["partner"] = backbone_name(values["partner"])
    if isinstance(values.get("backbone"), str):
        found["backbone"], second = backbone_names(values["backbone"])
        if second is not None and found.get("partner") not in (None, second):
            raise UserError(
                f"backbone {values['backbone']!r} already names two, and partner {values['partner']!r} is a third."
            )
        found["partner"] = second or found.get("partner")
    return found


def completed(start: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """`start`, a recipe's settings, changed by what is `wanted`, with what follows for the weights.

    AlexNet has no pretrained weights, so it trains from scratch where nothing else was asked for; and from
    scratch everything is trained, not the head alone.
    """
    start, wanted = spelled(start), spelled(wanted)
    if wanted.get("weights") == "none":
        start.pop("mode", None)
    values = start | wanted
    if "alexnet" in (values.get("backbone"), values.get("partner")):
        values = {"weights": "none", **values}
    return {"mode": "finetune", **values} if values.get("weights") == "none" else values


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
