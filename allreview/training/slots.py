"""Which workers are alive.

A worker holds a lock on a numbered file for as long as it lives; the operating system lets go of it even
after `kill -9`. The number is the worker's name to the job engine, so the next worker to take the slot is
handed the work the last one left unfinished.
"""

import uuid

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


def is_first(worker: str) -> bool:
    """Whether this worker's name is that of the first slot."""
    return worker.endswith("-1")


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
