"""Trimming of the logs: the oldest entries are deleted beyond the configured number, or the configured octets."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.interfaces import Clock, LogName, LogPart
from compass.server.commit.store_access import StoreAccess
from compass.system.timers import Timers

TRIM_EVERY_SECONDS = 600.0
"""Between two trims of the logs to their configured number of entries."""
MEASURE_EVERY_SECONDS = 10.0
"""Between two measurements of the logs' octets: a log exceeds its bound at most by what is written meanwhile."""
PART_ENTRIES = 256
"""Entries that are measured together and deleted together. A million entries are 4,000 parts in memory."""


class LogBounds(msgspec.Struct, frozen=True):
    """Bounds of the logs: whichever is reached first."""

    updates: int = 1_000_000
    """Entries of the update log."""
    others: int = 100_000
    """Entries of each of the two other logs."""
    updates_octets: int = 1024**3
    others_octets: int = 256 * 1024**2

    def octets(self, log: LogName) -> int:
        """Return the bound of one log."""
        return self.updates_octets if log == "updates" else self.others_octets


class LogSize:
    """Size of one log, by parts of PART_ENTRIES entries: only entries that are new are measured."""

    def __init__(self) -> None:
        self._parts: deque[LogPart] = deque()
        self._rest = LogPart(0, 0, 0, 0)
        """Entries after the last whole part."""

    @property
    def measured(self) -> int:
        """Number of the last entry of the whole parts."""
        return self._parts[-1].last if self._parts else 0

    def add(self, part: LogPart) -> bool:
        """Count the entries after `measured`. Returns whether there may be more of them."""
        while self._parts and (self._parts[0].last < part.floor or not part.floor):
            self._parts.popleft()
        is_whole = part.entries == PART_ENTRIES
        if is_whole:
            self._parts.append(part)
        self._rest = LogPart(0, 0, 0, 0) if is_whole else part
        return is_whole

    def cut(self, octets_max: int) -> int:
        """Forget the oldest parts beyond the bound. Returns the number of the last of their entries; 0: none."""
        octets = self._rest.octets + sum(part.octets for part in self._parts)
        last = 0
        while octets > octets_max and self._parts:
            part = self._parts.popleft()
            octets -= part.octets
            last = part.last
        return last


class LogTrimmer:
    """Trims the logs on timers."""

    log = Logger()

    def __init__(self, clock: Clock, access: StoreAccess, bounds: LogBounds) -> None:
        self._access = access
        self._bounds = bounds
        self._sizes: dict[LogName, LogSize] = {"updates": LogSize(), "security": LogSize(), "administration": LogSize()}
        self._timers = Timers(clock)
        self._is_running = False

    def start(self) -> None:
        """Begin both timers."""
        self._is_running = True
        self._timers.start("trim", TRIM_EVERY_SECONDS, self._trim)
        self._timers.start("measure", MEASURE_EVERY_SECONDS, self._measure)

    def stop(self) -> None:
        """Stop the timers."""
        self._is_running = False
        self._timers.cancel_all()

    def _trim(self) -> None:
        self._timers.start("trim", TRIM_EVERY_SECONDS, self._trim)
        trimmed = self._access.run(self._access.store.trim, self._bounds.updates, self._bounds.others)
        trimmed.addErrback(self._failed)

    def _measure(self) -> None:
        measured: Deferred[Any] = Deferred.fromCoroutine(self._trim_octets())
        measured.addErrback(self._failed)
        measured.addCallback(self._measure_later)

    def _measure_later(self, _: object) -> None:
        if self._is_running:
            self._timers.start("measure", MEASURE_EVERY_SECONDS, self._measure)

    async def _trim_octets(self) -> None:
        store, run = self._access.store, self._access.run
        for log, size in self._sizes.items():
            while size.add(await run(store.measure, log, size.measured, PART_ENTRIES)):
                pass
            last = size.cut(self._bounds.octets(log))
            if last:
                await run(store.trim_to, log, last)
                text = "the {log} log had more than {octets} octets: entries up to number {last} were deleted"
                self.log.info(text, log=log, octets=self._bounds.octets(log), last=last)

    def _failed(self, failure: Any) -> None:
        self.log.warn("logs not trimmed: {why}", why=failure.getErrorMessage())
