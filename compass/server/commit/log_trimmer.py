"""Trimming of the logs: the oldest entries are deleted beyond the configured length."""

from __future__ import annotations

from twisted.logger import Logger

from compass.model.interfaces import Clock
from compass.server.commit.store_access import StoreAccess
from compass.system.timers import Timers

TRIM_EVERY_SECONDS = 600.0
"""Between two trims of the logs to their configured length."""


class LogTrimmer:
    """Trims the logs on a timer."""

    log = Logger()

    def __init__(self, clock: Clock, access: StoreAccess, keep_updates: int, keep_others: int) -> None:
        """`keep_updates`, `keep_others`: entries that the update log and the two other logs keep."""
        self._access = access
        self._keep = keep_updates, keep_others
        self._timers = Timers(clock)

    def start(self) -> None:
        """Trim for the first time after TRIM_EVERY_SECONDS."""
        self._timers.start("trim", TRIM_EVERY_SECONDS, self._trim)

    def stop(self) -> None:
        """Stop the timer."""
        self._timers.cancel_all()

    def _trim(self) -> None:
        trimmed = self._access.run(self._access.store.trim, *self._keep)
        trimmed.addErrback(lambda failure: self.log.warn("logs not trimmed: {why}", why=failure.getErrorMessage()))
        self.start()
