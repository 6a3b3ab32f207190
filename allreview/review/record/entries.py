"""The log of decisions, read: pages of events, newest first, and what can be taken back.

Pages are found by the id of the event they start at, so the thousandth costs what the first does. The events of
a batch are one line. What a reader may not see yet, other reviewers' answers to cells of a blind worklist that the
reader has still to read, is absent from everything here, counts and exports too.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from allreview.labels import current_label, in_force, standing
from allreview.review.log.events import slices
from allreview.review.log.replaying import LabelChange, replay
from allreview.review.log.reverting import TAKES_BACK
from allreview.review.reading.withholding import withheld_cells
from db.tables import Annotation, Cell, CellFile, Reviewer, ReviewSession, Subject, Worklist


@dataclass(frozen=True, kw_only=True)
class LogFilters:
    """Which events to show; what is left at its default does not restrict. Both moments are included."""

    cell_id: int | None = None
    subject: str | None = None
    reviewer_id: int | None = None
    session_id: int | None = None
    worklist_id: int | None = None
    kind: str | None = None
    label: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    only_in_force: bool = False
    batch: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the log: an event, or the last event of a batch that stands for all of them.

    `answer_label` and `answer_by` are of the answer that an undo, redo or revert is about. Of a batch, `events` counts
    what the line stands for, `labels` how many different labels they give, `answers_by` whose answers they gave, took
    back or brought back, with how many; `standing` counts answers in force, and `restorable` answers that were taken
    back here and not brought back since.
    """

    id: int
    cell_id: int
    sha256: str
    path: str
    subject: str | None
    source_label: str
    kind: str
    label: str | None
    change: LabelChange
    reviewer_id: int
    reviewer: str
    created_at: datetime
    session_id: int | None
    worklist: str | None
    reason: str | None
    comment: str | None
    visible: list[str] | None
    visible_run_id: int | None
    repeat: bool
    duration_ms: int | None
    batch: str | None
    answer_label: str | None
    answer_by: str | None
    taken_back_by: str | None
    taken_back_at: datetime | None
    events: int = 1
    labels: int = 1
    standing: int = 0
    restorable: int = 0
    answers_by: dict[str, int] | None = None

    @property
    def takes_back(self) -> bool:
        """Whether the event takes an answer back, rather than giving one."""
        return self.kind in TAKES_BACK


_OF_THE_EVENT = (
    "id", "cell_id", "kind", "label", "reviewer_id", "created_at", "session_id", "reason", "comment", "visible",
    "visible_run_id", "repeat", "duration_ms", "batch",
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    """Some lines, newest first. `older` and `newer` are where the neighbouring pages start, None at the ends."""

    entries: list[Entry]
    older: int | None
    newer: int | None


@dataclass(frozen=True)
class Totals:
    """How many events the filters let through, on how many cells."""

    events: int
    cells: int


@dataclass(frozen=True)
class Sitting:
    """A sitting as a list of sittings names it."""

    id: int
    worklist_id: int
    worklist: str
    reviewer: str
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class Takeable:
    """Answers in force that can be taken back together, with how many are whose."""

    annotation_ids: list[int]
    cells: int
    answers_by: dict[str, int]


class Log:
    """The log of one dataset as one reviewer may see it; `viewer_id` None withholds nothing."""

    def __init__(self, session: Session, dataset_id: int, viewer_id: int | None = None) -> None:
        self.session = session
        self.dataset_id = dataset_id
        self.viewer_id = viewer_id
        self.withheld = (
            frozenset(withheld_cells(session, viewer_id)) if viewer_id is not None else frozenset()
        )

    def page(
        self,
        filters: LogFilters,
        *,
        before: int | None = None,
        after: int | None = None,
        size: int = 25,
        folded: bool = True,
    ) -> Page:
        """Up to `size` lines older than the event `before`, or newer than `after`, or the newest.

        `folded` makes one line of a batch's events.
        """
        query = self._events(filters)
        if folded:
            query = query.where(self._last_of_its_batch(filters))
        if after is not None:
            found = self.session.scalars(
                query.where(Annotation.id > after).order_by(Annotation.id.asc()).limit(size + 1)
            ).all()
            ids, more_newer = sorted(found[:size], reverse=True), len(found) > size
            older, newer = (ids[-1] if ids else None), (ids[0] if more_newer else None)
        else:
            older_than = query if before is None else query.where(Annotation.id < before)
            found = self.session.scalars(older_than.order_by(Annotation.id.desc()).limit(size + 1)).all()
            ids = list(found[:size])
            older = ids[-1] if len(found) > size else None
            newer = ids[0] if ids and before is not None else None
        entries = self._entries(ids)
        alone = [_alone(entry) for entry in entries]
        return Page(self._with_batches(alone, filters) if folded else alone, older, newer)

    def totals(self, filters: LogFilters) -> Totals:
        """How many events the filters let through, on how many cells."""
        events = self._events(filters, sa.func.count(), sa.func.count(sa.distinct(Annotation.cell_id)))
        return Totals(*self.session.execute(events).one())

    def every(self, filters: LogFilters) -> Iterator[Entry]:
        """All events the filters let through, newest first, one by one, read in portions."""
        newest_first = self._events(filters).order_by(Annotation.id.desc())
        ids = list(self.session.scalars(newest_first))
        changes = self._changes(self._source_labels(filters))
        for portion in slices(ids):
            yield from self._entries(portion, changes)

    def takeable(
        self,
        *,
        annotation_id: int | None = None,
        batch: str | None = None,
        session_id: int | None = None,
    ) -> Takeable:
        """The answers in force of one event, one batch or one sitting. Only counts and names: also of
        answers that are withheld."""
        first = aliased(Annotation)
        query = (
            sa.select(Annotation.id, Annotation.cell_id, Reviewer.name)
            .join(first, first.id == sa.func.coalesce(Annotation.redoes_id, Annotation.id))
            .join(Reviewer, Reviewer.id == first.reviewer_id)
            .join(Cell, Cell.id == Annotation.cell_id)
            .where(in_force(), Cell.dataset_id == self.dataset_id)
            .order_by(Annotation.id)
        )
        if annotation_id is not None:
            query = query.where(Annotation.id == annotation_id)
        elif batch is not None:
            query = query.where(Annotation.batch == batch)
        else:
            query = query.where(Annotation.session_id == session_id)
        rows = self.session.execute(query).all()
        return Takeable(
            [row.id for row in rows],
            len({row.cell_id for row in rows}),
            dict(Counter(row.name for row in rows).most_common()),
        )

    def stand(self, annotation_ids: Sequence[int]) -> bool:
        """Whether all of these answers are in force."""
        query = sa.select(sa.func.count(Annotation.id)).where(in_force())
        found = sum(
            self.session.scalar(query.where(Annotation.id.in_(some))) or 0 for some in slices(annotation_ids)
        )
        return found == len(annotation_ids)

    def reviewers(self) -> dict[int, str]:
        """Who wrote events in this dataset, by name."""
        wrote = sa.exists().where(
            Annotation.reviewer_id == Reviewer.id,
            Annotation.cell_id == Cell.id,
            Cell.dataset_id == self.dataset_id,
        )
        rows = self.session.execute(sa.select(Reviewer.id, Reviewer.name).where(wrote))
        return {row.id: row.name for row in sorted(rows, key=lambda row: row.name.casefold())}

    def sittings(self) -> list[Sitting]:
        """The dataset's sittings, newest first."""
        query = (
            sa.select(
                ReviewSession.id,
                Worklist.id,
                Worklist.name,
                Reviewer.name,
                ReviewSession.started_at,
                ReviewSession.ended_at,
            )
            .join(Worklist, Worklist.id == ReviewSession.worklist_id)
            .join(Reviewer, Reviewer.id == ReviewSession.reviewer_id)
            .where(Worklist.dataset_id == self.dataset_id)
            .order_by(ReviewSession.id.desc())
        )
        return [Sitting(*row) for row in self.session.execute(query)]

    def current_labels(self) -> Iterator[dict[str, Any]]:
        """Each cell with its source label and its current label. The current label of a withheld cell is
        None."""
        now = standing()
        first_file = (
            sa.select(sa.func.min(CellFile.path)).where(CellFile.cell_id == Cell.id).scalar_subquery()
        )
        query = (
            sa.select(
                Cell.id.label("cell"),
                Cell.sha256,
                first_file.label("path"),
                Subject.name.label("subject"),
                Cell.source_label,
                current_label(now).label("current_label"),
                Reviewer.name.label("reviewer"),
                Annotation.created_at.label("when"),
            )
            .select_from(Cell)
            .outerjoin(Subject, Subject.id == Cell.subject_id)
            .outerjoin(now, now.c.cell_id == Cell.id)
            .outerjoin(Annotation, Annotation.id == now.c.annotation_id)
            .outerjoin(Reviewer, Reviewer.id == Annotation.reviewer_id)
            .where(Cell.dataset_id == self.dataset_id)
            .order_by(Cell.id)
        )
        for row in self.session.execute(query):
            found = dict(row._mapping)
            if found["cell"] in self.withheld:
                found |= {"current_label": None, "reviewer": None, "when": None}
            yield found

    def _events(self, filters: LogFilters, *columns: Any) -> sa.Select[*tuple[Any, ...]]:
        return sa.select(*(columns or (Annotation.id,))).where(*self._conditions(Annotation, filters))

    def _conditions(self, event: Any, filters: LogFilters) -> list[sa.ColumnElement[bool]]:
        found = [
            column == wanted
            for column, wanted in (
                (event.cell_id, filters.cell_id),
                (event.reviewer_id, filters.reviewer_id),
                (event.session_id, filters.session_id),
                (event.kind, filters.kind),
                (event.label, filters.label),
                (event.batch, filters.batch),
            )
            if wanted is not None
        ]
        if filters.since is not None:
            found.append(event.created_at >= filters.since)
        if filters.until is not None:
            found.append(event.created_at <= filters.until)
        if filters.subject is not None:
            found.append(event.cell_id.in_(_cells_of(self.dataset_id, filters.subject)))
        if filters.worklist_id is not None:
            of_it = sa.select(ReviewSession.id).where(ReviewSession.worklist_id == filters.worklist_id)
            found.append(event.session_id.in_(of_it))
        if filters.only_in_force:
            found.append(in_force(event))
        if self.withheld:
            found.append(sa.or_(event.reviewer_id == self.viewer_id, event.cell_id.not_in(self.withheld)))
        # Asked of each event and not joined: SQLite would start at the cells, and sort the whole log for one page.
        dataset = sa.select(Cell.dataset_id).where(Cell.id == event.cell_id).correlate(event)
        return [*found, dataset.scalar_subquery() == self.dataset_id]

    def _last_of_its_batch(self, filters: LogFilters) -> sa.ColumnElement[bool]:
        later = aliased(Annotation)
        goes_on = sa.exists().where(
            later.batch == Annotation.batch, later.id > Annotation.id, *self._conditions(later, filters)
        )
        return sa.or_(Annotation.batch.is_(None), ~goes_on.correlate(Annotation))

    def _entries(self, ids: Sequence[int], changes: Mapping[int, LabelChange] | None = None) -> list[Entry]:
        """The lines of these events, in this order; `changes` where they are known already."""
        undo, by, answerer = aliased(Annotation), aliased(Reviewer), aliased(Reviewer)
        answer, first = aliased(Annotation), aliased(Annotation)
        query = (
            sa.select(
                *(getattr(Annotation, name) for name in _OF_THE_EVENT),
                Reviewer.name.label("reviewer"),
                Cell.sha256,
                Cell.source_label,
                Subject.name.label("subject"),
                Worklist.name.label("worklist"),
                by.name.label("taken_back_by"),
                undo.created_at.label("taken_back_at"),
                answer.label.label("answer_label"),
                answerer.name.label("answer_by"),
            )
            .join(Reviewer, Reviewer.id == Annotation.reviewer_id)
            .join(Cell, Cell.id == Annotation.cell_id)
            .outerjoin(Subject, Subject.id == Cell.subject_id)
            .outerjoin(ReviewSession, ReviewSession.id == Annotation.session_id)
            .outerjoin(Worklist, Worklist.id == ReviewSession.worklist_id)
            .outerjoin(undo, undo.undoes_id == Annotation.id)
            .outerjoin(by, by.id == undo.reviewer_id)
            .outerjoin(answer, answer.id == sa.func.coalesce(Annotation.undoes_id, Annotation.redoes_id))
            .outerjoin(first, first.id == sa.func.coalesce(answer.redoes_id, answer.id))
            .outerjoin(answerer, answerer.id == first.reviewer_id)
            .where(Annotation.id.in_(ids))
        )
        rows = {row.id: row._asdict() for row in self.session.execute(query)}
        if changes is None:
            changes = self._changes({row["cell_id"]: row["source_label"] for row in rows.values()})
        paths = first_paths(self.session, {row["cell_id"] for row in rows.values()})
        return [
            Entry(**row, path=paths.get(row["cell_id"], ""), change=changes[number])
            for number in ids
            if (row := rows.get(number)) is not None
        ]

    def _source_labels(self, filters: LogFilters) -> dict[int, str]:
        """The source labels of the cells that the filters let through."""
        query = sa.select(Cell.id, Cell.source_label).where(
            Cell.dataset_id == self.dataset_id,
            Cell.id.in_(self._events(filters, Annotation.cell_id)),
        )
        return {cell_id: label for cell_id, label in self.session.execute(query)}  # noqa: C416 - rows are no pairs

    def _changes(self, source_labels: dict[int, str]) -> dict[int, LabelChange]:
        """What each event of these cells made of its cell's label, by event; of the events that may be seen."""
        columns = (
            Annotation.id,
            Annotation.cell_id,
            Annotation.kind,
            Annotation.label,
            Annotation.undoes_id,
            Annotation.redoes_id,
        )
        by_cell: dict[int, list[Any]] = defaultdict(list)
        for some in slices(sorted(source_labels)):
            query = self._events(LogFilters(), *columns).where(Annotation.cell_id.in_(some))
            for row in self.session.execute(query.order_by(Annotation.cell_id, Annotation.sequence)):
                by_cell[row.cell_id].append(row)
        found: dict[int, LabelChange] = {}
        for cell_id, events in by_cell.items():
            found |= replay(source_labels[cell_id], events)
        return found

    def _with_batches(self, entries: list[Entry], filters: LogFilters) -> list[Entry]:
        """The lines, with what stands behind those that are batches, and what can be brought back."""
        batches = [entry.batch for entry in entries if entry.batch is not None]
        if not batches:
            return entries
        sizes = self._sizes(batches, filters)
        whose = self._whose(batches, filters)
        restorable = self._restorable(batches)
        found = []
        for entry in entries:
            if entry.batch is None:
                found.append(entry)
                continue
            events, labels, stand = sizes[entry.batch]
            found.append(
                replace(
                    entry,
                    events=events,
                    labels=labels,
                    standing=stand,
                    restorable=restorable.get(entry.batch, 0) if entry.takes_back else 0,
                    answers_by=whose.get(entry.batch, {}),
                )
            )
        return found

    def _sizes(self, batches: Sequence[str], filters: LogFilters) -> dict[str, tuple[int, int, int]]:
        stands = sa.func.sum(sa.case((in_force(), 1), else_=0))
        labels = sa.func.count(sa.distinct(Annotation.label))
        query = self._events(filters, Annotation.batch, sa.func.count(), labels, stands)
        rows = self.session.execute(query.where(Annotation.batch.in_(batches)).group_by(Annotation.batch))
        return {batch: (events, labels, int(stand)) for batch, events, labels, stand in rows}

    def _whose(self, batches: Sequence[str], filters: LogFilters) -> dict[str, dict[str, int]]:
        answer, first = aliased(Annotation), aliased(Annotation)
        about = sa.func.coalesce(Annotation.undoes_id, Annotation.redoes_id, Annotation.id)
        query = (
            self._events(filters, Annotation.batch, Reviewer.name, sa.func.count())
            .join(answer, answer.id == about)
            .join(first, first.id == sa.func.coalesce(answer.redoes_id, answer.id))
            .join(Reviewer, Reviewer.id == first.reviewer_id)
            .where(Annotation.batch.in_(batches))
            .group_by(Annotation.batch, Reviewer.name)
            .order_by(sa.func.count().desc(), Reviewer.name)
        )
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for batch, name, answers in self.session.execute(query):
            found[batch][name] = answers
        return found

    def _restorable(self, batches: Sequence[str]) -> dict[str, int]:
        answer, redo = aliased(Annotation), aliased(Annotation)
        first_given = sa.func.coalesce(answer.redoes_id, answer.id)
        stands_again = sa.exists().where(redo.redoes_id == first_given, in_force(redo))
        query = (
            sa.select(Annotation.batch, sa.func.count())
            .join(answer, answer.id == Annotation.undoes_id)
            .where(Annotation.batch.in_(batches), Annotation.kind.in_(TAKES_BACK), ~stands_again)
            .group_by(Annotation.batch)
        )
        return {batch: number for batch, number in self.session.execute(query) if batch is not None}


def _cells_of(dataset_id: int, subject: str) -> sa.Select[int]:
    return (
        sa.select(Cell.id)
        .join(Subject, Subject.id == Cell.subject_id)
        .where(Subject.dataset_id == dataset_id, Subject.name == subject)
    )


def last_undone(session: Session, reviewer_id: int) -> Annotation | None:
    """The undo event by which the reviewer last took back an answer of their own that does not stand again."""
    answer, redo = aliased(Annotation), aliased(Annotation)
    origin = sa.func.coalesce(answer.redoes_id, answer.id)
    again = sa.exists().where(redo.redoes_id == origin, in_force(redo))
    query = (
        sa.select(Annotation)
        .join(answer, answer.id == Annotation.undoes_id)
        .where(Annotation.kind == "undo", Annotation.reviewer_id == reviewer_id, ~again)
    )
    return session.scalar(query.order_by(Annotation.id.desc()).limit(1))


def first_paths(session: Session, cell_ids: Iterable[int]) -> dict[int, str]:
    """The path of each cell's first file."""
    found: dict[int, str] = {}
    for some in slices(sorted(set(cell_ids))):
        first = (
            sa.select(sa.func.min(CellFile.id)).where(CellFile.cell_id.in_(some)).group_by(CellFile.cell_id)
        )
        query = sa.select(CellFile.cell_id, CellFile.path).where(CellFile.id.in_(first))
        found |= {cell_id: path for cell_id, path in session.execute(query)}  # noqa: C416 - as above
    return found


def _alone(entry: Entry) -> Entry:
    """An event that is a line of its own."""
    return replace(entry, standing=int(not entry.takes_back and entry.taken_back_at is None))
