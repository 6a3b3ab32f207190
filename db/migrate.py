"""Bring a store to the schema this program knows, or refuse one that is newer."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 7_236_410_021  # PostgreSQL advisory lock: two processes starting at once migrate in turn


class NewerSchemaError(RuntimeError):
    """The store was written by a newer version of this program."""


def migrate(engine: sa.Engine, to: str = "head") -> None:
    """Apply every pending migration up to the revision `to` in one transaction.

    Raises:
        NewerSchemaError: the store is at a revision this program does not have.
    """
    if _revision(engine) == _head():
        return
    from alembic import command
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = _config()
    script = ScriptDirectory.from_config(config)
    with _without_foreign_keys(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = _revision_of(connection)
        if found is not None:
            try:
                script.get_revision(found)
            except CommandError:
                raise NewerSchemaError(
                    f"This store has schema {found}, which is newer than this program. "
                    "Install the version that last used it, or restore a backup made before the upgrade."
                ) from None
        config.attributes["connection"] = connection
        command.upgrade(config, to)


@contextmanager
def _without_foreign_keys(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection in one transaction; on SQLite its foreign keys are checked once, at the end.

    SQLite changes a table by copying it and dropping the old one, which breaks every reference to it for a
    moment, and it takes this setting outside a transaction only.
    """
    with engine.execution_options(writes=True).connect() as connection:
        if connection.dialect.name != "sqlite":
            with connection.begin():
                yield connection
            return
        raw: Any = connection.connection.dbapi_connection
        raw.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if broken:
                    raise RuntimeError(
                        f"the migration would break {len(broken)} references, first {broken[0]}"
                    )
        finally:
            raw.execute("PRAGMA foreign_keys=ON")


def _config():
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


@lru_cache(maxsize=1)
def _head() -> str:
    """The newest revision's name: migrations are numbered files in one line, so no import of Alembic is needed."""
    newest = max((MIGRATIONS / "versions").glob("[0-9]*.py"))
    return newest.name.split("_", 1)[0]


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        return _revision_of(connection)


def _revision_of(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("select version_num from alembic_version")).scalar()
