"""Where a file lies: on a disk of this machine or a shared one, or in object storage (`s3://bucket/key`).

Everything that reads a cell asks `cell_file` for what its path means. A disk is read as it always was; s3fs, through
universal-pathlib, is loaded with the first object. Credentials and endpoint are those of the standard variables
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION …) or of the usual AWS files.
"""

import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union

from allreview.errors import UserError

if TYPE_CHECKING:
    from upath import UPath

Place: TypeAlias = Union[Path, "UPath"]
"""A path on a disk, or an object or folder in object storage."""

SCHEME = "s3://"
AT_ONCE = 32
"""Objects that are asked for at the same time: each takes long to arrive, and little to handle."""

_OPTIONS: dict[str, Any] = {
    # A listing that was remembered would hide what another machine has written since.
    "use_listings_cache": False,
    # s3fs tries again by itself; both together would take ten seconds to notice that nobody answers.
    "config_kwargs": {"retries": {"max_attempts": 1}, "max_pool_connections": 2 * AT_ONCE},
}
_SPARED = 5.0  # seconds for which no cell is asked of a server that did not answer: a page asks for dozens
_silent: dict[str, float] = {}
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
}


class StoreUnusable(UserError):  # noqa: N818 - a sentence for people, like every UserError
    """Object storage as a whole cannot be used, so no other object could be read either."""


@dataclass(frozen=True)
class Entry:
    """What a listing says of a file: its size in bytes, and when it was written (seconds since 1970)."""

    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object by its address. A dataset has a million of them, for which UPath would need minutes."""

    address: str

    @property
    def path(self) -> str:
        """Bucket and key."""
        return self.address.removeprefix(SCHEME)

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]

    @property
    def fs(self) -> Any:
        _require_packages(self.address)
        import fsspec

        return fsspec.filesystem("s3", **_OPTIONS)

    def __str__(self) -> str:
        return self.address


File: TypeAlias = Place | StoredObject
"""What an image is read from."""


def place(text: str) -> Place:
    """The folder or file that somebody names in a command, on a page or in a setting.

    Raises:
        UserError: it names object storage of another kind than S3, or the packages to read it are missing.
    """
    if "://" not in text:
        return Path(text)
    if not text.startswith(SCHEME):
        raise UserError(f"{text!r} cannot be read: of object storage only s3://bucket/folder is.")
    _require_packages(text)
    from upath import UPath

    return UPath(text, **_OPTIONS)


def cell_file(text: str) -> File:
    """The file of a cell by the path that the store keeps of it. Nothing is looked at yet."""
    return StoredObject(text) if text.startswith(SCHEME) else Path(text)


def _require_packages(text: str) -> None:
    try:
        import s3fs as _
        import upath as _  # noqa: F401, F811
    except ImportError:
        raise UserError(
            f"{text!r} cannot be read without the packages universal-pathlib and s3fs: install them with pip."
        ) from None


def is_object(where: File) -> bool:
    """Whether it lies in object storage."""
    return not isinstance(where, Path)


def kind(where: File) -> Literal["folder", "file"] | None:
    """What is there; None when nothing is.

    Raises:
        UserError: that cannot be known; a reason as a clause without full stop.
    """
    if isinstance(where, Path):
        return "folder" if where.is_dir() else "file" if where.is_file() else None
    with explained(where):
        try:
            return "folder" if where.fs.info(where.path)["type"] == "directory" else "file"
        except FileNotFoundError as error:
            if _lacks_bucket(error, where):
                raise
            return None


def read_object(where: File, most: int) -> bytes:
    """The object's bytes, in one request; of a larger one only the first `most` + 1.

    Raises:
        UserError: it cannot be read; a reason as a clause without full stop.
    """
    assert not isinstance(where, Path)
    silent_since = _silent.get(_server(), float("-inf"))
    if time.monotonic() - silent_since < _SPARED:
        raise _unreachable()
    with explained(where):
        try:
            data: Any = where.fs.cat_file(where.path, start=0, end=most + 1)
        except OSError as error:
            if error.errno == errno.EINVAL and "range" in str(error):  # of an empty object there is no part
                return b""
            raise
    return data


def objects_below(folder: Place) -> Iterator[tuple[str, str]]:
    """Every object below a folder as (its address, its path below the folder), in the order of their names.

    Raises:
        UserError: the folder cannot be listed; a reason as a clause without full stop.
    """
    assert not isinstance(folder, Path)
    root = folder.path.rstrip("/")
    with explained(folder):
        names = folder.fs.find(root)
    for name in names:
        if not name.endswith("/"):  # what some tools write to show an empty folder
            yield SCHEME + name, name[len(root) + 1 :]


def files_in(folder: Place, *, below: bool = False) -> dict[str, Entry]:
    """The files of a folder by name; with `below` those of its folders too, by their paths below it.

    Raises:
        UserError: it cannot be listed; a reason as a clause without full stop.
    """
    if isinstance(folder, Path):
        paths = folder.rglob("*") if below else folder.glob("*")
        files = [path for path in paths if path.is_file()]
        return {path.relative_to(folder).as_posix(): _entry(path.stat()) for path in files}
    root = folder.path.rstrip("/")
    with explained(folder):
        try:
            found: Any = folder.fs.find(root, detail=True) if below else folder.fs.ls(root, detail=True)
        except FileNotFoundError as error:
            if _lacks_bucket(error, folder):
                raise
            return {}
    return {
        entry["name"][len(root) + 1 :]: Entry(entry["size"], entry["LastModified"].timestamp())
        for entry in (found.values() if below else found)
        if entry["type"] == "file" and not entry["name"].endswith("/") and entry["name"] != root
    }


def upload(file: Path, target: Place) -> None:
    """Put a file of this machine to another place, whole or not at all.

    Raises:
        UserError: it cannot be written there; a reason as a clause without full stop.
        OSError: the file cannot be read.
    """
    if not isinstance(target, Path):
        with explained(target):
            target.fs.put_file(os.fspath(file), target.path)
        return
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(lambda temporary: shutil.copy2(file, temporary), target)


def download(source: Place, file: Path, entry: Entry) -> None:
    """Get a file from another place, whole or not at all; it is dated as it is there.

    Raises:
        UserError: it cannot be read, or this machine's disk is full; a reason as a clause without full stop.
    """
    with explained(source):
        file.parent.mkdir(parents=True, exist_ok=True)

        def get(temporary: Path) -> None:
            if isinstance(source, Path):
                shutil.copyfile(source, temporary)
            else:
                source.fs.get_file(source.path, os.fspath(temporary))
            os.utime(temporary, (entry.modified, entry.modified))

        _copy(get, file)


@contextmanager
def explained(where: File) -> Iterator[None]:
    """Say in a clause why a place cannot be read or written: the libraries raise errors of many kinds."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _refusal(error, where) from None


def _refusal(error: Exception, where: File) -> UserError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    if isinstance(where, Path):
        return UserError(getattr(error, "strerror", None) or first)
    if _is_connection(error):
        _silent[_server()] = time.monotonic()
        return _unreachable()
    if type(error).__name__ in _NO_CREDENTIALS:
        return StoreUnusable(
            "there are no credentials for the object storage: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if isinstance(error, FileNotFoundError) and _lacks_bucket(error, where):
        return StoreUnusable(f"there is no bucket {where.path.partition('/')[0]!r}")
    if isinstance(error, FileNotFoundError):
        reason = "the file is gone"
    elif isinstance(error, PermissionError):
        reason = "the object storage denies access to it: check the AWS credentials and their rights"
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        reason = "the disk is full"
    else:
        reason = f"the object storage cannot serve it ({first})"
    return UserError(reason)


def _server() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "its address"


def _unreachable() -> StoreUnusable:
    return StoreUnusable(
        f"the object storage cannot be reached at {_server()}: check AWS_ENDPOINT_URL and the network"
    )


def _is_connection(error: Exception) -> bool:
    """Whether nobody answered: by the libraries' own errors, which are no OSErrors, or by the system's."""
    names = {kind.__name__ for kind in type(error).__mro__}
    asked = {
        "EndpointConnectionError",
        "ConnectionError",
        "HTTPClientError",
        "ClientConnectionError",
        "TimeoutError",
    }
    return bool(names & asked)


def _lacks_bucket(error: Exception, where: File) -> bool:
    response = getattr(error.__cause__, "response", None) or {}
    no_key = isinstance(where, Path) or "/" not in where.path.rstrip("/")
    return response.get("Error", {}).get("Code") == "NoSuchBucket" or no_key


def _copy(write: Any, target: Path) -> None:
    temporary = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        write(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _entry(status: os.stat_result) -> Entry:
    return Entry(status.st_size, status.st_mtime)
