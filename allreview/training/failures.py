"""What to tell people when a run could not go on: one sentence that says what to do. Without Keras."""

import errno
import re
from collections.abc import Iterator

from allreview.errors import UserError

DISK_FULL = "The disk is full. Free some space under ALLREVIEW_HOME and start the run again."
OUT_OF_MEMORY = (
    "The machine ran out of memory. Choose a smaller batch_size or image_size, or fewer views, "
    "and train again."
)

# HDF5 reports the number in its text, NumPy that less was written than asked, SQLite and TensorFlow in words.
_NO_SPACE = re.compile(
    r"errno = 28\b|\[Errno 28\]|no space left on device|\d+ requested and \d+ written|database or disk is full",
    re.IGNORECASE,
)
_NO_MEMORY = re.compile(
    r"out of memory|OOM when allocating|failed to allocate|unable to allocate|cannot allocate memory",
    re.IGNORECASE,
)


def sentence(error: BaseException) -> str:
    """What went wrong and what to do. The cause counts: libraries wrap one error into another."""
    if isinstance(error, UserError):
        return str(error)
    chain = list(_causes(error))
    # TensorFlow calls a full disk an exhausted resource too, so the disk is asked first.
    if any(_is_disk(cause) for cause in chain):
        return DISK_FULL
    if any(_is_memory(cause) for cause in chain):
        return OUT_OF_MEMORY
    for cause in chain:
        if isinstance(cause, UserError):
            return str(cause)
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return f"Something unexpected went wrong ({type(error).__name__}: {first}). See logs/worker.log."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it came from, the outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    return not isinstance(error, UserError) and bool(_NO_SPACE.search(str(error)))


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if isinstance(error, UserError):
        return False
    return type(error).__name__ == "ResourceExhaustedError" or bool(_NO_MEMORY.search(str(error)))
