"""The store itself: migrations, the settings SQLite runs with, and what it refuses."""

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import db
from allreview.errors import UserError
from allreview.settings import Settings, current_settings
from allreview.store import _open, open_store
from allreview.training.runs import get_run
from db.tables import Base, Dataset

OURS = set(Base.metadata.tables)
NEWER_THAN_0001 = {
    "runs": ("series", "members", "temperature", "machine"),
    "epoch_metrics": ("val_cross_entropy", "learning_rate"),
}


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


def test_a_store_of_the_first_schema_is_brought_up_to_date(engine: sa.Engine) -> None:
    """What an older version wrote is still there, and its runs read like new ones."""
    with engine.begin() as connection:
        for table, columns in NEWER_THAN_0001.items():
            for column in columns:
                if column == "series":
                    connection.execute(sa.text("drop index ix_runs_series"))
                connection.execute(sa.text(f"alter table {table} drop column {column}"))
        connection.execute(sa.text("update alembic_version set version_num = '0001'"))
        connection.execute(sa.text("insert into datasets values (1, 'old', '[]', false, '2026-01-01')"))
        old = '{"backbone": "mobilenet_v2", "class_weights": false, "best_by": "val_loss"}'
        connection.execute(
            sa.text("insert into recipes values (1, 'h', :body, '2026-01-01')").bindparams(body=old)
            if engine.dialect.name == "sqlite"
            else sa.text(
                "insert into recipes values (1, 'h', cast(:body as jsonb), '2026-01-01')"
            ).bindparams(body=old)
        )
        connection.execute(sa.text("insert into snapshots values (1, 1, 'h', '2026-01-01')"))
        connection.execute(
            sa.text(
                "insert into runs (id, dataset_id, recipe_id, snapshot_id, classes, state, stop_requested, done,"
                " total, metrics, created_at)"
                " values (1, 1, 1, 1, '[]', 'finished', false, 0, 0, '{}', '2026-01-01')"
            )
        )
    db.migrate(engine)
    with db.reading(engine) as session:
        run = get_run(session, 1)
    assert (run.members, run.series, run.machine, run.state) == ([], None, {}, "finished")
    assert (run.recipe.imbalance, run.recipe.best_by) == ("none", "val_loss")


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
