"""The logs as administrators read them, waiting for the next entry included, and their trimming (function 2.6)."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.interfaces import Clock, Store, StoreUnavailable, Timer
from compass.model.replies import LogEntries, LogEntry, Refusal, Reply
from compass.model.requests import ReadLog
from compass.server.commit.committer import Committer
from compass.server.commit.request_queue import RETRY_AFTER_SECONDS, STORE_WAIT_SECONDS
from compass.server.commit.store_access import RunInDatabase
from compass.wire import limits

LOG_ENTRIES_MAX = 10_000
"""Entries in one answer to read-log."""
READS_MAX = 64
"""Readers of a log that the store has not answered yet: some administrators that follow it, not a pile of them."""
REVISION_MAX = 2**63 - 1
"""Largest number of a log entry: what SQL's BIGINT holds."""
TRIM_EVERY_SECONDS = 600.0
"""How often the logs are cut to their configured length."""


class LogReader:
    """Answers read-log from the store, which alone has the logs."""

    def __init__(
        self,
        clock: Clock,
        commits: Committer,
        storage: Store,
        in_database: RunInDatabase,
        wait_seconds: float = STORE_WAIT_SECONDS,
    ) -> None:
        self._clock = clock
        self._commits = commits
        self._storage = storage
        self._in_database = in_database
        self._wait_seconds = wait_seconds
        self._asked = 0

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
            written = self._commits.wait_for_commit()
            try:
                entries, floor = await self._entries(request, limit, last)
            except StoreUnavailable as error:
                text = f"the log cannot be read: {error}"
                return Refusal("store-unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS)
            left = until - self._clock.seconds()
            if entries or left <= 0:
                written.addErrback(lambda _: None).cancel()
                return LogEntries(tuple(entries), floor)
            await written.addTimeout(left, cast(Any, self._clock))

    def _entries(self, request: ReadLog, limit: int, last: int) -> Deferred[tuple[list[LogEntry], int]]:
        """Asks the store, and waits no longer than a writer would. What it was asked it does all the same in the end,
        so a store that hangs is not asked by ever more readers."""
        answered: Deferred[tuple[list[LogEntry], int]] = Deferred()
        if self._asked >= READS_MAX:
            answered.errback(StoreUnavailable(f"{READS_MAX} readers wait for it already"))
            return answered
        self._asked += 1
        late = StoreUnavailable(f"it has not answered within {self._wait_seconds:g} s")
        timer = self._clock.callLater(self._wait_seconds, answered.errback, late)

        def done(result: Any) -> None:
            self._asked -= 1
            if timer.active():
                timer.cancel()
                answered.callback(result)

        self._in_database(self._storage.read_log, request.log, request.after, limit, last).addBoth(done)
        return answered


class LogTrimmer:
    """Cuts the logs to their length, again and again."""

    log = Logger()

    def __init__(
        self, clock: Clock, storage: Store, in_database: RunInDatabase, keep_updates: int, keep_others: int
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
