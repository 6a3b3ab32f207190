"""What a path says of a cell: label, subject and fold. No file is opened here.

Understood layouts, below the folder that is imported:

- C-NMC 2019: `fold_0/all/UID_<subject>_<image>_<cell>_all.bmp`. The subject is in the name (`UID_h3_…` and
  `UID_H3_…` are one subject); folders above `fold_*` say nothing. A file of this form that lies in no class
  folder takes its label from the end of its name; the folder wins where the two differ, because sorting
  files into folders is how people correct labels by hand.
- Any `class/…/image` tree: the top-most folder is the class. `train`, `validation` and `test` folders above
  the classes are read as folds. A single folder that holds nothing but folders is a wrapper, as zips have
  them, and is passed over, unless it is named like a class that is already known.
- `class/subject/image`: the folder below the class is the subject, so that cells kept together on disk stay
  together in a split. Folders named `images`, `cells` or the like are no subjects.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from allreview.errors import UserError
from allreview.labels import NOT_CLASSES

IMAGE_SUFFIXES = frozenset({".bmp", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"})
LONGEST_NAME = 200
"""Characters of a class, subject or dataset name that the store keeps."""

_CNMC_CLASSES = ("all", "hem")
_TITLES = {"all": "ALL", "hem": "Normal (hem)", "unsure": "Unsure", "unusable": "Unusable"}
_CNMC_NAME = re.compile(r"UID_(?P<subject>[^_]+)_[^_]+_[^_]+_(?P<label>all|hem)", re.IGNORECASE)
_FOLD = re.compile(r"fold_.{1,40}", re.IGNORECASE | re.DOTALL)
_PART_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
_NOT_SUBJECTS = frozenset({"images", "image", "img", "imgs", "cells", "cell", "crops", "crop"})


@dataclass(frozen=True)
class CellName:
    """What a path says; None where it says nothing. `subject` is upper case."""

    label: str | None
    subject: str | None
    fold: str | None


@dataclass(frozen=True)
class Layout:
    """How a tree names its cells: what holds for all its files, found once by `read_layout`."""

    wrapper: str | None = None
    fold: str | None = None

    def read(self, relative: PurePath) -> CellName:
        """Label, subject and fold of the image at `relative`, a path below the imported folder."""
        folders = list(relative.parts[:-1])
        if folders and folders[0] == self.wrapper:
            folders = folders[1:]
        fold, folders = _take_fold(folders)
        label, subject = folders[0] if folders else None, _subject_folder(folders)
        cnmc = _CNMC_NAME.fullmatch(relative.stem)
        if cnmc:
            subject = cnmc["subject"]
            label = label or cnmc["label"].lower()
            if folders and folders[-1].lower() in _CNMC_CLASSES:
                label = folders[-1]
        return CellName(
            clean(label) if label else None, clean_subject(subject) if subject else None, fold or self.fold
        )


def read_layout(paths: Iterable[PurePath], root_name: str = "", known_classes: Iterable[str] = ()) -> Layout:
    """The layout of a tree from its images' paths below the root.

    `root_name`, the name of the imported folder, tells the fold when a single `fold_*` folder is imported.
    `known_classes` are never taken for wrappers.
    """
    classes = {class_key(name) for name in (*_CNMC_CLASSES, *known_classes)}
    deep = [path.parts for path in paths if len(path.parts) > 1]
    top = {parts[0] for parts in deep}
    wrapper = next(iter(top)) if len(top) == 1 and all(len(parts) > 2 for parts in deep) else None
    if wrapper is not None and (class_key(wrapper) in classes or _take_fold([wrapper, ""])[0]):
        wrapper = None
    return Layout(wrapper, root_name if _FOLD.fullmatch(root_name) else None)


def clean(name: str) -> str:
    """The name with composed accents (macOS writes them apart) and no blanks around it."""
    return unicodedata.normalize("NFC", name).strip()


def clean_subject(name: str) -> str:
    """A subject's name as it is stored: upper case, so that `h3` and `H3` are one subject."""
    return clean(name).upper()


def class_title(name: str) -> str:
    """The class name for people: `all` is 'ALL', `hem` is 'Normal (hem)', underscores become spaces."""
    return _TITLES.get(name.lower()) or name.replace("_", " ").strip() or name


def class_key(name: str) -> str:
    """What two spellings of one class have in common: their title, whatever the case."""
    return class_title(clean(name)).casefold()


def match_class(text: str, classes: Sequence[str]) -> str:
    """The class (or `unsure`, `unusable`) that `text` names, by name or title, in any case.

    Raises:
        UserError: no class has that name; the sentence lists those that do.
    """
    allowed = (*classes, *NOT_CLASSES)
    if text in allowed:
        return text
    for name in allowed:
        if class_key(name) == class_key(text):
            return name
    raise UserError(f"{text!r} is not a class here: use one of {', '.join(allowed)}.")


def class_problem(name: str) -> str | None:
    """Why `name` cannot be a class, or None when it can."""
    if not name:
        return "the class name is empty"
    if class_key(name) in NOT_CLASSES:
        return f"the class name {name!r} is kept for cells that reviewers set aside: rename the class"
    return name_problem(name, "class")


def name_problem(name: str, what: str) -> str | None:
    """Why the store cannot hold `name`, the name of a `what`, or None when it can."""
    if len(name) > LONGEST_NAME:
        return f"the {what} name has {len(name)} characters: shorten it to {LONGEST_NAME}"
    if "\0" in name or not is_text(name):
        return f"the {what} name holds bytes that are not text: rename it"
    return None


def is_text(text: str) -> bool:
    """False for strings with lone surrogates, which stand for bytes that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shown(text: str) -> str:
    """`text` for people and JSON: bytes that are not UTF-8 written as \\udcXX."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _take_fold(folders: list[str]) -> tuple[str | None, list[str]]:
    """The fold and the folders below it."""
    for index in reversed(range(len(folders))):
        if _FOLD.fullmatch(folders[index]):
            return folders[index], folders[index + 1 :]
    if len(folders) > 1 and folders[0].lower() in _PART_FOLDERS:
        return folders[0], folders[1:]
    return None, folders


def _subject_folder(folders: list[str]) -> str | None:
    """The folder below the class, when it may be a subject."""
    if len(folders) < 2 or folders[1].lower() in _NOT_SUBJECTS:
        return None
    return folders[1]
