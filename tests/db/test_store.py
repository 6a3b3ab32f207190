"""The store itself: migrations, the settings SQLite runs with, and what it refuses."""

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import db
from allreview.errors import UserError
from allreview.labels import wrongly_kept
from allreview.settings import Settings, current_settings
from allreview.store import _open, open_store
from allreview.training.runs import get_run
from db.tables import (
    Annotation,
    Base,
    Cell,
    CellFile,
    Dataset,
    ReviewSession,
    SessionSkip,
    Worklist,
    WorklistItem,
)

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


OLD_ROWS = (
    "insert into datasets values (1, 'old', '[\"all\", \"hem\"]', false, '2026-01-01')",
    "insert into leak_groups values (1, 1)",
    "insert into subjects values (1, 1, '1', 1)",
    "insert into reviewers values (1, 'Ann', true, '2026-01-01')",
    'insert into recipes values (1, \'h\', \'{"backbone": "mobilenet_v2", "class_weights": false, '
    '"best_by": "val_loss"}\', \'2026-01-01\')',
    "insert into snapshots values (1, 1, 'h', '2026-01-01')",
    "insert into runs (id, dataset_id, recipe_id, snapshot_id, classes, state, stop_requested, done, total, metrics,"
    " created_at) values (1, 1, 1, 1, '[\"all\", \"hem\"]', 'finished', false, 0, 0, '{}', '2026-01-01')",
    "insert into cells values (1, 1, 'a', 1, 'all', null, 450, 450, 9, '2026-01-01')",
    "insert into cells values (2, 1, 'b', 1, 'all', null, 450, 450, 9, '2026-01-01')",
    "insert into review_sessions values (1, 1, 1, 1, 'misclassified', '[\"train\"]', '2026-01-02', null)",
    "insert into queue_items values (1, 1, 1, 0.25, 'why', 'train', null)",
    "insert into queue_items values (1, 2, 2, 0.5, 'why too', 'train', '2026-01-03')",
    "insert into annotations (id, cell_id, sequence, kind, label, reviewer_id, session_id, visible_run_id, created_at)"
    " values (1, 1, 1, 'decision', 'hem', 1, 1, 1, '2026-01-03')",
    "insert into annotations (id, cell_id, sequence, kind, reviewer_id, supersedes_id, undoes_id, created_at)"
    " values (2, 1, 2, 'undo', 1, 1, 1, '2026-01-04')",
    "insert into annotations (id, cell_id, sequence, kind, label, reviewer_id, created_at)"
    " values (3, 2, 1, 'adjudication', 'unsure', 1, '2026-01-03'), (4, 2, 2, 'decision', 'hem', 1, '2026-01-04')",
    "insert into cell_files values (1, 1, 1, 1, '/Old/UID_1 ŁÓDŹ.bmp'), (2, 1, 2, 1, 'b.bmp')",
)


def test_a_store_of_the_first_schema_is_brought_up_to_date(settings: Settings) -> None:
    """What an older version wrote is still there, and reads like what is new."""
    engine = db.engine_for(settings.url)
    db.migrate(engine, to="0001")
    with engine.begin() as connection:
        for row in OLD_ROWS:
            connection.exec_driver_sql(row)
    db.migrate(engine)
    with db.reading(engine) as session:
        run = get_run(session, 1)
        worklist = session.get_one(Worklist, 1)
        sitting = session.get_one(ReviewSession, 1)
        items = session.scalars(sa.select(WorklistItem).order_by(WorklistItem.position)).all()
        skips = session.scalars(sa.select(SessionSkip)).all()
        log = session.scalars(sa.select(Annotation).order_by(Annotation.id)).all()
        cells = session.execute(sa.select(Cell.current_label, Cell.standing_id).order_by(Cell.id)).all()
        names = session.scalars(sa.select(CellFile.name).order_by(CellFile.id)).all()
        assert wrongly_kept(session) == []
    assert [tuple(cell) for cell in cells] == [("all", None), ("unsure", 3)]
    assert names == ["uid_1 łódź.bmp", "b.bmp"]
    assert (run.members, run.series, run.machine, run.state) == ([], None, {}, "finished")
    assert (run.recipe.imbalance, run.recipe.best_by) == ("none", "val_loss")
    assert (worklist.run_id, worklist.strategy, worklist.parts, worklist.overlap) == (
        1,
        "misclassified",
        ["train"],
        1,
    )
    assert (sitting.worklist_id, sitting.reviewer_id, sitting.ended_at) == (1, 1, None)
    assert [(item.cell_id, item.score, item.reason) for item in items] == [
        (1, 0.25, "why"),
        (2, 0.5, "why too"),
    ]
    assert [(skip.session_id, skip.cell_id) for skip in skips] == [(1, 2)]
    assert [(event.kind, event.label, event.undoes_id) for event in log] == [
        ("decision", "hem", None),
        ("undo", None, 1),
        ("adjudication", "unsure", None),
        ("decision", "hem", None),
    ]
    with db.writing(engine) as session:  # new rows get numbers that are free
        session.add(Worklist(dataset_id=1, name="new", strategy="random", parts=[], key="k", created_by=1))
    with engine.begin() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.exec_driver_sql(
            "insert into claims (session_id, cell_id, expires_at, repeat) values (99, 1, '2026-01-01', false)"
        )
    engine.dispose()


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
