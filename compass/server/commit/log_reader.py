"""The logs as administrators read them, waiting for the next entry included (function 2.6)."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred

from compass.model.catalogue.octets import entry_octets
from compass.model.interfaces import Clock, StoreUnavailable
from compass.model.limits import LOG_OCTETS_MAX, PAGE_OCTETS_MAX
from compass.model.replies import LogEntries, Refusal, Reply
from compass.model.requests import ReadLog
from compass.model.rows import LogEntry, UpdateEntry, shown
from compass.server.commit.committer import Committer
from compass.server.commit.request_queue import RETRY_AFTER_SECONDS
from compass.server.commit.store_access import StoreAccess
from compass.wire import limits

LOG_ENTRIES_MAX = 10_000
"""Entries in one answer to read-log."""
READS_MAX = 64
"""Reads of a log that the store has not answered yet: some administrators that follow it, not a pile of them."""
REVISION_MAX = 2**63 - 1
"""Largest number of a log entry: what SQL's BIGINT holds."""


class LogReader:
    """Answers read-log from the store, which alone has the logs."""

    def __init__(self, clock: Clock, committer: Committer, access: StoreAccess) -> None:
        self._clock = clock
        self._committer = committer
        self._access = access
        self._reads = 0

    async def read(self, request: ReadLog) -> Reply:
        """Return entries of a log; if there are none yet, wait for the next commit as long as the request says."""
        if not 0 <= request.wait_seconds <= limits.LOG_WAIT_SECONDS_MAX:
            return Refusal("bad-value", f"wait_seconds is not between 0 and {limits.LOG_WAIT_SECONDS_MAX:g}")
        if not 0 <= request.after <= REVISION_MAX:
            return Refusal("bad-value", f"after is not between 0 and {REVISION_MAX}")
        until = self._clock.seconds() + request.wait_seconds
        limit = max(1, min(request.limit, LOG_ENTRIES_MAX))
        last = max(0, min(request.last, LOG_ENTRIES_MAX))
        while True:
            written = self._committer.wait_for_commit()
            try:
                entries, floor = await self._entries(request, limit, last)
            except StoreUnavailable as error:
                text = f"the log cannot be read: {error}"
                return Refusal("store-unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS)
            left = until - self._clock.seconds()
            if entries or left <= 0:
                written.addErrback(lambda _: None).cancel()
                return _answer(request, [_without_secret(entry) for entry in entries], floor, last or limit)
            await written.addTimeout(left, cast(Any, self._clock))

    def _entries(self, request: ReadLog, limit: int, last: int) -> Deferred[tuple[list[LogEntry], int]]:
        """Read the store, and wait no longer than a writer would. The store finishes a read all the same in the end, so
        the number of reads that it has not answered is bounded."""
        answered: Deferred[tuple[list[LogEntry], int]] = Deferred()
        if self._reads >= READS_MAX:
            answered.errback(StoreUnavailable(f"{READS_MAX} readers wait for it already"))
            return answered
        self._reads += 1
        seconds = self._access.wait_seconds
        timer = self._clock.callLater(
            seconds, answered.errback, StoreUnavailable(f"it has not answered within {seconds:g} s")
        )

        def done(result: Any) -> None:
            self._reads -= 1
            if timer.active():
                timer.cancel()
                answered.callback(result)

        most = PAGE_OCTETS_MAX if request.pages else LOG_OCTETS_MAX
        self._access.run(self._access.store.read_log, request.log, request.after, limit, last, most).addBoth(done)
        return answered


def _without_secret(entry: LogEntry) -> LogEntry:
    if not isinstance(entry, UpdateEntry):
        return entry
    return msgspec.structs.replace(entry, change=shown(entry.change))


def _answer(request: ReadLog, entries: list[LogEntry], floor: int, wanted: int) -> LogEntries | Refusal:
    """Return a page that says whether more follows, or for clients without pages all that they requested."""
    octets = sum(map(entry_octets, entries))
    if request.pages:
        return LogEntries(tuple(entries), floor, more=octets >= PAGE_OCTETS_MAX and len(entries) < wanted)
    if octets >= LOG_OCTETS_MAX and len(entries) < wanted:
        text = f"these entries have more than {LOG_OCTETS_MAX} octets: ask for fewer, or for pages"
        return Refusal("too-large", text)
    return LogEntries(tuple(entries), floor)
