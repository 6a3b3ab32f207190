"""series, members, and what a fit measured"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("runs") as runs:
        runs.add_column(sa.Column("series", sa.String(length=36), nullable=True))
        runs.add_column(sa.Column("members", Json, nullable=False, server_default=sa.text("'[]'")))
        runs.add_column(sa.Column("temperature", sa.Double(), nullable=True))
        runs.add_column(sa.Column("machine", Json, nullable=False, server_default=sa.text("'{}'")))
        runs.create_index(op.f("ix_runs_series"), ["series"], unique=False)
    with op.batch_alter_table("epoch_metrics") as epochs:
        epochs.add_column(sa.Column("val_cross_entropy", sa.Double(), nullable=True))
        epochs.add_column(sa.Column("learning_rate", sa.Double(), nullable=True))
