"""Noticing that a run kills its worker again and again at the same place.

When memory runs out the kernel kills the worker without a word, the next one takes the run up where it was, and
dies there too. So each attempt at a step is counted in the run's folder, by the place it began at; a kill that
came after some progress begins the count anew.
"""

import json
from pathlib import Path

from allreview.errors import UserError

FILE = "attempts.json"
MOST = 5
"""So many attempts at one place; a machine may be switched off in the middle of a long epoch more than once."""


def begin_attempt(folder: Path, place: str) -> None:
    """Count one more attempt to go on from `place`, whatever says how far the run has come.

    Raises:
        UserError: the worker died there `MOST` times.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    before, times = _read(path)
    times = times + 1 if before == place else 1
    if times > MOST:
        path.unlink(missing_ok=True)
        raise UserError(
            f"The worker died {MOST} times at the same place, most likely because the machine ran out of memory. "
            "Choose a smaller batch_size or image_size, or fewer views, and train again."
        )
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"place": place, "times": times}), encoding="utf-8")
    temporary.replace(path)


def end_attempts(folder: Path) -> None:
    """The run is over: nothing is counted any more."""
    (folder / FILE).unlink(missing_ok=True)


def _read(path: Path) -> tuple[str | None, int]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["place"]), int(found["times"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, 0
