"""Zips, unpacked without trusting them: names that climb out, bombs, links and passwords are refused."""

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from allreview.cells.decoding import MAX_FILE_BYTES
from allreview.cells.naming import IMAGE_SUFFIXES, shown
from allreview.cells.scanning import Rejected, is_hidden
from allreview.errors import UserError
from allreview.settings import Settings

MAX_UNPACKED_BYTES = 50 * 10**9
MAX_RATIO = 200
"""Unpacked over packed size of the whole zip, from `RATIO_COUNTS_FROM` bytes on. C-NMC cells in their black
frames reach about 10; a bomb reaches 1,000."""
RATIO_COUNTS_FROM = 10**9

_LISTING = ".rejected.json"  # hidden, so that a scan of the folder passes over it
_UNPACKED_SUFFIXES = IMAGE_SUFFIXES | {".csv"}


@dataclass(frozen=True)
class Unpacked:
    """A zip's folder under uploads, and the entries that stayed out."""

    folder: Path
    rejected: tuple[Rejected, ...]


def unpack(settings: Settings, archive: Path, progress: Callable[[int, int], None] | None = None) -> Unpacked:
    """Unpack the images and CSV files of a zip to `uploads/<SHA-256 of the zip>/`.

    The folder appears whole or not at all, and the same zip is unpacked once. `progress` is given
    entries done and entries in all.

    Raises:
        UserError: not a readable zip, too large unpacked, or no room on the disk.
    """
    folder = settings.uploads / _sha256(archive)
    if folder.is_dir():
        listing = json.loads((folder / _LISTING).read_text("utf-8"))
        return Unpacked(folder, tuple(Rejected(**entry) for entry in listing))
    settings.uploads.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=settings.uploads, prefix=".unpacking-"))
    try:
        with zipfile.ZipFile(archive) as opened:
            rejected = _unpack_entries(opened, archive, partial, progress)
        (partial / _LISTING).write_text(json.dumps([entry.as_dict() for entry in rejected]), "utf-8")
        partial.chmod(0o755)
        _put_in_place(partial, folder)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, UnicodeDecodeError, NotImplementedError) as error:
        raise UserError(
            f"{shown(archive.name)} is not a zip that can be read ({error}): pack it again."
        ) from None
    except OSError as error:
        raise UserError(
            f"{shown(archive.name)} could not be unpacked: {error.strerror or error}. "
            f"Make room or rights under {settings.uploads} and try again."
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Unpacked(folder, tuple(rejected))


def _put_in_place(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another import of the same zip was faster
            raise


def _unpack_entries(
    opened: zipfile.ZipFile, archive: Path, folder: Path, progress: Callable[[int, int], None] | None
) -> list[Rejected]:
    rejected: list[Rejected] = []
    wanted = list(_wanted(opened.infolist(), rejected))
    _check_size([entry for entry, _ in wanted], archive, folder)
    for done, (entry, path) in enumerate(wanted, start=1):
        reason = _unpack_entry(opened, entry, folder / path)
        if reason:
            rejected.append(Rejected(shown(entry.filename), reason))
        if progress:
            progress(done, len(wanted))
    return rejected


def _wanted(
    entries: list[zipfile.ZipInfo], rejected: list[Rejected]
) -> Iterator[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The entries to unpack with their paths below the folder; the others go to `rejected` with a reason."""
    seen: set[PurePosixPath] = set()
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))  # old Windows tools write backslashes
        if entry.is_dir() or (".." not in path.parts and is_hidden(path.parts)):
            continue
        reason = _entry_problem(entry, path) or ("the zip holds this name twice" if path in seen else None)
        if reason:
            rejected.append(Rejected(shown(entry.filename), reason))
            continue
        seen.add(path)
        yield entry, path


def _entry_problem(entry: zipfile.ZipInfo, path: PurePosixPath) -> str | None:
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0][1:2]):
        return "its path leads out of the zip"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "it is a link, not a file"
    if path.suffix.lower() not in _UNPACKED_SUFFIXES:
        return "it is not a BMP, PNG, JPEG, TIFF or WebP image"
    if entry.flag_bits & 0x1:
        return "it is encrypted: pack it without a password"
    if entry.file_size > MAX_FILE_BYTES:
        return f"it has {entry.file_size:,} bytes, more than one cell can need"
    return None


def _check_size(entries: list[zipfile.ZipInfo], archive: Path, folder: Path) -> None:
    """zipfile never unpacks more than an entry's header promises, so the headers' sum is the bound."""
    total = sum(entry.file_size for entry in entries)
    packed = archive.stat().st_size
    name = shown(archive.name)
    if total > MAX_UNPACKED_BYTES:
        raise UserError(
            f"{name} holds {total / 1e9:,.0f} GB unpacked, "
            f"more than {MAX_UNPACKED_BYTES / 1e9:.0f} GB: split it."
        )
    if total > RATIO_COUNTS_FROM and total > MAX_RATIO * packed:
        raise UserError(f"{name} grows {total // packed}-fold when unpacked, as no images do: it is refused.")
    if total > shutil.disk_usage(folder).free:
        raise UserError(
            f"{name} needs {total / 1e9:.1f} GB under {folder.parent}, and there is less free: make room."
        )


def _unpack_entry(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> str | None:
    """Write one entry; gives the reason when it could not be."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(entry) as source, open(target, "xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        return f"it could not be written: {error.strerror or error}"
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        target.unlink(missing_ok=True)
        return f"the zip is damaged here ({error})"
    return None


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{shown(os.fspath(path))} cannot be read: {error.strerror or error}.") from None
