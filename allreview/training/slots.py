"""Which workers are alive.

A worker holds a lock on a numbered file for as long as it lives; the operating system lets go of it even
after `kill -9`. The number is the worker's name to the job engine, so the next worker to take the slot is
handed the work the last one left unfinished; unless another that lives has noticed before and taken it.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import BaseFileLock, FileLock, Timeout

from allreview.settings import Settings

MOST_WORKERS = 64


def take_slot(settings: Settings, *, only_first: bool = False) -> tuple[str, BaseFileLock] | None:
    """The first free slot as (worker name, held lock); None when all, or the only one asked for, are taken."""
    folder = settings.root / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 2 if only_first else MOST_WORKERS + 1):
        lock = FileLock(folder / f"{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        return f"{_home_name(settings)}-{number}", lock
    return None


@contextmanager
def taken_over(settings: Settings, worker: str) -> Iterator[bool]:
    """Whether the worker of this name is dead; if so, nobody takes its slot until the end of the block.

    A worker of another home is never said to be.
    """
    home, _, number = worker.rpartition("-")
    if home != _home_name(settings):
        yield False
        return
    lock = FileLock(settings.root / "workers" / f"{number}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def living(settings: Settings) -> int:
    """How many workers live on this home."""
    count = 0
    for path in (settings.root / "workers").glob("*.lock"):
        with taken_over(settings, f"{_home_name(settings)}-{path.stem}") as dead:
            count += not dead
    return count


def somebody_works(settings: Settings) -> bool:
    """True when a worker holds the first slot."""
    taken = take_slot(settings, only_first=True)
    if taken is None:
        return True
    taken[1].release()
    return False


def _home_name(settings: Settings) -> str:
    """A name for this home folder that stays, whatever the machine is called."""
    path = settings.root / "workers" / "home"
    try:
        return path.read_text()
    except FileNotFoundError:
        name = uuid.uuid4().hex[:12]
        try:
            with open(path, "x") as file:
                file.write(name)
        except FileExistsError:
            return path.read_text()
        return name
