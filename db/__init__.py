"""The store: typed tables, engine and transactions, migrations."""

from db.engine import engine_for, reading, writing
from db.migrate import NewerSchemaError, migrate

__all__ = ["NewerSchemaError", "engine_for", "migrate", "reading", "writing"]
