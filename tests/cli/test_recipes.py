"""How `train` understands what to train on and how; nothing is trained here."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import db
from allreview.cli.recipes import (
    backbone_name,
    backbone_names,
    find_dataset,
    recipe_file,
    recipe_settings,
    set_values,
)
from allreview.cli.requests import Request, planned, say_if_from_scratch
from allreview.errors import UserError
from allreview.recipe import Recipe
from db.tables import Cell
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


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("VGG16", ("vgg16", None)),
        ("Ensemble", ("resnet50", "efficientnet_b3")),
        ("ResNet50 + VGG16", ("resnet50", "vgg16")),
    ],
)
def test_two_backbones_are_an_ensemble(typed: str, names: tuple[str, str | None]) -> None:
    assert backbone_names(typed) == names


def test_set_takes_pairs_and_empty_values_where_nothing_is_a_value() -> None:
    pairs = ["epochs=3", " flip = false", "crop=", "partner=None", "patience=", "folds=none", "weights=none"]
    assert set_values([*pairs, "schedule="]) == {
        "epochs": "3",
        "flip": "false",
        "crop": None,
        "partner": None,
        "patience": None,
        "folds": None,
        "weights": "none",
        "schedule": "",
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


def test_a_name_goes_before_a_file_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("paper", "paper.yaml", "mine"):
        Path(name).write_text("epochs: 3")
    assert recipe_settings("Paper")["imbalance"] == "augment"
    assert [recipe_settings(name) for name in ("./paper", "paper.yaml", "mine")] == [{"epochs": 3}] * 3
    with pytest.raises(UserError, match="named recipes are quick, standard, paper"):
        recipe_settings("nothing")
    with pytest.raises(UserError, match="no recipe file"):
        recipe_settings("paper.json")


@pytest.mark.parametrize(("name", "text"), [("r.yaml", "- 1\n"), ("r.yml", "a: [\n"), ("r.json", "{")])
def test_bad_recipe_files_are_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name):
        recipe_file(str(tmp_path / name))


def recipes(engine: sa.Engine, dataset: str | None = None, /, **typed: Any) -> list[Recipe]:
    """The recipes of the runs that a request makes."""
    return planned(engine, Request(dataset, **typed))[1]


def test_options_go_before_the_file_and_set_before_options(sqlite_engine: sa.Engine, tmp_path: Path) -> None:
    store = small_store(sqlite_engine)
    file = tmp_path / "r.yaml"
    file.write_text("backbone: VGG16\npartner: ResNet50\nepochs: 7\ndropout: 0.2\n")
    request = Request("CELLS", str(file), {"epochs": 8, "mode": "finetune"}, {"epochs": "9"})
    dataset, (recipe,) = planned(sqlite_engine, request)
    assert dataset == store.dataset
    assert (recipe.backbones, recipe.epochs, recipe.dropout) == (("vgg16", "resnet50"), 9, 0.2)
    assert recipe.mode == "finetune"
    (alone,) = recipes(sqlite_engine, recipe=str(file), settings={"backbone": "AlexNet"})
    assert alone.backbones == ("alexnet",)
    with pytest.raises(UserError, match="a third"):
        recipes(sqlite_engine, changes={"backbone": "vgg16+alexnet", "partner": "resnet50"})


def test_the_papers_systems_are_one_command_each(sqlite_engine: sa.Engine) -> None:
    small_store(sqlite_engine)
    (vgg,) = recipes(sqlite_engine, recipe="paper", settings={"backbone": "VGG16"})
    assert (vgg.backbone, vgg.imbalance, vgg.best_by, vgg.optimizer) == (
        "vgg16",
        "augment",
        "val_loss",
        "adamax",
    )
    typed = {"settings": {"backbone": "ensemble"}, "changes": {"combine": "average"}}
    (average,) = recipes(sqlite_engine, recipe="paper", **typed)
    assert [member.backbone for member in average.members] == ["resnet50", "efficientnet_b3"]
    assert {member.imbalance for member in average.members} == {"augment"}


def test_a_retrain_keeps_the_parents_recipe_but_for_what_is_asked(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)
    before = Recipe(epochs=3, seed=5, crop=300, split="image", partner="vgg16")
    parent = finished_run(sqlite_engine, store, {store.cells["1"][0]: ("all", 0.9)}, recipe=before)

    def retrain(**typed: Any) -> Recipe:
        (recipe,) = recipes(sqlite_engine, parent=parent, **typed)
        return recipe

    assert retrain(changes={"crop": None}) == before.model_copy(update={"crop": None})
    assert retrain(settings={"backbone": "vgg16"}).partner is None
    assert retrain(settings={"backbone": "alexnet"}).mode == "finetune"
    assert retrain(changes={"weights": "none"}).mode == "finetune"
    assert retrain(recipe="paper").split == "image"
    for typed in ({"folds": "3"}, {"protocol": "both"}):
        with pytest.raises(UserError, match="keeps its parent's split"):
            retrain(**typed)
    small_store_of_another_name = "other"
    with db.writing(sqlite_engine) as session:
        session.execute(sa.text("delete from reviewers"))
    small_store(sqlite_engine, name=small_store_of_another_name)
    with pytest.raises(UserError, match="same dataset"):
        recipes(sqlite_engine, small_store_of_another_name, parent=parent)


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"backbone": "AlexNet"}, {}),
        ({"backbone": "resnet50+alexnet"}, {}),
        ({}, {"weights": "none"}),
    ],
)
def test_from_scratch_everything_is_trained_and_that_is_said(
    sqlite_engine: sa.Engine, settings: dict, changes: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    small_store(sqlite_engine)
    (recipe,) = recipes(sqlite_engine, settings=settings, changes=changes)
    assert (recipe.weights, recipe.mode) == ("none", "finetune")
    say_if_from_scratch(recipe)
    assert "trained from scratch" in capsys.readouterr().err
    for contradiction in ({"weights": "imagenet"}, {"weights": "none", "mode": "features"}):
        with pytest.raises(UserError, match=r"no pretrained weights|sees nothing"):
            recipes(sqlite_engine, settings={"backbone": "AlexNet"}, changes=contradiction)


def test_protocol_and_folds_make_several_runs(sqlite_engine: sa.Engine) -> None:
    store = small_store(sqlite_engine)

    def made(**typed: Any) -> list[tuple[str, int | None, int]]:
        return [(one.split, one.folds, one.fold) for one in recipes(sqlite_engine, **typed)]

    assert made(protocol="both") == [("leak_group", None, 0), ("image", None, 0)]
    assert made(folds="2", protocol="image") == [("image", 2, 0), ("image", 2, 1)]
    assert made(changes={"folds": "4", "fold": "2"}) == [("leak_group", 4, 2)]
    with db.writing(sqlite_engine) as session:
        for fold, subjects in (("fold_1", ("1", "H1")), ("fold_0", ("2", "3", "H2", "H3"))):
            cells = [cell for subject in subjects for cell in store.cells[subject]]
            session.execute(sa.update(Cell).where(Cell.id.in_(cells)).values(fold=fold))
    own = {"split": "dataset_folds"}
    assert made(changes=own, folds="all") == [("dataset_folds", None, 0), ("dataset_folds", None, 1)]
    assert made(changes={**own, "fold": "1"}) == [("dataset_folds", None, 1)]


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
        (("--set", "optimizer=foo"), "adamax, adam, adamw or sgd"),
        (("--recipe", "papers"), "standard, paper"),
        (("--recipe", "paper.yaml"), "recipe file"),
        (("--set", "weights=none", "--mode", "features"), "finetune"),
        (("--backbone", "resnet50+resnet50"), "two different"),
        (("--backbone", "resnet50+vgg16+alexnet"), "two backbones"),
        (("--folds", "all"), "--folds 5"),
        (("--folds", "1"), "from 2 to 50"),
        (("--folds", "5", "--set", "weights=none"), "'hem' has 4"),
        (("--folds", "5", "--set", "fold=2"), "--folds makes a run of every fold"),
        (("--folds", "3", "--set", "split=dataset_folds"), "--folds all"),
        (("--folds", "all", "--set", "split=dataset_folds"), "no folds of its own"),
        (("--protocol", "both", "--set", "split=image"), "give one of them"),
        (("--protocol", "patient"), "leak-group"),
        (("--set", "folds=3", "--set", "fold=3"), "no fold 3"),
        (("--parent", 7), "no run 7"),
        (("--dataset", "nope"), "cells"),
    ],
)
def test_bad_recipes_are_refused(sqlite_engine: sa.Engine, options: tuple[object, ...], words: str) -> None:
    small_store(sqlite_engine)
    assert words in refused("train", *options)
    assert succeed("runs") == []
