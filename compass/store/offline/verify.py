"""Verification of a store, before a backup is trusted or a copy used: its recorded values compared with its rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select, text

from compass.model.catalogue.catalogue import topic_of
from compass.model.catalogue.digest import digest_of_rows, to_hex
from compass.model.interfaces import LogDamaged
from compass.model.rows import Change, Credential, Row, Service, key_of
from compass.store import statements as sql
from compass.store.errors import StoreTooNew, StoreUnusable
from compass.store.migrate import head_of, readable_from, version_of
from compass.store.restoration import lenient_text
from compass.store.row_mapping import TABLES, change_from, intact_changes, intact_rows

LOG_PAGE = 10_000
"""Entries of the update log in one query."""
PROBLEMS_MAX = 20
"""Problems of one kind that are reported; they tend to have one cause."""


class StoreReport(msgspec.Struct, frozen=True, tag_field="type", tag="store"):
    """Report on a store: its identity, its digests and its number of rows."""

    schema: str
    """Version of its schema."""
    readable_from: str
    """Oldest schema whose programs can use it; empty: not recorded."""
    store: str
    """Id of the store."""
    revision: int
    digest: str
    """Digest computed from its rows; empty if its schema is not this program's."""
    recorded_digest: str
    """Digest that the store records for this revision; empty: none."""
    rows: dict[str, int]
    """Number of rows of each table."""
    floor: int
    """Oldest revision in the update log."""


def report_of(connection: Connection, name: str) -> StoreReport:
    """Report on the store of a connection. Raises StoreUnusable if there is none, StoreTooNew."""
    version = version_of(connection, name)
    if version is None:
        raise StoreUnusable(f"{name} is empty: no store has been created in it")
    head = head_of()
    oldest = readable_from(connection) or ""
    if version > head and (oldest or version) > head:
        raise StoreTooNew(f"{name} has schema {version}, this program knows {head}: use the program that wrote it")
    clock: Any = connection.execute(text("SELECT * FROM clock")).one()
    known = version >= head
    tables = [*TABLES.values(), *sql.LOGS.values()]
    floor = connection.execute(sql.floor("updates")).scalar()
    return StoreReport(
        schema=version,
        readable_from=oldest,
        store=clock.store,
        revision=clock.revision,
        digest=to_hex(digest_of_rows(all_rows(connection))) if known else "",
        recorded_digest=clock.digest if known and clock.digest_at == clock.revision else "",
        rows={
            table.name: connection.execute(select(func.count()).select_from(table)).scalar() or 0 for table in tables
        },
        floor=clock.revision + 1 if floor is None else floor,
    )


def all_rows(connection: Connection) -> Iterator[Row]:
    """Yield all rows of the catalogue that can be read."""
    with lenient_text(connection):
        for kind, statement in sql.ALL.items():
            yield from filter(None, intact_rows(kind, connection.execute(statement)))


def problems_of(connection: Connection, condition: StoreReport) -> list[str]:
    """Check rows, logs and digest against each other. Returns a text for each problem."""
    found: list[str] = []
    if connection.dialect.name == "sqlite":
        lines = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA integrity_check({PROBLEMS_MAX})")]
        if lines != ["ok"]:
            return [f"the file is damaged: {line}" for line in lines]
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(PROBLEMS_MAX):
            found.append(f"a row of {row[0]} refers to a missing row of {row[2]}")
    if condition.recorded_digest and condition.recorded_digest != condition.digest:
        found.append(
            f"the digest of the rows is {condition.digest[:16]}..., that of the last commit was "
            f"{condition.recorded_digest[:16]}...: they are damaged, or a program other than a server has changed "
            "them; 'opengnsadmin store repair' rebuilds them from the update log"
        )
    found += _gaps(connection)
    if condition.digest:
        found += [
            f"the entry of revision {revision} in the update log is damaged: its checksum is not that of its columns"
            for revision in islice(damaged_entries(connection), PROBLEMS_MAX)
        ]
        found += _differences(connection)
    return found


def _gaps(connection: Connection) -> Iterator[str]:
    clock: Any = connection.execute(text("SELECT revision, security, administration FROM clock")).one()
    newest = {"updates": clock.revision, "security": clock.security, "administration": clock.administration}
    for log in sql.LOGS:
        column = sql.key_column(log)
        count, first, last = connection.execute(select(func.count(), func.min(column), func.max(column))).one()
        if count and last != newest[log]:
            yield f"the log of {log} ends at {last}, the clock is at {newest[log]}"
        if count and last - first + 1 != count:
            yield f"the log of {log} has {count} entries from {first} to {last}: some are missing"


def _differences(connection: Connection) -> Iterator[str]:
    """Compare the last entry in the log for each row and topic with the tables."""
    last: dict[Hashable, Change] = {}
    topics: dict[str, int] = {}
    for change in changes_in(connection):
        last[_key(change.row)] = change
        if topic := topic_of(change.row):
            topics[topic] = change.revision
        if isinstance(change.row, Service):
            topics[change.row.id] = change.revision
    held = {_key(row): row for row in all_rows(connection)}
    count = 0
    for key, change in last.items():
        wanted = None if change.removed else change.row
        if held.get(key) != wanted and count < PROBLEMS_MAX:
            count += 1
            yield f"revision {change.revision} left {wanted}, the table has {held.get(key)}"
    for statement in (sql.CATEGORY_TOPICS, sql.SERVICE_TOPICS):
        for topic, at in connection.execute(statement):
            if topics.get(topic, at) != at and count < PROBLEMS_MAX:
                count += 1
                yield f"the last change of {topic} is revision {topics[topic]}, the table has {at}"


def changes_in(connection: Connection) -> Iterator[Change]:
    """Yield the intact changes of the update log, from its floor."""
    after = 0
    while page := _log_page(connection, after):
        yield from intact_changes(page)
        after = page[-1].revision


def _log_page(connection: Connection, after: int) -> Sequence[Any]:
    with lenient_text(connection):
        return connection.execute(sql.CHANGES, {"after": after, "most": LOG_PAGE}).all()


def damaged_entries(connection: Connection) -> Iterator[int]:
    """Yield the revisions of the entries of the update log that are not what was written."""
    after = 0
    while page := _log_page(connection, after):
        for entry in page:
            try:
                change_from(entry)
            except LogDamaged as damaged:
                yield damaged.revision
        after = page[-1].revision


def _key(row: Row) -> Hashable:
    return type(row), row.service if isinstance(row, Credential) else "", key_of(row)
