"""Group commit: while one batch is being written, the next one gathers (opengnsp.md, "Promises", P1 and P2).

A batch is decided on a draft of the catalogue, written in one transaction that is fenced on the revision, and only
then becomes the catalogue that everybody reads; only then are notices pushed and replies given. When another server
committed in between, its changes are applied and the batch is decided again, inside the same transaction: two servers
that are written to at once take turns, and neither is passed over twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.catalogue.digest import DigestDelta, digest_of_rows, steps_of, to_hex
from compass.model.interfaces import (
    BatchRefused,
    Clock,
    Conflict,
    LogTrimmed,
    Proposal,
    Store,
    StoreState,
    StoreUnavailable,
    Timer,
)
from compass.model.metrics import BATCH_BOUNDS, COMMIT_BOUNDS, Histogram
from compass.model.replies import Refusal, Reply, SecurityEntry
from compass.model.requests import IssueCredential, Undecided
from compass.model.rows import Change
from compass.model.rules.decide import decide
from compass.model.rules.draft import Decision, Principal
from compass.server.commit.digest_index import DigestIndex
from compass.server.commit.request_queue import STORE_WAIT_SECONDS, PendingRequest, RequestQueue
from compass.server.commit.row_counts import RowCounts
from compass.server.commit.store_access import RunInDatabase, StoreAccess
from compass.server.commit.transaction import DecidedBatch, Passed, after, attempt, changes_of

BATCH_MAX = 512
"""Requests in one transaction: beyond this a larger batch gains little and delays its first request."""
CATCH_UP_MAX = 10_000
"""Changes of other servers that are read at once."""

NOTES_MAX = 10_000
"""Entries for the security log that wait for the store; the oldest go first."""

TRY_AGAIN_SECONDS_MIN = 0.1
"""Pause after the store could not be written, before it is tried again; it doubles each time."""
TRY_AGAIN_SECONDS_MAX = 1.0
"""Longest such pause: so soon after the store's return everything goes on."""

COMPARE_ATTEMPTS = 5
"""How often the tables are read to be compared, when other servers commit meanwhile."""

Batch = list[PendingRequest]
Committed = Callable[[Change, Catalogue, bool], None]
"""Is told each change, with the catalogue after it, and whether this server committed it."""


class Comparison(msgspec.Struct, frozen=True):
    """What the tables, the store's word and this server were at a revision."""

    revision: int
    digest: str
    """Of the rows in the tables."""
    said: str
    """That the store said; empty: none."""
    held: bool
    """Whether this server held what the tables have."""

    @property
    def agreed(self) -> bool:
        """Whether all three were the same."""
        return self.held and self.said in ("", self.digest)


class Committer:
    """The catalogue as committed, and the only way to change it."""

    log = Logger()

    def __init__(
        self,
        catalogue: Catalogue,
        storage: Store,
        in_database: RunInDatabase,
        now: Callable[[], float],
        token: Callable[[], str],
        committed: Committed,
        reloaded: Callable[[Catalogue], None],
        worth_a_row: Callable[[SecurityEntry], bool] = lambda entry: True,
        *,
        clock: Clock,
        wait_seconds: float = STORE_WAIT_SECONDS,
    ) -> None:
        """`committed` is called for each change, with the catalogue after it, before the replies of its batch;
        `reloaded` when there was no such way from one catalogue to the next. `worth_a_row` is asked about each entry
        for the security log, perhaps again when a batch is decided again. `wait_seconds`: how long a request waits for
        the store before it is refused."""
        self.catalogue = catalogue
        self.digests = DigestIndex()
        self.digests.restart(catalogue)
        self.census = RowCounts()
        self.census.restart(catalogue)
        self._storage = storage
        self._now = now
        self._token = token
        self._committed = committed
        self._reloaded = reloaded
        self._worth_a_row = worth_a_row
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._looking: list[Deferred[bool]] = []
        self._comparing: list[Deferred[Comparison | None]] = []
        self._heard = 0
        """The revision that the store is said to be at."""
        self._store = StoreAccess(clock, in_database, wait_seconds)
        self._queue = RequestQueue(clock, wait_seconds, self._store.overdue)
        self._pause_seconds = TRY_AGAIN_SECONDS_MIN
        self._pausing: Timer | None = None
        self._notes: list[SecurityEntry] = []
        self._running = False
        self._after_batch: list[Deferred[None]] = []
        self.counts = Counter[str]()
        """`batches` committed; of them `again`: decided again in their turn; and how often one was `put off`: too far
        behind another server for that, and tried anew."""
        self.batch_sizes = Histogram(BATCH_BOUNDS)
        self.commit_seconds = Histogram(COMMIT_BOUNDS)
        self.noted = 0
        """Entries for the security log, those of decisions not counted."""

    def submit(self, request: Undecided, asker: Principal) -> Deferred[Reply]:
        """The reply, once what it says is on disk; or a refusal, also when the store cannot be written in time."""
        answered = self._queue.put(request, asker)
        self._wake()
        return answered

    @property
    def trouble(self) -> str:
        """Why the store is away: what it said the last time, or how long it has not answered; empty: it is not."""
        return self._store.outage

    @property
    def waiting(self) -> int:
        """Requests that wait for a transaction."""
        return len(self._queue)

    @property
    def notes_waiting(self) -> int:
        """Entries for the security log that do."""
        return len(self._notes)

    def log_security(self, entry: SecurityEntry) -> None:
        """Write an entry of the security log with the next batch."""
        self.noted += 1
        if self._worth_a_row(entry):
            self._notes.append(entry)
            self._wake()

    def catch_up(self) -> Deferred[bool]:
        """Fires when what other servers have committed by now is in the catalogue; False: the store could not be read,
        or not in time."""
        looked: Deferred[bool] = Deferred(self._looks_no_more)
        self._looking.append(looked)
        self._wake()
        return looked.addTimeout(self._wait_seconds, cast(Any, self._clock))

    def _looks_no_more(self, looked: Deferred[bool]) -> None:
        self._looking = [other for other in self._looking if other is not looked]
        looked.callback(False)

    def stop(self) -> None:
        """Nothing is tried again."""
        self._queue.stop()
        if self._pausing is not None and self._pausing.active():
            self._pausing.cancel()

    def compare(self) -> Deferred[Comparison | None]:
        """Read the tables and take them if they are not what is held; fires with what was found.

        None: the store cannot be read, or changes too fast. The tables are right: every other server reads them, too.
        """
        compared: Deferred[Comparison | None] = Deferred()
        self._comparing.append(compared)
        self._wake()
        return compared

    def store_advanced(self, revision: int) -> None:
        """Somebody has written, and the store is at this revision now: look, unless it is our own batch's."""
        self._heard = max(self._heard, revision)
        if self._behind:
            self._wake()
        elif not self._running:
            # There may be something new in the two logs that have no revisions.
            self._tell_waiting()

    @property
    def _behind(self) -> bool:
        return self._heard > self.catalogue.revision

    @property
    def _asked(self) -> bool:
        return bool(self._looking or self._comparing or self._behind)

    def wait_for_commit(self) -> Deferred[None]:
        """Fires when something has been written; cancelled, it is over without a failure."""
        written: Deferred[None] = Deferred(self._waits_no_more)
        self._after_batch.append(written)
        return written

    def _waits_no_more(self, written: Deferred[None]) -> None:
        self._after_batch = [other for other in self._after_batch if other is not written]
        written.callback(None)

    def _wake(self) -> None:
        if not self._running:
            self._running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._broken)

    def _broken(self, failure: Any) -> None:
        self.log.failure("the commit loop failed; its batch is lost to its askers", failure)
        self._running = False
        if self._queue:
            self._wake()

    async def _run(self) -> None:
        reached = True
        # Notes alone do not go on asking a store that is away; the next request takes them along.
        while self._asked or self._queue or (self._notes and reached):
            reached = await self._look()
            if self._comparing:
                await self._compare()
            if reached:
                reached = await self._settle_next()
            if reached:
                self._pause_seconds = TRY_AGAIN_SECONDS_MIN
            elif self._queue:
                await self._pause()
        self._running = False

    def _pause(self) -> Deferred[None]:
        paused: Deferred[None] = Deferred()
        self._pausing = self._clock.callLater(self._pause_seconds, paused.callback, None)
        self._pause_seconds = min(self._pause_seconds * 2, TRY_AGAIN_SECONDS_MAX)
        return paused

    async def _look(self) -> bool:
        """Read what others have committed, if anybody wants to know; False: the store is away."""
        looking, self._looking = self._looking, []
        if not looking and not self._behind:
            return True
        self._heard = 0
        try:
            if await self._catch_up():
                self._tell_waiting()
        except StoreUnavailable as error:
            self._store.mark_unavailable(str(error))
            found = False
        else:
            found = True
        for looked in looking:
            if not looked.called:
                looked.callback(found)
        return found

    async def _compare(self) -> None:
        comparing, self._comparing = self._comparing, []
        found: Comparison | None = None
        try:
            for _ in range(COMPARE_ATTEMPTS):
                found = await self._compared()
                if found is not None:
                    break
        except StoreUnavailable as error:
            self._store.mark_unavailable(str(error))
        for compared in comparing:
            compared.callback(found)

    async def _compared(self) -> Comparison | None:
        """None: another server committed while the tables were read."""
        await self._catch_up()
        loaded, tables, digest = await self._store.read(_loaded, self._storage)
        if loaded.revision != self.catalogue.revision:
            return None
        if digest != loaded.digest:
            await self._store.ask(self._storage.correct, loaded.revision, digest, bool(loaded.digest))
        found = Comparison(loaded.revision, digest, loaded.digest, held=tables == self.catalogue)
        if not found.held:
            self._begin_anew(tables)
        elif self.digests.at(loaded.revision) != digest:
            self.digests.restart(tables)
        return found

    async def _settle_next(self) -> bool:
        """Commit the next batch; False: the store is away, and what still waits comes first the next time."""
        batch = self._queue.take(BATCH_MAX)
        notes, self._notes = self._notes, []
        try:
            reached = await self._settle(batch, notes)
        except Exception:
            refusal = Refusal("store-unavailable", "the server failed; its log says how")
            for waiting in batch:
                if not waiting.answered.called:
                    waiting.answered.callback(refusal)
            raise
        if not reached:
            self._queue.give_back(batch)
        return reached

    async def _settle(self, batch: Batch, notes: list[SecurityEntry]) -> bool:
        """Commit a batch and answer those in it who still wait; False: the store is away, nothing of it is there."""
        if not batch and not notes:
            return True
        try:
            decisions = await self._write(batch, notes)
        except BatchRefused as error:
            return await self._settle_singly(batch, notes, error)
        except StoreUnavailable as error:
            self._store.mark_unavailable(str(error))
            self._notes = [*notes, *self._notes][-NOTES_MAX:]
            return False
        for waiting, decision in zip(batch, decisions, strict=True):
            if not waiting.answered.called:
                waiting.answered.callback(decision.reply)
        self._tell_waiting()
        return True

    def _tell_waiting(self) -> None:
        waiters, self._after_batch = self._after_batch, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    async def _settle_singly(self, batch: Batch, notes: list[SecurityEntry], error: BatchRefused) -> bool:
        """One request holds a value that the database never takes; it must not take the others down with it."""
        if len(batch) + len(notes) > 1:
            for place, note in enumerate(notes):
                if not await self._settle([], [note]):
                    self._notes += notes[place + 1 :]
                    return False
            for waiting in batch:
                if not await self._settle([waiting], []):
                    return False
            return True
        self.log.error("the store refuses for good: {why}", why=str(error))
        for waiting in batch:
            if not waiting.answered.called:
                waiting.answered.callback(Refusal("bad-value", f"the store cannot hold this request: {error}"))
        return True

    async def _write(self, batch: Batch, notes: list[SecurityEntry]) -> list[Decision]:
        """Decide and commit, again after each conflict. Raises StoreUnavailable when nothing of it is in the store."""
        while True:
            decisions = self._decide(batch, self.catalogue)
            found = [(number, one.security) for number, one in enumerate(decisions) if one.security]
            passed = frozenset(number for number, entry in found if not self._worth_a_row(entry))
            attempts = [self._attempt(decisions, notes, passed)]

            def again(
                missed: list[Change], attempts: list[DecidedBatch] = attempts, passed: Passed = passed
            ) -> Proposal:
                decisions = self._decide(batch, after(self.catalogue, missed))
                attempts.append(self._attempt(decisions, notes, passed, missed))
                return attempts[-1].proposal

            first = attempts[0].proposal
            if not first.changes and not first.security and not first.administration:
                return decisions
            began = self._clock.seconds()
            try:
                await self._store.ask(
                    self._storage.commit,
                    self.catalogue.revision,
                    first.changes,
                    first.security,
                    first.administration,
                    again,
                    first.digest,
                )
            except BatchRefused:
                raise
            except Conflict:
                self.counts["put off"] += 1
                await self._catch_up()
                continue
            except StoreUnavailable:
                # Whether the transaction got through is known only by looking.
                before, proposed = self.catalogue.revision, attempts[-1].proposal.changes
                there = await self._catch_up(proposed)
                if proposed and there[len(attempts[-1].missed) :][: len(proposed)] == proposed:
                    return attempts[-1].decisions
                if self.catalogue.revision != before:
                    continue
                raise
            self._store.mark_available()
            self.commit_seconds.add(self._clock.seconds() - began)
            self.batch_sizes.add(len(batch))
            self.counts["batches"] += 1
            self.counts["again"] += len(attempts) > 1
            done = attempts[-1]
            steps = iter(done.steps)
            self._publish(done.missed, steps, own=False)
            for decision in done.decisions:
                self._publish_decision(decision, steps)
            return done.decisions

    def _decide(self, batch: Batch, draft: Catalogue) -> list[Decision]:
        decisions = []
        for waiting in batch:
            token = self._token() if isinstance(waiting.request, IssueCredential) else ""
            decision = decide(draft, waiting.request, waiting.asker, self._now(), token)
            draft = decision.catalogue
            decisions.append(decision)
        return decisions

    async def _catch_up(self, proposed: Sequence[Change] = ()) -> list[Change]:
        """Apply what was committed after our revision, by other servers or unknown to us (`proposed`), and give it."""
        ours = {change.revision: change for change in proposed}
        found: list[Change] = []
        while True:
            try:
                read, since = self._storage.changes_after, self.catalogue.revision
                missed: list[Change] = await self._store.read(read, since, CATCH_UP_MAX)
            except LogTrimmed:
                await self._reload()
                return found
            steps = iter(steps_of(self.catalogue, missed))
            for change in missed:
                self._publish([change], steps, own=ours.get(change.revision) == change)
            found += missed
            if len(missed) < CATCH_UP_MAX:
                return found

    async def _reload(self) -> None:
        """The log no longer has what we missed: begin anew from the tables."""
        loaded: StoreState = await self._store.read(self._storage.load)
        self.log.warn("fell behind the log; loaded anew at revision {revision}", revision=loaded.revision)
        self._begin_anew(catalogue_of(loaded.rows, loaded.topics, loaded.revision))

    def _begin_anew(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.digests.restart(catalogue)
        self.census.restart(catalogue)
        self._reloaded(catalogue)

    def _attempt(
        self, decisions: list[Decision], notes: list[SecurityEntry], passed: Passed, missed: Sequence[Change] = ()
    ) -> DecidedBatch:
        digested = self.digests.after(self.catalogue, [*missed, *changes_of(decisions)])
        return attempt(decisions, notes, passed, missed, digested)

    def _publish_decision(self, decision: Decision, steps: Iterator[DigestDelta]) -> None:
        if len(decision.changes) == 1:
            # The catalogue after its one change was made when it was decided.
            self._count(next(steps))
            self.catalogue = decision.catalogue
            self._committed(decision.changes[0], self.catalogue, True)
        else:
            self._publish(decision.changes, steps, own=True)

    def _publish(self, changes: Iterable[Change], steps: Iterator[DigestDelta], *, own: bool) -> None:
        for change in changes:
            self._count(next(steps))
            self.catalogue = self.catalogue.apply(change)
            self._committed(change, self.catalogue, own)

    def _count(self, step: DigestDelta) -> None:
        self.digests.move(step)
        self.census.move(step)


def _loaded(storage: Store) -> tuple[StoreState, Catalogue, str]:
    """The tables, as a catalogue, and its digest: all of it on the database's thread."""
    loaded = storage.load()
    return loaded, catalogue_of(loaded.rows, loaded.topics, loaded.revision), to_hex(digest_of_rows(loaded.rows))
