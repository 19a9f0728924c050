"""Subscribers of the log: the components that follow each change of the catalogue, in one declared order."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from compass.model.catalogue.catalogue import Catalogue
from compass.model.rows import Change, Host
from compass.server.sessions.connection_limits import ConnectionLimits


class CommitSubscriber(Protocol):
    """A component that follows the log change by change."""

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """Follow a change; `catalogue` is the one after it, `own`: this server committed it."""


class ReloadSubscriber(Protocol):
    """A component that restarts when the catalogue was read again from the tables."""

    def reloaded(self, catalogue: Catalogue) -> None:
        """Restart at a catalogue that the log did not lead to: no single change is known."""


class Changes:
    """The subscribers of the log; set before the first change."""

    def __init__(self) -> None:
        self.operations = Counter[str]()
        """Changes by operation, whichever server committed them."""
        self.on_commit: tuple[CommitSubscriber, ...] = ()
        self.on_reload: tuple[ReloadSubscriber, ...] = ()

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """Let the subscribers follow a change, one after another."""
        self.operations[change.operation] += 1
        for subscriber in self.on_commit:
            subscriber.committed(change, catalogue, own=own)

    def reloaded(self, catalogue: Catalogue) -> None:
        """Let the subscribers restart at a catalogue, one after another."""
        for subscriber in self.on_reload:
            subscriber.reloaded(catalogue)


class SessionChanges:
    """Ends the sessions that a change concerns."""

    def __init__(self, connections: ConnectionLimits) -> None:
        self._connections = connections

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """End the sessions of a host that an administrator has barred."""
        if isinstance(change.row, Host) and change.row.barred:
            for session in list(self._connections.sessions):
                if (session.asker.role, session.asker.name) == ("host", change.row.name):
                    session.goodbye("an administrator has barred this host", retry_after_seconds=60.0)

    def reloaded(self, catalogue: Catalogue) -> None:
        """End the sessions of all hosts: they reconnect for a snapshot."""
        for session in list(self._connections.sessions):
            if session.host:
                session.goodbye("this server reloaded its catalogue from the store", retry_after_seconds=0.5)
