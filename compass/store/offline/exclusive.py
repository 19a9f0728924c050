"""Access to a store by an administrator instead of a server: exclusive if the store is to be replaced or written."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, event, text, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from compass.store import schema
from compass.store import statements as sql
from compass.store.engine import WRITES, engine_for, file_of, prepare_file, redacted_url, unavailable
from compass.store.errors import StoreInUse

APPLICATION = "opengnsadmin"
"""Name of these connections in PostgreSQL; those of servers are called `opengnssd`."""
_SERVERS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'opengnssd%'"
)


@contextmanager
def open_exclusive(url: URL, *, alone: bool, writes: bool, create: bool = False) -> Iterator[Connection]:
    """Open one transaction on a store; `alone`: require that no server uses it, and on SQLite exclude servers.

    Raises StoreInUse, StoreUnusable and StoreUnavailable, whose texts contain advice; then nothing has changed.
    """
    file = file_of(url)
    if file is not None:
        prepare_file(file, create=create)
    elif "application_name" not in url.query:
        url = url.update_query_dict({"application_name": APPLICATION})
    engine = engine_for(url)
    if alone and file is not None:
        event.listen(engine, "connect", _lock_out, insert=True)
    options: dict[str, Any] = {WRITES: writes}
    if not writes and file is None:
        options["isolation_level"] = "REPEATABLE READ"
    try:
        with engine.connect() as connection:
            connection.execution_options(**options)
            with connection.begin():
                if alone and file is None and connection.execute(_SERVERS).scalar():
                    raise StoreInUse(_in_use(url))
                yield connection
    except DBAPIError as error:
        if alone and getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
            raise StoreInUse(_in_use(url)) from error
        raise unavailable(url, error) from error
    except SQLAlchemyError as error:
        raise unavailable(url, error) from error
    finally:
        engine.dispose()


def _lock_out(connection: Any, _: Any) -> None:
    """Lock the file with SQLite's own lock: this fails while another process has the file open, and excludes others."""
    connection.execute("PRAGMA busy_timeout = 1000")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")


def _in_use(url: URL) -> str:
    return (
        f"{redacted_url(url)} is in use: stop every opengnssd that uses it, and other programs that have it open, first"
    )


def give_new_id(connection: Connection) -> str:
    """Assign a new id to the store, so that hosts do not confuse its revisions with those they know. Returns the id."""
    id = uuid.uuid4().hex
    connection.execute(update(schema.clock).values(store=id, lost=0))
    return id


def correct_digest(connection: Connection, revision: int, digest: str) -> None:
    """Record the digest of the rows as they are."""
    connection.execute(sql.CORRECT, {"of": revision, "new_digest": digest})
