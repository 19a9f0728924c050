"""Restoration of damaged rows: the update log says what each row was after its last change."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from compass.model.catalogue.catalogue import topic_of
from compass.model.catalogue.digest import digest_of_rows, to_hex
from compass.model.interfaces import Rebuilt
from compass.model.rows import Change, Row, Service
from compass.store import statements as sql
from compass.store.bulk_insert import BatchWriter
from compass.store.errors import RowDamaged
from compass.store.row_mapping import Batch, Record, batch_of, intact_changes, intact_rows, row_key, rows_from

ENTRIES_MAX = 2**31 - 1
"""Entries of a log that one query may return: all."""


class Restoration(msgspec.Struct, frozen=True):
    """Comparison of rows, which do not have the recorded digest, with the update log."""

    batch: Batch
    """Records that make the tables what the log says; without log entries."""
    count: int
    """Number of rows that the log says otherwise."""
    unknown: int
    """Number of rows in the tables of which the log has no entry any longer."""
    rows: list[Row]
    """All rows as they are then."""


def restoration_of(rows: Iterable[Row], changes: Iterable[Change]) -> Restoration:
    """Compare rows with the last change of each in the log."""
    last: dict[Hashable, Change] = {}
    topics: dict[str, int] = {}
    for change in changes:
        last[type(change.row), row_key(change.row)] = change
        if topic := topic_of(change.row):
            topics[topic] = change.revision
        if isinstance(change.row, Service):
            topics[change.row.id] = change.revision
    held: dict[Hashable, Row] = {(type(row), row_key(row)): row for row in rows}
    unknown = sum(key not in last for key in held)
    different = [change for key, change in last.items() if held.get(key) != (None if change.removed else change.row)]
    for change in different:
        key = type(change.row), row_key(change.row)
        held.pop(key, None)
        if not change.removed:
            held[key] = change.row
    moved: list[Record] = [{"topic": topic, "at": at} for topic, at in topics.items()]
    batch = msgspec.structs.replace(
        batch_of(different),
        categories=[record for record in moved if "." not in record["topic"]],
        services=[record for record in moved if "." in record["topic"]],
        log=[],
    )
    return Restoration(batch, len(different), unknown, list(held.values()))


def rows_of(connection: Connection) -> list[Row]:
    """Return all rows of the catalogue. Raises RowDamaged."""
    rows: list[Row] = []
    try:
        for kind, statement in sql.ALL.items():
            rows.extend(rows_from(kind, connection.execute(statement)))
    except OperationalError as error:
        if not _is_no_text(error):
            raise
        raise RowDamaged("a row has octets that are no text") from None
    return rows


def unexplained(name: str, why: str) -> str:
    """Return the reason why a store with a row that cannot be read is not served."""
    return (
        f"{name}: {why}, and the update log does not have what it was: put a backup back with 'opengnsadmin restore'; "
        "'opengnsadmin store check' shows what is damaged"
    )


def rebuild(connection: Connection, writer: BatchWriter, recorded: str) -> Rebuilt:
    """Compare the rows with the update log, and write what it says if the rows have the recorded digest then."""
    with lenient_text(connection):
        read = [row for kind, query in sql.ALL.items() for row in intact_rows(kind, connection.execute(query))]
        changes = list(intact_changes(connection.execute(sql.CHANGES, {"after": 0, "most": ENTRIES_MAX})))
    found = restoration_of(filter(None, read), changes)
    unreadable = read.count(None)
    if found.count and to_hex(digest_of_rows(found.rows)) == recorded:
        writer.write(connection, found.batch)
        connection.execute(sql.DOUBT)
        return Rebuilt("rebuilt", found.count, found.unknown, unreadable)
    is_explained = not (found.count or found.unknown or unreadable)
    return Rebuilt("confirmed" if is_explained else "unexplained", found.count, found.unknown, unreadable)


@contextmanager
def lenient_text(connection: Connection) -> Iterator[None]:
    """Read octets that are no UTF-8 as replacement characters, so that the other rows can be read.

    A row with such a character has neither the digest nor the checksum of what was written. PostgreSQL accepts no such
    octets. Results must be read to their end inside.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.dbapi_connection
    driver.text_factory = _lenient
    try:
        yield
    finally:
        driver.text_factory = str


def _is_no_text(error: OperationalError) -> bool:
    """Return whether the driver could not read a row because of its octets."""
    return "Could not decode to UTF-8" in str(error.orig)


def _lenient(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
