"""Record of the last revision, in a small file next to a SQLite store: it shows that the store went back in time.

A store returns to an older state when its -wal file is removed, or when an older file is copied over it. The
file itself cannot show that. The record is written after the commit that it names, so it is never ahead of a store that
is whole. A restored backup has another id, and the record of the old one says nothing about it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from compass.store.errors import StoreUnusable, StoreWentBack
from compass.system.files import replace_file

RECORD_OCTETS_MAX = 1_000
"""Longest record that is read: it has an id and a number."""
SUFFIX = ".revision"


class _Record(msgspec.Struct, frozen=True):
    store: str
    revision: int


class RevisionRecord:
    """Record of one store's file."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(database.name + SUFFIX)
        self._noted: _Record | None = None

    def check(self, store: str, revision: int) -> None:
        """Compare a store with its record. Raises StoreWentBack if it has reached a later revision."""
        recorded = self._read()
        if recorded is not None and recorded.store == store and recorded.revision > revision:
            raise StoreWentBack(str(self._database), revision, recorded.revision, f"{self._path} says so")

    def check_absent(self) -> None:
        """Raise StoreUnusable if there is a record although its store is empty: a new store would hide the loss."""
        recorded = self._read()
        if recorded is not None:
            raise StoreUnusable(
                f"{self._database} is empty, but it held a store at revision {recorded.revision} ({self._path}): put a "
                f"backup back with 'opengnsadmin restore', or remove {self._path} to begin with an empty store"
            )

    def note(self, store: str, revision: int) -> None:
        """Record a revision that is on disk. A problem with the file is ignored: the store works without it."""
        record = _Record(store, revision)
        if record == self._noted:
            return
        self._noted = record
        with contextlib.suppress(OSError):
            replace_file(self._path, msgspec.json.encode(record), durable=False)

    def _read(self) -> _Record | None:
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(RECORD_OCTETS_MAX), type=_Record)
        except (OSError, ValueError):
            return None
