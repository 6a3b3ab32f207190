"""How `train` understands what to train on and how; nothing is trained here."""

from pathlib import Path

import pytest
import sqlalchemy as sa

import db
from allreview.cli.recipes import backbone_name, find_dataset, recipe_file, set_values
from allreview.cli.training import _plan
from allreview.errors import UserError
from allreview.recipe import Recipe
from tests.cli.commands import refused, succeed
from tests.factory import finished_run, small_store


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("ResNet50", "resnet50"),
        ("resnet-50", "resnet50"),
        ("EfficientNetB3", "efficientnet_b3"),
        ("efficientnet_b3", "efficientnet_b3"),
        ("VGG16", "vgg16"),
        ("AlexNet", "alexnet"),
        ("MobileNetV2", "mobilenet_v2"),
        ("mobilenetv2", "mobilenet_v2"),
    ],
)
def test_backbones_have_friendly_spellings(typed: str, name: str) -> None:
    assert backbone_name(typed) == name


def test_set_takes_pairs_and_an_empty_crop() -> None:
    assert set_values(["epochs=3", " flip = false", "crop="]) == {
        "epochs": "3",
        "flip": "false",
        "crop": None,
    }
    for wrong in ("epochs", "=3", ""):
        with pytest.raises(UserError, match="KEY=VALUE"):
            set_values([wrong])


@pytest.mark.parametrize(
    ("name", "text"), [("r.yaml", "epochs: 7\ncrop: null\n"), ("r.json", '{"epochs": 7}')]
)
def test_recipe_files_are_yaml_or_json(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert recipe_file(str(tmp_path / name))["epochs"] == 7


@pytest.mark.parametrize(("name", "text"), [("r.yaml", "- 1\n"), ("r.yml", "a: [\n"), ("r.json", "{")])
def test_bad_recipe_files_are_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        recipe_file(str(tmp_path / name))


def test_options_go_before_the_file_and_set_before_options(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    store = small_store(sqlite_engine)
    file = tmp_path / "r.yaml"
    file.write_text("backbone: VGG16\nepochs: 7\ndropout: 0.2\n")
    dataset, recipe = _plan(sqlite_engine, "CELLS", str(file), {"epochs": "9"}, None)
    assert dataset == store.dataset
    assert (recipe.backbone, recipe.epochs, recipe.dropout) == ("vgg16", 9, 0.2)


def test_a_retrain_keeps_the_parents_recipe_but_for_what_is_asked(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    parent = finished_run(
        sqlite_engine, store, {store.cells["1"][0]: ("all", 0.9)}, recipe=Recipe(epochs=3, seed=5, crop=300)
    )
    dataset, recipe = _plan(sqlite_engine, None, None, {"crop": None}, parent)
    assert dataset == store.dataset
    assert recipe == Recipe(epochs=3, seed=5)
    small_store_of_another_name = "other"
    with db.writing(sqlite_engine) as session:
        session.execute(sa.text("delete from reviewers"))
    small_store(sqlite_engine, name=small_store_of_another_name)
    with pytest.raises(UserError, match="same dataset"):
        _plan(sqlite_engine, small_store_of_another_name, None, {}, parent)


def test_alexnet_trains_from_scratch_unless_that_is_contradicted(sqlite_engine: sa.Engine) -> None:
    small_store(sqlite_engine)
    _, recipe = _plan(sqlite_engine, None, None, {"backbone": "AlexNet"}, None)
    assert (recipe.weights, recipe.mode) == ("none", "finetune")
    with pytest.raises(UserError, match="no pretrained weights"):
        _plan(sqlite_engine, None, None, {"backbone": "AlexNet", "weights": "imagenet"}, None)


def test_datasets_are_found_by_name_id_or_alone(sqlite_engine: sa.Engine) -> None:
    with db.reading(sqlite_engine) as session, pytest.raises(UserError, match="no cells yet"):
        find_dataset(session, None)
    first = small_store(sqlite_engine, name="First").dataset
    with db.reading(sqlite_engine) as session:
        for typed in ("First", "first", str(first), None):
            assert find_dataset(session, typed).id == first
        with pytest.raises(UserError, match="First"):
            find_dataset(session, "second")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--backbone", "resnet18"), "resnet50"),
        (("--set", "epoch=3"), "epoch"),
        (("--set", "epochs=0"), "epochs"),
        (("--set", "dropout=high"), "dropout"),
        (("--recipe", "paper"), "recipe file"),
        (("--set", "weights=none"), "finetune"),
        (("--parent", 7), "no run 7"),
        (("--dataset", "nope"), "cells"),
    ],
)
def test_bad_recipes_are_refused(sqlite_engine: sa.Engine, options: tuple[object, ...], words: str) -> None:
    small_store(sqlite_engine)
    assert words in refused("train", *options)
    assert succeed("runs") == []
