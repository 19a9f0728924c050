"""The logs as administrators read them, waiting for the next entry included, and their trimming (function 2.6)."""

from __future__ import annotations

from typing import Any, cast

from twisted.logger import Logger

from compass.model.ports import Clock, Timer
from compass.model.replies import LogEntries, Refusal, Reply
from compass.model.requests import ReadLog
from compass.model.storage import Storage, StoreUnavailable
from compass.server.commits import Commits, InDatabase
from compass.wire import limits

LOG_ENTRIES_MAX = 10_000
"""Entries in one answer to read-log."""
REVISION_MAX = 2**63 - 1
"""Largest number of a log entry: what SQL's BIGINT holds."""
TRIM_EVERY_SECONDS = 600.0
"""How often the logs are cut to their configured length."""


class LogReader:
    """Answers read-log from the store, which alone has the logs."""

    def __init__(self, clock: Clock, commits: Commits, storage: Storage, in_database: InDatabase) -> None:
        self._clock = clock
        self._commits = commits
        self._storage = storage
        self._in_database = in_database

    async def read(self, request: ReadLog) -> Reply:
        """Entries of a log; when there are none yet, wait for the next batch as long as was asked."""
        if not 0 <= request.wait_seconds <= limits.LOG_WAIT_SECONDS_MAX:
            return Refusal("bad-value", f"wait_seconds is not between 0 and {limits.LOG_WAIT_SECONDS_MAX:g}")
        if not 0 <= request.after <= REVISION_MAX:
            return Refusal("bad-value", f"after is not between 0 and {REVISION_MAX}")
        until = self._clock.seconds() + request.wait_seconds
        limit = max(1, min(request.limit, LOG_ENTRIES_MAX))
        last = max(0, min(request.last, LOG_ENTRIES_MAX))
        while True:
            written = self._commits.next_batch()
            try:
                entries, floor = await self._in_database(
                    self._storage.read_log, request.log, request.after, limit, last
                )
            except StoreUnavailable as error:
                return Refusal("store-unavailable", f"the log cannot be read: {error}", retry_after_seconds=1.0)
            left = until - self._clock.seconds()
            if entries or left <= 0:
                written.addErrback(lambda _: None).cancel()
                return LogEntries(tuple(entries), floor)
            await written.addTimeout(left, cast(Any, self._clock))


class Trimming:
    """Cuts the logs to their length, again and again."""

    log = Logger()

    def __init__(
        self, clock: Clock, storage: Storage, in_database: InDatabase, keep_updates: int, keep_others: int
    ) -> None:
        self._clock = clock
        self._storage = storage
        self._in_database = in_database
        self._keep = keep_updates, keep_others
        self._timer: Timer | None = None

    def start(self) -> None:
        """Cut them for the first time after a while."""
        self._timer = self._clock.callLater(TRIM_EVERY_SECONDS, self._trim)

    def stop(self) -> None:
        """Cut them no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _trim(self) -> None:
        trimmed = self._in_database(self._storage.trim, *self._keep)
        trimmed.addErrback(lambda failure: self.log.warn("logs not trimmed: {why}", why=failure.getErrorMessage()))
        self.start()
