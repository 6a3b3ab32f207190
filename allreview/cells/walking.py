"""Walking through the cells that filters let through, in an order, from a place on.

Every order is one stretch of cells or two: those that have what the order goes by, along an index that ends with the
cell's id, and then those that have not. To go on from a place is to seek it in that index, so that a page deep in a
million cells costs what the first one costs, and no cell is lost or shown twice when others come or go meanwhile.

Filters that let few cells through would make such a walk long. So each one that has an index is first asked whether
it lets through at most `FEW`; if so, only those cells are looked at, and sorted.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.cells.cell_query import Filters, Sort
from allreview.cells.searching import among, mentioned, mentions
from allreview.labels import NOT_CLASSES
from db.tables import Cell, Prediction, Run, SnapshotCell, Subject

FEW = 5_000
MOST_MERGED = 20
"""So many single walks are merged at most where a filter names several values."""

Condition = sa.ColumnElement[bool]


@dataclass(frozen=True)
class Place:
    """Where a cell stands in an order: in which stretch, by which value, and the cell itself."""

    stretch: int
    value: Any
    cell_id: int


@dataclass(frozen=True)
class _Stretch:
    """Cells in the order of `value`, if there is one, then of `cell`; backwards both when `descending`.

    `either` are conditions of which each cell fulfils one and only one. Each is walked by itself: an index leads
    through each of them in order, but through none of their union.
    """

    source: Any
    where: tuple[Condition, ...]
    cell: Any
    value: Any = None
    descending: bool = False
    either: tuple[Condition, ...] = ()

    @property
    def any_of(self) -> tuple[Condition, ...]:
        return (sa.or_(*self.either),) if self.either else ()


class Walk:
    """The cells of a dataset that the filters let through, in the order asked for."""

    def __init__(
        self, session: Session, dataset_id: int, filters: Filters, sort: Sort = Sort.IMPORTED
    ) -> None:
        self._session, self._dataset, self._filters = session, dataset_id, filters
        self._snapshot, self._subjects = self._resolved()
        self._few = self._few_cells()
        self._sort = sort

    def after(
        self, place: Place | None, limit: int, skip: int = 0, *, including: bool = False
    ) -> list[Place]:
        """The places of the next `limit` cells after this one, `skip` left out; from the first on without a place."""
        return self._go(place, limit, skip, including, backwards=False)

    def before(self, place: Place | None, limit: int, skip: int = 0) -> list[Place]:
        """The places of the last `limit` cells before this one, in order; of all cells without a place."""
        return self._go(place, limit, skip, including=False, backwards=True)[::-1]

    def count(self, limit: int | None = None) -> int:
        """How many cells there are; counting ends at `limit`."""
        found = 0
        for stretch in self._stretches(far=True):
            found += self._count(stretch, None if limit is None else limit - found)
        return found

    def ids(self) -> set[int]:
        """All of the cells."""
        found: set[int] = set()
        for stretch in self._stretches(far=True):
            select = (
                sa.select(stretch.cell).select_from(stretch.source).where(*stretch.where, *stretch.any_of)
            )
            found.update(self._session.scalars(select))
        return found

    def _go(
        self, place: Place | None, limit: int, skip: int, including: bool, *, backwards: bool
    ) -> list[Place]:
        stretches = self._stretches(far=skip > 0)
        numbers = list(range(len(stretches)))[:: -1 if backwards else 1]
        if place is not None:
            numbers = numbers[numbers.index(place.stretch) :] if place.stretch in numbers else []
        found: list[Place] = []
        for number in numbers:
            here = place if place is not None and place.stretch == number else None
            stretch = self._seeking(stretches[number], here, including, backwards)
            some = self._some(number, stretch, limit - len(found), skip, backwards)
            found += some
            if len(found) == limit:
                break
            if skip:
                skip = 0 if some else skip - self._count(stretch)
        return found

    def _seeking(self, stretch: _Stretch, place: Place | None, including: bool, backwards: bool) -> _Stretch:
        """The stretch from the place on."""
        if place is None:
            return stretch
        falling = stretch.descending != backwards
        if stretch.value is None:
            here, there = stretch.cell, sa.literal(place.cell_id)
            beyond = _beyond(here, there, falling, including)
            return replace(stretch, where=(*stretch.where, beyond))
        value = sa.literal(place.value)
        # The first of the two only repeats the second, in a form that every store looks up in an index.
        within = stretch.value <= value if falling else stretch.value >= value
        beyond = _beyond(
            sa.tuple_(stretch.value, stretch.cell), sa.tuple_(value, place.cell_id), falling, including
        )
        return replace(stretch, where=(*stretch.where, within, beyond))

    def _some(self, number: int, stretch: _Stretch, limit: int, skip: int, backwards: bool) -> list[Place]:
        falling = stretch.descending != backwards
        keys = [stretch.cell] if stretch.value is None else [stretch.value, stretch.cell]
        order = [key.desc() if falling else key.asc() for key in keys]
        columns: list[Any] = [sa.null() if stretch.value is None else stretch.value, stretch.cell]
        select = sa.select(*columns).select_from(stretch.source).where(*stretch.where).order_by(*order)
        ways = stretch.either if not skip and len(stretch.either) <= MOST_MERGED else ()
        if skip or not ways:
            ways, select = (sa.true(),), select.where(*stretch.any_of).offset(skip)
        with self._along_indexes():
            rows = [row for way in ways for row in self._session.execute(select.where(way).limit(limit))]
        if len(ways) > 1:
            rows.sort(key=lambda row: row[1], reverse=falling)
        return [Place(number, row[0], row[1]) for row in rows[:limit]]

    @contextmanager
    def _along_indexes(self) -> Iterator[None]:
        """Keep PostgreSQL on the walk: it cannot know how many cells a condition lets through, and may sort all."""
        if self._few is not None or self._session.get_bind().dialect.name != "postgresql":
            yield
            return
        for setting in ("off", "on"):
            if setting == "on":
                yield
            names = ("sort", "seqscan", "bitmapscan", "hashjoin", "mergejoin", "material")
            asked = ", ".join(f"set_config('enable_{name}', '{setting}', true)" for name in names)
            self._session.execute(sa.text(f"select {asked}"))

    def _count(self, stretch: _Stretch, limit: int | None = None) -> int:
        where = (*stretch.where, *stretch.any_of)
        select = sa.select(sa.func.count()).select_from(stretch.source).where(*where)
        if limit is not None:
            some = sa.select(stretch.cell).select_from(stretch.source).where(*where)
            select = sa.select(sa.func.count()).select_from(some.limit(limit).subquery())
        return self._session.scalar(select) or 0

    def _resolved(self) -> tuple[int | None, list[int]]:
        """The snapshot of the run, and the ids of the subjects that are named."""
        snapshot, subjects = None, []
        if self._filters.run_id is not None:
            snapshot = self._session.scalar(sa.select(Run.snapshot_id).where(Run.id == self._filters.run_id))
        if self._filters.subjects:
            named = sa.select(Subject.id).where(
                Subject.dataset_id == self._dataset, Subject.name.in_(self._filters.subjects)
            )
            subjects = sorted(self._session.scalars(named))
        return snapshot, subjects

    def _few_cells(self) -> Callable[[Any], Condition] | None:
        """Whether a column is one of few cells that a filter lets through, if there is such a filter."""
        wanted = self._filters
        if wanted.text.strip():
            few = mentioned(self._session, self._dataset, wanted.text)
            if few is not None:
                return lambda cell: among(self._session, cell, few)
        of_dataset = Cell.dataset_id == self._dataset
        asked: list[tuple[Any, list[Condition]]] = []
        if wanted.subjects:
            asked.append((Cell.id, [of_dataset, Cell.subject_id.in_(self._subjects)]))
        if wanted.labels:
            asked.append((Cell.id, [of_dataset, Cell.current_label.in_(wanted.labels)]))
        if wanted.labelled != "any":
            asked.append((Cell.id, [of_dataset, self._labelled()]))
        if wanted.relabelled == "changed":
            asked.append((Cell.id, [of_dataset, Cell.current_label != Cell.source_label]))
        if self._has_run and wanted.parts:
            in_parts = SnapshotCell.snapshot_id == self._snapshot, SnapshotCell.part.in_(wanted.parts)
            asked.append((SnapshotCell.cell_id, list(in_parts)))
        if self._has_run and wanted.confidence != (0.0, 1.0):
            sure = Prediction.run_id == wanted.run_id, Prediction.probability.between(*wanted.confidence)
            asked.append((Prediction.cell_id, list(sure)))
        for cell, conditions in asked:
            some = sa.select(cell).where(*conditions)
            bounded = sa.select(sa.func.count()).select_from(some.limit(FEW + 1).subquery())
            if (self._session.scalar(bounded) or 0) <= FEW:
                return lambda cell: cell.in_(some.correlate(None))
        return None

    @property
    def _has_run(self) -> bool:
        return self._filters.run_id is not None

    def _labelled(self) -> Condition:
        given = Cell.standing_id.is_not(None)
        return given if self._filters.labelled == "labelled" else Cell.standing_id.is_(None)

    def _stretches(self, *, far: bool) -> list[_Stretch]:
        """In their order. `far` is for counting and passing over many cells rather than looking at the next ones."""
        sort = self._sort
        if self._has_run and sort in (Sort.MOST_CONFIDENT, Sort.LEAST_CONFIDENT):
            return self._by_confidence(descending=sort is Sort.MOST_CONFIDENT, far=far)
        of_prediction = self._of_prediction(far)
        asked = (*self._plain(), *of_prediction)
        if sort is Sort.SUBJECT:
            # Without the dataset of the cell, which follows: no index can lead through its labels instead.
            within = self._few(Cell.id) if self._few is not None else Subject.dataset_id == self._dataset
            joined = sa.join(Subject, Cell, Cell.subject_id == Subject.id)
            known = _Stretch(
                joined, (within, *self._any_of(), *asked), Cell.id, self._unindexed(Subject.name, "")
            )
            return [known, self._by_id(*asked, Cell.subject_id.is_(None))]
        if sort is Sort.LAST_LABELLED:
            given = (*self._within(), *self._any_of(), *asked, Cell.standing_id.is_not(None))
            return [
                _Stretch(Cell, given, Cell.id, self._unindexed(Cell.standing_id, 0), descending=True),
                self._by_id(*asked, Cell.standing_id.is_(None)),
            ]
        if self._has_run and len(self._filters.parts) == 1 and self._few is None:
            joined = sa.join(SnapshotCell, Cell, Cell.id == SnapshotCell.cell_id)
            in_part = SnapshotCell.snapshot_id == self._snapshot, SnapshotCell.part == self._filters.parts[0]
            where = (*in_part, *self._any_of(), *self._plain(parts=False), *of_prediction)
            return [_Stretch(joined, where, SnapshotCell.cell_id)]
        return [self._by_id(*asked)]

    def _unindexed(self, column: Any, nothing: Any) -> Any:
        """The column; where few cells are looked at, in a form that keeps the store from walking along its index."""
        return column if self._few is None else column + sa.literal_column(repr(nothing), column.type)

    def _by_id(self, *where: Condition) -> _Stretch:
        if self._few is not None:
            return _Stretch(Cell, (*self._within(), *self._any_of(), *where), Cell.id)
        return _Stretch(Cell, (*self._within(), *where), Cell.id, either=self._several())

    def _by_confidence(self, *, descending: bool, far: bool) -> list[_Stretch]:
        """Cells whose prediction may be seen, by its probability; then the others."""
        wanted = self._filters
        about_cells = [
            *self._any_of(),
            *self._plain(parts=False),
            *self._right_or_wrong(Prediction.label),
        ]
        source = sa.join(Prediction, Cell, Cell.id == Prediction.cell_id) if about_cells else Prediction
        part = self._part(Prediction.cell_id)
        where = [self._unindexed(Prediction.run_id, 0) == wanted.run_id, *about_cells]
        if self._few is not None:
            where.append(self._few(Prediction.cell_id))
        if wanted.confidence != (0.0, 1.0):
            where.append(Prediction.probability.between(*wanted.confidence))
        if wanted.parts:
            where.append(part.in_(wanted.parts))
        if not wanted.test_predictions:
            where.append(self._in_test(False, Prediction.cell_id, far=far))
        value = self._unindexed(Prediction.probability, 0)
        seen = _Stretch(source, tuple(where), Prediction.cell_id, value, descending=descending)
        if self._needs_prediction:
            return [seen]
        unseen = self._said(Prediction.probability).is_(None)
        if not wanted.test_predictions:
            unseen = sa.or_(self._in_test(True, far=far), unseen)
        return [seen, self._by_id(*self._plain(), unseen)]

    @property
    def _needs_prediction(self) -> bool:
        return self._has_run and (self._filters.verdict != "any" or self._filters.confidence != (0.0, 1.0))

    def _within(self) -> tuple[Condition, ...]:
        return (self._few(Cell.id),) if self._few is not None else (Cell.dataset_id == self._dataset,)

    def _several(self) -> tuple[Condition, ...]:
        """One condition for each value of the filter that names values: subjects, else labels."""
        if self._filters.subjects:
            found = tuple(Cell.subject_id == subject for subject in self._subjects)
            return found or (sa.false(),)
        return tuple(Cell.current_label == label for label in self._filters.labels)

    def _any_of(self) -> tuple[Condition, ...]:
        several = self._several()
        return (sa.or_(*several),) if several else ()

    def _plain(self, *, parts: bool = True) -> list[Condition]:
        """What is asked of the cells themselves and of their parts, but for what `_several` asks."""
        wanted = self._filters
        found: list[Condition] = []
        if wanted.subjects and wanted.labels:
            found.append(Cell.current_label.in_(wanted.labels))
        if wanted.relabelled == "changed":
            found.append(Cell.current_label != Cell.source_label)
        elif wanted.relabelled == "unchanged":
            found.append(Cell.current_label == Cell.source_label)
        if wanted.labelled != "any":
            found.append(self._labelled())
        if wanted.text.strip() and mentioned(self._session, self._dataset, wanted.text) is None:
            found.append(mentions(self._session, self._dataset, wanted.text))
        if self._has_run and wanted.parts and parts:
            found.append(self._part().in_(wanted.parts))
        return found

    def _of_prediction(self, far: bool) -> list[Condition]:
        """What is asked of the prediction, for walks that do not go along predictions."""
        if not self._needs_prediction:
            return []
        found = self._right_or_wrong(self._said(Prediction.label))
        if self._filters.confidence != (0.0, 1.0):
            found.append(self._said(Prediction.probability).between(*self._filters.confidence))
        return found if self._filters.test_predictions else [*found, self._in_test(False, far=far)]

    def _in_test(self, wanted: bool, cell: Any = Cell.id, *, far: bool) -> Condition:
        # Not by `_part`: here one index that holds the test cells alone says it. How it is asked is for PostgreSQL:
        # far, it may gather all test cells first; near, it looks each cell up, by a join or, within an OR, by a value.
        here = (
            SnapshotCell.snapshot_id == self._snapshot,
            SnapshotCell.part == "test",
            SnapshotCell.cell_id == cell,
        )
        found = sa.exists().where(*here).correlate(Cell, Prediction)
        if far:
            return found.is_(sa.true() if wanted else sa.false())
        if not wanted:
            return ~found
        one = sa.select(SnapshotCell.cell_id).where(*here).correlate(Cell, Prediction)
        return one.scalar_subquery().is_not(None)

    def _right_or_wrong(self, predicted: Any) -> list[Condition]:
        if self._filters.verdict == "any":
            return []
        right = predicted == Cell.current_label
        verdict = right if self._filters.verdict == "right" else predicted != Cell.current_label
        return [verdict, Cell.current_label.not_in(NOT_CLASSES)]

    # Looked up cell by cell: a join would let the store leave the order that the walk follows.

    def _part(self, cell: Any = Cell.id) -> Any:
        return (
            sa.select(SnapshotCell.part)
            .where(SnapshotCell.snapshot_id == self._snapshot, SnapshotCell.cell_id == cell)
            .correlate(Cell, Prediction)
            .scalar_subquery()
        )

    def _said(self, column: Any) -> Any:
        return (
            sa.select(column)
            .where(Prediction.run_id == self._filters.run_id, Prediction.cell_id == Cell.id)
            .correlate(Cell)
            .scalar_subquery()
        )


def _beyond(here: Any, there: Any, falling: bool, including: bool) -> Condition:
    if falling:
        return here <= there if including else here < there
    return here >= there if including else here > there
