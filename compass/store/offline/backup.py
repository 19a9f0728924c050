"""Backup and restore of a SQLite store: consistent while a server writes, and verified before the file gets its name.

PostgreSQL has its own tools for both (docs/howto/backup.md).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import msgspec
from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError

from compass.store.engine import BUSY_SECONDS, file_of, redacted_url, unavailable
from compass.store.errors import StoreInUse, StoreUnusable
from compass.store.migrate import bring_down
from compass.store.offline.exclusive import give_new_id, open_exclusive
from compass.store.offline.verify import StoreReport, problems_of, report_of

PAGES_AT_ONCE = 256
"""Pages of 4 kB copied between two reports of the progress."""

SQLITE_MAGIC = b"SQLite format 3\0"
FORMAT_BYTE = 18
"""Octet of a SQLite file that is 2 with a write-ahead log and 1 without (fileformat2, section 1.3)."""

Progress = Callable[[int, int], None]
"""Callback with the number of copied pages, and of all pages."""


class Restored(msgspec.Struct, frozen=True, tag_field="type", tag="restored"):
    """Result of a restore or downgrade."""

    condition: StoreReport
    """Report on the new store."""
    kept: str
    """Path of the copy of the old store; empty: there was none."""


def back_up(url: URL, target: Path, progress: Progress) -> StoreReport:
    """Write the current store to a new file, which only its owner can read, while servers continue.

    The file appears only after it is complete, verified and on disk. Raises StoreInUse if a file of that name exists,
    StoreUnusable if the store is damaged, StoreUnavailable.
    """
    source = _file(url)
    _refuse_existing(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with _translated(url), closing(_connected(source)) as original:
            # The first read fixes the state: later commits are not in the backup and do not disturb it.
            original.execute("BEGIN")
            original.execute("SELECT count(*) FROM sqlite_master").fetchone()
            copy_pages(original, partial, progress)
        condition = verify(partial)
        _synced(partial)
        _put(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return condition


def restore(url: URL, backup: Path, new_name: str, progress: Progress) -> Restored:
    """Replace a store that no server uses by a backup, with a new id, completely or not at all.

    The old store is copied to `new_name`. Raises StoreInUse and StoreUnusable; then nothing has changed.
    """
    target = _file(url)
    verify(backup)
    was_there = target.exists() and target.stat().st_size > 0
    kept, partial = target.with_name(new_name), target.with_name(f".{target.name}.{os.getpid()}.partial")
    _refuse_existing(kept)
    try:
        with open_exclusive(url, alone=True, writes=False, create=True) as connection, _translated(url):
            driver = _freed(connection)
            with closing(_connected(backup, "ro")) as original:
                copy_pages(original, partial, progress)
            with open_exclusive(URL.create("sqlite", database=str(partial)), alone=True, writes=True) as prepared:
                give_new_id(prepared)
            if was_there:
                copy_pages(driver, kept, lambda done, total: None)
                _synced(kept)
            with closing(_connected(partial, "ro")) as original:
                # One transaction: a power cut leaves the old store or the new one.
                original.backup(driver)
            connection.exec_driver_sql("BEGIN")
            condition = report_of(connection, redacted_url(url))
    finally:
        for leftover in partial.parent.glob(f"{partial.name}*"):
            leftover.unlink()
    return Restored(condition, str(kept) if was_there else "")


def _freed(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection, which excludes all other processes from the file and has no open transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    # Exclusive from its first read on.
    connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    connection.exec_driver_sql("COMMIT")
    return driver


def downgrade(url: URL, version: str, new_name: str) -> Restored:
    """Downgrade the schema of a store that no server uses to an earlier version; a file is copied as in `restore`."""
    file = file_of(url)
    kept = file.with_name(new_name) if file is not None else None
    if kept is not None:
        _refuse_existing(kept)
    with open_exclusive(url, alone=True, writes=file is None) as connection, _translated(url):
        if kept is not None:
            copy_pages(_freed(connection), kept, lambda done, total: None)
            _synced(kept)
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            bring_down(connection, redacted_url(url), version)
        except BaseException:
            if kept is not None:
                kept.unlink()
            raise
        condition = report_of(connection, redacted_url(url))
    return Restored(condition, str(kept or ""))


def verify(path: Path) -> StoreReport:
    """Verify a backup. Returns its report. Raises StoreUnusable with all problems of it."""
    if not path.is_file():
        raise StoreUnusable(f"{path} is not a file")
    with reading(path) as connection:
        condition = report_of(connection, str(path))
        problems = problems_of(connection, condition)
    if problems:
        raise StoreUnusable(f"{path} is a damaged store: {'; '.join(problems)}")
    return condition


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """Open a file for reading only, so that SQLite creates no file next to it."""
    url = f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true"
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise unavailable(URL.create("sqlite", database=str(path)), error) from error
    finally:
        engine.dispose()


@contextmanager
def open_to_read(url: URL) -> Iterator[Connection]:
    """Open a store to read it: a backup as the file that it is, and a store that servers may use with its log.

    Raises StoreUnusable and StoreUnavailable.
    """
    file = file_of(url)
    opened = reading(file) if file is not None and _is_backup(file) else open_exclusive(url, alone=False, writes=False)
    with opened as connection:
        yield connection


def _is_backup(path: Path) -> bool:
    """Return whether a file is a database without a write-ahead log, which no server uses."""
    try:
        with path.open("rb") as file:
            head = file.read(FORMAT_BYTE + 1)
    except OSError:
        return False
    return head.startswith(SQLITE_MAGIC) and head[FORMAT_BYTE:] == b"\x01"


def copy_pages(source: sqlite3.Connection, target: Path, progress: Progress) -> None:
    """Copy a database to a new file of mode 0600, without a separate log file."""
    target.touch(mode=0o600, exist_ok=False)
    with closing(sqlite3.connect(target)) as copy:
        source.backup(copy, pages=PAGES_AT_ONCE, progress=lambda _, left, total: progress(total - left, total))
        copy.execute("PRAGMA journal_mode = DELETE")


def _file(url: URL) -> Path:
    file = file_of(url)
    if file is None:
        raise StoreUnusable(
            f"{redacted_url(url)} is not a file: PostgreSQL is backed up with its own tools, as in\n"
            f"  pg_dump --format=custom --file=FILE '{_for_tools(url)}'\n"
            f"  pg_restore --clean --if-exists --single-transaction --dbname='{_for_tools(url)}' FILE\n"
            "and 'opengnsadmin store new-id' afterwards, before a server starts; docs/howto/point-in-time.md describes "
            "pg_basebackup and recovery to a point in time"
        )
    return file


def _for_tools(url: URL) -> str:
    """Return the URL for PostgreSQL's own programs, without the password: they prompt for it, or read ~/.pgpass."""
    plain = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    return plain.render_as_string().replace("%3A", ":")


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise StoreInUse(f"{path} exists already and is not overwritten: name a new file")


def _connected(file: Path, mode: str = "rw") -> sqlite3.Connection:
    if not file.exists():
        raise StoreUnusable(f"{file} does not exist")
    where = f"file:{quote(str(file.absolute()))}?mode={mode}"
    return sqlite3.connect(where, uri=True, isolation_level=None, timeout=BUSY_SECONDS)


@contextmanager
def _translated(url: URL) -> Iterator[None]:
    """Translate errors of SQLite and of the file system into exceptions of a store."""
    try:
        yield
    except sqlite3.Error as error:
        raise unavailable(url, SQLAlchemyError(str(error))) from error
    except OSError as error:
        raise StoreUnusable(f"{error.filename or redacted_url(url)}: {error.strerror}") from error


def _synced(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _put(partial: Path, target: Path) -> None:
    """Rename the file to its final name and sync the directory. Raises StoreInUse if the name exists by now."""
    try:
        os.link(partial, target)
    except FileExistsError:
        _refuse_existing(target)
        raise
    except OSError:
        # The file system has no hard links.
        _refuse_existing(target)
        partial.rename(target)
    directory = os.open(target.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
