"""Which files an import looks at: the images below a folder, or those a CSV names."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath

from allreview.cells.decoding import read_bytes
from allreview.cells.naming import IMAGE_SUFFIXES, CellName, clean, clean_subject, is_text, read_layout, shown
from allreview.errors import UserError
from allreview.places import File, Place, cell_file, is_object, objects_below

COLUMNS = ("path", "label", "subject")
NOT_UTF8 = "its path holds bytes that are not UTF-8: rename it"
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True)
class Rejected:
    """A file that stayed out, and why."""

    path: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image file to import: where it lies, how the report calls it, and what its name or CSV row says.

    There is one for every file of an import, so it is small: text instead of a path, or an object's address; and
    candidates of which the same is said share its `name`.
    """

    file: str
    shown: str
    name: CellName

    @property
    def path(self) -> File:
        return cell_file(self.file)


@dataclass(frozen=True)
class Scan:
    """What there is to import, in the order of the paths, and what stays out."""

    candidates: list[Candidate]
    rejected: list[Rejected]


@dataclass(frozen=True)
class _Row:
    """A row of a CSV: its file, where that lies for its name to be read, and what the row says."""

    file: str
    placed: PurePath
    shown: str
    label: str | None
    subject: str | None


def is_hidden(parts: Iterable[str]) -> bool:
    """True for files that systems leave behind (.DS_Store, Thumbs.db, __MACOSX): no person put them there."""
    return any(part.startswith(".") or part.lower() in _SYSTEM_FILES for part in parts)


def scan_folder(
    root: Place, known_classes: Iterable[str] = (), found: Callable[[int], None] | None = None
) -> Scan:
    """Every image below `root` (resolved), named by its path. Linked folders are followed, once each.

    `found` is told the number of images after each one.

    Raises:
        UserError: it lies in object storage and cannot be listed.
    """
    rejected: list[Rejected] = []
    images: list[tuple[str, str]] = []
    for path, relative in _files_below(root, rejected):
        if not (is_text(path) and is_text(relative)):
            rejected.append(Rejected(shown(relative), NOT_UTF8))
        elif os.path.splitext(path)[1].lower() not in IMAGE_SUFFIXES:
            rejected.append(Rejected(relative, "it is not a BMP, PNG, JPEG, TIFF or WebP image"))
        else:
            images.append((path, relative))
            if found:
                found(len(images))
    # A layout follows from the folders: one image of each is enough to see it.
    of_folder = {os.path.dirname(relative): relative for _, relative in images}
    layout = read_layout((PurePath(relative) for relative in of_folder.values()), root.name, known_classes)
    names: dict[CellName, CellName] = {}
    candidates = []
    for path, relative in images:
        name = layout.read(PurePath(relative))
        candidates.append(Candidate(path, relative, names.setdefault(name, name)))
    return Scan(candidates, rejected)


def scan_csv(labels: Place, root: Place, known_classes: Iterable[str] = ()) -> Scan:
    """The files a CSV names. Empty labels and subjects are read from folder and name, as `scan_folder` does.

    Raises:
        UserError: the CSV cannot be read, or its header lacks a column; or `root` lies in object storage and cannot
            be listed.
    """
    rejected: list[Rejected] = []
    rows: dict[str, _Row] = {}
    contradicted: set[str] = set()
    for row in _csv_rows(labels, _Objects(root) if is_object(root) else _Files(labels, root), rejected):
        earlier = rows.setdefault(row.file, row)
        if (earlier.label, earlier.subject) != (row.label, row.subject):
            contradicted.add(row.file)
    for file in contradicted:
        row = rows.pop(file)
        rejected.append(Rejected(row.shown, "the CSV names it twice, with different labels or subjects"))
    layout = read_layout((row.placed for row in rows.values()), root.name, known_classes)
    candidates = []
    names: dict[CellName, CellName] = {}
    for row in sorted(rows.values(), key=lambda row: PurePath(row.file)):
        name = layout.read(row.placed)
        name = replace(name, label=row.label or name.label, subject=row.subject or name.subject)
        candidates.append(Candidate(row.file, row.shown, names.setdefault(name, name)))
    return Scan(candidates, rejected)


def _files_below(root: Place, rejected: list[Rejected]) -> Iterator[tuple[str, str]]:
    """Files below `root` as (path or address, path as it reads below the root), in the order of their names."""
    if isinstance(root, Path):
        yield from _walk(os.fspath(root), "", {os.fspath(root)}, rejected)
        return
    try:
        for address, relative in objects_below(root):
            if not is_hidden(relative.split("/")):
                yield address, relative
    except UserError as error:
        raise UserError(f"{str(root)!r} cannot be listed: {error}.") from None


def _walk(
    folder: str, relative: str, visited: set[str], rejected: list[Rejected]
) -> Iterator[tuple[str, str]]:
    """Files below `folder` as (resolved path, path as it reads below the root), in the order of their names."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        where = shown(relative or ".")
        rejected.append(Rejected(where, f"the folder cannot be read: {error.strerror or error}"))
        return
    for entry in entries:
        if is_hidden((entry.name,)):
            continue
        linked = entry.is_symlink()
        real = os.path.realpath(entry.path) if linked else entry.path
        below = os.path.join(relative, entry.name)
        if os.path.isdir(real) if linked else entry.is_dir():
            if real not in visited:
                visited.add(real)
                yield from _walk(real, below, visited, rejected)
        else:
            yield real, below


def _csv_rows(labels: Place, files: "_Files | _Objects", rejected: list[Rejected]) -> Iterator[_Row]:
    text = _read_text(labels)
    header = text.split("\n", 1)[0]
    delimiter = ";" if header.count(";") > header.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        columns = [column.strip().lower() for column in next(reader, [])]
        missing = [column for column in COLUMNS if column not in columns]
        if missing:
            raise UserError(
                f"{shown(labels.name)} has no column {missing[0]!r}: its first line must be "
                "path,label,subject (labels and subjects may be left empty)."
            )
        places = [columns.index(column) for column in COLUMNS]
        for fields in reader:
            if any(field.strip() for field in fields):
                row = _csv_row(fields, places, labels, files, reader.line_num, rejected)
                if row:
                    yield row
    except csv.Error as error:
        raise UserError(
            f"{shown(labels.name)}, line {reader.line_num}: {error}. Save it as a plain CSV."
        ) from None


def _csv_row(
    fields: list[str],
    places: list[int],
    labels: Place,
    files: "_Files | _Objects",
    line: int,
    rejected: list[Rejected],
) -> _Row | None:
    where = f"{shown(labels.name)}, line {line}"
    if len(fields) <= places[0] or not fields[places[0]].strip():
        rejected.append(Rejected(where, "the row names no file"))
        return None
    path, label, subject = (fields[place] if place < len(fields) else "" for place in places)
    if "\0" in path:
        rejected.append(Rejected(where, "the path holds a NUL character"))
        return None
    found = next(filter(None, map(files.find, dict.fromkeys(_spellings(path)))), None)
    if found is None:
        rejected.append(Rejected(path, "there is no such file beside the CSV or in the imported folder"))
        return None
    file, placed = found
    if not is_text(file):
        rejected.append(Rejected(shown(path), NOT_UTF8))
        return None
    return _Row(file, placed, path, clean(label) or None, clean_subject(subject) or None)


def _spellings(text: str) -> tuple[str, ...]:
    """How a CSV may mean a path: as it is written first, then without blanks around it, or as Windows spells it."""
    return (text, text.strip(), text.strip().replace("\\", "/"))


class _Files:
    """The files that a CSV can name: beside it, in the imported folder, or anywhere by a whole path."""

    def __init__(self, labels: Place, root: Place) -> None:
        self._folders = [folder for folder in (labels.parent, root) if isinstance(folder, Path)]

    def find(self, text: str) -> tuple[str, PurePath] | None:
        """The file, resolved, and its path below the folder that holds it."""
        for folder in self._folders:
            path = folder / text
            try:
                if path.is_file():
                    resolved = path.resolve()
                    return os.fspath(resolved), self._below(resolved)
            except (OSError, ValueError):
                continue
        return None

    def _below(self, path: Path) -> PurePath:
        """Outside of the folders only its own folder's name tells a class."""
        for folder in reversed(self._folders):
            if path.is_relative_to(folder):
                return path.relative_to(folder)
        return PurePath(*path.parts[-2:])


class _Objects:
    """The objects that a CSV can name: below the imported folder, by address or by path; listed once."""

    def __init__(self, root: Place) -> None:
        self._found = {}
        for address, relative in _files_below(root, []):
            self._found[address] = self._found[relative] = (address, PurePath(relative))

    def find(self, text: str) -> tuple[str, PurePath] | None:
        return self._found.get(text.removeprefix("./"))


def _read_text(labels: Place) -> str:
    try:
        data = labels.read_bytes() if isinstance(labels, Path) else read_bytes(labels)
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"The CSV {shown(str(labels))} cannot be read: {error.strerror or error}.") from None
    except UserError as error:
        raise UserError(f"The CSV {shown(str(labels))} cannot be read: {error}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{shown(labels.name)} is not UTF-8 text: save it as CSV UTF-8.") from None
