"""Bulk insert: many rows in few statements, because the calls and not the rows determine the cost of a batch.

A driver's `executemany` is one step of the engine for each row, and on SQLite one release of the interpreter's lock
each, which delays the reactor's thread. So rows are inserted by statements with many rows of VALUES, of a few sizes
that the drivers cache as prepared statements. SQLAlchemy Core builds and compiles each of them once; the driver runs
the text, with values in the order of its parameters.
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
from compass.store.row_mapping import TABLES, Batch, Record

SIZES = (256, 64, 16, 4, 1)
"""Rows in one statement. 256 rows of 12 columns are a tenth of the parameters that either engine accepts in a statement
(SQLite 32,766, PostgreSQL 65,535); a batch of any size needs at most three statements of each smaller size."""


def execute(connection: Connection, text: str, values: tuple[Any, ...]) -> Any:
    """Run a statement on the driver's own connection, in the transaction that SQLAlchemy has begun on it.

    SQLAlchemy's overhead is several times the time that SQLite needs for a row. Returns the driver's cursor. Raises the
    same exceptions as SQLAlchemy.
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
    """Compiled statement: its text for the driver, and the order of the values of a record."""

    def __init__(self, statement: Any, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.text = str(compiled)
        self._names: list[str] = list(compiled.positiontup or ())

    def run(self, connection: Connection, record: Record) -> Any:
        """Execute it once; the driver's cursor."""
        return execute(connection, self.text, tuple(map(record.__getitem__, self._names)))

    def run_each(self, connection: Connection, records: Sequence[Record]) -> None:
        """Execute it for each record."""
        values = [tuple(map(record.__getitem__, self._names)) for record in records]
        if len(values) == 1:
            execute(connection, self.text, values[0])
        else:
            connection.exec_driver_sql(self.text, values)


class BulkInsert:
    """Bulk insert into one table; with `replace`, rows with existing keys are updated."""

    def __init__(self, table: Table, dialect: Dialect, *, replace: bool) -> None:
        self._table = table
        self._dialect = dialect
        self._replace = replace
        self._columns = [column.name for column in table.columns]
        self._values = itemgetter(*self._columns)
        self._texts: dict[int, str] = {}
        """Text of the statement by the number of rows; compiled when first used."""

    def write(self, connection: Connection, records: Sequence[Record]) -> None:
        """Write all records, in a few statements."""
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
    """Writer of all statements of a commit, for one engine."""

    def __init__(self, engine: str) -> None:
        """Compile the statements for `engine`: sqlite or postgresql."""
        dialect = driver_dialect(engine)
        notify = [sql.NOTIFY] if engine == "postgresql" else []
        self.fence = CompiledStatement(sql.FENCE.returning(*notify) if notify else sql.FENCE, dialect)
        self.count = CompiledStatement(sql.COUNT.returning(*notify) if notify else sql.COUNT, dialect)
        self._removals = {kind: CompiledStatement(statement, dialect) for kind, statement in sql.REMOVE.items()}
        self._tables = {kind: BulkInsert(table, dialect, replace=True) for kind, table in TABLES.items()}
        self._move_category = CompiledStatement(sql.MOVE_CATEGORY, dialect)
        self._move_service = CompiledStatement(sql.MOVE_SERVICE, dialect)
        self.logs = {log: BulkInsert(table, dialect, replace=False) for log, table in sql.LOGS.items()}

    def write(self, connection: Connection, batch: Batch) -> None:
        """Write the tables and the update log, in the order that the foreign keys require."""
        for kind, records in batch.removed.items():
            self._removals[kind].run_each(connection, records)
        for kind, records in batch.set.items():
            self._tables[kind].write(connection, records)
        if batch.categories:
            self._move_category.run_each(connection, batch.categories)
        if batch.services:
            self._move_service.run_each(connection, batch.services)
        self.logs["updates"].write(connection, batch.log)
