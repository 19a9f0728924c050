"""Bringing a database to this program's schema: from nothing, or from any earlier one, in one transaction."""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect, select, text

from compass.store import schema
from compass.store.errors import StoreTooNew, StoreUnusable

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6F70656E676E73
"""PostgreSQL's advisory lock that keeps two servers from upgrading at once: "opengns" in ASCII."""


def bring_up(
    connection: Connection, name: str, *, create: bool, file: Path | None, migrations: Path = MIGRATIONS
) -> Path | None:
    """Create or upgrade the schema in the connection's transaction, which must hold SQLite's write lock.

    `name` is what messages call the database; `file` is copied before an upgrade, and the copy's path returned.
    Raises StoreTooNew for a database of a newer program, StoreUnusable for one of another program or an absent one.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = Config()
    # A percent sign in the path would be an interpolation.
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    head = ScriptDirectory.from_config(config).get_current_head() or ""
    found = _version(connection, name)
    if found == head:
        return None
    if found is None and not create:
        raise StoreUnusable(f"{name} is empty: no store has been created in it")
    if found is not None and found > head:
        raise StoreTooNew(f"{name} has schema {found}, this program knows {head}: start the program that wrote it")
    copy = _copied(file, found, head) if file is not None and found is not None else None
    command.upgrade(config, "head")
    if found is None:
        connection.execute(
            insert(schema.clock),
            {"one": 1, "store": uuid.uuid4().hex, "revision": 0, "security": 0, "administration": 0},
        )
    return copy


def _version(connection: Connection, name: str) -> str | None:
    """The migration a database is at; None when it is empty."""
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    found = (
        connection.execute(select(text("version_num")).select_from(text(schema.VERSION_TABLE))).scalar()
        if (schema.VERSION_TABLE in tables)
        else None
    )
    if found is None or not str(found).isdigit():
        raise StoreUnusable(f"{name} holds tables of another program ({', '.join(sorted(tables)[:3])})")
    return str(found)


def _copied(file: Path, found: str, head: str) -> Path:
    """A copy of the database as it is, synced to disk; an older copy from the same step gives way to it."""
    copy = file.with_name(f"{file.name}.{found}-before-{head}")
    copy.unlink(missing_ok=True)
    copy.touch(mode=0o600)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    with copy.open("rb") as written:
        os.fsync(written.fileno())
    return copy
