"""The tables, in the words of docs/architecture.md.

What a reviewer decided is only ever appended (`annotations`). What the log says now of a cell is kept beside the
cell as well (`allreview.labels`), so that a million cells can be filtered and counted by it. Labels and predictions
never share a column, and class names are stored as names: no table knows a class by its position.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.types import Json, UtcDateTime, now

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

PARTS = ("train", "validation", "test")


def _partial(name: str, where: str, *columns: str) -> sa.Index:
    """An index over the rows for which `where` holds."""
    return sa.Index(name, *columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _source_label(context: Any) -> str:
    return context.get_current_parameters()["source_label"]


def _name_of_path(context: Any) -> str:
    return file_name(context.get_current_parameters()["path"])


def file_name(path: str) -> str:
    """The last part of a path, in lower case: what a search for a file name looks at."""
    return path.rsplit("/", 1)[-1].lower()


class Base(DeclarativeBase):
    metadata = sa.MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: UtcDateTime,
        dict[str, Any]: Json,
        dict[str, float]: Json,
        list[str]: Json,
        list[int]: Json,
    }


class Dataset(Base):
    """A set of cells that were imported under one name. `classes` holds the class names, sorted."""

    __tablename__ = "datasets"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(200), unique=True)
    classes: Mapped[list[str]] = mapped_column(default=list)
    synthetic: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=now)


class LeakGroup(Base):
    """Subjects tied together by identical cells; a split never cuts one."""

    __tablename__ = "leak_groups"
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), index=True)


class Subject(Base):
    """The patient or donor a cell came from. `name` is upper case: `h3` and `H3` are one subject."""

    __tablename__ = "subjects"
    __table_args__ = (sa.UniqueConstraint("dataset_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    name: Mapped[str] = mapped_column(sa.String(200))
    leak_group_id: Mapped[int] = mapped_column(ForeignKey("leak_groups.id"), index=True)


class Cell(Base):
    """One image of one cell, known by the SHA-256 of its file. A cell without a subject stands alone.

    `standing_id` is the annotation that speaks for the cell, null where nothing stands, and `current_label` its
    label, else the source label. Both follow from the log, and are written in the transaction that adds to it
    (`allreview.labels.keep_standing`). `standing_id` is no foreign key, as annotations have one to cells.
    """

    __tablename__ = "cells"
    __table_args__ = (
        sa.UniqueConstraint("dataset_id", "sha256"),
        # One index for each way to walk through a dataset, the id last: see `allreview.cells.walking`.
        sa.Index("ix_cells_dataset_id_id", "dataset_id", "id"),
        sa.Index("ix_cells_dataset_id_current_label_id", "dataset_id", "current_label", "id"),
        sa.Index("ix_cells_dataset_id_subject_id_id", "dataset_id", "subject_id", "id"),
        _partial("ix_cells_standing", "standing_id is not null", "dataset_id", "standing_id"),
        _partial("ix_cells_labelled", "standing_id is not null", "dataset_id", "id"),
        _partial("ix_cells_not_labelled", "standing_id is null", "dataset_id", "id"),
        _partial("ix_cells_relabelled", "current_label <> source_label", "dataset_id", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    sha256: Mapped[str] = mapped_column(sa.String(64), index=True)
    subject_id: Mapped[int | None] = mapped_column(ForeignKey("subjects.id"), index=True)
    source_label: Mapped[str] = mapped_column(sa.String(200))
    fold: Mapped[str | None] = mapped_column(sa.String(50))
    width: Mapped[int]
    height: Mapped[int]
    size_bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)
    standing_id: Mapped[int | None]
    current_label: Mapped[str] = mapped_column(sa.String(200), default=_source_label)


class CellFile(Base):
    """A file that held the cell. Identical files are one cell with several rows here.

    `name` follows from `path`, and is what a search looks at.
    """

    __tablename__ = "cell_files"
    __table_args__ = (
        sa.UniqueConstraint("dataset_id", "path"),
        sa.Index("ix_cell_files_dataset_id_name_cell_id", "dataset_id", "name", "cell_id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), index=True)
    subject_id: Mapped[int | None] = mapped_column(ForeignKey("subjects.id"), index=True)
    path: Mapped[str] = mapped_column(sa.Text)
    name: Mapped[str] = mapped_column(sa.Text, default=_name_of_path)


class Reviewer(Base):
    """A person who decides. Deactivated when they leave, never deleted."""

    __tablename__ = "reviewers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(200), unique=True)
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Recipe(Base):
    """Everything that decides a training, known by the hash of its body."""

    __tablename__ = "recipes"
    id: Mapped[int] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    body: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Snapshot(Base):
    """The exact (cell, label, part) list a run used, known by its hash."""

    __tablename__ = "snapshots"
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), index=True)
    hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)


class SnapshotCell(Base):
    """One line of a snapshot: the label at the time, and the part (train, validation or test)."""

    __tablename__ = "snapshot_cells"
    __table_args__ = (
        sa.CheckConstraint("part in ('train', 'validation', 'test')", name="part"),
        sa.Index("ix_snapshot_cells_cell_id", "cell_id"),
        sa.Index("ix_snapshot_cells_snapshot_id_part_cell_id", "snapshot_id", "part", "cell_id"),
    )
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"), primary_key=True)
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), primary_key=True)
    label: Mapped[str] = mapped_column(sa.String(200))
    part: Mapped[str] = mapped_column(sa.String(10))


class Run(Base):
    """One training by one recipe on one snapshot; `parent_id` is set when it is a retrain.

    `series` ties runs that were started together to be read together: the folds of a cross-validation, the
    two ways to split. `members` are the runs whose probabilities an averaged ensemble averages. `temperature`
    is what the model's logits were divided by. `machine` says what the run was computed on.

    Progress columns: `stage` is what it does now, `done` of `total` in that stage, `rate` in images a
    second, `seconds_left` the estimate for the stage. `metrics` holds what evaluation found, by part.
    """

    __tablename__ = "runs"
    __table_args__ = (
        sa.CheckConstraint("state in ('queued', 'running', 'finished', 'stopped', 'failed')", name="state"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), index=True)
    recipe_id: Mapped[int] = mapped_column(ForeignKey("recipes.id"))
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"), index=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    series: Mapped[str | None] = mapped_column(sa.String(36), index=True)
    members: Mapped[list[int]] = mapped_column(default=list)
    classes: Mapped[list[str]]
    state: Mapped[str] = mapped_column(sa.String(10), default="queued", index=True)
    stop_requested: Mapped[bool] = mapped_column(default=False)
    message: Mapped[str | None] = mapped_column(sa.Text)
    stage: Mapped[str | None] = mapped_column(sa.String(30))
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    rate: Mapped[float | None]
    seconds_left: Mapped[float | None]
    best_epoch: Mapped[int | None]
    weights_hash: Mapped[str | None] = mapped_column(sa.String(64))
    model_hash: Mapped[str | None] = mapped_column(sa.String(64))
    temperature: Mapped[float | None]
    machine: Mapped[dict[str, Any]] = mapped_column(default=dict)
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    progress_at: Mapped[datetime | None]


class EpochMetric(Base):
    """What one epoch of one run measured, on training and validation cells. Epochs count from 1.

    Losses contain the head's penalties, `val_cross_entropy` does not. `learning_rate` is that of the epoch's
    last step.
    """

    __tablename__ = "epoch_metrics"
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    loss: Mapped[float]
    accuracy: Mapped[float]
    val_loss: Mapped[float]
    val_accuracy: Mapped[float]
    val_cross_entropy: Mapped[float | None]
    learning_rate: Mapped[float | None]
    seconds: Mapped[float]


class Prediction(Base):
    """What one run's model says of one cell. `probability` is that of `label`, the most probable class."""

    __tablename__ = "predictions"
    __table_args__ = (
        sa.Index("ix_predictions_cell_id", "cell_id"),
        sa.Index(
            "ix_predictions_run_id_probability_cell_id_label", "run_id", "probability", "cell_id", "label"
        ),
    )
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), primary_key=True)
    label: Mapped[str] = mapped_column(sa.String(200))
    probability: Mapped[float]
    probabilities: Mapped[dict[str, float]]


class Worklist(Base):
    """A queue that was fixed, to be read by one reviewer or several.

    `strategy` is the name of the queue it was made by; a hand-made one has the way it was chosen. `hidden` names
    what its readers must not see (`allreview.review.reading.blinding`).
    Each cell is read by `overlap` reviewers. Of each
    reader's cells the share `repeat_rate` comes a second time, so that readers can be compared with themselves.
    When `adjudicates` is set its decisions are adjudications. `key` is the same for worklists that would be made
    from the same question, so that a second reviewer who asks it joins the first.
    """

    __tablename__ = "worklists"
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), index=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    name: Mapped[str] = mapped_column(sa.String(200))
    strategy: Mapped[str] = mapped_column(sa.String(50))
    parts: Mapped[list[str]]
    hidden: Mapped[list[str]] = mapped_column(default=list)
    overlap: Mapped[int] = mapped_column(default=1)
    repeat_rate: Mapped[float] = mapped_column(default=0.0)
    adjudicates: Mapped[bool] = mapped_column(default=False)
    key: Mapped[str] = mapped_column(sa.String(64), index=True)
    created_by: Mapped[int | None] = mapped_column(ForeignKey("reviewers.id"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    closed_at: Mapped[datetime | None]


class WorklistItem(Base):
    """A cell's place in a worklist and why it is there. `score` in [0, 1], low is suspicious.

    `control` marks a cell that was mixed in at random, although nothing is wrong with it.
    """

    __tablename__ = "worklist_items"
    __table_args__ = (sa.UniqueConstraint("worklist_id", "cell_id"),)
    worklist_id: Mapped[int] = mapped_column(ForeignKey("worklists.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), index=True)
    score: Mapped[float]
    reason: Mapped[str] = mapped_column(sa.Text)
    part: Mapped[str | None] = mapped_column(sa.String(10))
    control: Mapped[bool] = mapped_column(default=False)


class WorklistReader(Base):
    """A reviewer a worklist was assigned to. A worklist without readers is open to everybody."""

    __tablename__ = "worklist_readers"
    worklist_id: Mapped[int] = mapped_column(ForeignKey("worklists.id"), primary_key=True)
    reviewer_id: Mapped[int] = mapped_column(ForeignKey("reviewers.id"), primary_key=True, index=True)


class ReviewSession(Base):
    """One reviewer's sitting over one worklist."""

    __tablename__ = "review_sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    worklist_id: Mapped[int] = mapped_column(ForeignKey("worklists.id"), index=True)
    reviewer_id: Mapped[int] = mapped_column(ForeignKey("reviewers.id"), index=True)
    started_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]


class SessionSkip(Base):
    """A cell a reviewer put aside in a sitting.

    `taken_back_at` is set while the skip is undone; `redone` says that it was undone and stands again.
    """

    __tablename__ = "session_skips"
    session_id: Mapped[int] = mapped_column(ForeignKey("review_sessions.id"), primary_key=True)
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), primary_key=True)
    skipped_at: Mapped[datetime] = mapped_column(default=now)
    taken_back_at: Mapped[datetime | None]
    redone: Mapped[bool] = mapped_column(default=False)


class Claim(Base):
    """A cell that lies on a reviewer's desk, and what was written beside it so far.

    Until `expires_at` nobody else who shares the worklist is given the cell; after it, the first who asks.
    `repeat` says that the reviewer has read it before and is given it again.
    """

    __tablename__ = "claims"
    session_id: Mapped[int] = mapped_column(ForeignKey("review_sessions.id"), primary_key=True)
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), primary_key=True, index=True)
    expires_at: Mapped[datetime]
    repeat: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[str | None] = mapped_column(sa.Text)
    comment: Mapped[str | None] = mapped_column(sa.Text)


class Annotation(Base):
    """One event in the append-only log of a cell.

    `sequence` counts a cell's events from 1. Two writers who saw the same last event would both write
    the same number, and the store refuses the second: that is how a stale view is noticed.

    | kind | is | label | names |
    |---|---|---|---|
    | decision | a reviewer's answer | yes | `supersedes_id`: the last event it was based on |
    | adjudication | an answer that outranks decisions | yes | the same |
    | undo | the reviewer takes back an answer of their own | no | `undoes_id`: the answer |
    | redo | an answer that was taken back stands again | yes | `redoes_id`: the answer as first given |
    | revert | an answer, a batch or a sitting is taken back later, by anybody | no | `undoes_id`: the answer |

    A label is a class name, `unsure` or `unusable`. `visible` lists what the reviewer could see of
    `allreview.review.reading.blinding.HIDEABLE`; it is null where that was not recorded. `repeat` marks the second
    answer of a reviewer who was given the same cell again to be compared with themselves.
    """

    __tablename__ = "annotations"
    __table_args__ = (
        sa.UniqueConstraint("cell_id", "sequence"),
        sa.CheckConstraint("kind in ('decision', 'undo', 'redo', 'revert', 'adjudication')", name="kind"),
        sa.CheckConstraint("(kind in ('undo', 'revert')) = (label is null)", name="label"),
        sa.CheckConstraint("(kind in ('undo', 'revert')) = (undoes_id is not null)", name="undoes"),
        sa.CheckConstraint("(kind = 'redo') = (redoes_id is not null)", name="redoes"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"))
    sequence: Mapped[int]
    kind: Mapped[str] = mapped_column(sa.String(20))
    label: Mapped[str | None] = mapped_column(sa.String(200))
    reason: Mapped[str | None] = mapped_column(sa.Text)
    comment: Mapped[str | None] = mapped_column(sa.Text)
    reviewer_id: Mapped[int] = mapped_column(ForeignKey("reviewers.id"), index=True)
    session_id: Mapped[int | None] = mapped_column(ForeignKey("review_sessions.id"), index=True)
    visible_run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    visible: Mapped[list[str] | None]
    repeat: Mapped[bool] = mapped_column(default=False)
    supersedes_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"))
    undoes_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"), unique=True)
    redoes_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"), index=True)
    batch: Mapped[str | None] = mapped_column(sa.String(36), index=True)
    duration_ms: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
