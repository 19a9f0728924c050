"""Text columns of damaged rows: SQLite holds octets that are no text, and its driver then reads no row at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError


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


def is_no_text(error: OperationalError) -> bool:
    """Return whether the driver could not read a row because of its octets."""
    return "Could not decode to UTF-8" in str(error.orig)


def _lenient(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
