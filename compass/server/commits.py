"""Group commit: while one batch is being written, the next one gathers (opengnsp.md, "Promises", P1 and P2).

A batch is decided on a draft of the catalogue, written in one transaction that is fenced on the revision, and only
then becomes the catalogue that everybody reads; only then are notices pushed and replies given. When another server
committed in between, its changes are applied and the batch is decided again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.catalogue import Catalogue, catalogue_of
from compass.model.decide import decide
from compass.model.draft import Asker, Decision
from compass.model.replies import Refusal, Reply, SecurityEntry
from compass.model.requests import IssueCredential, Undecided
from compass.model.rows import Change
from compass.model.storage import BatchRefused, Conflict, Loaded, LogTrimmed, Storage, StoreUnavailable

BATCH_MAX = 512
"""Requests in one transaction: beyond this a larger batch gains little and delays its first request."""
WAITING_MAX = 20_000
"""Requests waiting for a transaction; one more is refused as busy. At 10,000 a second that is two seconds."""
CATCH_UP_MAX = 10_000
"""Changes of other servers that are read at once."""

NOTES_MAX = 10_000
"""Entries for the security log that wait for the store; the oldest go first."""

Batch = list[tuple[Undecided, Asker, Deferred[Reply]]]
"""Requests, who asked, and who waits for the answer."""
InDatabase = Callable[..., Deferred[Any]]
"""Runs a function on the one database thread."""


class Commits:
    """The catalogue as committed, and the only way to change it."""

    log = Logger()

    def __init__(
        self,
        catalogue: Catalogue,
        storage: Storage,
        in_database: InDatabase,
        now: Callable[[], float],
        token: Callable[[], str],
        committed: Callable[[Change, Catalogue], None],
        reloaded: Callable[[Catalogue], None],
        worth_a_row: Callable[[SecurityEntry], bool] = lambda entry: True,
    ) -> None:
        """`committed` is called for each change, with the catalogue after it, before the replies of its batch;
        `reloaded` when there was no such way from one catalogue to the next. `worth_a_row` is asked about each entry
        for the security log, perhaps again when a batch is decided again."""
        self.catalogue = catalogue
        self.available = True
        """Whether the store answered the last time."""
        self._storage = storage
        self._in_database = in_database
        self._now = now
        self._token = token
        self._committed = committed
        self._reloaded = reloaded
        self._worth_a_row = worth_a_row
        self._looking: list[Deferred[bool]] = []
        self._waiting: deque[tuple[Undecided, Asker, Deferred[Reply]]] = deque()
        self._notes: list[SecurityEntry] = []
        self._running = False
        self._after_batch: list[Deferred[None]] = []

    def submit(self, request: Undecided, asker: Asker) -> Deferred[Reply]:
        """The reply, once what it says is on disk; or a refusal, also when the store cannot be written."""
        answered: Deferred[Reply] = Deferred()
        if len(self._waiting) >= WAITING_MAX:
            answered.callback(Refusal("busy", f"{WAITING_MAX} requests wait for the store", retry_after_seconds=1.0))
            return answered
        self._waiting.append((request, asker, answered))
        self._wake()
        return answered

    def note(self, entry: SecurityEntry) -> None:
        """Write an entry of the security log with the next batch."""
        if self._worth_a_row(entry):
            self._notes.append(entry)
            self._wake()

    def look(self) -> Deferred[bool]:
        """Fires when what other servers have committed by now is in the catalogue; False: the store cannot be read."""
        looked: Deferred[bool] = Deferred()
        self._looking.append(looked)
        self._wake()
        return looked

    def next_batch(self) -> Deferred[None]:
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
        if self._waiting:
            self._wake()

    async def _run(self) -> None:
        first = True
        # Notes alone do not go on asking a store that is away; the next request takes them along.
        while self._looking or self._waiting or (self._notes and (first or self.available)):
            if self._looking:
                await self._look()
            first = False
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_MAX))]
            notes, self._notes = self._notes, []
            try:
                await self._settle(batch, notes)
            except Exception:
                refusal = Refusal("store-unavailable", "the server failed; its log says how")
                for _, _, answered in batch:
                    if not answered.called:
                        answered.callback(refusal)
                raise
        self._running = False

    async def _look(self) -> None:
        looking, self._looking = self._looking, []
        try:
            if await self._catch_up():
                self._tell_waiting()
        except StoreUnavailable as error:
            self._unavailable(str(error))
            found = False
        else:
            found = True
        for looked in looking:
            looked.callback(found)

    async def _settle(self, batch: Batch, notes: list[SecurityEntry]) -> None:
        """Commit a batch and answer everybody in it, one way or the other."""
        if not batch and not notes:
            return
        try:
            decisions = await self._write(batch, notes)
        except BatchRefused as error:
            await self._settle_singly(batch, notes, error)
        except StoreUnavailable as error:
            self._unavailable(str(error))
            self._notes = [*notes, *self._notes][-NOTES_MAX:]
            refusal = Refusal("store-unavailable", f"the store cannot be written: {error}", retry_after_seconds=1.0)
            for _, _, answered in batch:
                answered.callback(refusal)
        else:
            for (_, _, answered), decision in zip(batch, decisions, strict=True):
                answered.callback(decision.reply)
            self._tell_waiting()

    def _tell_waiting(self) -> None:
        waiters, self._after_batch = self._after_batch, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    async def _settle_singly(self, batch: Batch, notes: list[SecurityEntry], error: BatchRefused) -> None:
        """One request holds a value that the database never takes; it must not take the others down with it."""
        if len(batch) + len(notes) > 1:
            for request in batch:
                await self._settle([request], [])
            for note in notes:
                await self._settle([], [note])
            return
        self.log.error("the store refuses for good: {why}", why=str(error))
        for _, _, answered in batch:
            answered.callback(Refusal("bad-value", f"the store cannot hold this request: {error}"))

    async def _write(self, batch: Batch, notes: list[SecurityEntry]) -> list[Decision]:
        """Decide and commit, again after each conflict. Raises StoreUnavailable when nothing of it is in the store."""
        while True:
            decisions = self._decide(batch)
            changes = [change for decision in decisions for change in decision.changes]
            found = [decision.security for decision in decisions if decision.security]
            security = [*notes, *filter(self._worth_a_row, found)]
            administration = [decision.administration for decision in decisions if decision.administration]
            if not changes and not security and not administration:
                return decisions
            try:
                await self._in_database(
                    self._storage.commit, self.catalogue.revision, changes, security, administration
                )
            except BatchRefused:
                raise
            except Conflict:
                await self._catch_up()
                continue
            except StoreUnavailable:
                # Whether the transaction got through is known only by looking.
                before = self.catalogue.revision
                missed = await self._catch_up()
                if changes and missed[: len(changes)] == changes:
                    return decisions
                if self.catalogue.revision != before:
                    continue
                raise
            self.available = True
            for decision in decisions:
                self._publish_decision(decision)
            return decisions

    def _decide(self, batch: Batch) -> list[Decision]:
        draft = self.catalogue
        decisions = []
        for request, asker, _ in batch:
            token = self._token() if isinstance(request, IssueCredential) else ""
            decision = decide(draft, request, asker, self._now(), token)
            draft = decision.catalogue
            decisions.append(decision)
        return decisions

    async def _catch_up(self) -> list[Change]:
        """Apply what was committed after our revision, by other servers or unknown to us, and give it."""
        found: list[Change] = []
        while True:
            try:
                missed: list[Change] = await self._in_database(
                    self._storage.changes_after, self.catalogue.revision, CATCH_UP_MAX
                )
            except LogTrimmed:
                await self._reload()
                return found
            self._publish(missed)
            found += missed
            if len(missed) < CATCH_UP_MAX:
                return found

    async def _reload(self) -> None:
        """The log no longer has what we missed: begin anew from the tables."""
        loaded: Loaded = await self._in_database(self._storage.load)
        self.log.warn("fell behind the log; loaded anew at revision {revision}", revision=loaded.revision)
        self.catalogue = catalogue_of(loaded.rows, loaded.topics, loaded.revision)
        self._reloaded(self.catalogue)

    def _publish_decision(self, decision: Decision) -> None:
        if len(decision.changes) == 1:
            # The catalogue after its one change was made when it was decided.
            self.catalogue = decision.catalogue
            self._committed(decision.changes[0], self.catalogue)
        else:
            self._publish(decision.changes)

    def _publish(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.catalogue = self.catalogue.apply(change)
            self._committed(change, self.catalogue)

    def _unavailable(self, why: str) -> None:
        if self.available:
            self.log.error("the store cannot be written: {why}", why=why)
        self.available = False
