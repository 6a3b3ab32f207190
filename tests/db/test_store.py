"""The store itself: migrations, the settings SQLite runs with, and what it refuses."""

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import db
from allreview.errors import UserError
from allreview.settings import Settings, current_settings
from allreview.store import _open, open_store
from db.tables import Base, Dataset

OURS = set(Base.metadata.tables)


def test_migrations_make_exactly_the_tables(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, kind, _: kind != "table" or name in OURS}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_twice_changes_nothing(engine: sa.Engine) -> None:
    with db.writing(engine) as session:
        session.add(Dataset(name="kept"))
    db.migrate(engine)
    with db.reading(engine) as session:
        assert session.scalars(sa.select(Dataset.name)).all() == ["kept"]


def test_a_newer_schema_is_refused_in_words(engine: sa.Engine, settings: Settings) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    _open.cache_clear()
    with pytest.raises(UserError, match="newer than this program"):
        open_store(settings)


def test_sqlite_runs_with_the_promised_settings(sqlite_engine: sa.Engine) -> None:
    with sqlite_engine.connect() as connection:
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        }
    assert values == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30000, "synchronous": 2}


def test_a_failing_block_leaves_nothing(engine: sa.Engine) -> None:
    def add_and_fail() -> None:
        with db.writing(engine) as session:
            session.add(Dataset(name="half"))
            session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        add_and_fail()
    with db.reading(engine) as session:
        assert session.scalar(sa.select(sa.func.count(Dataset.id))) == 0


def test_times_come_back_aware(engine: sa.Engine) -> None:
    with db.writing(engine) as session:
        session.add(Dataset(name="when"))
    with db.reading(engine) as session:
        when = session.scalars(sa.select(Dataset.created_at)).one()
    assert when.utcoffset() is not None


def test_a_store_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLREVIEW_DATABASE_URL", "postgresql://nobody:secret@127.0.0.1:1/none")
    with pytest.raises(UserError, match="cannot be opened") as caught:
        open_store(current_settings())
    assert "secret" not in str(caught.value)
