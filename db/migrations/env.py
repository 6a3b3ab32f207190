"""Alembic's entry: runs inside the connection and transaction `db.migrate` (or a developer) hands it."""

from alembic import context
from sqlalchemy import create_engine

from db.tables import Base

OURS = set(Base.metadata.tables)


def include(name, kind, _parents):
    """The job engine keeps its tables in the same store; migrations leave them alone."""
    return kind != "table" or name in OURS


def run(connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_name=include,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with create_engine(context.get_x_argument(as_dictionary=True)["url"]).begin() as opened:
        run(opened)
