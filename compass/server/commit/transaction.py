"""Transactions: one batch on its way into the store, decided, written, decided again after a conflict (P1, P2).

The transaction is fenced on the revision. When another server has committed in between, the store hands over the
changes that were missed, and the batch is decided again after them inside the same transaction: of two servers that are
written to at once neither is passed over twice. When the connection breaks, only the log can say whether the
transaction was committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.digest import DigestDelta
from compass.model.interfaces import BatchRefused, Clock, Conflict, Environment, Proposal, StoreUnavailable
from compass.model.metrics import BATCH_BOUNDS, COMMIT_BOUNDS, Histogram
from compass.model.requests import IssueCredential, Undecided
from compass.model.rows import Change, SecurityEntry
from compass.model.rules.decide import decide
from compass.model.rules.draft import Decision, Principal
from compass.server.commit.replica import Replica
from compass.server.commit.request_queue import PendingRequest
from compass.server.commit.security_log import SecurityLog
from compass.server.commit.store_access import StoreAccess

Outcome = Literal["committed", "superseded", "absent"]
"""Outcome of a transaction whose commit failed without an answer. superseded: it is not in the store, but changes
of other servers are. absent: the store has not changed."""


class Decider:
    """Calls the rules with the time and the random tokens that they must not take themselves."""

    def __init__(self, environment: Environment, in_development: bool = False) -> None:
        self._in_development = in_development
        self._now = environment.now
        self._token = environment.token

    def decide(self, catalogue: Catalogue, request: Undecided, principal: Principal) -> Decision:
        """Return the decision on one request."""
        token = self._token() if isinstance(request, IssueCredential) else ""
        return decide(catalogue, request, principal, self._now(), token, self._in_development)

    def decide_batch(self, catalogue: Catalogue, batch: Iterable[PendingRequest]) -> list[Decision]:
        """Return the decisions on a batch, each after the one before."""
        decisions = []
        for pending in batch:
            decision = self.decide(catalogue, pending.request, pending.principal)
            catalogue = decision.catalogue
            decisions.append(decision)
        return decisions


class DecidedBatch(msgspec.Struct, frozen=True):
    """A batch as decided after the changes of other servers in `missed`, which our catalogue does not have yet."""

    decisions: list[Decision]
    proposal: Proposal
    missed: Sequence[Change]
    steps: list[DigestDelta]
    """Effects of `missed` and the proposal's changes on the digests."""


class Transaction:
    """A batch and its last decision."""

    def __init__(
        self,
        batch: Sequence[PendingRequest],
        entries: Sequence[SecurityEntry],
        replica: Replica,
        decider: Decider,
        security_log: SecurityLog,
    ) -> None:
        """Decide the batch after our catalogue. `entries` go into the security log with it."""
        self._batch = batch
        self._entries = entries
        self._replica = replica
        self._decider = decider
        decisions = decider.decide_batch(replica.catalogue, batch)
        self._skipped = security_log.skipped(decisions)
        self.decided = self._decided(decisions, ())
        self.is_redecided = False

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to write."""
        proposal = self.decided.proposal
        return not (proposal.changes or proposal.security or proposal.administration)

    def decide_again(self, missed: Sequence[Change]) -> Proposal:
        """Decide the batch after the changes of other servers. Runs on the database thread, inside the transaction."""
        catalogue = self._replica.catalogue
        for change in missed:
            catalogue = catalogue.apply(change)
        self.decided = self._decided(self._decider.decide_batch(catalogue, self._batch), missed)
        self.is_redecided = True
        return self.decided.proposal

    def _decided(self, decisions: list[Decision], missed: Sequence[Change]) -> DecidedBatch:
        changes: list[Change] = []
        security, administration = list(self._entries), []
        for number, decision in enumerate(decisions):
            changes += decision.changes
            if decision.security and number not in self._skipped:
                security.append(decision.security)
            if decision.administration:
                administration.append(decision.administration)
        steps, digest = self._replica.digests.after(self._replica.catalogue, [*missed, *changes])
        return DecidedBatch(decisions, Proposal(changes, security, administration, digest), missed, steps)


class TransactionWriter:
    """Writes batches into the store and publishes what was committed."""

    def __init__(
        self, access: StoreAccess, replica: Replica, security_log: SecurityLog, decider: Decider, clock: Clock
    ) -> None:
        self._access = access
        self._replica = replica
        self._security_log = security_log
        self._decider = decider
        self._clock = clock
        self.counts = Counter[str]()
        """`batches`: committed. `again`: of these, decided again after a conflict. `put off`: started over because this
        server was too far behind."""
        self.batch_sizes = Histogram(BATCH_BOUNDS)
        self.commit_seconds = Histogram(COMMIT_BOUNDS)

    async def write(self, batch: Sequence[PendingRequest], entries: Sequence[SecurityEntry]) -> list[Decision]:
        """Decide and commit, again after each conflict. Returns the decisions.

        Raises BatchRefused; raises StoreUnavailable when nothing of the batch is in the store.
        """
        while True:
            transaction = Transaction(batch, entries, self._replica, self._decider, self._security_log)
            if transaction.is_empty:
                return transaction.decided.decisions
            first, began = transaction.decided.proposal, self._clock.seconds()
            try:
                await self._access.call(
                    self._access.store.commit,
                    self._replica.catalogue.revision,
                    first.changes,
                    first.security,
                    first.administration,
                    transaction.decide_again,
                    first.digest,
                )
            except BatchRefused:
                raise
            except Conflict:
                self.counts["put off"] += 1
                await self._replica.catch_up()
                continue
            except StoreUnavailable:
                outcome = await self._find_outcome(transaction.decided)
                if outcome == "committed":
                    return transaction.decided.decisions
                if outcome == "superseded":
                    continue
                raise
            self._access.mark_available()
            self.commit_seconds.add(self._clock.seconds() - began)
            self.batch_sizes.add(len(batch))
            self.counts["batches"] += 1
            self.counts["again"] += transaction.is_redecided
            decided = transaction.decided
            self._replica.publish(decided.missed, decided.decisions, decided.steps)
            return decided.decisions

    async def _find_outcome(self, decided: DecidedBatch) -> Outcome:
        """Read the log to learn what became of a transaction; what is there is published."""
        before, proposed = self._replica.catalogue.revision, decided.proposal.changes
        there = await self._replica.catch_up(proposed)
        if proposed and there[len(decided.missed) :][: len(proposed)] == proposed:
            return "committed"
        return "superseded" if self._replica.catalogue.revision != before else "absent"
