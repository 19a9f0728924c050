"""The store as the commit loop uses it, and its outages (opengnsp.md, "Store outages").

An outage begins when a call fails, or when a call has not returned for the time that requests wait. A store that could
not be read is available again when a read succeeds; one that can be read but not written, because its disk is full for
instance, when a write succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.interfaces import Clock, LogTrimmed, Store, StoreUnavailable
from compass.model.limits import STORE_WAIT_SECONDS as STORE_WAIT_SECONDS


class StoreThread(Protocol):
    """A thread that calls a store."""

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Run a function on the thread. Returns its result."""


class StoreAccess:
    """The store, with the database thread that calls it, and the reason of an outage."""

    log = Logger()

    def __init__(
        self, store: Store, thread: StoreThread, clock: Clock, wait_seconds: float = STORE_WAIT_SECONDS
    ) -> None:
        """`wait_seconds`: the time that a request waits for the store, and that a call may take before it counts as an
        outage."""
        self.store = store
        self.run = thread.run
        """Calls the store without an effect on the outage."""
        self.wait_seconds = wait_seconds
        self._clock = clock
        self._outage = ""
        self._unreadable = False
        self._called_at: float | None = None
        self._began_at: float | None = None
        """Time on the clock at which the outage began."""

    @property
    def outage(self) -> str:
        """The reason of the outage: the last error, or the seconds without an answer; empty: there is no outage."""
        if self._called_at is not None:
            silent = self._clock.seconds() - self._called_at
            if silent >= self.wait_seconds:
                return f"it has not answered for {silent:.0f} s"
        return self._outage

    @property
    def outage_seconds(self) -> float:
        """Time since the outage began; 0: there is none."""
        if not self.outage:
            return 0.0
        began = [at for at in (self._began_at, self._called_at) if at is not None]
        return self._clock.seconds() - min(began)

    async def call(self, work: Callable[..., Any], *args: Any) -> Any:
        """Return the result of `work` on the database thread. The commit loop makes one call at a time."""
        self._called_at = self._clock.seconds()
        try:
            return await self.run(work, *args)
        finally:
            self._called_at = None

    async def read(self, work: Callable[..., Any], *args: Any) -> Any:
        """Return the result of work that only reads; its success ends an outage that began with a read."""
        try:
            found = await self.call(work, *args)
        except LogTrimmed:
            raise
        except StoreUnavailable:
            self._unreadable = True
            raise
        if self._unreadable:
            self.mark_available()
        return found

    def overdue(self) -> str:
        """Return why a request has waited too long; the outage of a store that does not answer begins here."""
        outage = self.outage
        if outage and not self._outage:
            self.mark_unavailable(outage)
        return outage

    def mark_unavailable(self, why: str) -> None:
        """Begin an outage, or note its newest reason."""
        if not self._outage:
            self.log.error("store unavailable: {why}", why=why)
            self._began_at = self._called_at if self._called_at is not None else self._clock.seconds()
        self._outage = why

    def mark_available(self) -> None:
        """End the outage."""
        if self._outage:
            self.log.info("store available again")
        self._outage, self._unreadable, self._began_at = "", False, None
