"""first schema"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("classes", Json, nullable=False),
        sa.Column("synthetic", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("name", name=op.f("uq_datasets_name")),
    )
    op.create_table(
        "recipes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("body", Json, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recipes")),
        sa.UniqueConstraint("hash", name=op.f("uq_recipes_hash")),
    )
    op.create_table(
        "reviewers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviewers")),
        sa.UniqueConstraint("name", name=op.f("uq_reviewers_name")),
    )
    op.create_table(
        "leak_groups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_leak_groups_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leak_groups")),
    )
    with op.batch_alter_table("leak_groups", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_leak_groups_dataset_id"), ["dataset_id"], unique=False)

    op.create_table(
        "snapshots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_snapshots_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
        sa.UniqueConstraint("hash", name=op.f("uq_snapshots_hash")),
    )
    with op.batch_alter_table("snapshots", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_snapshots_dataset_id"), ["dataset_id"], unique=False)

    op.create_table(
        "runs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("recipe_id", sa.Integer(), nullable=False),
        sa.Column("snapshot_id", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("classes", Json, nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("stop_requested", sa.Boolean(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("stage", sa.String(length=30), nullable=True),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("rate", sa.Double(), nullable=True),
        sa.Column("seconds_left", sa.Double(), nullable=True),
        sa.Column("best_epoch", sa.Integer(), nullable=True),
        sa.Column("weights_hash", sa.String(length=64), nullable=True),
        sa.Column("model_hash", sa.String(length=64), nullable=True),
        sa.Column("metrics", Json, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state in ('queued', 'running', 'finished', 'stopped', 'failed')", name=op.f("ck_runs_state")
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_runs_dataset_id")),
        sa.ForeignKeyConstraint(["parent_id"], ["runs.id"], name=op.f("fk_runs_parent_id")),
        sa.ForeignKeyConstraint(["recipe_id"], ["recipes.id"], name=op.f("fk_runs_recipe_id")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name=op.f("fk_runs_snapshot_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_runs_dataset_id"), ["dataset_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_runs_snapshot_id"), ["snapshot_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_runs_state"), ["state"], unique=False)

    op.create_table(
        "subjects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("leak_group_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_subjects_dataset_id")),
        sa.ForeignKeyConstraint(
            ["leak_group_id"], ["leak_groups.id"], name=op.f("fk_subjects_leak_group_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subjects")),
        sa.UniqueConstraint("dataset_id", "name", name=op.f("uq_subjects_dataset_id_name")),
    )
    with op.batch_alter_table("subjects", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_subjects_leak_group_id"), ["leak_group_id"], unique=False)

    op.create_table(
        "cells",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("subject_id", sa.Integer(), nullable=True),
        sa.Column("source_label", sa.String(length=200), nullable=False),
        sa.Column("fold", sa.String(length=50), nullable=True),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_cells_dataset_id")),
        sa.ForeignKeyConstraint(["subject_id"], ["subjects.id"], name=op.f("fk_cells_subject_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cells")),
        sa.UniqueConstraint("dataset_id", "sha256", name=op.f("uq_cells_dataset_id_sha256")),
    )
    with op.batch_alter_table("cells", schema=None) as batch_op:
        batch_op.create_index(
            "ix_cells_dataset_id_source_label_id", ["dataset_id", "source_label", "id"], unique=False
        )
        batch_op.create_index(
            "ix_cells_dataset_id_subject_id_id", ["dataset_id", "subject_id", "id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_cells_sha256"), ["sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_cells_subject_id"), ["subject_id"], unique=False)

    op.create_table(
        "epoch_metrics",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("val_loss", sa.Double(), nullable=False),
        sa.Column("val_accuracy", sa.Double(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_epoch_metrics_run_id")),
        sa.PrimaryKeyConstraint("run_id", "epoch", name=op.f("pk_epoch_metrics")),
    )
    op.create_table(
        "review_sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reviewer_id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("strategy", sa.String(length=50), nullable=False),
        sa.Column("parts", Json, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_review_sessions_dataset_id")),
        sa.ForeignKeyConstraint(
            ["reviewer_id"], ["reviewers.id"], name=op.f("fk_review_sessions_reviewer_id")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_review_sessions_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_sessions")),
    )
    with op.batch_alter_table("review_sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_review_sessions_reviewer_id"), ["reviewer_id"], unique=False)

    op.create_table(
        "annotations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("label", sa.String(length=200), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("reviewer_id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=True),
        sa.Column("visible_run_id", sa.Integer(), nullable=True),
        sa.Column("supersedes_id", sa.Integer(), nullable=True),
        sa.Column("undoes_id", sa.Integer(), nullable=True),
        sa.Column("batch", sa.String(length=36), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(kind = 'undo') = (label is null)", name=op.f("ck_annotations_label")),
        sa.CheckConstraint("(kind = 'undo') = (undoes_id is not null)", name=op.f("ck_annotations_undoes")),
        sa.CheckConstraint("kind in ('decision', 'undo', 'adjudication')", name=op.f("ck_annotations_kind")),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name=op.f("fk_annotations_cell_id")),
        sa.ForeignKeyConstraint(["reviewer_id"], ["reviewers.id"], name=op.f("fk_annotations_reviewer_id")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["review_sessions.id"], name=op.f("fk_annotations_session_id")
        ),
        sa.ForeignKeyConstraint(
            ["supersedes_id"], ["annotations.id"], name=op.f("fk_annotations_supersedes_id")
        ),
        sa.ForeignKeyConstraint(["undoes_id"], ["annotations.id"], name=op.f("fk_annotations_undoes_id")),
        sa.ForeignKeyConstraint(["visible_run_id"], ["runs.id"], name=op.f("fk_annotations_visible_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
        sa.UniqueConstraint("cell_id", "sequence", name=op.f("uq_annotations_cell_id_sequence")),
        sa.UniqueConstraint("undoes_id", name=op.f("uq_annotations_undoes_id")),
    )
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_annotations_batch"), ["batch"], unique=False)
        batch_op.create_index(batch_op.f("ix_annotations_created_at"), ["created_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_annotations_reviewer_id"), ["reviewer_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_annotations_session_id"), ["session_id"], unique=False)

    op.create_table(
        "cell_files",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("subject_id", sa.Integer(), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name=op.f("fk_cell_files_cell_id")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_cell_files_dataset_id")),
        sa.ForeignKeyConstraint(["subject_id"], ["subjects.id"], name=op.f("fk_cell_files_subject_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cell_files")),
        sa.UniqueConstraint("dataset_id", "path", name=op.f("uq_cell_files_dataset_id_path")),
    )
    with op.batch_alter_table("cell_files", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_cell_files_cell_id"), ["cell_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_cell_files_subject_id"), ["subject_id"], unique=False)

    op.create_table(
        "predictions",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=200), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("probabilities", Json, nullable=False),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name=op.f("fk_predictions_cell_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_predictions_run_id")),
        sa.PrimaryKeyConstraint("run_id", "cell_id", name=op.f("pk_predictions")),
    )
    with op.batch_alter_table("predictions", schema=None) as batch_op:
        batch_op.create_index("ix_predictions_cell_id", ["cell_id"], unique=False)
        batch_op.create_index("ix_predictions_run_id_probability", ["run_id", "probability"], unique=False)

    op.create_table(
        "queue_items",
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("part", sa.String(length=10), nullable=True),
        sa.Column("skipped_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name=op.f("fk_queue_items_cell_id")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["review_sessions.id"], name=op.f("fk_queue_items_session_id")
        ),
        sa.PrimaryKeyConstraint("session_id", "position", name=op.f("pk_queue_items")),
        sa.UniqueConstraint("session_id", "cell_id", name=op.f("uq_queue_items_session_id_cell_id")),
    )
    op.create_table(
        "snapshot_cells",
        sa.Column("snapshot_id", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=200), nullable=False),
        sa.Column("part", sa.String(length=10), nullable=False),
        sa.CheckConstraint("part in ('train', 'validation', 'test')", name=op.f("ck_snapshot_cells_part")),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name=op.f("fk_snapshot_cells_cell_id")),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshots.id"], name=op.f("fk_snapshot_cells_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "cell_id", name=op.f("pk_snapshot_cells")),
    )
    with op.batch_alter_table("snapshot_cells", schema=None) as batch_op:
        batch_op.create_index("ix_snapshot_cells_cell_id", ["cell_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("snapshot_cells", schema=None) as batch_op:
        batch_op.drop_index("ix_snapshot_cells_cell_id")

    op.drop_table("snapshot_cells")
    op.drop_table("queue_items")
    with op.batch_alter_table("predictions", schema=None) as batch_op:
        batch_op.drop_index("ix_predictions_run_id_probability")
        batch_op.drop_index("ix_predictions_cell_id")

    op.drop_table("predictions")
    with op.batch_alter_table("cell_files", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_cell_files_subject_id"))
        batch_op.drop_index(batch_op.f("ix_cell_files_cell_id"))

    op.drop_table("cell_files")
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_annotations_session_id"))
        batch_op.drop_index(batch_op.f("ix_annotations_reviewer_id"))
        batch_op.drop_index(batch_op.f("ix_annotations_created_at"))
        batch_op.drop_index(batch_op.f("ix_annotations_batch"))

    op.drop_table("annotations")
    with op.batch_alter_table("review_sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_review_sessions_reviewer_id"))

    op.drop_table("review_sessions")
    op.drop_table("epoch_metrics")
    with op.batch_alter_table("cells", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_cells_subject_id"))
        batch_op.drop_index(batch_op.f("ix_cells_sha256"))
        batch_op.drop_index("ix_cells_dataset_id_subject_id_id")
        batch_op.drop_index("ix_cells_dataset_id_source_label_id")

    op.drop_table("cells")
    with op.batch_alter_table("subjects", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_subjects_leak_group_id"))

    op.drop_table("subjects")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_runs_state"))
        batch_op.drop_index(batch_op.f("ix_runs_snapshot_id"))
        batch_op.drop_index(batch_op.f("ix_runs_dataset_id"))

    op.drop_table("runs")
    with op.batch_alter_table("snapshots", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_snapshots_dataset_id"))

    op.drop_table("snapshots")
    with op.batch_alter_table("leak_groups", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_leak_groups_dataset_id"))

    op.drop_table("leak_groups")
    op.drop_table("reviewers")
    op.drop_table("recipes")
    op.drop_table("datasets")
