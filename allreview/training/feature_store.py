"""Features on disk: one folder a key, with the vectors of cells that are known by their SHA-256. Without Keras.

`key.json` says what the folder's vectors depend on besides the cell; when it was last changed is when they were
last used. The vectors lie in segments, each of two files that only grow: `<id>.<width>.vectors`, rows of float32,
and `<id>.<width>.keys`, for each row the cell's hash and the CRC-32 of the row. A row counts once its key is written,
and only while the CRC holds, so whatever a kill, a full disk or a damaged one leaves behind is passed over.

A segment has one writer, who holds a lock on its keys. A writer goes on with a segment that nobody writes to, or
begins one: so there are as many segments as there ever were writers at once. Nobody waits for anybody, and two
workers at worst compute a cell twice.
"""

import fcntl
import hashlib
import json
import mmap
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FORMAT = 2
"""Raise it when decoding, resizing or the files change, so that older features are not mixed with new ones."""

KEY_FILE = "key.json"
SHARED = "shared"
"""In the name of a segment that other machines may have, so that nothing is added to it any more."""

_HASH_BYTES, _KEY_BYTES = 32, 36
_BLOCK = 1024  # rows copied at a time


class FeatureFolder:
    """The stored vectors of one key, to read and to add to."""

    def __init__(self, root: Path, key: dict[str, Any]) -> None:
        """Nothing is read or written yet. `root` holds the folders of all keys."""
        self._text = json.dumps(key, sort_keys=True, indent=2)
        self.path = root / hashlib.sha256(self._text.encode()).hexdigest()

    def known(self, hashes: Sequence[str]) -> np.ndarray:
        """For which cells a vector lies here, bool [n]; the vectors are not looked at."""
        found, wanted = np.zeros(len(hashes), dtype=bool), _as_bytes(hashes)
        for segment in _segments(self.path):
            found |= segment.rows_of(wanted) >= 0
        return found

    def read(self, hashes: Sequence[str], vectors: np.ndarray) -> np.ndarray:
        """Copy the cells' vectors into the rows of `vectors`, float32 [n, width]; bool [n], which were there whole.

        The rows of the others are left as they are. Only what is asked for is read.
        """
        found, wanted = np.zeros(len(hashes), dtype=bool), _as_bytes(hashes)
        for segment in _segments(self.path):
            if segment.width == vectors.shape[1] and not found.all():
                places = np.flatnonzero(~found)
                rows = segment.rows_of(wanted[places])
                segment.copy(rows[rows >= 0], places[rows >= 0], vectors, found)
        if found.any():
            self._touch()
        return found

    @property
    def rows(self) -> int:
        """How many rows were written here, those that were written twice counted twice; nothing is read."""
        return sum(path.stat().st_size // _KEY_BYTES for path in self.path.glob("*.keys"))

    @property
    def width(self) -> int | None:
        """The length of the vectors, None while there are none."""
        return next(map(_width, self.path.glob("*.vectors")), None)

    def writer(self, width: int) -> "Writer":
        """Somebody who adds vectors of this length; to be closed."""
        self.path.mkdir(parents=True, exist_ok=True)
        key = self.path / KEY_FILE
        if not key.exists():
            temporary = self.path / f"{uuid.uuid4().hex}.tmp"
            try:
                temporary.write_text(self._text, encoding="utf-8")
                temporary.replace(key)
            finally:
                temporary.unlink(missing_ok=True)
        self._touch()
        return Writer(self.path, width)

    def _touch(self) -> None:
        with suppress(OSError):  # somebody may be removing it
            os.utime(self.path / KEY_FILE)


class Writer:
    """Adds rows to a segment that nobody else writes to meanwhile."""

    def __init__(self, folder: Path, width: int) -> None:
        self._width = width
        self._keys, self._vectors = _free_segment(folder, width)
        rows = min(_size(self._keys) // _KEY_BYTES, _size(self._vectors) // (4 * width))
        self._cut(rows)

    def add(self, hashes: Sequence[str], vectors: np.ndarray) -> None:
        """Add cells' vectors float32 [n, width]: all of them, or none.

        Vectors with numbers that are not finite are left out.

        Raises:
            OSError: there is no room.
        """
        usable = np.isfinite(vectors).all(axis=1)
        rows = np.ascontiguousarray(vectors[usable], dtype="<f4")
        keys = np.empty((len(rows), _KEY_BYTES), dtype=np.uint8)
        keys[:, :_HASH_BYTES] = _as_bytes(hashes)[usable]
        checks = np.array([zlib.crc32(memoryview(row)) for row in rows], dtype="<u4")
        keys[:, _HASH_BYTES:] = checks.view(np.uint8).reshape(-1, 4)
        try:
            _write(self._vectors, rows)
            _write(self._keys, keys)
        except OSError:
            self._cut(self._rows)
            raise
        self._rows += len(rows)

    def close(self) -> None:
        """Let others go on with the segment."""
        self._vectors.close()
        self._keys.close()

    def _cut(self, rows: int) -> None:
        """Forget what was written behind so many rows: no reader has seen it."""
        self._rows = rows
        for file, size in ((self._keys, _KEY_BYTES), (self._vectors, 4 * self._width)):
            file.truncate(rows * size)
            file.seek(rows * size)


@dataclass(frozen=True)
class Stored:
    """One key's folder, for people to look at. `key` is empty where it cannot be read."""

    path: Path
    key: dict[str, Any]
    cells: int
    size_bytes: int
    last_used: datetime

    @property
    def is_current(self) -> bool:
        """Whether this version of allreview reads it."""
        return self.key.get("format") == FORMAT


def stored(root: Path) -> list[Stored]:
    """Every key's folder under `root`, the last used first."""
    folders = [path for path in _entries(root) if len(path.name) == 2 * _HASH_BYTES and path.is_dir()]
    return sorted(map(_looked_at, folders), key=lambda entry: entry.last_used, reverse=True)


def remove(folder: Path) -> bool:
    """Remove a key's folder, unless somebody is writing to it; says whether it is gone.

    It gets another name first, so no reader finds half of it. A writer who comes in between writes to files that
    nobody will find, and the cells are computed again.
    """
    held: list[BinaryIO] = []
    try:
        for path in folder.glob("*.keys"):
            file = path.open("r+b")
            held.append(file)
            if not _locked(file):
                return False
        doomed = folder.with_name(f"{uuid.uuid4().hex}.removed")
        folder.rename(doomed)
    except FileNotFoundError:
        return not folder.exists()
    finally:
        for file in held:
            file.close()
    shutil.rmtree(doomed, ignore_errors=True)
    return True


def close_segments(folder: Path) -> None:
    """Give the segments that nobody writes to the names of such as are never written to again."""
    for keys in folder.glob("*.keys"):
        vectors = keys.with_suffix(".vectors")
        if f".{SHARED}." in keys.name or not vectors.exists():
            continue
        with suppress(OSError), keys.open("r+b") as file:
            if _locked(file) and _size(file) >= _KEY_BYTES:
                name, _, rest = keys.name.partition(".")
                closed = folder / f"{name}.{SHARED}.{rest}"
                # Who reads at this moment finds keys without vectors, and passes the segment over.
                vectors.rename(closed.with_suffix(".vectors"))
                keys.rename(closed)


def sweep(root: Path) -> None:
    """Remove what a removal that was cut off has left."""
    for path in _entries(root):
        if path.name.endswith(".removed"):
            shutil.rmtree(path, ignore_errors=True)


class _Segment:
    """The rows of one segment that were whole when it was opened."""

    def __init__(self, keys: Path) -> None:
        """Raises: OSError, ValueError: it cannot be read as a segment, or has no rows."""
        self.width = _width(keys)
        known = np.fromfile(keys, dtype=np.uint8)
        values = keys.with_suffix(".vectors")
        rows = min(len(known) // _KEY_BYTES, values.stat().st_size // (4 * self.width))
        with values.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 4 * self.width * rows, access=mmap.ACCESS_READ)
        self._vectors = np.frombuffer(mapped, dtype="<f4").reshape(rows, self.width)
        self._keys = known[: rows * _KEY_BYTES].reshape(rows, _KEY_BYTES)
        self.starts = _starts(self._keys)
        self._order = np.argsort(self.starts, kind="stable")

    def rows_of(self, wanted: np.ndarray) -> np.ndarray:
        """The row of each hash, uint8 [n, 32]; the last one where it was added again, -1 where it is not here."""
        places = np.searchsorted(self.starts, _starts(wanted), side="right", sorter=self._order) - 1
        rows = self._order[np.maximum(places, 0)]
        same = (self._keys[rows, :_HASH_BYTES] == wanted).all(axis=1)
        return np.where(same & (places >= 0), rows, -1)

    def copy(self, rows: np.ndarray, places: np.ndarray, vectors: np.ndarray, found: np.ndarray) -> None:
        """Copy rows to their places, and mark in `found` those that are as they were written."""
        checks = self._keys[:, _HASH_BYTES:].copy().view("<u4")[:, 0]
        in_order = np.argsort(rows)
        for start in range(0, len(rows), _BLOCK):
            chosen = in_order[start : start + _BLOCK]
            block = self._vectors[rows[chosen]]
            whole = (
                np.array([zlib.crc32(memoryview(row)) for row in block], dtype=np.uint32)
                == checks[rows[chosen]]
            )
            vectors[places[chosen[whole]]] = block[whole]
            found[places[chosen[whole]]] = True


def _segments(folder: Path) -> Iterator[_Segment]:
    for path in sorted(folder.glob("*.keys")):
        with suppress(OSError, ValueError, IndexError):  # damaged, without rows, or being removed
            yield _Segment(path)


def _width(path: Path) -> int:
    return int(path.suffixes[-2][1:])


def _free_segment(folder: Path, width: int) -> tuple[BinaryIO, BinaryIO]:
    """Keys and vectors of a segment, locked: one that nobody writes to, or a new one."""
    for path in sorted(folder.glob(f"*.{width}.keys")):
        if f".{SHARED}." in path.name:
            continue
        file = path.open("r+b", buffering=0)
        if _locked(file) and path.with_suffix(".vectors").exists():
            return file, path.with_suffix(".vectors").open("r+b", buffering=0)
        file.close()
    path = folder / f"{uuid.uuid4().hex}.{width}.keys"
    vectors = path.with_suffix(".vectors").open("x+b", buffering=0)
    # Under another name until it is locked, so that nobody else goes on with it.
    keys = path.with_suffix(".tmp").open("x+b", buffering=0)
    _locked(keys)
    path.with_suffix(".tmp").rename(path)
    return keys, vectors


def _write(file: BinaryIO, values: np.ndarray) -> None:
    """Write them all: on a disk that fills up, the first writing stops short and the next one fails."""
    left = memoryview(values.tobytes())
    while left:
        left = left[file.write(left) :]


def _locked(file: BinaryIO) -> bool:
    """Whether this process has the lock on the file now, which ends when the file is closed or the process does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _looked_at(folder: Path) -> Stored:
    try:
        key = json.loads((folder / KEY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        key = {}
    files = [file.stat() for file in _entries(folder)]
    moment = max((file.stat().st_mtime for file in (folder / KEY_FILE, folder) if file.exists()), default=0.0)
    cells = [segment.starts for segment in _segments(folder)]
    return Stored(
        folder,
        key if isinstance(key, dict) else {},
        len(np.unique(np.concatenate(cells))) if cells else 0,
        sum(file.st_size for file in files),
        datetime.fromtimestamp(moment, UTC),
    )


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _as_bytes(hashes: Sequence[str]) -> np.ndarray:
    """Hexadecimal SHA-256 as uint8 [n, 32]."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8).reshape(-1, _HASH_BYTES)


def _starts(keys: np.ndarray) -> np.ndarray:
    """The first eight bytes of each hash as a number, to look it up by."""
    return keys[:, :8].copy().view("<u8")[:, 0]


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
