"""Engine of a URL: location of the database, permissions of its file, and durability of commits (P1)."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import stat
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from compass.model.interfaces import StoreUnavailable
from compass.store.bulk_insert import execute
from compass.store.errors import StoreUnusable

BUSY_SECONDS = 5
"""Seconds for which a transaction waits for that of another server: far longer than any transaction lasts."""
SWITCH_PAUSE_SECONDS = 0.01
"""Seconds between attempts to switch a new SQLite file to WAL: another process needs some milliseconds for it."""
CONNECT_SECONDS = 5
"""Seconds for a PostgreSQL server to accept a connection; then the driver tries the next one of the URL."""
SILENCE_MILLISECONDS = 10_000
"""Milliseconds after which a connection to a dead PostgreSQL machine fails, instead of TCP's quarter of an hour."""
WRITES = "compass_writes"
"""Execution option of a transaction that writes: it acquires SQLite's lock when it begins (and never upgrades one)."""

_POSTGRESQL: dict[str, str | int] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": SILENCE_MILLISECONDS,
    "application_name": "opengnssd",
}
_OPTIONS = f"-c lock_timeout={BUSY_SECONDS}s -c idle_in_transaction_session_timeout=60s"
"""Options of a session. The second prevents a server that hangs in a transaction from blocking all others."""

CONFIRM_SECONDS = 5
"""Seconds for which the first commit of a connection may wait for the synchronous standby, if there is one."""
WARNINGS = "compass_warnings"
"""Key of a PostgreSQL connection's warnings (`Connection.info`). One warning matters: a commit whose wait for the
standby was cancelled succeeds, with a warning that it is on this machine only."""
_PROOF = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_logical_emit_message(true, 'compass', '') END"
"""Statement with the smallest change that needs a commit; on a standby it changes nothing."""

_SQLITE_ADVICE = {
    "SQLITE_FULL": "free some space on its file system",
    "SQLITE_BUSY": f"another process has held it for more than {BUSY_SECONDS} s",
    "SQLITE_READONLY": "let this user write the file and its directory",
    "SQLITE_CANTOPEN": "let this user read and write the file and its directory",
    "SQLITE_IOERR": "check its disk and file system",
    "SQLITE_NOTADB": "the file is not a SQLite database; name another file, or move this one",
    "SQLITE_CORRUPT": "the file is damaged; restore a backup",
}


def parse_url(text: str) -> URL:
    """Parse the URL of a store. Raises StoreUnusable."""
    try:
        url = make_url(text)
    except ArgumentError:
        url = URL.create("unknown")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise StoreUnusable("a store's URL is sqlite:///path/to/file or postgresql://user@host/database")
    return url


def file_of(url: URL) -> Path | None:
    """Return the file of a SQLite store, or None for a store in memory or on PostgreSQL."""
    in_memory = url.database in (None, "", ":memory:")
    return None if url.drivername != "sqlite" or in_memory else Path(str(url.database))


def resolve_url(text: str, directory: Path) -> URL:
    """Return the URL of a configuration's store; a file's path is relative to `directory`. Raises StoreUnusable."""
    url = parse_url(text)
    file = file_of(url)
    return url if file is None else url.set(database=str(directory / file))


def redacted_url(url: URL) -> str:
    """Return the name of the store for messages: its file, or its URL without the password."""
    return str(file_of(url) or url.render_as_string(hide_password=True).replace("%3A", ":"))


def prepare_file(path: Path, *, create: bool) -> None:
    """Make sure that a SQLite file exists and only its owner may access it (mode 0600). Raises StoreUnusable."""
    directory = path.absolute().parent
    try:
        if not directory.is_dir():
            raise StoreUnusable(f"{path}: there is no directory {directory}; create it")
        # Checked first, because access to the file may already be forbidden.
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StoreUnusable(
                f"{path}: this user cannot write the directory {directory}, where SQLite stores files next to the "
                "database"
            )
        if path.is_dir():
            raise StoreUnusable(f"{path} is a directory; name a file in it")
        if path.exists():
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                path.chmod(0o600)
        elif create:
            path.touch(mode=0o600, exist_ok=True)
        else:
            raise StoreUnusable(f"{path} does not exist")
    except OSError as error:
        raise StoreUnusable(f"{path}: {error.strerror}") from error
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreUnusable(f"{path}: this user cannot read and write it")


def engine_for(url: URL, *, durable: bool = True) -> Engine:
    """Create an engine with one connection, for one thread at a time. It connects when first used.

    Without `durable` a commit does not wait for the disk: for data that a loss of power makes obsolete anyway.
    """
    if url.drivername == "sqlite":
        in_memory: dict[str, Any] = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        alone: dict[str, Any] = {"pool_size": 1, "max_overflow": 0}
        engine = create_engine(url, **(alone if file_of(url) else in_memory))
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        if not durable:
            event.listen(engine, "connect", _relax_durability_sqlite)
        return engine
    arguments = {name: value for name, value in _POSTGRESQL.items() if name not in url.query}
    # The operator's settings follow and override each of these.
    arguments["options"] = f"{_OPTIONS} {url.query.get('options', '')}".strip()
    engine = create_engine(url, isolation_level="READ COMMITTED", pool_size=1, max_overflow=0, connect_args=arguments)
    event.listen(engine, "connect", partial(_prepare_postgresql, url) if durable else _relax_durability_postgresql)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # Python's driver would begin transactions late and in the wrong mode; `_begin_sqlite` begins them.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    _enable_wal(connection)
    for pragma in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _enable_wal(connection: Any) -> None:
    """Switch to WAL. If several processes open a new file at once, SQLite fails as busy without waiting."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(SWITCH_PAUSE_SECONDS)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    execute(connection, "BEGIN IMMEDIATE" if writes else "BEGIN", ())


def _prepare_postgresql(url: URL, connection: Any, record: Any) -> None:
    """Enable synchronous commits, without which P1 would not hold (stricter settings stay), and make a first commit.

    The commit is needed because a restarted primary shows changes that its synchronous standby has not confirmed (the
    wait ended with the process). A server that read such a change and sent it to hosts would have to undo it after a
    failover. The log is one stream, so the confirmation of this commit confirms everything that this connection can
    read.
    """
    warnings: list[str] = []
    record.info[WARNINGS] = warnings

    def noticed(notice: Any) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(notice.message_primary)

    connection.add_notice_handler(noticed)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW synchronous_commit")
            if cursor.fetchone()[0] == "off":
                cursor.execute("SET synchronous_commit = on")
            cursor.execute(_PROOF)
        _commit_in_time(connection)
        if warnings:
            raise not_confirmed(url)
    except BaseException:
        connection.close()
        raise


def _commit_in_time(connection: Any) -> None:
    """Commit, and cancel a wait for the standby that is too long; PostgreSQL's timeouts do not include this wait."""

    def cancel() -> None:
        # If the server cannot be asked to cancel, the call is aborted like any that hangs (`ConnectionAborter`).
        with contextlib.suppress(Exception):
            connection.cancel_safe(timeout=CONNECT_SECONDS)

    watch = threading.Timer(CONFIRM_SECONDS, cancel)
    watch.daemon = True
    watch.start()
    try:
        connection.commit()
    finally:
        watch.cancel()


def not_confirmed(url: URL) -> StoreUnavailable:
    """Return the error of a commit that only the primary has on disk, as far as is known."""
    return StoreUnavailable(
        f"{redacted_url(url)}: its synchronous standby does not confirm commits; start the standby, or remove it from "
        "synchronous_standby_names"
    )


def _relax_durability_sqlite(connection: Any, _: Any) -> None:
    # The log file still has its order: earlier durable commits stay durable.
    connection.execute("PRAGMA synchronous = NORMAL")


def _relax_durability_postgresql(connection: Any, _: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
    connection.commit()


def unavailable(url: URL, error: SQLAlchemyError) -> StoreUnavailable:
    """Translate an exception of SQLAlchemy into StoreUnavailable, with the store, the problem and advice."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    name = getattr(cause, "sqlite_errorname", "")
    advice = next((text for prefix, text in _SQLITE_ADVICE.items() if name.startswith(prefix)), "")
    kind = StoreUnusable if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")) else StoreUnavailable
    return kind(f"{redacted_url(url)}: {reason}" + (f"; {advice}" if advice else ""))


class ConnectionAborter:
    """Aborter, from another thread, of calls on the last connection of an engine to a PostgreSQL that does not answer.

    A primary whose processes are suspended does not close its connections: its client would wait for ever, and never
    connect to another server.
    """

    def __init__(self, engine: Engine) -> None:
        self._postgresql = engine.dialect.name == "postgresql"
        self._line: Any = None
        # The first listener, because the first commit of a connection can also hang.
        event.listen(engine, "connect", self._connected, insert=True)

    def abort(self) -> None:
        """Make the current call fail as if the connection were lost; the next call connects again."""
        line = self._line
        if line is not None and not line.closed:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(line.fileno())) as stream:
                stream.shutdown(socket.SHUT_RDWR)

    def _connected(self, line: Any, _: Any) -> None:
        # SQLite has a timeout of its own.
        self._line = line if self._postgresql else None
