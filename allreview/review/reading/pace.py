"""How fast a sitting goes, from its last answers. A cup of coffee does not make a slow reader."""

from collections.abc import Sequence
from statistics import fmean, median

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.labels import in_force
from db.tables import Annotation

RECENT = 30
"""So many of the last answers are looked at."""
FEWEST = 5
"""Fewer answers say nothing about the pace."""
_PAUSE_MS = 60_000
_PAUSE_TIMES = 5
"""An answer is a pause where it took longer than a minute and five times the usual."""


def recent_durations(session: Session, sitting_id: int) -> list[int]:
    """Milliseconds of the sitting's last answers that stand, the last first."""
    query = (
        sa.select(Annotation.duration_ms)
        .where(Annotation.session_id == sitting_id, Annotation.duration_ms.is_not(None), in_force())
        .order_by(Annotation.id.desc())
        .limit(RECENT)
    )
    return [duration for duration in session.scalars(query) if duration is not None]


def cells_an_hour(durations_ms: Sequence[int]) -> float | None:
    """The pace without its pauses; None while there are too few answers to say.

    >>> cells_an_hour([9_000, 9_000, 9_000, 9_000, 9_000, 1_200_000])
    400.0
    """
    if len(durations_ms) < FEWEST:
        return None
    longest = max(_PAUSE_MS, _PAUSE_TIMES * median(durations_ms))
    return 3_600_000 / max(fmean(each for each in durations_ms if each <= longest), 1.0)


def pace_words(per_hour: float | None, left: int) -> str:
    """'412 cells an hour, about 7 min left'; empty while there is nothing to say.

    >>> pace_words(412.4, 50)
    '412 cells an hour, about 7 min left'
    """
    if per_hour is None:
        return ""
    words = f"{per_hour:,.0f} cells an hour"
    return f"{words}, {_time_left(left / per_hour)} left" if left else words


def _time_left(hours: float) -> str:
    minutes = round(hours * 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return f"about {minutes} min"
    quarters = round(hours * 4)
    whole, rest = divmod(quarters, 4)
    return f"about {whole}{('', '¼', '½', '¾')[rest]} h"
