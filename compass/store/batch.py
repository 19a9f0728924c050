"""Effect of a batch of changes on the tables: at most one write per row.

The log contains every change; the tables need only the last change of each row. So the rows are grouped by table, and
within a table the last change of a key wins: set then removed is a removal, removed then set is an update in place.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import msgspec

from compass.model.catalogue.catalogue import topic_of
from compass.model.rows import Category, Change, Credential, Row, Service, key_of
from compass.store.row_mapping import TABLES, Record, record_of, update_record

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
        last.setdefault(type(row), {})[_key(row)] = change
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


def _key(row: Row) -> Hashable:
    """Return the primary key. A credential's id is the prefix of a digest, so it is unique only within its service."""
    return (row.service, row.id) if isinstance(row, Credential) else key_of(row)
