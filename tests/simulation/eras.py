"""Eras of a run whose store is restored from a backup: each store id has an update log of its own.

A restored store goes on from an older revision, so one number means different changes before and after. What a host
holds of the old store is judged by the old log until it has a snapshot of the new one; what is sent on a session and
answered on it, by the log of that session's store. What happens to processes and machines belongs to every era.

Lost by a restore, and by nothing else: what administrators changed since the backup, and credentials issued since. A
living process is registered again by its host, and what its host does not hold goes out of use.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from compass.model.rows import Change, Listener, key_of
from compass.store.offline.exclusive import give_new_id
from compass.store.store import Store
from tests.histories.checker import check
from tests.histories.events import (
    Committed,
    Died,
    Event,
    History,
    Lived,
    Logged,
    Orphaned,
    Settled,
    Table,
    Unsettled,
    Violation,
)
from tests.simulation.recording import Recorder
from tests.simulation.topology import connection_of

AT_THE_END = (Settled, Table, Unsettled, Orphaned)
"""Events that are seen at the end of the run, and say something about the last store only."""


class Backups:
    """The backup of a store, its restores, and the logs that they cut off."""

    def __init__(self, store: Store, recorder: Recorder) -> None:
        self._store, self._recorder = store, recorder
        self._copy: sqlite3.Connection | None = None
        self._tokens: dict[str, str] = {}
        self._ended: list[tuple[str, float, list[Change]]] = []
        """Id, end and log of each earlier store."""
        self._origin: dict[str, tuple[str, int]] = {}
        """Store and revision of the backup that a restored store began with."""
        self._taken = "", 0
        self._note()

    def take(self, tokens: dict[str, str]) -> None:
        """Back the store up, and what programs know then."""
        self._copy = sqlite3.connect(":memory:", check_same_thread=False)
        connection_of(self._store).backup(self._copy)
        self._tokens = dict(tokens)
        self._taken = self._recorder.store, self._store.load().revision

    def restore(self) -> dict[str, str]:
        """Put the backup back under a new id, as `opengnsadmin restore` does. Returns the credentials of then."""
        assert self._copy is not None
        at = self._recorder.clock()
        self._ended.append((self._recorder.store, at, self._log()))
        self._copy.backup(connection_of(self._store))
        with self._store._engine.begin() as connection:
            give_new_id(connection)
        self._note()
        self._origin[self._recorder.store] = self._taken
        return dict(self._tokens)

    def is_taken(self) -> bool:
        """Return whether there is a backup."""
        return self._copy is not None

    def removed_before(self, key: tuple[str, str, int], epoch: int) -> bool:
        """Return whether an administrator removed an instance, and the removal was lost."""
        rows = (change.row for _, _, log in self._ended for change in log if change.operation == "remove")
        return any(isinstance(row, Listener) and (key_of(row), row.epoch) == (key, epoch) for row in rows)

    def violations(self, history: History, stores: Sequence[str]) -> list[Violation]:
        """Check each era by its own log."""
        if not self._ended:
            return check(history)
        found: list[Violation] = []
        tagged = list(zip(history, stores, strict=True))
        for id, until, log in self._ended:
            events = [
                event
                for event, store in tagged
                if self._is_about(id, event, store) or (not store and _is_of(event, until))
            ]
            found += check([*events, *(Logged(until, "store", change) for change in log)])
        now = self._recorder.store
        return found + check([event for event, store in tagged if not store or self._is_about(now, event, store)])

    def _is_about(self, id: str, event: Event, store: str) -> bool:
        """Return whether an event is one of a store, or a commit that its backup has."""
        if store == id:
            return True
        before, revision = self._origin.get(id, ("", 0))
        if not before or not isinstance(event, Committed) or event.change.revision > revision:
            return False
        return self._is_about(before, event, store)

    def _log(self) -> list[Change]:
        return self._store.changes_after(0, 1_000_000)

    def _note(self) -> None:
        self._recorder.store = self._store.load().store


def _is_of(event: Event, until: float) -> bool:
    """Return whether an event of no store belongs to an era that ended then."""
    if isinstance(event, (*AT_THE_END, Logged)) or (isinstance(event, Lived) and event.last):
        return False
    return event.at <= until or not isinstance(event, Died)
