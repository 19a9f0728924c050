"""Mapping of rows, log entries and batches of changes to records of the tables, and back, without a connection.

The log contains every change; the tables need only the last change of each row. So a batch groups the rows by table,
and within a table the last change of a key wins: set then removed is a removal, removed then set is an update in place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Table

from compass.model.catalogue.catalogue import topic_of
from compass.model.interfaces import LogDamaged
from compass.model.names import category_of
from compass.model.rows import (
    IDLE,
    AdministrationEntry,
    Alert,
    Category,
    Change,
    Credential,
    Dependency,
    Host,
    Invitation,
    Listener,
    LogEntry,
    Policy,
    Row,
    SecurityEntry,
    Service,
    UpdateEntry,
    key_of,
)
from compass.store import schema
from compass.store.errors import RowDamaged

Record: TypeAlias = dict[str, Any]

TABLES: dict[type[Row], Table] = {
    Category: schema.category,
    Service: schema.service,
    Dependency: schema.dependency,
    Listener: schema.listener,
    Credential: schema.credential,
    Host: schema.host,
    Alert: schema.alert,
}
"""Tables by kind of row, parents first: the foreign keys require that rows are set in this order and removed in the
opposite one."""

_names = msgspec.json.Decoder(tuple[str, ...]).decode
_encode = msgspec.json.Encoder().encode
_policy = msgspec.json.Decoder(Policy).decode
_metadata = msgspec.json.Decoder(dict[str, str]).decode
_services = msgspec.json.Decoder(tuple[str, ...]).decode
_change = msgspec.json.Decoder(Change).decode
_UNREADABLE = (msgspec.MsgspecError, TypeError)
"""Errors of a text that is not the JSON of its column; damage can also make octets or a number of a text."""
CHECKSUM_OCTETS = 8
"""Octets of a checksum: it detects damage of a disk, not a forgery."""


def text_of(value: Any) -> str:
    """Return the JSON for a text column."""
    return _encode(value).decode()


def record_of(row: Row) -> Record:
    """Return the columns of a row's table, except the topic's revision."""
    match row:
        case Listener():
            return {**msgspec.structs.asdict(row), "metadata": text_of(row.metadata)}
        case Category():
            return {"name": row.name, "backup": row.backup or None, "policy": text_of(row.policy)}
        case Service():
            return {"id": row.id, "category": category_of(row.id)}
        case Host():
            return {**msgspec.structs.asdict(row), "services": text_of(row.services)}
        case Dependency() | Credential() | Alert():
            return msgspec.structs.asdict(row)


def rows_from(kind: type[Row], records: Iterable[Sequence[Any]]) -> list[Row]:
    """Return the rows of one table from records with columns in the order of the struct's fields. Raises RowDamaged."""
    build: Callable[..., Row] = _BUILDERS.get(kind, kind)
    try:
        return [build(*record) for record in records]
    except _UNREADABLE as error:
        raise RowDamaged(f"a row of table {TABLES[kind].name} cannot be read: {error}") from None


def intact_rows(kind: type[Row], records: Iterable[Sequence[Any]]) -> Iterator[Row | None]:
    """Yield the rows of one table; None in place of each row that cannot be read."""
    build: Callable[..., Row] = _BUILDERS.get(kind, kind)
    for record in records:
        try:
            yield build(*record)
        except _UNREADABLE:
            yield None


def _category(name: str, backup: str | None, policy: str) -> Category:
    return Category(name, backup or "", _policy(policy))


def _listener(*values: Any) -> Listener:
    row = Listener(*values)
    metadata, load, degradation = _metadata(values[_METADATA]), row.load or IDLE, row.degradation or IDLE
    return msgspec.structs.replace(row, metadata=metadata, load=load, degradation=degradation)


def _host(name: str, update_address: str, update_port: int, services: str, barred: bool) -> Host:
    return Host(name, update_address, update_port, _services(services), barred)


_BUILDERS: dict[type[Row], Callable[..., Row]] = {Category: _category, Listener: _listener, Host: _host}


_METADATA = Listener.__struct_fields__.index("metadata")


def checksum_of(values: Sequence[Any]) -> str:
    """Return the checksum of the values of an entry of the update log, in the order of the table's columns."""
    return blake2b(_encode(values), digest_size=CHECKSUM_OCTETS).hexdigest()


def change_from(entry: Sequence[Any]) -> Change:
    """Return the change in an entry of the update log, which has all columns. Raises LogDamaged if the entry is not
    what was written; entries of old programs have no checksum."""
    *values, change, checksum = entry
    try:
        if checksum in ("", checksum_of([*values, change])):
            return _change(change)
    except (msgspec.MsgspecError, TypeError):
        # Damage can make octets of a text.
        pass
    raise LogDamaged(int(entry[0]))


def intact_changes(entries: Iterable[Sequence[Any]]) -> Iterator[Change]:
    """Yield the changes of those entries that are what was written."""
    for entry in entries:
        try:
            yield change_from(entry)
        except LogDamaged:
            continue


def update_record(change: Change) -> Record:
    """Return a change as a record of the update log."""
    row = change.row
    listener = row if isinstance(row, Listener) else None
    record: Record = {
        "revision": change.revision,
        "time": float(change.time),
        "operation": change.operation,
        "subject": _subject(row),
        "address": listener.address if listener else "",
        "port": listener.port if listener else 0,
        "state": "removed" if change.removed else listener.state if listener else "",
        "previous": change.previous,
        "change": text_of(change),
    }
    return {**record, "checksum": checksum_of([*record.values()])}


def _subject(row: Row) -> str:
    match row:
        case Listener() | Credential():
            return row.service
        case Dependency():
            return f"{row.category} {row.on}"
        case Category() | Host():
            return row.name
        case Service() | Alert():
            return row.id


def entry_records(entries: Sequence[SecurityEntry] | Sequence[AdministrationEntry], last: int) -> list[Record]:
    """Return entries as records of their log; the last one has the number `last`."""
    first = last - len(entries) + 1
    return [{**msgspec.structs.asdict(entry), "number": number} for number, entry in enumerate(entries, start=first)]


def update_entry(
    number: int, time: float, operation: str, subject: str, address: str, port: int, state: str, change: str
) -> LogEntry:
    """Return the entry of a record of the update log."""
    return UpdateEntry(number, time, operation, subject, address, port, state, _change(change))


_KEYS = {kind: [column.name for column in table.primary_key] for kind, table in TABLES.items()}


class Batch(msgspec.Struct, frozen=True):
    """Records to write, ready for `executemany`."""

    removed: dict[type[Row], list[Record]]
    """Keys of rows to delete, children before parents."""
    set: dict[type[Row], list[Record]]
    """Rows to insert or update, parents before children."""
    categories: list[Record]
    """New revisions (`topic`, `at`) of categories whose rows are not in the batch."""
    services: list[Record]
    """New revisions of services whose rows are not in the batch."""
    log: list[Record]


def batch_of(changes: Sequence[Change]) -> Batch:
    """Return the batch for changes in the order of their revisions."""
    last: dict[type[Row], dict[Hashable, Change]] = {}
    topics: dict[str, int] = {}
    for change in changes:
        row = change.row
        last.setdefault(type(row), {})[row_key(row)] = change
        if topic := topic_of(row):
            topics[topic] = change.revision
        if isinstance(row, Service):
            topics[row.id] = change.revision
    removed: dict[type[Row], list[Record]] = {}
    kept: dict[type[Row], list[Record]] = {}
    for kind in TABLES:
        for change in last.get(kind, {}).values():
            record, row = record_of(change.row), change.row
            if change.removed:
                removed.setdefault(kind, []).append({name: record[name] for name in _KEYS[kind]})
                continue
            if isinstance(row, Category):
                record["revision"] = topics[row.name]
            elif isinstance(row, Service):
                record["revision"] = topics[row.id]
            kept.setdefault(kind, []).append(record)
    categories: list[Record] = []
    services: list[Record] = []
    for topic, at in topics.items():
        if topic not in last.get(Service, ()) and topic not in last.get(Category, ()):
            (services if "." in topic else categories).append({"topic": topic, "at": at})
    log = [update_record(change) for change in changes]
    return Batch(dict(reversed(removed.items())), kept, categories, services, log)


def row_key(row: Row) -> Hashable:
    """Return the primary key. A credential's id is the prefix of a digest, so it is unique only within its service."""
    return (row.service, row.id) if isinstance(row, Credential) else key_of(row)


def invitation_from(record: Any) -> Invitation | None:
    """Return the join token in a record of its table; None without one."""
    return None if record is None else Invitation(**{**record._mapping, "also": _names(record.also)})
