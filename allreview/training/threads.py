"""How many threads a worker computes with. Without Keras."""

import os

from allreview.settings import Settings, current_settings

_TOLD_BY = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def count() -> int:
    """The threads this process may compute with: as `Settings.threads` says, else one for each core it may use."""
    return current_settings().threads or _cores()


def tell_libraries(settings: Settings) -> None:
    """Have libraries that are loaded from now on keep to `settings.threads`."""
    if settings.threads is not None:
        os.environ.update(dict.fromkeys(_TOLD_BY, str(settings.threads)))


def _cores() -> int:
    """The cores this process may use, where the system says so; all there are elsewhere."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
