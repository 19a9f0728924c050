"""Copy of a store from one engine to the other: every table, in one transaction at the target, verified by digest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import URL, Connection, Table, insert, select, update

from compass.store import schema
from compass.store import statements as sql
from compass.store.engine import redacted_url
from compass.store.errors import StoreInUse, StoreUnusable
from compass.store.migrate import bring_up, head_of, version_of
from compass.store.offline.exclusive import give_new_id, open_exclusive
from compass.store.offline.verify import StoreReport, problems_of, report_of
from compass.store.row_mapping import TABLES

ROWS_AT_ONCE = 5_000
"""Rows in memory while they are copied: a few MB of log entries."""
COPIED: tuple[Table, ...] = (*TABLES.values(), *sql.LOGS.values())
"""Tables to copy, parents before children. Heartbeats and presences are valid only in the source."""

Progress = Callable[[int, int], None]
"""Callback with the number of copied rows, and of all rows."""


class Copied(msgspec.Struct, frozen=True, tag_field="type", tag="copied"):
    """Result of a copy."""

    condition: StoreReport
    """Report on the new store."""
    source: str
    """Id of the source; equal to the new store's id without `new_id`."""


def copy(source: URL, target: URL, *, new_id: bool, progress: Progress) -> Copied:
    """Copy a store into an empty database of either engine, in one transaction there.

    With `new_id` the copy is a store of its own, and the source may be in use. Without, it is the same store at another
    place: no server may use the source, now or later. Raises StoreInUse, StoreUnusable, StoreUnavailable; then the
    target is unchanged.
    """
    with open_exclusive(source, alone=not new_id, writes=False) as original:
        before = report_of(original, redacted_url(source))
        _refuse_bad(original, before, source)
        with open_exclusive(target, alone=True, writes=True, create=True) as connection:
            found = version_of(connection, redacted_url(target))
            if found is not None:
                raise StoreInUse(
                    f"{redacted_url(target)} holds a store already (schema {found}); a copy goes into an empty database"
                )
            bring_up(connection, redacted_url(target), create=True, file=None)
            _pour(original, connection, before, progress)
            if new_id:
                give_new_id(connection)
            after = report_of(connection, redacted_url(target))
            _compare(before, after)
    return Copied(after, before.store)


def _refuse_bad(connection: Connection, condition: StoreReport, url: URL) -> None:
    if condition.schema != head_of():
        raise StoreUnusable(
            f"{redacted_url(url)} has schema {condition.schema}, this program copies {head_of()}: start opengnssd on "
            "it once, which upgrades it"
        )
    problems = problems_of(connection, condition)
    if problems:
        raise StoreUnusable(f"{redacted_url(url)} is damaged and was not copied: {'; '.join(problems)}")


def _pour(source: Connection, target: Connection, before: StoreReport, progress: Progress) -> None:
    total, done = sum(before.rows.values()), 0
    clock = source.execute(select(schema.clock)).mappings().one()
    values = {name: value for name, value in clock.items() if name not in ("one", "readable_from")}
    target.execute(update(schema.clock).values(**_fitting(values, target)))
    for table in COPIED:
        records = source.execution_options(yield_per=ROWS_AT_ONCE).execute(select(table)).mappings()
        for part in records.partitions(ROWS_AT_ONCE):
            target.execute(insert(table), [dict(record) for record in part])
            done += len(part)
            progress(done, total)


def _fitting(values: dict[str, Any], target: Connection) -> dict[str, Any]:
    """Convert the times of the clock: SQLite stores UTC without a zone, PostgreSQL requires the zone."""
    at: datetime = values["created_at"]
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    fits = aware if target.dialect.name == "postgresql" else aware.astimezone(UTC).replace(tzinfo=None)
    return {**values, "created_at": fits}


def _compare(before: StoreReport, after: StoreReport) -> None:
    """Compare the copy with the original. Raises StoreUnusable, which rolls back the copy, if they differ."""
    same = ("revision", "digest", "rows", "floor")
    wrong = [name for name in same if getattr(before, name) != getattr(after, name)]
    if wrong:
        differences = "; ".join(f"{name}: {getattr(before, name)} became {getattr(after, name)}" for name in wrong)
        raise StoreUnusable(f"the copy differs from its source and is discarded: {differences}")
