"""The recipe: every setting survives text and back, and what is refused is told with what is allowed."""

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allreview.errors import UserError
from allreview.recipe import BACKBONE_NAMES, Recipe, allowed_values, make_recipe
from allreview.recipes import NAMED, as_json, as_yaml, from_text, named_settings

NUMBERS = st.floats(1e-7, 0.4)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Recipes from all over the settings; what contradicts is put right."""
    names = st.sampled_from(BACKBONE_NAMES)
    values: dict[str, Any] = {"backbone": draw(names), "partner": draw(st.none() | names)}
    if values["partner"] == values["backbone"]:
        values["partner"] = None
    scratch = "alexnet" in values.values() or draw(st.booleans())
    values |= {"weights": "none" if scratch else "imagenet", "mode": "finetune" if scratch else "features"}
    for name in (
        "combine",
        "optimizer",
        "schedule",
        "best_by",
        "imbalance",
        "split",
        "test_time_augmentation",
    ):
        values[name] = draw(st.sampled_from(get_args(Recipe.model_fields[name].annotation)))
    for name in ("dropout", "kernel_l2", "learning_rate", "label_smoothing", "validation_fraction", "stain"):
        values[name] = draw(NUMBERS)
    for name in ("flip", "flip_vertical", "quarter_turns"):
        values[name] = draw(st.booleans())
    for name in ("crop", "patience"):
        values[name] = draw(st.none() | st.integers(32, 500))
    if values["split"] != "dataset_folds":
        values["folds"] = draw(st.none() | st.integers(2, 50))
    values["fold"] = draw(st.integers(0, (values.get("folds") or 50) - 1))
    return Recipe(**values, seed=draw(st.integers(0, 2**31 - 1)), mixup=draw(st.sampled_from([0, 0.2])))


@given(recipes())
@settings(deadline=None, max_examples=40)
def test_a_recipe_is_the_same_after_yaml_and_json(recipe: Recipe) -> None:
    for text in (as_yaml(recipe), as_json(recipe)):
        again = from_text(text)
        assert again == recipe
        assert again.hash == recipe.hash


def test_recipes_from_before_a_setting_was_there_are_still_the_same():
    """The hashes were stored when a recipe knew neither quarter turns nor a mean over views."""
    standard = "8501f4452ff7c01fc40db098e4983b4b238f42d89635bc1c63a15988d8dadd9f"
    assert Recipe().hash == make_recipe({"quarter_turns": "no"}).hash == standard
    assert make_recipe(named_settings("paper")).hash == (
        "b3d9d02a62a861a2fc7c96f3506918bad9ed3d740f4691f10f31115bda696322"
    )
    others = {Recipe(quarter_turns=True).hash, Recipe(test_time_augmentation="flip").hash, standard}
    assert len(others | {Recipe(test_time_augmentation="symmetries").hash}) == 4


@given(recipes())
@settings(deadline=None, max_examples=20)
def test_settings_typed_as_text_make_the_same_recipe(recipe: Recipe) -> None:
    typed = {name: None if value is None else str(value) for name, value in recipe.model_dump().items()}
    assert make_recipe(typed).hash == recipe.hash


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer": "foo"}, "optimizer cannot be 'foo': it takes adamax, adam, adamw or sgd."),
        ({"rotation": "400"}, "rotation cannot be '400': it takes a number from 0 to 180."),
        ({"dropout": "high"}, "it takes a number of 0 or more and below 1."),
        ({"dropout": float("nan")}, "dropout cannot be nan"),
        ({"learning_rate": 0}, "it takes a number above 0, up to 1."),
        ({"epochs": ""}, "epochs cannot be nothing: it takes a whole number from 1 to 500."),
        ({"crop": 1}, "it takes a whole number from 32 to 4,096, or nothing."),
        ({"partner": "lenet"}, "vgg16 or alexnet, or nothing."),
        ({"flip": "perhaps"}, "it takes true or false."),
        ({"kernel_l2": -1}, "it takes a number of 0 or more."),
        ({"split": "patient"}, "it takes leak_group, dataset_folds or image."),
        ({"epoch": 3}, "Did you mean 'epochs'?"),
        ({"folds": 3, "fold": 3}, "no fold 3 of 3"),
        ({"folds": 3, "split": "dataset_folds"}, "leave folds empty"),
        ({"backbone": "alexnet"}, "set weights=none"),
        ({"weights": "none"}, "set mode=finetune"),
        ({"partner": "mobilenet_v2"}, "two different backbones"),
        ({"mixup": 0.2, "cutmix": 1, "mode": "finetune"}, "set one of them to 0"),
    ],
)
def test_what_is_refused_is_told_with_what_is_allowed(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refusal:
        make_recipe(values)
    assert words in str(refusal.value)


def test_every_setting_says_what_it_takes_and_what_it_is_for() -> None:
    for name, field in Recipe.model_fields.items():
        assert field.description
        assert allowed_values(name).split()[0] in ("a", "true", *get_args(field.annotation)) or (
            "," in allowed_values(name) or " or " in allowed_values(name)
        )


@pytest.mark.parametrize("name", NAMED)
def test_named_recipes_are_recipes_for_every_backbone(name: str) -> None:
    for backbone in BACKBONE_NAMES:
        scratch = {"weights": "none", "mode": "finetune"} if backbone == "alexnet" else {}
        assert make_recipe({**named_settings(name), **scratch, "backbone": backbone}).backbone == backbone
    with pytest.raises(UserError, match="standard, paper"):
        named_settings("papers")
