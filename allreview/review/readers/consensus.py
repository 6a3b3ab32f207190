"""What readers say together: by majority, and weighed by their skill with the model as one voice more.

CROWDLAB (Goh, Tkachenko and Mueller 2022, in cleanlab) weighs each reader by how well they agree with the others, and
the model by how well it agrees with all, and says how sure the result is. It knows classes only: *unsure* and
*unusable* do not count there, as they do in a majority. The model's probabilities must come from cells that it was not
trained on, else it only repeats the labels it was given.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from allreview.labels import NOT_CLASSES
from allreview.review import rankings
from allreview.review.log.events import slices
from allreview.review.log.readings import Reading, by_cell, own_answers
from allreview.settings import Settings
from db.tables import Cell, Prediction, Run, SnapshotCell, Worklist

FEWEST_CELLS = 5
"""Fewer cells read twice say nothing of how good readers are."""

NO_MODEL = (
    "No run has probabilities for these cells from outside its training, so there is only the majority."
)
TOO_FEW = f"Fewer than {FEWEST_CELLS} cells with probabilities were given a class by two readers or more."


@dataclass(frozen=True)
class CellConsensus:
    """What readers say of one cell together.

    `majority` is the answer of more than half of at least two readers, None without one. `label` is CROWDLAB's, and
    `quality` in [0, 1] how likely it is right; None where CROWDLAB cannot tell.
    """

    cell_id: int
    votes: dict[str, int]
    majority: str | None
    label: str | None = None
    quality: float | None = None


@dataclass(frozen=True)
class Consensus:
    """What readers say together of each cell they read.

    `readers` holds each reader's quality in [0, 1] by CROWDLAB, how likely an answer of theirs is right, and `weights`
    how much each counts beside the others and the model, adding up to 1. `why` says why there is no CROWDLAB.
    """

    cells: list[CellConsensus]
    readers: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    why: str | None = None


MODEL = "the model"
"""What the model is called among the readers in `Consensus.weights`."""


def majority(labels: Sequence[str]) -> str | None:
    """The answer of more than half; None without one."""
    if not labels:
        return None
    label, votes = Counter(labels).most_common(1)[0]
    return label if 2 * votes > len(labels) else None


def consensus_of(
    readings: Sequence[Reading], probabilities: Mapping[int, Mapping[str, float]] | None = None
) -> Consensus:
    """What these readings say of each cell, repeats and adjudications left out.

    Args:
        readings: whether others' answers could be seen is not asked: leave out what should not count.
        probabilities: by cell and class, from a model that was not trained on the cell.
    """
    answers = own_answers(readings, with_dependent=True)
    said = by_cell(answers)
    cells = [_by_majority(cell, list(labels.values())) for cell, labels in said.items()]
    known = {cell: row for cell, row in (probabilities or {}).items() if cell in said}
    if not known:
        return Consensus(cells, why=NO_MODEL)
    classes_said = by_cell(own_answers(answers, with_dependent=True, classes_only=True))
    usable = {cell: labels for cell, labels in classes_said.items() if cell in known}
    if sum(len(labels) > 1 for labels in usable.values()) < FEWEST_CELLS:
        return Consensus(cells, why=TOO_FEW)
    return _crowdlab(cells, usable, known)


def held_out_probabilities(
    session: Session, settings: Settings, run_id: int, cell_ids: Sequence[int]
) -> dict[int, dict[str, float]]:
    """What models say of those of the cells that they were not trained on, by cell and class.

    First the run's quick classifiers, none of which saw the cell's leak group; of cells that these do not know, what
    the run's own model says of its validation and test cells.
    """
    return _of_model(session, run_id, cell_ids) | _out_of_fold(session, settings, run_id, cell_ids)


def run_of(session: Session, *, dataset_id: int, worklist_id: int | None = None) -> int | None:
    """The run whose model has a voice beside the readers: the worklist's, else the dataset's newest finished one."""
    worklist = session.get(Worklist, worklist_id) if worklist_id is not None else None
    if worklist is not None and worklist.run_id is not None:
        return worklist.run_id
    newest = sa.select(sa.func.max(Run.id)).where(Run.dataset_id == dataset_id, Run.state == "finished")
    return session.scalar(newest)


def cells_of_test_part(session: Session, run_id: int, cell_ids: Sequence[int]) -> set[int]:
    """Those of the cells that are in the run's test part: what the model says of them is told to nobody who reads."""
    found: set[int] = set()
    for some in slices(sorted(cell_ids)):
        query = (
            sa.select(SnapshotCell.cell_id)
            .join(Run, Run.snapshot_id == SnapshotCell.snapshot_id)
            .where(Run.id == run_id, SnapshotCell.part == "test", SnapshotCell.cell_id.in_(some))
        )
        found.update(session.scalars(query))
    return found


def _out_of_fold(
    session: Session, settings: Settings, run_id: int, cell_ids: Sequence[int]
) -> dict[int, dict[str, float]]:
    found = rankings.out_of_fold(settings, run_id)
    if found is None:
        return {}
    rows = {sha256: row for row, sha256 in enumerate(found.sha256)}
    known: dict[int, dict[str, float]] = {}
    for some in slices(sorted(cell_ids)):
        query = sa.select(Cell.id, Cell.sha256).where(Cell.id.in_(some))
        for cell, sha256 in session.execute(query):
            if sha256 in rows:
                row = np.nan_to_num(found.probabilities[rows[sha256]].astype(float))
                if row.sum() > 0:
                    known[cell] = dict(zip(found.classes, row.tolist(), strict=True))
    return known


def _of_model(session: Session, run_id: int, cell_ids: Sequence[int]) -> dict[int, dict[str, float]]:
    found: dict[int, dict[str, float]] = {}
    for some in slices(sorted(cell_ids)):
        query = (
            sa.select(Prediction.cell_id, Prediction.probabilities)
            .join(Run, Run.id == Prediction.run_id)
            .join(
                SnapshotCell,
                sa.and_(
                    SnapshotCell.snapshot_id == Run.snapshot_id, SnapshotCell.cell_id == Prediction.cell_id
                ),
            )
            .where(Run.id == run_id, SnapshotCell.part != "train", Prediction.cell_id.in_(some))
        )
        found.update((cell, probabilities) for cell, probabilities in session.execute(query))
    return found


def _by_majority(cell_id: int, labels: list[str]) -> CellConsensus:
    return CellConsensus(
        cell_id=cell_id,
        votes=dict(sorted(Counter(labels).items())),
        majority=majority(labels) if len(labels) > 1 else None,
    )


def _crowdlab(
    cells: list[CellConsensus],
    said: Mapping[int, Mapping[str, str]],
    probabilities: Mapping[int, Mapping[str, float]],
) -> Consensus:
    import pandas as pd
    from cleanlab.multiannotator import get_label_quality_multiannotator

    readers = sorted({name for labels in said.values() for name in labels}, key=str.casefold)
    classes = sorted(
        {name for cell in said for name in probabilities[cell]}
        | {label for labels in said.values() for label in labels.values()} - set(NOT_CLASSES)
    )
    place = {name: position for position, name in enumerate(classes)}
    table = np.array(
        [[place[labels[name]] if name in labels else np.nan for name in readers] for labels in said.values()]
    )
    found = get_label_quality_multiannotator(
        pd.DataFrame(table, columns=pd.Index(readers)),
        _table(probabilities, said, classes),
        return_detailed_quality=False,
        return_weights=True,
        verbose=False,
    )
    of_cell = {
        cell: (classes[int(label)], float(quality))
        for cell, label, quality in zip(
            said,
            found["label_quality"]["consensus_label"],
            found["label_quality"]["consensus_quality_score"],
            strict=True,
        )
    }
    weights = [*map(float, found["annotator_weight"]), float(found["model_weight"])]
    return Consensus(
        cells=[
            CellConsensus(cell.cell_id, cell.votes, cell.majority, *of_cell.get(cell.cell_id, (None, None)))
            for cell in cells
        ],
        readers={
            str(name): float(quality)
            for name, quality in found["annotator_stats"]["annotator_quality"].sort_index().items()
        },
        weights={
            name: weight / sum(weights) for name, weight in zip([*readers, MODEL], weights, strict=True)
        },
    )


def _table(
    probabilities: Mapping[int, Mapping[str, float]], cells: Mapping[int, object], classes: list[str]
) -> np.ndarray:
    """Probabilities as rows that add up to 1, also where the run does not know a class."""
    table = np.array([[probabilities[cell].get(name, 0.0) for name in classes] for cell in cells])
    return table / table.sum(axis=1, keepdims=True)
