"""What there is to report of a sitting, or of all sittings over one worklist: gathered here, drawn as HTML or PDF.

A report is made afterwards, so what a reader could not see may stand in it. What the model says never does: test cells
are read blind, also by those who read reports. What others said of cells that the viewer has still to read without
knowing it is left out, and the report says so.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import PurePath
from statistics import median
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from allreview.cells.naming import shown
from allreview.errors import UserError
from allreview.labels import NOT_CLASSES, adjudicates, in_force
from allreview.review.log.readings import Reading, readings, units_of
from allreview.review.readers.agreement import Agreement, Compared, Estimate, agreement_of
from allreview.review.reading.blinding import HIDEABLE, hidden_of
from allreview.review.reading.withholding import withheld_cells, withheld_worklists
from allreview.review.record.entries import first_paths
from allreview.wording import listed, percent, plural
from db.tables import (
    Annotation,
    Cell,
    Dataset,
    Reviewer,
    ReviewSession,
    SessionSkip,
    Subject,
    Worklist,
    WorklistItem,
)
from db.types import now


@dataclass(frozen=True)
class Answer:
    """One answer in force, as it stands in the report. `moment` is in the report's time zone."""

    reader: str
    label: str
    moment: datetime
    seconds: float | None
    reason: str | None
    note: str | None
    repeat: bool
    adjudication: bool


@dataclass(frozen=True)
class ReadCell:
    """A cell with the answers to it, in the order they were given. `file` is the name of its first file."""

    cell_id: int
    sha256: str
    path: str
    subject: str | None
    source_label: str
    part: str | None
    answers: list[Answer]

    @property
    def file(self) -> str:
        return shown(PurePath(self.path).name)


@dataclass(frozen=True)
class ReaderSummary:
    """One reader's work in numbers. `seconds` is the median an answer took."""

    name: str
    answers: Counter[str]
    changed: int
    seconds: float | None
    taken_back: int
    skipped: int

    @property
    def given(self) -> int:
        return self.answers.total()


@dataclass(frozen=True)
class SessionReport:
    """Everything a report says. Labels are stored names; `moves` counts first answers by (source label, answer).

    `withheld` answers of others are left out, because the viewer has still to read without knowing them.
    """

    title: str
    facts: list[tuple[str, str]]
    labels: list[str]
    moves: Counter[tuple[str, str]]
    readers: list[ReaderSummary]
    agreement: list[str]
    cells: list[ReadCell]
    unread: int
    withheld: int
    synthetic: bool
    made_at: datetime
    signatures: list[str] = field(default_factory=list)


def report_of(
    session: Session,
    *,
    session_id: int | None = None,
    worklist_id: int | None = None,
    viewer_id: int | None = None,
    zone: tzinfo = UTC,
) -> SessionReport:
    """The report of one sitting, or of a worklist with all its sittings.

    Args:
        viewer_id: who asks; None withholds nothing.
        zone: in which moments are said.

    Raises:
        UserError: there is no such sitting or worklist.
    """
    sittings, worklist = _found(session, session_id, worklist_id)
    dataset = session.get_one(Dataset, worklist.dataset_id)
    hidden = withheld_cells(session, viewer_id) if viewer_id is not None else set()
    reading = viewer_id is not None and worklist.id in withheld_worklists(session, viewer_id)
    rows = _rows(session, sittings, worklist)
    told = [row for row in rows if row.reviewer_id == viewer_id or not (reading or row.id in hidden)]
    withheld = len(rows) - len(told)
    cells = _cells(session, told, zone)
    readers = _readers(session, sittings, cells)
    shown_readers = [reader for reader in readers if reader.given or not withheld]
    of_one = len({sitting.reviewer_id for sitting in sittings}) == 1
    used = {answer.label for cell in cells for answer in cell.answers}
    return SessionReport(
        title=f"Reading report: {shown(worklist.name)}",
        facts=_facts(session, dataset, worklist, sittings, readers, zone),
        labels=[*dataset.classes, *(label for label in NOT_CLASSES if label in used)],
        moves=Counter(
            (cell.source_label, answer.label)
            for cell in cells
            for answer in cell.answers
            if not answer.repeat
        ),
        readers=shown_readers,
        agreement=_agreement(session, worklist, readers, of_one=of_one, withheld=reading or bool(withheld)),
        cells=cells,
        unread=_unread(session, worklist, sittings),
        withheld=withheld,
        synthetic=dataset.synthetic,
        made_at=now().astimezone(zone),
        signatures=[reader.name for reader in shown_readers],
    )


def _found(
    session: Session, session_id: int | None, worklist_id: int | None
) -> tuple[list[ReviewSession], Worklist]:
    if session_id is not None:
        sitting = session.get(ReviewSession, session_id)
        if sitting is None:
            raise UserError(f"There is no sitting {session_id}.")
        return [sitting], session.get_one(Worklist, sitting.worklist_id)
    worklist = session.get(Worklist, worklist_id)
    if worklist is None:
        raise UserError(f"There is no worklist {worklist_id}.")
    query = (
        sa.select(ReviewSession).where(ReviewSession.worklist_id == worklist.id).order_by(ReviewSession.id)
    )
    sittings = list(session.scalars(query))
    if not sittings:
        raise UserError("Nobody has read this worklist yet: there is nothing to report.")
    return sittings, worklist


def _rows(session: Session, sittings: list[ReviewSession], worklist: Worklist) -> Sequence[Any]:
    """The answers in force of these sittings, in the worklist's order."""
    first = aliased(Annotation)
    query = (
        sa.select(
            Cell.id,
            Cell.sha256,
            Cell.source_label,
            Subject.name.label("subject"),
            WorklistItem.part,
            Annotation.label,
            Annotation.reason,
            Annotation.comment,
            Annotation.repeat,
            adjudicates().label("adjudication"),
            first.reviewer_id,
            Reviewer.name.label("reader"),
            first.created_at,
            first.duration_ms,
        )
        .select_from(Annotation)
        .join(Cell, Cell.id == Annotation.cell_id)
        .join(first, first.id == sa.func.coalesce(Annotation.redoes_id, Annotation.id))
        .join(Reviewer, Reviewer.id == first.reviewer_id)
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(
            WorklistItem, sa.and_(WorklistItem.worklist_id == worklist.id, WorklistItem.cell_id == Cell.id)
        )
        .where(Annotation.session_id.in_([sitting.id for sitting in sittings]), in_force())
        .order_by(WorklistItem.position.nulls_last(), Cell.id, Annotation.sequence)
    )
    return session.execute(query).all()


def _cells(session: Session, rows: Sequence[Any], zone: tzinfo) -> list[ReadCell]:
    """The cells with these answers."""
    answers: dict[int, list[Answer]] = defaultdict(list)
    about: dict[int, Any] = {}
    for row in rows:
        about[row.id] = row
        answers[row.id].append(
            Answer(
                reader=row.reader,
                label=row.label,
                moment=row.created_at.astimezone(zone),
                seconds=row.duration_ms / 1000 if row.duration_ms is not None else None,
                reason=row.reason,
                note=row.comment,
                repeat=row.repeat,
                adjudication=bool(row.adjudication),
            )
        )
    paths = first_paths(session, about)
    return [
        ReadCell(
            cell_id,
            row.sha256,
            paths.get(cell_id, ""),
            row.subject,
            row.source_label,
            row.part,
            answers[cell_id],
        )
        for cell_id, row in about.items()
    ]


def _readers(session: Session, sittings: list[ReviewSession], cells: list[ReadCell]) -> list[ReaderSummary]:
    ids = [sitting.id for sitting in sittings]
    names = {
        row.id: row.name
        for row in session.execute(
            sa.select(Reviewer.id, Reviewer.name)
            .where(Reviewer.id.in_({sitting.reviewer_id for sitting in sittings}))
            .order_by(Reviewer.name)
        )
    }
    given: dict[str, list[tuple[str, Answer]]] = defaultdict(list)
    for cell in cells:
        for answer in cell.answers:
            given[answer.reader].append((cell.source_label, answer))
    found = []
    for reviewer_id, name in names.items():
        first = [(source, answer) for source, answer in given[name] if not answer.repeat]
        times = [answer.seconds for _, answer in given[name] if answer.seconds is not None]
        found.append(
            ReaderSummary(
                name=name,
                answers=Counter(answer.label for _, answer in first),
                changed=sum(source != answer.label for source, answer in first),
                seconds=median(times) if times else None,
                taken_back=_taken_back(session, ids, reviewer_id),
                skipped=_skipped(session, [s.id for s in sittings if s.reviewer_id == reviewer_id]),
            )
        )
    return found


def _taken_back(session: Session, sitting_ids: list[int], reviewer_id: int) -> int:
    """Answers of the reader in these sittings that do not stand, and were not brought back either."""
    redo = aliased(Annotation)
    again = sa.exists().where(redo.redoes_id == Annotation.id, in_force(redo))
    query = sa.select(sa.func.count(Annotation.id)).where(
        Annotation.session_id.in_(sitting_ids),
        Annotation.reviewer_id == reviewer_id,
        Annotation.kind.in_(("decision", "adjudication")),
        ~in_force(),
        ~again,
    )
    return session.scalar(query) or 0


def _skipped(session: Session, sitting_ids: list[int]) -> int:
    query = sa.select(sa.func.count()).select_from(SessionSkip)
    skipped = (SessionSkip.session_id.in_(sitting_ids), SessionSkip.taken_back_at.is_(None))
    return session.scalar(query.where(*skipped)) or 0


def _unread(session: Session, worklist: Worklist, sittings: list[ReviewSession]) -> int:
    """Cells of the worklist that have no answer of these sittings."""
    ids = [sitting.id for sitting in sittings]
    read = sa.exists().where(
        Annotation.cell_id == WorklistItem.cell_id, Annotation.session_id.in_(ids), in_force()
    )
    query = sa.select(sa.func.count()).select_from(WorklistItem)
    return session.scalar(query.where(WorklistItem.worklist_id == worklist.id, ~read)) or 0


def _facts(
    session: Session,
    dataset: Dataset,
    worklist: Worklist,
    sittings: list[ReviewSession],
    readers: list[ReaderSummary],
    zone: tzinfo,
) -> list[tuple[str, str]]:
    cells = session.scalar(
        sa.select(sa.func.count()).select_from(WorklistItem).where(WorklistItem.worklist_id == worklist.id)
    )
    started = min(sitting.started_at for sitting in sittings)
    ends = [sitting.ended_at for sitting in sittings]
    ended = None if None in ends else max(end for end in ends if end is not None)
    numbers = listed([str(sitting.id) for sitting in sittings])
    facts = [
        ("Cells", shown(dataset.name) + (" (synthetic, not patients)" if dataset.synthetic else "")),
        ("Worklist", f"{shown(worklist.name)}, {plural(cells or 0, 'cell')}" + _from_run(worklist)),
        ("Readers" if len(readers) > 1 else "Reader", listed([shown(reader.name) for reader in readers])),
        ("Sittings" if len(sittings) > 1 else "Sitting", numbers),
        ("Started", _moment(started, zone)),
        ("Ended", _moment(ended, zone) if ended else "still open when this report was made"),
        ("Hidden from readers", _hidden(worklist)),
        ("Readers of each cell", str(worklist.overlap)),
        (
            "Cells given twice",
            f"{percent(worklist.repeat_rate)} of each reader's" if worklist.repeat_rate else "none",
        ),
    ]
    if worklist.adjudicates:
        facts.append(("Answers", "are adjudications: they outrank decisions"))
    return facts


def _from_run(worklist: Worklist) -> str:
    return f", from run {worklist.run_id}" if worklist.run_id is not None else ""


def _hidden(worklist: Worklist) -> str:
    said = listed(_named(worklist.hidden)) or "nothing"
    of_test = hidden_of(worklist.hidden, "test", adjudicates=worklist.adjudicates) - set(worklist.hidden)
    if "test" not in worklist.parts or not of_test:
        return said
    return f"{said}; of test cells {'also ' if worklist.hidden else ''}{listed(_named(of_test))}"


def _named(hidden: Collection[str]) -> list[str]:
    return [words for name, words in HIDEABLE.items() if name in hidden]


def _moment(moment: datetime, zone: tzinfo) -> str:
    local = moment.astimezone(zone)
    return f"{local.day} {local:%B %Y, %H:%M} ({local.tzname() or 'UTC'})"


def _agreement(
    session: Session, worklist: Worklist, readers: list[ReaderSummary], *, of_one: bool, withheld: bool
) -> list[str]:
    """How much the readers agree, in sentences."""
    if withheld:
        return [
            "Agreement is left out as long as who asked for this report has still to read in this worklist."
        ]
    given = readings(session, dataset_id=worklist.dataset_id, worklist_id=worklist.id)
    found = agreement_of(given, units_of(session, {reading.cell_id for reading in given}))
    names = {reader.name for reader in readers}
    said = []
    for pair in found.pairs:
        if not of_one or names & {pair.first, pair.second}:
            said.append(f"{shown(pair.first)} and {shown(pair.second)}: {_compared(pair)}")
    for pair in found.with_themselves:
        if pair.first in names:
            said.append(f"{shown(pair.first)}, the same cells a second time: {_compared(pair)}")
    if not of_one and len(found.readers) > 1:
        said += _of_all(found)
    return said or [_why_none(given)]


def _compared(pair: Compared) -> str:
    equal = f"{percent(pair.percent.value)} equal" if pair.percent.value is not None else "not comparable"
    return f"{equal} in {plural(pair.cells, 'cell')}, {_coefficient('Cohen’s kappa', pair.kappa)}."


def _of_all(found: Agreement) -> list[str]:
    if len(found.readers) < 3 or found.krippendorff.value is None:
        return []
    return [
        f"All {len(found.readers)} readers: {_coefficient('Fleiss’ kappa', found.fleiss)}, "
        f"{_coefficient('Krippendorff’s alpha', found.krippendorff)}."
    ]


def _coefficient(name: str, estimate: Estimate) -> str:
    if estimate.value is None:
        why = (estimate.why or "not defined").rstrip(".")
        return f"{name} not given ({why[0].lower()}{why[1:]})"
    said = f"{name} {_figure(estimate.value)}"
    if estimate.interval is None:
        return said
    low, high = estimate.interval
    return f"{said} (95 % interval {_figure(low)} to {_figure(high)})"


def _figure(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _why_none(given: list[Reading]) -> str:
    readers = {reading.reviewer_id for reading in given if not reading.adjudication}
    if len(readers) < 2:
        return (
            "The worklist has one reader so far and no cell that was read twice: there is nothing to compare."
        )
    return "No cell was read independently by two readers, or twice by one: there is nothing to compare."
