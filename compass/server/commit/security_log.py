"""Entries of the security log on their way into the store (opengnsp.md, "`security`")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from compass.model.rows import SecurityEntry
from compass.model.rules.draft import Decision
from compass.server.sessions.connection_limits import ConnectionLimits

SECURITY_ENTRIES_MAX = 10_000
"""Entries that wait for the store; beyond that the oldest are dropped."""

Skipped: TypeAlias = frozenset[int]
"""The numbers of the decisions of a batch whose entries for the security log are not worth a row."""


class SecurityLog:
    """Entries that belong to no request of a batch. The next transaction writes them."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._should_log = limits.should_log
        self._waiting: list[SecurityEntry] = []
        self.added = 0
        """Entries so far, including those not worth a row; those of decisions are not counted."""

    def __len__(self) -> int:
        """Return the number of entries that wait."""
        return len(self._waiting)

    def add(self, entry: SecurityEntry) -> bool:
        """Append an entry if it is worth a row. Returns whether it is."""
        self.added += 1
        is_worth_a_row = self._should_log(entry)
        if is_worth_a_row:
            self._waiting.append(entry)
        return is_worth_a_row

    def take(self) -> list[SecurityEntry]:
        """Return the entries for a transaction that begins now."""
        entries, self._waiting = self._waiting, []
        return entries

    def put_back(self, entries: Iterable[SecurityEntry]) -> None:
        """Put entries in front again that the store did not accept."""
        self._waiting = [*entries, *self._waiting][-SECURITY_ENTRIES_MAX:]

    def skipped(self, decisions: Iterable[Decision]) -> Skipped:
        """Return which decisions of a batch have an entry that is not worth a row."""
        return frozenset(
            number for number, one in enumerate(decisions) if one.security and not self._should_log(one.security)
        )
