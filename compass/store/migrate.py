"""Migration of a database to this program's schema, from an empty one or any earlier one, and back, in one transaction.

Each migration names in `readable_from` the oldest schema whose programs can use the new one, so that servers of two
versions can run in parallel during an upgrade. Without it, only programs that know the new schema can use it.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect, select, text, update

from compass.store import schema
from compass.store.errors import StoreTooNew, StoreUnusable

MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6F70656E676E73
"""PostgreSQL's advisory lock that keeps two servers from upgrading at once: "opengns" in ASCII."""


def bring_up(
    connection: Connection, name: str, *, create: bool, file: Path | None, migrations: Path = MIGRATIONS
) -> Path | None:
    """Create or upgrade the schema in the connection's transaction, which must hold SQLite's write lock.

    `name`: the database in messages. `file`: the file to copy before an upgrade. A newer schema stays unchanged if its
    `readable_from` allows programs of this one (docs/howto/upgrade.md). Returns the path of the copy. Raises
    StoreTooNew for any other newer schema, StoreUnusable for a database of another program or an absent one.
    """
    known = _Known(connection, migrations)
    found = version_of(connection, name)
    if found == known.head:
        return None
    if found is None and not create:
        raise StoreUnusable(f"{name} is empty: no store has been created in it")
    if found is not None and found > known.head:
        oldest = readable_from(connection) or found
        if oldest <= known.head:
            return None
        raise StoreTooNew(
            f"{name} has schema {found}, this program knows {known.head}: start the program that wrote it; "
            f"the oldest that can use it knows schema {oldest}"
        )
    copy = _copied(file, found, known.head) if file is not None and found is not None else None
    command.upgrade(known.config, "head")
    if found is None:
        connection.execute(
            insert(schema.clock),
            {"one": 1, "store": uuid.uuid4().hex, "revision": 0, "security": 0, "administration": 0},
        )
    _record_readable_from(connection, known.readable_from(known.head))
    return copy


def bring_down(connection: Connection, name: str, version: str, *, migrations: Path = MIGRATIONS) -> None:
    """Downgrade the schema to an earlier version, in the connection's transaction.

    Data of columns that only the newer schema has is lost. Raises StoreUnusable if that version cannot be reached.
    """
    known = _Known(connection, migrations)
    found = version_of(connection, name)
    earlier = [other for other in known.versions if found is not None and other < found <= known.head]
    if version not in earlier:
        reachable = f"it can go down to {', '.join(earlier)}" if earlier else "this program knows none below it"
        raise StoreUnusable(f"{name} has schema {found}; {reachable}, not to {version}")
    command.downgrade(known.config, version)
    _record_readable_from(connection, known.readable_from(version))


class _Known:
    """Migrations of this program."""

    def __init__(self, connection: Connection, migrations: Path) -> None:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        self.config = Config()
        # Alembic would interpolate a percent sign in the path.
        self.config.set_main_option("script_location", str(migrations).replace("%", "%%"))
        self.config.attributes["connection"] = connection
        scripts = sorted(ScriptDirectory.from_config(self.config).walk_revisions(), key=lambda script: script.revision)
        self._oldest = {one.revision: str(getattr(one.module, "readable_from", one.revision)) for one in scripts}
        self.versions = list(self._oldest)
        self.head = self.versions[-1]

    def readable_from(self, version: str) -> str:
        """Return the oldest schema whose programs can use that version, which every step up to it must allow."""
        return max(oldest for step, oldest in self._oldest.items() if step <= version)


def head_of(migrations: Path = MIGRATIONS) -> str:
    """Return the newest schema of this program."""
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    return ScriptDirectory.from_config(config).get_current_head() or ""


def _record_readable_from(connection: Connection, oldest: str) -> None:
    if readable_from(connection) is not None:
        connection.execute(update(schema.clock), {"readable_from": oldest})


def readable_from(connection: Connection) -> str | None:
    """Return the version that the database requires of its readers, or None if the database names none."""
    inspector = inspect(connection)
    if not inspector.has_table("clock"):
        return None
    if "readable_from" not in {column["name"] for column in inspector.get_columns("clock")}:
        return None
    return connection.execute(select(schema.clock.c.readable_from)).scalar() or ""


def version_of(connection: Connection, name: str) -> str | None:
    """Return the schema version of a database, or None if it is empty. Raises StoreUnusable."""
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
    """Copy the database and sync the copy to disk; it replaces an older copy of the same step. Returns its path."""
    copy = file.with_name(f"{file.name}.{found}-before-{head}")
    copy.unlink(missing_ok=True)
    copy.touch(mode=0o600)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    with copy.open("rb") as written:
        os.fsync(written.fileno())
    return copy
