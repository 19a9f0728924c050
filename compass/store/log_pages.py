"""Pages of the logs, bounded in entries and in octets: entries of listeners with much metadata have 10 kB each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Select

from compass.model.catalogue.octets import change_octets, entry_octets
from compass.model.rows import AdministrationEntry, Change, LogEntry, SecurityEntry
from compass.store import statements as sql
from compass.store.row_mapping import change_from, update_entry

ROWS_AT_ONCE = 64
"""Rows of a log read at once, so that a read whose octets are bounded takes at most these beyond its bound."""

T = TypeVar("T")

_ENTRIES: dict[sql.Log, Callable[..., LogEntry]] = {
    "updates": update_entry,
    "security": SecurityEntry,
    "administration": AdministrationEntry,
}


def entries_after(connection: Connection, log: sql.Log, after: int, most: int, octets_max: int) -> list[LogEntry]:
    """Return entries of a log, up to the one that reaches `octets_max`."""
    build = _ENTRIES[log]
    records = _records(connection, sql.AFTER[log], after, most)
    return _page((build(*record) for record in records), entry_octets, octets_max)


def changes_after(connection: Connection, after: int, most: int, octets_max: int | None) -> list[Change]:
    """Return changes of the update log, up to the one that reaches `octets_max`; None: `most` changes. Raises
    LogDamaged."""
    changes = map(change_from, _records(connection, sql.CHANGES, after, most))
    return list(changes) if octets_max is None else _page(changes, change_octets, octets_max)


def _records(connection: Connection, query: Select[Any], after: int, most: int) -> Iterator[Sequence[Any]]:
    """Yield records of a log, whose number is their first column, reading a few at once."""
    while most > 0:
        records = connection.execute(query, {"after": after, "most": min(ROWS_AT_ONCE, most)}).all()
        yield from records
        if len(records) < ROWS_AT_ONCE:
            return
        most -= len(records)
        after = records[-1][0]


def _page(entries: Iterator[T], size: Callable[[T], int], octets_max: int) -> list[T]:
    page: list[T] = []
    octets = 0
    while octets < octets_max and (entry := next(entries, None)) is not None:
        page.append(entry)
        octets += size(entry)
    return page
