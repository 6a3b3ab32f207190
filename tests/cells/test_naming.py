"""Label, subject and fold from paths; class names for people and back."""

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allreview.cells.naming import CellName, class_key, class_problem, class_title, match_class, read_layout
from allreview.errors import UserError


def read(*paths: str, root: str = "", known: tuple[str, ...] = ()) -> list[CellName]:
    pure = [PurePath(path) for path in paths]
    layout = read_layout(pure, root, known)
    return [layout.read(path) for path in pure]


def test_cnmc_layout_names_everything() -> None:
    assert read("fold_0/all/UID_11_10_1_all.bmp", "fold_2/hem/UID_h3_1_2_hem.bmp") == [
        CellName("all", "11", "fold_0"),
        CellName("hem", "H3", "fold_2"),
    ]


@pytest.mark.parametrize("above", ["", "C-NMC/", "C-NMC/training_data/"])
def test_folders_above_the_folds_say_nothing(above: str) -> None:
    assert read(f"{above}fold_1/all/UID_5_1_1_all.bmp") == [CellName("all", "5", "fold_1")]


def test_one_fold_or_one_class_can_be_imported_alone() -> None:
    assert read("all/UID_5_1_1_all.bmp", "hem/UID_H1_1_1_hem.bmp", root="fold_1") == [
        CellName("all", "5", "fold_1"),
        CellName("hem", "H1", "fold_1"),
    ]
    assert read("UID_5_1_1_all.bmp") == [CellName("all", "5", None)]
    assert read("all/UID_5_1_1_all.bmp") == [CellName("all", "5", None)]


def test_the_folder_wins_over_the_name() -> None:
    assert read("fold_0/hem/UID_5_1_1_all.bmp")[0].label == "hem"


def test_any_class_tree_and_its_wrapper() -> None:
    plain = read("basophil/a.jpg", "monocyte/b.jpg")
    wrapped = read("pbc/basophil/a.jpg", "pbc/monocyte/b.jpg")
    assert plain == wrapped == [CellName("basophil", None, None), CellName("monocyte", None, None)]


def test_a_stray_picture_beside_the_wrapper_changes_nothing() -> None:
    names = read("pbc/basophil/a.jpg", "pbc/monocyte/b.jpg", "preview.png")
    assert [name.label for name in names] == ["basophil", "monocyte", None]


def test_a_single_class_is_no_wrapper() -> None:
    assert read("basophil/a.jpg")[0].label == "basophil"
    assert read("basophil/P1/a.jpg", "basophil/P2/b.jpg", known=("basophil",))[0] == CellName(
        "basophil", "P1", None
    )


def test_nested_folders_are_subjects_unless_they_are_called_images() -> None:
    assert read("a/p1/x.png", "b/p2/y.png") == [CellName("a", "P1", None), CellName("b", "P2", None)]
    assert read("a/images/x.png", "b/images/y.png")[0] == CellName("a", None, None)


def test_train_and_test_folders_are_folds_not_classes() -> None:
    assert read("train/a/x.png", "test/b/y.png") == [
        CellName("a", None, "train"),
        CellName("b", None, "test"),
    ]


def test_accents_are_composed_so_that_macs_and_others_agree() -> None:
    assert read("cafe\u0301/x.png", "z/y.png")[0].label == "caf\u00e9"


@pytest.mark.parametrize(
    ("name", "title"),
    [("all", "ALL"), ("hem", "Normal (hem)"), ("unsure", "Unsure"), ("unusable", "Unusable")],
)
def test_titles_of_known_names(name: str, title: str) -> None:
    assert class_title(name) == title


def test_other_titles_lose_nothing() -> None:
    assert class_title("smudge_cell") == "smudge cell"
    assert class_title("NK-cell (CD56+)") == "NK-cell (CD56+)"
    assert class_title("_") == "_"


@given(st.lists(st.text(min_size=1).filter(lambda name: class_problem(name) is None), min_size=1))
def test_every_class_is_found_by_its_name_and_by_its_title(names: list[str]) -> None:
    classes = list({class_key(name): name.strip() for name in names if name.strip()}.values())
    for name in classes:
        assert match_class(name, classes) == name
        assert match_class(class_title(name), classes) == name


def test_matching_forgives_case_and_accepts_titles() -> None:
    classes = ["all", "hem"]
    assert match_class("ALL", classes) == "all"
    assert match_class(" normal (HEM) ", classes) == "hem"
    assert match_class("Unsure", classes) == "unsure"
    assert match_class("unusable", classes) == "unusable"


@pytest.mark.parametrize("text", ["", "blast", "al"])
def test_an_unknown_class_is_refused_with_the_names(text: str) -> None:
    with pytest.raises(UserError, match="all, hem, unsure, unusable"):
        match_class(text, ["all", "hem"])


@pytest.mark.parametrize("name", ["unsure", "UNUSABLE", "", "x" * 201])
def test_names_that_cannot_be_classes(name: str) -> None:
    assert class_problem(name)
