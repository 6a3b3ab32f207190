"""The store of this process's settings, migrated and ready."""

from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

import db
from allreview.errors import UserError
from allreview.settings import Settings, current_settings


def open_store(settings: Settings | None = None) -> sa.Engine:
    """The engine of the settings' store, brought to the current schema once per process.

    Raises:
        UserError: the store cannot be reached, cannot be written, or is newer than this program.
    """
    return _open((settings or current_settings()).url)


@lru_cache(maxsize=16)
def _open(url: str) -> sa.Engine:
    try:
        engine = db.engine_for(url)
        db.migrate(engine)
    except db.NewerSchemaError as error:
        raise UserError(str(error)) from None
    except (OSError, DatabaseError) as error:
        shown = sa.make_url(url).render_as_string(hide_password=True)
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise UserError(
            f"The store {shown} cannot be opened: {reason}. Check ALLREVIEW_HOME and ALLREVIEW_DATABASE_URL."
        ) from None
    return engine
