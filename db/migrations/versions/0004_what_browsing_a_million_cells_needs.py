"""the standing annotation beside its cell, file names, and one index for each order

What old stores hold in their log is written beside their cells.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

BROUGHT_BACK = "exists (select 1 from annotations f where f.id = a.redoes_id and f.kind = 'adjudication')"
STANDING = f"""
    select id from (
        select a.id, row_number() over (
            partition by a.cell_id
            order by case when a.kind = 'adjudication' or (a.kind = 'redo' and {BROUGHT_BACK}) then 0 else 1 end,
                a.sequence desc
        ) as place
        from annotations a
        where a.label is not null and not exists (select 1 from annotations u where u.undoes_id = a.id)
    ) ranked where place = 1
"""


def upgrade() -> None:
    _keep_what_stands()
    _name_files()
    for table, columns in (
        ("cells", ["dataset_id", "id"]),
        ("cells", ["dataset_id", "current_label", "id"]),
        ("cell_files", ["dataset_id", "name", "cell_id"]),
        ("snapshot_cells", ["snapshot_id", "part", "cell_id"]),
        ("predictions", ["run_id", "probability", "cell_id", "label"]),
    ):
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, columns)
    for name, column, where in (
        ("ix_cells_standing", "standing_id", "standing_id is not null"),
        ("ix_cells_labelled", "id", "standing_id is not null"),
        ("ix_cells_not_labelled", "id", "standing_id is null"),
        ("ix_cells_relabelled", "id", "current_label <> source_label"),
    ):
        op.create_index(
            name,
            "cells",
            ["dataset_id", column],
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
    op.drop_index("ix_cells_dataset_id_source_label_id", "cells")
    op.drop_index("ix_predictions_run_id_probability", "predictions")


def _keep_what_stands() -> None:
    op.add_column("cells", sa.Column("standing_id", sa.Integer(), nullable=True))
    op.add_column("cells", sa.Column("current_label", sa.String(200), nullable=False, server_default=""))
    op.execute("update cells set current_label = source_label")
    op.execute(
        f"update cells set standing_id = s.id, current_label = s.label "
        f"from (select id, cell_id, label from annotations where id in ({STANDING})) s where s.cell_id = cells.id"
    )


def _name_files() -> None:
    op.add_column("cell_files", sa.Column("name", sa.Text(), nullable=False, server_default=""))
    if op.get_bind().dialect.name == "postgresql":
        op.execute("update cell_files set name = lower(regexp_replace(path, '^.*/', ''))")
        return
    connection = op.get_bind().connection.dbapi_connection
    assert connection is not None
    connection.create_function(
        "file_name", 1, lambda path: path.rsplit("/", 1)[-1].lower(), deterministic=True
    )
    op.execute("update cell_files set name = file_name(path)")
