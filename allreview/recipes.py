"""Recipes by name, and recipes as text: what people start from, and how a recipe leaves and comes back."""

import json
from dataclasses import dataclass
from typing import Any

from allreview.errors import UserError
from allreview.recipe import Recipe, make_recipe


@dataclass(frozen=True)
class NamedRecipe:
    """Settings under a name; all others keep their defaults. The backbone is chosen apart."""

    name: str
    title: str
    description: str
    settings: dict[str, Any]


NAMED = {
    recipe.name: recipe
    for recipe in (
        NamedRecipe(
            "quick",
            "Quick",
            "Chosen by a study on patients never seen: cells enlarged, their colours normalised, textures within the "
            "cell at several depths of a frozen backbone, in all eight ways it can lie, and the mean of five heads, "
            "each judged by subjects it did not see. Minutes for the first run, seconds for a retrain.",
            {
                "crop": 300,
                "image_size": 400,
                "colours": "normalized",
                "pooling": "cell",
                "heads": 5,
                "schedule": "cosine",
                "quarter_turns": True,
                "test_time_augmentation": "symmetries",
                "imbalance": "none",
                "mixup": 0.4,
            },
        ),
        NamedRecipe(
            "standard",
            "Standard",
            "The paper's head on a frozen backbone, rare classes weighed up, and the epoch with the lowest "
            "validation cross-entropy kept.",
            {},
        ),
        NamedRecipe(
            "paper",
            "As in the paper",
            "The paper's settings: rare classes shown more often in mirrored versions, the epoch with the lowest "
            "validation loss kept. The paper does not say whether the backbone was frozen: it is here, and "
            "mode=finetune trains it too.",
            {
                "epochs": 20,
                "imbalance": "augment",
                "flip": True,
                "best_by": "val_loss",
                "backbone_normalization": "trained",
            },
        ),
    )
}
"""In the order they are offered."""
DEFAULT = "quick"
"""What is trained where nobody chose."""


def named_settings(name: str) -> dict[str, Any]:
    """The settings under a name.

    Raises:
        UserError: there is no such recipe.
    """
    found = NAMED.get(name.strip().casefold())
    if found is None:
        raise UserError(f"There is no recipe {name!r}: the named recipes are {', '.join(NAMED)}.")
    return dict(found.settings)


def as_yaml(recipe: Recipe) -> str:
    """Every setting as YAML, in the order of the class; `from_text` gives the same recipe back."""
    import yaml

    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)


def as_json(recipe: Recipe) -> str:
    """Every setting as JSON; `from_text` gives the same recipe back."""
    return json.dumps(recipe.model_dump(), indent=2)


def from_text(text: str) -> Recipe:
    """The recipe in YAML or JSON text.

    Raises:
        UserError: the text holds no settings by name, or `make_recipe` refuses them.
    """
    return make_recipe(settings_in(text))


def settings_in(text: str) -> dict[str, Any]:
    """The settings in YAML or JSON text, which need not be all there are.

    Raises:
        UserError: the text is neither, or holds no settings by name.
    """
    import yaml

    try:
        values = yaml.safe_load(text)  # JSON is YAML
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"This is not valid YAML or JSON: {first}.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError("A recipe must hold settings by name, such as 'epochs: 20'.")
    return values
