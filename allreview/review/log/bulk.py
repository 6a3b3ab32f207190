"""One answer to many cells: what it would change, told before it is given."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.cells.browsing import rows_of_cells
from allreview.cells.cell_query import CellRow
from allreview.labels import standing
from allreview.review.log.events import last_event_ids, slices
from db.tables import Annotation, Reviewer

ALWAYS_VISIBLE = frozenset({"source_label", "subject", "others"})
"""What Browse shows of every cell, of `allreview.review.reading.blinding.HIDEABLE`."""


@dataclass(frozen=True)
class Before:
    """What a bulk decision will meet, at one moment.

    `seen` is each cell's last event then (None if none), to be handed to `annotations.decide_many`, as is `visible`:
    what its reviewer could see of each cell. `changing` cells have another current label. `decided` counts the
    cells that somebody decided already, by label and reviewer, the most frequent first.
    """

    seen: dict[int, int | None]
    visible: dict[int, frozenset[str]]
    changing: int
    decided: list[tuple[str, str, int]]

    @property
    def decided_cells(self) -> int:
        """How many of the cells somebody decided already."""
        return sum(number for _, _, number in self.decided)


def before_deciding(
    session: Session,
    cell_ids: Sequence[int],
    label: str,
    *,
    run_id: int | None = None,
    test_predictions: bool = False,
) -> Before:
    """What an answer `label` to all these cells would meet now.

    Args:
        run_id: the run whose predictions are shown, or None.
        test_predictions: whether they are shown of its test cells too.
    """
    last = last_event_ids(session, cell_ids)
    rows = rows_of_cells(session, cell_ids, run_id=run_id, test_predictions=test_predictions)
    return Before(
        seen={row.cell_id: last.get(row.cell_id) for row in rows},
        visible={row.cell_id: _visible(row) for row in rows},
        changing=sum(row.current_label != label for row in rows),
        decided=_decided(session, cell_ids),
    )


def _visible(row: CellRow) -> frozenset[str]:
    return ALWAYS_VISIBLE | {"prediction"} if row.predicted is not None else ALWAYS_VISIBLE


def _decided(session: Session, cell_ids: Sequence[int]) -> list[tuple[str, str, int]]:
    now = standing()
    found: Counter[tuple[str, str]] = Counter()
    for some in slices(cell_ids):
        query = (
            sa.select(now.c.label, Reviewer.name, sa.func.count())
            .join(Annotation, Annotation.id == now.c.annotation_id)
            .join(Reviewer, Reviewer.id == Annotation.reviewer_id)
            .where(now.c.cell_id.in_(some))
            .group_by(now.c.label, Reviewer.name)
        )
        for label, name, number in session.execute(query):
            found[label, name] += number
    return sorted(((*who, number) for who, number in found.items()), key=lambda row: (-row[2], row[:2]))
