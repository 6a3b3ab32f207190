"""worklists for several readers, claims, and what a reviewer could see

Every queue that was fixed for one sitting becomes a worklist of that sitting.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
Time = sa.DateTime(timezone=True)
revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _make_worklists()
    _move_queues()
    _make_claims()
    _widen_the_log()


def _make_worklists() -> None:
    op.create_table(
        "worklists",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("strategy", sa.String(length=50), nullable=False),
        sa.Column("parts", Json, nullable=False),
        sa.Column("hidden", Json, nullable=False),
        sa.Column("overlap", sa.Integer(), nullable=False),
        sa.Column("repeat_rate", sa.Double(), nullable=False),
        sa.Column("adjudicates", sa.Boolean(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("created_by", sa.Integer(), nullable=True),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("closed_at", Time, nullable=True),
        sa.ForeignKeyConstraint(["created_by"], ["reviewers.id"], name=op.f("fk_worklists_created_by")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_worklists_dataset_id")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_worklists_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worklists")),
    )
    op.create_index(op.f("ix_worklists_dataset_id"), "worklists", ["dataset_id"])
    op.create_index(op.f("ix_worklists_key"), "worklists", ["key"])
    op.create_table(
        "worklist_items",
        sa.Column("worklist_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("part", sa.String(length=10), nullable=True),
        sa.Column("control", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name=op.f("fk_worklist_items_cell_id")),
        sa.ForeignKeyConstraint(
            ["worklist_id"], ["worklists.id"], name=op.f("fk_worklist_items_worklist_id")
        ),
        sa.PrimaryKeyConstraint("worklist_id", "position", name=op.f("pk_worklist_items")),
        sa.UniqueConstraint("worklist_id", "cell_id", name=op.f("uq_worklist_items_worklist_id_cell_id")),
    )
    op.create_index(op.f("ix_worklist_items_cell_id"), "worklist_items", ["cell_id"])
    op.create_table(
        "worklist_readers",
        sa.Column("worklist_id", sa.Integer(), nullable=False),
        sa.Column("reviewer_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["reviewer_id"], ["reviewers.id"], name=op.f("fk_worklist_readers_reviewer_id")
        ),
        sa.ForeignKeyConstraint(
            ["worklist_id"], ["worklists.id"], name=op.f("fk_worklist_readers_worklist_id")
        ),
        sa.PrimaryKeyConstraint("worklist_id", "reviewer_id", name=op.f("pk_worklist_readers")),
    )
    op.create_index(op.f("ix_worklist_readers_reviewer_id"), "worklist_readers", ["reviewer_id"])
    op.create_table(
        "session_skips",
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("skipped_at", Time, nullable=False),
        sa.Column("taken_back_at", Time, nullable=True),
        sa.Column("redone", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name=op.f("fk_session_skips_cell_id")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["review_sessions.id"], name=op.f("fk_session_skips_session_id")
        ),
        sa.PrimaryKeyConstraint("session_id", "cell_id", name=op.f("pk_session_skips")),
    )


def _move_queues() -> None:
    op.execute(
        "insert into worklists (id, dataset_id, run_id, name, strategy, parts, hidden, overlap, repeat_rate, "
        "adjudicates, key, created_by, created_at, closed_at) "
        "select id, dataset_id, run_id, strategy, strategy, parts, '[]', 1, 0, false, '', reviewer_id, started_at, "
        "ended_at from review_sessions"
    )
    op.execute(
        "insert into worklist_items (worklist_id, position, cell_id, score, reason, part, control) "
        "select session_id, position, cell_id, score, reason, part, false from queue_items"
    )
    op.execute(
        "insert into session_skips (session_id, cell_id, skipped_at) "
        "select session_id, cell_id, skipped_at from queue_items where skipped_at is not null"
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "select setval(pg_get_serial_sequence('worklists', 'id'), coalesce(max(id), 0) + 1, false) from worklists"
        )
    op.drop_table("queue_items")
    op.add_column("review_sessions", sa.Column("worklist_id", sa.Integer(), nullable=True))
    op.execute("update review_sessions set worklist_id = id")
    with op.batch_alter_table("review_sessions") as sessions:
        sessions.alter_column("worklist_id", existing_type=sa.Integer(), nullable=False)
        sessions.drop_constraint("fk_review_sessions_dataset_id", type_="foreignkey")
        sessions.drop_constraint("fk_review_sessions_run_id", type_="foreignkey")
        for column in ("dataset_id", "run_id", "strategy", "parts"):
            sessions.drop_column(column)
        sessions.create_foreign_key(
            op.f("fk_review_sessions_worklist_id"), "worklists", ["worklist_id"], ["id"]
        )
        sessions.create_index(op.f("ix_review_sessions_worklist_id"), ["worklist_id"])


def _make_claims() -> None:
    op.create_table(
        "claims",
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("expires_at", Time, nullable=False),
        sa.Column("repeat", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["cell_id"], ["cells.id"], name=op.f("fk_claims_cell_id")),
        sa.ForeignKeyConstraint(["session_id"], ["review_sessions.id"], name=op.f("fk_claims_session_id")),
        sa.PrimaryKeyConstraint("session_id", "cell_id", name=op.f("pk_claims")),
    )
    op.create_index(op.f("ix_claims_cell_id"), "claims", ["cell_id"])


def _widen_the_log() -> None:
    with op.batch_alter_table("annotations") as log:
        log.add_column(sa.Column("visible", Json, nullable=True))
        log.add_column(sa.Column("repeat", sa.Boolean(), nullable=False, server_default=sa.false()))
        log.add_column(sa.Column("redoes_id", sa.Integer(), nullable=True))
        for name in ("kind", "label", "undoes"):
            log.drop_constraint(op.f(f"ck_annotations_{name}"), type_="check")
        log.create_check_constraint(
            op.f("ck_annotations_kind"), "kind in ('decision', 'undo', 'redo', 'revert', 'adjudication')"
        )
        log.create_check_constraint(
            op.f("ck_annotations_label"), "(kind in ('undo', 'revert')) = (label is null)"
        )
        log.create_check_constraint(
            op.f("ck_annotations_undoes"), "(kind in ('undo', 'revert')) = (undoes_id is not null)"
        )
        log.create_check_constraint(
            op.f("ck_annotations_redoes"), "(kind = 'redo') = (redoes_id is not null)"
        )
        log.create_foreign_key(op.f("fk_annotations_redoes_id"), "annotations", ["redoes_id"], ["id"])
        log.create_index(op.f("ix_annotations_redoes_id"), ["redoes_id"])
