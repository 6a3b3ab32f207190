"""What to look at next, and why: a run's cells, ranked by a strategy.

The most suspicious cell comes first, except that a queue should not show the same thing over and over. A diverse
queue goes by rounds: in each, a subject has at most `PER_ROUND` cells, and of cells that look the same (`TWINS`)
only one. What a round has no place for waits for the next; nothing is dropped.

Control cells are mixed in at random, about which model and label agree, so that a reviewer cannot take for granted
that something is wrong.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.errors import UserError
from allreview.labels import NOT_CLASSES, current_label, standing
from allreview.review.rankings import Neighbours
from allreview.review.strategies import STRATEGIES, Evidence, QueueEntry, Strategy
from allreview.review.strategies.base import lot
from allreview.settings import Settings, current_settings
from db.tables import PARTS, Cell, CellFile, Prediction, Run, SnapshotCell, Subject

__all__ = ["STRATEGIES", "QueueEntry", "counts", "queue_of"]

PER_ROUND = 3
"""Cells a subject may have in each round of a diverse queue."""
TWINS = 0.98
"""Cells whose features have at least this cosine look the same."""
MOST_CONTROLS = 0.5
CONTROL_REASON = "Mixed in at random: the model agrees with the label."


def queue_of(
    session: Session,
    run_id: int | None,
    *,
    by: str = "misclassified",
    parts: Iterable[str] = PARTS,
    limit: int | None = None,
    include_decided: bool = False,
    control: float = 0.0,
    diverse: bool = True,
    seed: int = 0,
    settings: Settings | None = None,
    dataset_id: int | None = None,
) -> list[QueueEntry]:
    """Cells in the order they deserve a look.

    Cells whose current label is unsure or unusable have nothing to disagree with and are left out, and so are
    cells that were decided, unless `include_decided`. Where readers disagree, both belong there.

    Args:
        run_id: whose cells and predictions; None for all cells of `dataset_id`, by a strategy that needs no run.
        by: the name of a strategy.
        parts: parts of the run's snapshot.
        control: share of the queue that is control cells, where the strategy looks for mistakes.
        diverse: go by rounds (see above), where the strategy looks for mistakes.
        seed: decides what is drawn at random.

    Raises:
        UserError: unknown strategy or run, a run without predictions, or without what the strategy ranks by.
    """
    if not 0 <= control <= MOST_CONTROLS:
        raise UserError(f"The share of control cells is from 0 to {MOST_CONTROLS:g}, not {control:g}.")
    chosen = _strategy(by)
    evidence = _evidence(session, run_id, dataset_id, chosen, settings, seed)
    cells = _cells(evidence, tuple(parts), include_decided or chosen.rereads, chosen.rereads)
    ranked = chosen.score(cells, evidence)
    ranked.sort(key=lambda entry: (entry.score, entry.cell_id))
    if chosen.by_suspicion and diverse:
        ranked = _in_rounds(ranked, evidence.neighbours)
    if chosen.by_suspicion and control:
        ranked = _with_controls(ranked, cells, control, limit, seed)
    return _with_paths(session, ranked[:limit])


def counts(
    session: Session,
    run_id: int,
    *,
    parts: Iterable[str] = PARTS,
    include_decided: bool = False,
    settings: Settings | None = None,
) -> dict[str, int | None]:
    """How many cells each queue of the run has, without controls; None where the run lacks what it ranks by.

    Raises:
        UserError: no such run, or it has no predictions.
    """
    found: dict[str, int | None] = {}
    evidence = _evidence(session, run_id, None, STRATEGIES["misclassified"](), settings, 0)
    cells = _cells(evidence, tuple(parts), include_decided, False)
    for name, kind in STRATEGIES.items():
        chosen = kind()
        try:
            asked = _cells(evidence, tuple(parts), True, True) if chosen.rereads else cells
            found[name] = chosen.count(asked, evidence)
        except UserError:
            found[name] = None
    return found


def _strategy(by: str) -> Strategy:
    if by not in STRATEGIES:
        known = ", ".join(
            f"{name} ({kind.title[0].lower()}{kind.title[1:]})" for name, kind in STRATEGIES.items()
        )
        raise UserError(f"Unknown queue {by!r}. The queues are: {known}.")
    return STRATEGIES[by]()


def _evidence(
    session: Session,
    run_id: int | None,
    dataset_id: int | None,
    chosen: Strategy,
    settings: Settings | None,
    seed: int,
) -> Evidence:
    if run_id is None:
        if chosen.needs_run or dataset_id is None:
            raise UserError(f"The queue {chosen.name} ranks the cells of a run: choose a run.")
        return Evidence(session, settings or current_settings(), dataset_id, None, seed)
    run = session.get(Run, run_id)
    if run is None:
        raise UserError(f"There is no run {run_id}.")
    if not session.scalar(sa.select(sa.exists().where(Prediction.run_id == run_id))):
        raise UserError(f"Run {run_id} has no predictions yet: its state is {run.state}.")
    return Evidence(session, settings or current_settings(), run.dataset_id, run_id, seed)


def _cells(
    evidence: Evidence, parts: tuple[str, ...], include_decided: bool, include_unlabelled: bool
) -> list[QueueEntry]:
    """The cells a strategy may choose from: all of the run's parts, or all of the dataset."""
    now = standing()
    label = current_label(now)
    query = (
        sa.select(Cell.id, Cell.sha256, Subject.name)
        .outerjoin(Subject, Subject.id == Cell.subject_id)
        .outerjoin(now, now.c.cell_id == Cell.id)
    )
    if evidence.run_id is None:
        judged: sa.Select[Any] = query.add_columns(
            sa.null(), Cell.source_label, label, sa.literal(""), sa.literal(0.0), sa.null()
        ).where(Cell.dataset_id == evidence.dataset_id)
    else:
        judged = (
            query.add_columns(
                SnapshotCell.part,
                Cell.source_label,
                label,
                Prediction.label,
                Prediction.probability,
                Prediction.probabilities,
            )
            .join(Prediction, Prediction.cell_id == Cell.id)
            .join(Run, Run.id == Prediction.run_id)
            .join(
                SnapshotCell,
                sa.and_(SnapshotCell.cell_id == Cell.id, SnapshotCell.snapshot_id == Run.snapshot_id),
            )
            .where(Prediction.run_id == evidence.run_id, SnapshotCell.part.in_(parts))
        )
    if not include_unlabelled:
        judged = judged.where(label.not_in(NOT_CLASSES))
    if not include_decided:
        judged = judged.where(now.c.annotation_id.is_(None))
    rows: list[Any] = list(evidence.session.execute(judged))
    return [QueueEntry(*row[:-1], probabilities=row[-1] or {}) for row in rows]


def _in_rounds(ranked: Sequence[QueueEntry], near: Neighbours | None) -> list[QueueEntry]:
    """The entries by rounds: each goes into the first round that has a place for it."""
    twins = _twins(near)
    sizes: dict[str, list[int]] = defaultdict(list)  # of each subject, its cells in each round
    first_open: dict[str, int] = defaultdict(int)
    round_of: dict[str, int] = {}
    for entry in ranked:
        taken = {round_of[twin] for twin in twins.get(entry.sha256, ()) if twin in round_of}
        subject = entry.subject if entry.subject is not None else f" {entry.sha256}"
        number = first_open[subject]
        while number in taken or sum(sizes[subject][number : number + 1]) >= PER_ROUND:
            number += 1
        rounds = sizes[subject]
        rounds.extend([0] * (number + 1 - len(rounds)))
        rounds[number] += 1
        while first_open[subject] < len(rounds) and rounds[first_open[subject]] >= PER_ROUND:
            first_open[subject] += 1
        round_of[entry.sha256] = number
    return sorted(ranked, key=lambda entry: round_of[entry.sha256])


def _twins(near: Neighbours | None) -> dict[str, set[str]]:
    """The cells that look the same as each cell; cells without any are left out."""
    twins: dict[str, set[str]] = defaultdict(set)
    if near is None:
        return twins
    for row, column in np.argwhere(near.similarities >= TWINS):
        one, other = near.sha256[row], near.sha256[near.positions[row, column]]
        twins[one].add(other)
        twins[other].add(one)
    return twins


def _with_controls(
    ranked: list[QueueEntry], cells: Sequence[QueueEntry], share: float, limit: int | None, seed: int
) -> list[QueueEntry]:
    """The head of the queue with `share` of control cells, one at a random place in each stretch of it.

    Controls are drawn from the cells that model and label agree on and that the head has not. A queue that lists
    every cell and has no limit gives up some of its second half for them.
    """
    head = ranked if limit is None else ranked[: limit - round(limit * share)]
    wanted = round(len(head) * share / (1 - share))
    agreed = [cell for cell in cells if cell.predicted == cell.current_label]
    taken = {entry.cell_id for entry in (head[: math.ceil(len(head) / 2)] if limit is None else head)}
    spare = sorted(
        (cell for cell in agreed if cell.cell_id not in taken), key=lambda cell: lot(seed, cell.sha256)
    )
    drawn = [replace(cell, score=1.0, reason=CONTROL_REASON, control=True) for cell in spare[:wanted]]
    ids = {cell.cell_id for cell in drawn}
    rest = [entry for entry in head if entry.cell_id not in ids]
    random = np.random.default_rng(seed)
    stretch = (len(rest) + len(drawn)) / len(drawn) if drawn else 0.0
    for number, cell in enumerate(drawn):
        rest.insert(int((number + random.random()) * stretch), cell)
    return rest


def _with_paths(session: Session, entries: list[QueueEntry]) -> list[QueueEntry]:
    paths: dict[int, str] = {}
    ids = [entry.cell_id for entry in entries]
    for start in range(0, len(ids), 500):
        query = (
            sa.select(CellFile.cell_id, sa.func.min(CellFile.path))
            .where(CellFile.cell_id.in_(ids[start : start + 500]))
            .group_by(CellFile.cell_id)
        )
        paths.update((cell_id, path) for cell_id, path in session.execute(query))
    return [replace(entry, path=paths.get(entry.cell_id, "")) for entry in entries]
