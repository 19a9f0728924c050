"""SQL statements of the running store, built once; SQLAlchemy compiles each of them once."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import sqlalchemy as sa

from compass.model.rows import Row
from compass.store import schema
from compass.store.row_mapping import TABLES

Log: TypeAlias = Literal["updates", "security", "administration"]

LOGS: dict[Log, sa.Table] = {
    "updates": schema.update_log,
    "security": schema.security_log,
    "administration": schema.administration_log,
}

_clock = schema.clock.c
_counted = {
    "security": _clock.security + sa.bindparam("securities"),
    "administration": _clock.administration + sa.bindparam("administrations"),
}
CHANNEL = "opengns_"
"""Prefix of PostgreSQL's channel for notifications; the store's id follows, as a database may hold several stores."""
COUNT: Any = sa.update(schema.clock).values(_counted).returning(_clock.security, _clock.administration)
"""Statement that numbers new entries of the two other logs. The row stays locked until the commit, so numbers are in
the order of commits."""
FENCE: Any = COUNT.values(
    revision=sa.bindparam("reached"), digest=sa.bindparam("new_digest"), digest_at=sa.bindparam("reached")
).where(_clock.revision == sa.bindparam("expected"))
"""Statement that also advances the clock; it updates no row if another server has advanced it."""
NOTIFY = sa.func.pg_notify(sa.literal_column(f"'{CHANNEL}'") + _clock.store, sa.cast(_clock.revision, sa.Text))
"""Expression that PostgreSQL returns with COUNT and FENCE: at the commit, it notifies of the store's revision."""
CORRECT = (
    sa.update(schema.clock)
    .values(digest=sa.bindparam("new_digest"), digest_at=sa.bindparam("of"))
    .where(_clock.revision == sa.bindparam("of"))
)
DOUBT = sa.update(schema.clock).values(doubted=_clock.revision)
CLOCK = sa.select(schema.clock)
CLOCK_LOCKED = sa.select(schema.clock).with_for_update()
"""Statement that waits for the current writer (on SQLite the transaction itself does)."""


def key_column(log: Log) -> Any:
    """Return the column that numbers the entries of a log."""
    return next(iter(LOGS[log].primary_key))


def floor(log: Log) -> sa.Select[Any]:
    """Return the query of the oldest number in a log; NULL if the log is empty."""
    return sa.select(sa.func.min(key_column(log)))


def _entries(log: Log) -> sa.Select[Any]:
    """Return the query of a log's columns in the order of the entry's fields."""
    columns = [column for column in LOGS[log].c if column is not schema.update_log.c.previous]
    return sa.select(*columns).limit(sa.bindparam("most"))


AFTER: dict[Log, sa.Select[Any]] = {
    log: _entries(log).where(key_column(log) > sa.bindparam("after")).order_by(key_column(log)) for log in LOGS
}
LATEST: dict[Log, sa.Select[Any]] = {log: _entries(log).order_by(key_column(log).desc()) for log in LOGS}
TRIM: dict[Log, sa.Delete] = {log: sa.delete(LOGS[log]).where(key_column(log) <= sa.bindparam("gone")) for log in LOGS}

CHANGES = (
    sa.select(schema.update_log.c.revision, schema.update_log.c.change)
    .where(schema.update_log.c.revision > sa.bindparam("after"))
    .order_by(schema.update_log.c.revision)
    .limit(sa.bindparam("most"))
)
INCIDENTS = CHANGES.where(schema.update_log.c.operation.in_(("alert", "alert-over")))
"""Query of the changes by which incidents began and ended."""

ALL: dict[type[Row], sa.Select[Any]] = {
    kind: sa.select(*(table.c[name] for name in kind.__struct_fields__ if name in table.c))
    for kind, table in TABLES.items()
}
"""Queries of whole tables, with columns in the order of the struct's fields."""
CATEGORY_TOPICS = sa.select(schema.category.c.name, schema.category.c.revision)
SERVICE_TOPICS = sa.select(schema.service.c.id, schema.service.c.revision)
MOVE_CATEGORY = (
    sa.update(schema.category)
    .where(schema.category.c.name == sa.bindparam("topic"))
    .values(revision=sa.bindparam("at"))
)
MOVE_SERVICE = (
    sa.update(schema.service).where(schema.service.c.id == sa.bindparam("topic")).values(revision=sa.bindparam("at"))
)
REMOVE: dict[type[Row], sa.Delete] = {
    kind: sa.delete(table).where(*(column == sa.bindparam(column.name) for column in table.primary_key))
    for kind, table in TABLES.items()
}
