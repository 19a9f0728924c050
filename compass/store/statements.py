"""SQL statements of the running store, built once; SQLAlchemy compiles each of them once."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any, TypeAlias

from sqlalchemy import (
    Delete,
    LargeBinary,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from compass.model.interfaces import LogName
from compass.model.rows import Row
from compass.store import schema
from compass.store.row_mapping import TABLES

Log: TypeAlias = LogName

LOGS: dict[Log, Table] = {
    "updates": schema.update_log,
    "security": schema.security_log,
    "administration": schema.administration_log,
}

_clock = schema.clock.c
_counted = {
    "security": _clock.security + bindparam("securities"),
    "administration": _clock.administration + bindparam("administrations"),
}
CHANNEL = "opengns_"
"""Prefix of PostgreSQL's channel for notifications; the store's id follows, as a database may hold several stores."""
COUNT: Any = update(schema.clock).values(_counted).returning(_clock.security, _clock.administration)
"""Statement that numbers new entries of the two other logs. The row stays locked until the commit, so numbers are in
the order of commits."""
FENCE: Any = COUNT.values(
    revision=bindparam("reached"), digest=bindparam("new_digest"), digest_at=bindparam("reached")
).where(_clock.revision == bindparam("expected"), _clock.lost == literal_column("0"))
"""Statement that also advances the clock; it updates no row if another server has advanced it, or if the store went
back in time."""
NOTIFY = func.pg_notify(literal_column(f"'{CHANNEL}'") + _clock.store, cast(_clock.revision, Text))
"""Expression that PostgreSQL returns with COUNT and FENCE: at the commit, it notifies of the store's revision."""
CORRECT = (
    update(schema.clock)
    .values(digest=bindparam("new_digest"), digest_at=bindparam("of"))
    .where(_clock.revision == bindparam("of"))
)
LOST = update(schema.clock).values(lost=bindparam("known")).where(_clock.lost == 0)
DOUBT = update(schema.clock).values(doubted=_clock.revision)
CLOCK = select(schema.clock)
CLOCK_LOCKED = select(schema.clock).with_for_update()
"""Statement that waits for the current writer (on SQLite the transaction itself does)."""


def key_column(log: Log) -> Any:
    """Return the column that numbers the entries of a log."""
    return next(iter(LOGS[log].primary_key))


def floor(log: Log) -> Select[Any]:
    """Return the query of the oldest number in a log; NULL if the log is empty."""
    return select(func.min(key_column(log)))


def _entries(log: Log) -> Select[Any]:
    """Return the query of a log's columns in the order of the entry's fields."""
    hidden = (schema.update_log.c.previous, schema.update_log.c.checksum)
    columns = [column for column in LOGS[log].c if not any(column is other for other in hidden)]
    return select(*columns).limit(bindparam("most"))


AFTER: dict[Log, Select[Any]] = {
    log: _entries(log).where(key_column(log) > bindparam("after")).order_by(key_column(log)) for log in LOGS
}
BACK: dict[Log, Select[Any]] = {
    log: select(key_column(log)).order_by(key_column(log).desc()).limit(1).offset(bindparam("back")) for log in LOGS
}
"""Queries of the number of the entry that lies `back` entries before the last."""
TRIM: dict[Log, Delete] = {log: delete(LOGS[log]).where(key_column(log) <= bindparam("gone")) for log in LOGS}


def _octets(engine: str, column: Any) -> Any:
    """Return the octets of a text. SQLite's function for octets is younger than the SQLite of many machines."""
    return func.octet_length(column) if engine == "postgresql" else func.length(cast(column, LargeBinary))


def part(log: Log, engine: str) -> Select[Any, Any, Any]:
    """Return the query of the number of entries, their last number and their octets, of a part of a log."""
    texts = [_octets(engine, column) for column in LOGS[log].c if isinstance(column.type, Text)]
    entries = select(key_column(log).label("number"), reduce(add, texts).label("octets"))
    entries = entries.where(key_column(log) > bindparam("after")).order_by(key_column(log)).limit(bindparam("most"))
    found = entries.subquery()
    return select(func.count(), func.max(found.c.number), func.sum(found.c.octets)).select_from(found)


PARTS: dict[tuple[Log, str], Select[Any, Any, Any]] = {
    (log, engine): part(log, engine) for log in LOGS for engine in ("sqlite", "postgresql")
}

CHANGES = (
    select(schema.update_log)
    .where(schema.update_log.c.revision > bindparam("after"))
    .order_by(schema.update_log.c.revision)
    .limit(bindparam("most"))
)
INCIDENTS = CHANGES.where(schema.update_log.c.operation.in_(("alert", "alert-over")))
"""Query of the changes by which incidents began and ended."""

ALL: dict[type[Row], Select[Any]] = {
    kind: select(*(table.c[name] for name in kind.__struct_fields__ if name in table.c))
    for kind, table in TABLES.items()
}
"""Queries of whole tables, with columns in the order of the struct's fields."""
CATEGORY_TOPICS = select(schema.category.c.name, schema.category.c.revision)
SERVICE_TOPICS = select(schema.service.c.id, schema.service.c.revision)
MOVE_CATEGORY = (
    update(schema.category).where(schema.category.c.name == bindparam("topic")).values(revision=bindparam("at"))
)
MOVE_SERVICE = update(schema.service).where(schema.service.c.id == bindparam("topic")).values(revision=bindparam("at"))
REMOVE: dict[type[Row], Delete] = {
    kind: delete(table).where(*(column == bindparam(column.name) for column in table.primary_key))
    for kind, table in TABLES.items()
}

INVITATION_KEPT_SECONDS = 30 * 86_400.0
"""Time after its end for which a join token is stored: until then its use again is refused with the reason."""
_token = schema.join_token.c
INVITE = insert(schema.join_token)
INVITATION = select(schema.join_token).where(_token.id == bindparam("of"))
JOIN = (
    update(schema.join_token)
    .where(_token.id == bindparam("of"), _token.used_at == 0, _token.expires_at > bindparam("now"))
    .values(used_at=bindparam("now"), used_from=bindparam("origin"))
)
"""Use of a join token: of two transactions with the same token, one finds a row."""
FORGET_INVITATIONS = delete(schema.join_token).where(_token.expires_at < bindparam("before"))
