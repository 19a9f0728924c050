"""Writing many rows in few statements: what a batch costs is bound by the calls, not by the rows.

A driver's `executemany` is one step of the engine for each row, and on SQLite one handing over of the interpreter's
lock each, for which the reactor's thread then waits. So rows go in by statements with many rows of VALUES, of a few
sizes that the drivers keep prepared. SQLAlchemy Core builds and compiles each of them once; what runs is the text, with
values in the order of its parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from compass.store import statements as sql
from compass.store.batch import Batch
from compass.store.row_mapping import TABLES, Record

SIZES = (256, 64, 16, 4, 1)
"""Rows in one statement. 256 rows of 12 columns are a tenth of the parameters that either engine takes in a statement
(SQLite 32,766, PostgreSQL 65,535); a batch of any size needs at most three of each smaller one."""


def execute(connection: Connection, text: str, values: tuple[Any, ...]) -> Any:
    """Run a statement on the driver's own connection, in the transaction that SQLAlchemy has begun on it.

    SQLAlchemy's way there and back costs several times what SQLite does with a row. Returns the driver's cursor. Raises
    what SQLAlchemy would raise, so that callers need not know.
    """
    driver: Any = connection.connection.driver_connection
    dialect = connection.dialect
    try:
        return driver.execute(text, values)
    except dialect.loaded_dbapi.Error as error:
        gone = dialect.is_disconnect(error, driver, None)
        base = dialect.loaded_dbapi.Error
        raise DBAPIError.instance(text, values, error, base, connection_invalidated=gone, dialect=dialect) from error


class CompiledStatement:
    """A statement as text for the driver, and its values from records with these names."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self._names: list[str] = list(compiled.positiontup or ())

    def run(self, connection: Connection, record: Record) -> Any:
        """Execute it once; the driver's cursor."""
        return execute(connection, self.text, tuple([record[name] for name in self._names]))

    def run_each(self, connection: Connection, records: Sequence[Record]) -> None:
        """Execute it for each record."""
        if len(records) == 1:
            self.run(connection, records[0])
        else:
            values = [tuple([record[name] for name in self._names]) for record in records]
            connection.exec_driver_sql(self.text, values)


class BulkInsert:
    """Inserts rows of one table, or with `replace` updates those whose keys are there."""

    def __init__(self, table: Table, dialect: Dialect, *, replace: bool) -> None:
        self._table = table
        self._dialect = dialect
        self._replace = replace
        self._columns = [column.name for column in table.columns]
        self._values = itemgetter(*self._columns)
        self._texts: dict[int, str] = {}
        """Text of the statement by the number of rows; made when first used."""

    def write(self, connection: Connection, records: Sequence[Record]) -> None:
        """All of them, in a few statements."""
        done = 0
        for size in SIZES:
            while len(records) - done >= size:
                values = map(self._values, records[done : done + size])
                text = self._texts.get(size) or self._texts.setdefault(size, self._text(size))
                execute(connection, text, tuple(chain.from_iterable(values)))
                done += size

    def _text(self, size: int) -> str:
        insert: Any = (sqlite.insert if self._dialect.name == "sqlite" else postgresql.insert)(self._table)
        if self._replace:
            insert = _or_update(insert, self._table)
        compiled = insert.values([dict.fromkeys(self._columns, "")] * size).compile(dialect=self._dialect)
        expected = [f"{name}_m{row}" for row in range(size) for name in self._columns]
        assert list(compiled.positiontup) == expected, f"parameters of {self._table.name} in another order"
        return str(compiled)


def driver_dialect(name: str) -> Dialect:
    """Return the dialect for compiling to text with positional parameters: `?` on SQLite, `%s` on PostgreSQL."""
    made: Dialect = sqlite.dialect() if name == "sqlite" else postgresql.dialect(paramstyle="format")  # type: ignore[no-untyped-call]
    return made


def _or_update(insert: Any, table: Table) -> Any:
    keys = list(table.primary_key)
    others = {column.name: insert.excluded[column.name] for column in table.c if not column.primary_key}
    if not others:
        return insert.on_conflict_do_nothing(index_elements=keys)
    return insert.on_conflict_do_update(index_elements=keys, set_=others)


class BatchWriter:
    """Everything that a commit writes, for one engine."""

    def __init__(self, engine: str) -> None:
        """`engine`: sqlite or postgresql."""
        dialect = driver_dialect(engine)
        told = [sql.NOTIFY] if engine == "postgresql" else []
        self.fence = CompiledStatement(sql.FENCE.returning(*told) if told else sql.FENCE, dialect)
        self.count = CompiledStatement(sql.COUNT.returning(*told) if told else sql.COUNT, dialect)
        self._removals = {kind: CompiledStatement(statement, dialect) for kind, statement in sql.REMOVE.items()}
        self._tables = {kind: BulkInsert(table, dialect, replace=True) for kind, table in TABLES.items()}
        self._move_category = CompiledStatement(sql.MOVE_CATEGORY, dialect)
        self._move_service = CompiledStatement(sql.MOVE_SERVICE, dialect)
        self.logs = {log: BulkInsert(table, dialect, replace=False) for log, table in sql.LOGS.items()}

    def write(self, connection: Connection, batch: Batch) -> None:
        """The tables and the update log, in the order that foreign keys want."""
        for kind, records in batch.removed.items():
            self._removals[kind].run_each(connection, records)
        for kind, records in batch.set.items():
            self._tables[kind].write(connection, records)
        if batch.categories:
            self._move_category.run_each(connection, batch.categories)
        if batch.services:
            self._move_service.run_each(connection, batch.services)
        self.logs["updates"].write(connection, batch.log)
