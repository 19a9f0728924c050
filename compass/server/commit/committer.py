"""Group commit: while one batch is being written, the next one gathers (opengnsp.md, "Promises", P1 and P2).

A batch is decided on a draft of the catalogue, written in one transaction that is fenced on the revision, and only
then becomes the catalogue that every lookup reads; only then are notices pushed and replies sent. The one loop here
also reads what other servers have committed and compares memory with the tables, so that nothing else moves the
replica meanwhile.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.backoff import Backoff
from compass.model.catalogue.catalogue import Catalogue
from compass.model.interfaces import BatchRefused, Clock, StoreUnavailable
from compass.model.replies import Refusal, Reply
from compass.model.requests import Deregister, Suspect, Undecided, WeighedReport
from compass.model.rows import SecurityEntry
from compass.model.rules.draft import Principal
from compass.server.commit.replica import Comparison, Replica
from compass.server.commit.request_queue import PendingRequest, RequestQueue
from compass.server.commit.security_log import SecurityLog
from compass.server.commit.store_access import StoreAccess
from compass.server.commit.transaction import Decider, TransactionWriter
from compass.system.timers import Timers

BATCH_MAX = 512
"""Requests in one transaction: beyond this a larger batch gains little and delays its first request."""
BATCH_OCTETS_MAX = 512 * 1024
"""Octets of metadata in one transaction: deciding and publishing it takes some 10 ms at once, as for BATCH_MAX requests
without metadata."""
PAUSE_SECONDS_MIN = 0.1
"""Pause after the store could not be written, before the next attempt; it doubles each time."""
PAUSE_SECONDS_MAX = 1.0
"""Longest such pause: writes continue within this time after the store is available again."""
OVERDUE_SECONDS = 0.5
"""Wait for a commit before a suspicion is sent: with the time to the hosts less than the second in which they have to
know (P9), and longer than a commit takes on any disk that works."""

OutOfUseRequest = Deregister | WeighedReport | Suspect
"""Requests that take a listener out of use: what they say is worth sending before it is committed."""

Batch = list[PendingRequest]


class OverdueHandler(Protocol):
    """The part of failure detection that handles requests which the store does not commit in time."""

    def overdue(self, request: OutOfUseRequest, principal: Principal, outcome: Deferred[Reply]) -> Refusal | None:
        """Handle a request that is not committed OVERDUE_SECONDS after it came; `outcome` fires when it is decided.

        Returns the reply to send now; None: the caller waits for the outcome.
        """


class Committer:
    """The commit loop: the only way to change the catalogue."""

    log = Logger()

    def __init__(
        self, access: StoreAccess, replica: Replica, security_log: SecurityLog, decider: Decider, clock: Clock
    ) -> None:
        self.replica = replica
        self.security_log = security_log
        self.writer = TransactionWriter(access, replica, security_log, decider, clock)
        self.overdue_handler: OverdueHandler | None = None
        self._access = access
        self._clock = clock
        self._queue = RequestQueue(clock, access)
        self._catch_ups: list[Deferred[bool]] = []
        self._comparisons: list[Deferred[Comparison | None]] = []
        self._commit_waiters: list[Deferred[None]] = []
        self._announced_revision = 0
        """Revision that the store is said to have, since it was last read."""
        self._backoff = Backoff(first=PAUSE_SECONDS_MIN, longest=PAUSE_SECONDS_MAX)
        self._timers = Timers(clock)
        self._is_running = False

    @property
    def catalogue(self) -> Catalogue:
        """The catalogue as committed."""
        return self.replica.catalogue

    @property
    def outage(self) -> str:
        """The reason of the store's outage; empty: there is none."""
        return self._access.outage

    @property
    def outage_seconds(self) -> float:
        """Time since the store's outage began; 0: there is none."""
        return self._access.outage_seconds

    @property
    def queue_length(self) -> int:
        """Requests that wait for a transaction."""
        return len(self._queue)

    def submit(self, request: Undecided, principal: Principal, *, may_answer_early: bool = True) -> Deferred[Reply]:
        """Return the reply, once what it says is on disk; or a refusal, also when the store cannot be written in time.

        The reply to an OutOfUseRequest comes no later than hosts are sent a suspicion because of it, unless it is
        submitted again with `may_answer_early` false.
        """
        reply = self._queue.put(request, principal)
        if may_answer_early and isinstance(request, OutOfUseRequest) and self.overdue_handler is not None:
            reply = self._answer_in_time(request, principal, reply, self.overdue_handler)
        self._wake()
        return reply

    def log_security(self, entry: SecurityEntry) -> None:
        """Write an entry of the security log with the next batch."""
        if self.security_log.add(entry):
            self._wake()

    def catch_up(self) -> Deferred[bool]:
        """Return when what other servers have committed by now is in the catalogue; False: the store could not be
        read, or not in time."""
        caught_up: Deferred[bool] = Deferred(self._abandon_catch_up)
        self._catch_ups.append(caught_up)
        self._wake()
        return caught_up.addTimeout(self._access.wait_seconds, cast(Any, self._clock))

    def compare(self) -> Deferred[Comparison | None]:
        """Compare the replica with the tables, see `Replica.compare`. Returns None also if the store is unavailable."""
        compared: Deferred[Comparison | None] = Deferred()
        self._comparisons.append(compared)
        self._wake()
        return compared

    def store_advanced(self, revision: int) -> None:
        """Read the store if it has a revision that this server does not have."""
        self._announced_revision = max(self._announced_revision, revision)
        if self._announced_revision > self.replica.catalogue.revision:
            self._wake()
        elif not self._is_running:
            # The two logs without revisions may have new entries.
            self._notify_commit_waiters()

    def wait_for_commit(self) -> Deferred[None]:
        """Return when something has been written. A cancelled wait ends without a failure."""
        written: Deferred[None] = Deferred(self._abandon_wait)
        self._commit_waiters.append(written)
        return written

    def stop(self) -> None:
        """Stop all timers: nothing is retried."""
        self._queue.stop()
        self._timers.cancel_all()

    # Replies before the commit.

    def _answer_in_time(
        self, request: OutOfUseRequest, principal: Principal, outcome: Deferred[Reply], handler: OverdueHandler
    ) -> Deferred[Reply]:
        reply: Deferred[Reply] = Deferred()

        def overdue() -> None:
            refusal = handler.overdue(request, principal, outcome)
            if refusal is not None:
                reply.callback(refusal)

        def answer(decided: Reply) -> Reply:
            if timer.active():
                timer.cancel()
            if not reply.called:
                reply.callback(decided)
            return decided

        timer = self._clock.callLater(OVERDUE_SECONDS, overdue)
        outcome.addCallback(answer)
        return reply

    # The loop.

    def _wake(self) -> None:
        if not self._is_running:
            self._is_running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._broken)

    def _broken(self, failure: Any) -> None:
        self.log.failure("the commit loop failed; the requests of its batch were refused", failure)
        self._is_running = False
        if self._queue:
            self._wake()

    async def _run(self) -> None:
        reached = True
        while True:
            must_read = bool(self._catch_ups) or self._announced_revision > self.replica.catalogue.revision
            # Entries alone do not keep polling a store that is unavailable; the next request takes them along.
            if not (must_read or self._comparisons or self._queue or (reached and self.security_log)):
                break
            reached = await self._catch_up() if must_read else True
            if self._comparisons:
                await self._compare()
            if reached:
                reached = await self._commit_next()
            if reached:
                self._backoff.reset()
            elif self._queue:
                await self._pause()
        self._is_running = False

    def _pause(self) -> Deferred[None]:
        paused: Deferred[None] = Deferred()
        self._timers.start("pause", self._backoff.next(), paused.callback, None)
        return paused

    async def _catch_up(self) -> bool:
        """Read what other servers have committed. Returns False: the store is unavailable."""
        waiting, self._catch_ups = self._catch_ups, []
        self._announced_revision = 0
        try:
            if await self.replica.catch_up():
                self._notify_commit_waiters()
        except StoreUnavailable as error:
            self._access.mark_unavailable(str(error))
            reached = False
        else:
            reached = True
        for caught_up in waiting:
            if not caught_up.called:
                caught_up.callback(reached)
        return reached

    async def _compare(self) -> None:
        waiting, self._comparisons = self._comparisons, []
        found: Comparison | None = None
        try:
            found = await self.replica.compare()
        except StoreUnavailable as error:
            self._access.mark_unavailable(str(error))
        for compared in waiting:
            compared.callback(found)

    async def _commit_next(self) -> bool:
        """Commit the next batch. Returns False: the store is unavailable, and what still waits stays first."""
        batch, entries = self._queue.take(BATCH_MAX, BATCH_OCTETS_MAX), self.security_log.take()
        try:
            reached = await self._commit(batch, entries)
        except Exception:
            refusal = Refusal("store-unavailable", "the server failed; its log says how")
            for pending in batch:
                pending.answer(refusal)
            raise
        if not reached:
            self._queue.put_back(batch)
        return reached

    async def _commit(self, batch: Batch, entries: list[SecurityEntry]) -> bool:
        """Commit a batch and answer it. Returns False: the store is unavailable, nothing of the batch is in it."""
        if not batch and not entries:
            return True
        try:
            decisions = await self.writer.write(batch, entries)
        except BatchRefused as error:
            return await self._commit_singly(batch, entries, error)
        except StoreUnavailable as error:
            self._access.mark_unavailable(str(error))
            self.security_log.put_back(entries)
            return False
        for pending, decision in zip(batch, decisions, strict=True):
            pending.answer(decision.reply)
        self._notify_commit_waiters()
        return True

    async def _commit_singly(self, batch: Batch, entries: list[SecurityEntry], error: BatchRefused) -> bool:
        """Commit each part of a batch by itself: one request holds a value that the database never accepts, and the
        other requests must not fail with it."""
        if len(batch) + len(entries) > 1:
            for number, entry in enumerate(entries):
                if not await self._commit([], [entry]):
                    self.security_log.put_back(entries[number + 1 :])
                    return False
            for pending in batch:
                if not await self._commit([pending], []):
                    return False
            return True
        self.log.error("the store refuses a request for good: {why}", why=str(error))
        for pending in batch:
            pending.answer(Refusal("bad-value", f"the store cannot hold this request: {error}"))
        return True

    # Waiting callers.

    def _notify_commit_waiters(self) -> None:
        waiters, self._commit_waiters = self._commit_waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    def _abandon_catch_up(self, caught_up: Deferred[bool]) -> None:
        self._catch_ups = [other for other in self._catch_ups if other is not caught_up]
        caught_up.callback(False)

    def _abandon_wait(self, written: Deferred[None]) -> None:
        self._commit_waiters = [other for other in self._commit_waiters if other is not written]
        written.callback(None)
