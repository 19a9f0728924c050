"""The store as the commit loop asks it, and whether it is away (opengnsp.md, "While the store is away").

Away is a store that said so, or that has not answered for as long as requests wait. A store that cannot be read is back
when it can be; one that can be read but not written, because its disk is full for instance, is back when something has
been written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.interfaces import Clock, LogTrimmed, StoreUnavailable

RunInDatabase = Callable[..., Deferred[Any]]
"""Runs a function on the one database thread."""


class StoreAccess:
    """Runs work on the database thread, one piece at a time, and knows how the store fares."""

    log = Logger()

    def __init__(self, clock: Clock, in_database: RunInDatabase, wait_seconds: float) -> None:
        """`wait_seconds`: from when on silence is trouble."""
        self._clock = clock
        self._in_database = in_database
        self._wait_seconds = wait_seconds
        self._trouble = ""
        self._unreadable = False
        self._asked_at: float | None = None

    @property
    def outage(self) -> str:
        """Why the store is away: what it said the last time, or how long it has not answered; empty: it is not."""
        if self._asked_at is not None:
            silent = self._clock.seconds() - self._asked_at
            if silent >= self._wait_seconds:
                return f"it has not answered for {silent:.0f} s"
        return self._trouble

    async def ask(self, work: Callable[..., Any], *args: Any) -> Any:
        """The result of `work` on the database thread; as long as it is under way is known."""
        self._asked_at = self._clock.seconds()
        try:
            return await self._in_database(work, *args)
        finally:
            self._asked_at = None

    async def read(self, work: Callable[..., Any], *args: Any) -> Any:
        """The same for work that only reads."""
        try:
            found = await self.ask(work, *args)
        except LogTrimmed:
            raise
        except StoreUnavailable:
            self._unreadable = True
            raise
        if self._unreadable:
            self.mark_available()
        return found

    def overdue(self) -> str:
        """Why a request has waited in vain; a store that just does not answer is told here, once."""
        trouble = self.outage
        if trouble and not self._trouble:
            self.mark_unavailable(trouble)
        return trouble

    def mark_unavailable(self, why: str) -> None:
        """It could not be read or written."""
        if not self._trouble:
            self.log.error("the store is away: {why}", why=why)
        self._trouble = why

    def mark_available(self) -> None:
        """It was written, or read where it could not be."""
        if self._trouble:
            self.log.info("the store is back")
        self._trouble, self._unreadable = "", False
