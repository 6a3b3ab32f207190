"""The tables, in the words of docs/architecture.md.

What a reviewer decided is only ever appended (`annotations`); the current label is a query over it
(`allreview.review.labels`). Labels and predictions never share a column, and class names are stored as
names: no table knows a class by its position.
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
    """One image of one cell, known by the SHA-256 of its file. A cell without a subject stands alone."""

    __tablename__ = "cells"
    __table_args__ = (
        sa.UniqueConstraint("dataset_id", "sha256"),
        sa.Index("ix_cells_dataset_id_source_label_id", "dataset_id", "source_label", "id"),
        sa.Index("ix_cells_dataset_id_subject_id_id", "dataset_id", "subject_id", "id"),
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


class CellFile(Base):
    """A file that held the cell. Identical files are one cell with several rows here."""

    __tablename__ = "cell_files"
    __table_args__ = (sa.UniqueConstraint("dataset_id", "path"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), index=True)
    subject_id: Mapped[int | None] = mapped_column(ForeignKey("subjects.id"), index=True)
    path: Mapped[str] = mapped_column(sa.Text)


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
        sa.Index("ix_predictions_run_id_probability", "run_id", "probability"),
    )
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"), primary_key=True)
    label: Mapped[str] = mapped_column(sa.String(200))
    probability: Mapped[float]
    probabilities: Mapped[dict[str, float]]


class ReviewSession(Base):
    """One reviewer's sitting over one queue."""

    __tablename__ = "review_sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    reviewer_id: Mapped[int] = mapped_column(ForeignKey("reviewers.id"), index=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    strategy: Mapped[str] = mapped_column(sa.String(50))
    parts: Mapped[list[str]]
    started_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]


class QueueItem(Base):
    """A cell's place in a sitting's queue and why it is there. `score` in [0, 1], low is suspicious."""

    __tablename__ = "queue_items"
    __table_args__ = (sa.UniqueConstraint("session_id", "cell_id"),)
    session_id: Mapped[int] = mapped_column(ForeignKey("review_sessions.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    cell_id: Mapped[int] = mapped_column(ForeignKey("cells.id"))
    score: Mapped[float]
    reason: Mapped[str] = mapped_column(sa.Text)
    part: Mapped[str | None] = mapped_column(sa.String(10))
    skipped_at: Mapped[datetime | None]


class Annotation(Base):
    """One event in the append-only log of a cell.

    `sequence` counts a cell's events from 1. Two writers who saw the same last event would both write
    the same number, and the store refuses the second: that is how a stale view is noticed. `label` is a
    class name, `unsure` or `unusable`, and empty for an undo, which names what it takes back in
    `undoes_id`.
    """

    __tablename__ = "annotations"
    __table_args__ = (
        sa.UniqueConstraint("cell_id", "sequence"),
        sa.CheckConstraint("kind in ('decision', 'undo', 'adjudication')", name="kind"),
        sa.CheckConstraint("(kind = 'undo') = (label is null)", name="label"),
        sa.CheckConstraint("(kind = 'undo') = (undoes_id is not null)", name="undoes"),
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
    supersedes_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"))
    undoes_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"), unique=True)
    batch: Mapped[str | None] = mapped_column(sa.String(36), index=True)
    duration_ms: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
