"""Requests that take a listener out of use and are not in the store yet (opengnsp.md, "Store outages").

When the commit of such a request takes too long, it is decided on the catalogue as it is, and the hosts that depend on
the listener are sent a suspicion: no change, no revision. The request is submitted repeatedly until the store has
decided it; then a notice follows, or the suspicion is withdrawn.
"""

from __future__ import annotations

import msgspec
from twisted.internet.defer import Deferred

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import audience
from compass.model.interfaces import Clock
from compass.model.replies import Refusal, Reply
from compass.model.requests import Deregister
from compass.model.rows import FAILING, Change, Listener, ListenerKey
from compass.model.rules.draft import Decision, Principal
from compass.server.commit.committer import Committer, OutOfUseRequest
from compass.server.commit.request_queue import RETRY_AFTER_SECONDS
from compass.server.commit.transaction import Decider
from compass.server.push.publisher import Publisher
from compass.server.sessions.session import Session
from compass.system.timers import Timers
from compass.wire.frames import frame
from compass.wire.messages import Suspicion, encode

SUSPICION_SECONDS = 30.0
"""Validity of a suspicion that is not repeated: three repetitions are lost, or its server has stopped."""
REPEAT_SECONDS = 10.0
"""Between repetitions of a pending suspicion."""
SUSPICIONS_MAX = 1_000
"""Listeners under suspicion: some racks. Beyond that the store has to be available again first."""

_OUT_OF_USE = FAILING | {"offline"}


class _PendingSuspicion(msgspec.Struct, eq=False):
    """A suspicion that hosts were sent, and the request that the store has not decided yet."""

    request: OutOfUseRequest
    principal: Principal
    row: Listener
    """The listener as it is in the catalogue."""
    cause: str


class PendingSuspicions:
    """The suspicions that hosts were sent, by listener. Handles requests that the store does not commit in time."""

    def __init__(self, clock: Clock, decider: Decider, committer: Committer, publisher: Publisher) -> None:
        self._clock = clock
        self._decider = decider
        self._committer = committer
        self._publisher = publisher
        self._pending: dict[ListenerKey, _PendingSuspicion] = {}
        self._timers = Timers(clock)
        """`repeat`, and by listener the next attempt to submit its request."""

    def __len__(self) -> int:
        """Return the number of pending suspicions."""
        return len(self._pending)

    def stop(self) -> None:
        """Forget every suspicion; hosts are sent nothing."""
        self._timers.cancel_all()
        self._pending.clear()

    def reloaded(self, catalogue: Catalogue) -> None:
        """Forget every suspicion."""
        self.stop()

    def overdue(self, request: OutOfUseRequest, principal: Principal, outcome: Deferred[Reply]) -> Refusal | None:
        """Send a suspicion if the request would take a listener out of use that is in use.

        Returns the reply to send now, or None if no suspicion was sent. `outcome` fires when the request is decided.
        """
        decision = self._decider.decide(self._committer.replica.catalogue, request, principal)
        pending = self._new_suspicion(request, principal, decision)
        if pending is None:
            return None
        self._pending[_key(pending.row)] = pending
        self._send(pending, SUSPICION_SECONDS)
        self._timers.start_if_idle("repeat", REPEAT_SECONDS, self._repeat)
        outcome.addCallback(self._decided, pending)
        text = "the store does not answer now; dependants with a session here were sent a suspicion meanwhile"
        return Refusal("store-unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS)

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """End a suspicion when the log has its listener out of use, or another instance of it."""
        row = change.row
        if not isinstance(row, Listener) or _key(row) not in self._pending:
            return
        pending = self._pending[_key(row)]
        if change.removed or row.state in _OUT_OF_USE or row.epoch != pending.row.epoch:
            del self._pending[_key(row)]
        else:
            pending.row = row

    def refuted(self, key: ListenerKey) -> None:
        """Withdraw a suspicion because a probe was answered, unless the listener's own host has deregistered it."""
        pending = self._pending.get(key)
        if pending is not None and not isinstance(pending.request, Deregister):
            self._withdraw(key)

    def watched(self, session: Session) -> None:
        """Send a host that watches again, which ends every suspicion there, the pending ones after its reply."""
        if self._pending:
            self._clock.callLater(0, self._send_all, session)

    def _send_all(self, session: Session) -> None:
        if not session.suspicions or self._publisher.session_of(session.host) is not session:
            return
        categories = self._publisher.categories_of(session.host)
        for pending in self._pending.values():
            if categories & audience(self._committer.replica.catalogue, pending.row):
                session.send_unacknowledged(_encode(pending.row, pending.cause, SUSPICION_SECONDS))

    def _new_suspicion(
        self, request: OutOfUseRequest, principal: Principal, decision: Decision
    ) -> _PendingSuspicion | None:
        """Return a suspicion if the decision takes a listener out of use that is in use and not under suspicion. A
        deregistration replaces a suspicion of another kind."""
        after = next((change.row for change in decision.changes if isinstance(change.row, Listener)), None)
        before = self._committer.replica.catalogue.listener(*_key(after)) if after is not None else None
        if after is None or before is None or before.state in _OUT_OF_USE or after.state not in _OUT_OF_USE:
            return None
        known = self._pending.get(_key(before))
        if known is None:
            if len(self._pending) >= SUSPICIONS_MAX:
                return None
        elif isinstance(known.request, Deregister) or not isinstance(request, Deregister):
            return None
        return _PendingSuspicion(request, principal, before, after.cause)

    def _decided(self, reply: Reply, pending: _PendingSuspicion) -> None:
        """Submit the request again if the store is still unavailable, else withdraw the suspicion if it is still
        pending: a commit that confirms it has ended it before."""
        key = _key(pending.row)
        if self._pending.get(key) is not pending:
            return
        if isinstance(reply, Refusal) and reply.retry_after_seconds:
            self._timers.start(key, RETRY_AFTER_SECONDS, self._submit_again, pending)
        else:
            self._withdraw(key)

    def _submit_again(self, pending: _PendingSuspicion) -> None:
        if self._pending.get(_key(pending.row)) is pending:
            outcome = self._committer.submit(pending.request, pending.principal, may_answer_early=False)
            outcome.addCallback(self._decided, pending)

    def _withdraw(self, key: ListenerKey) -> None:
        self._send(self._pending.pop(key), 0.0)

    def _repeat(self) -> None:
        for pending in self._pending.values():
            self._send(pending, SUSPICION_SECONDS)
        if self._pending:
            self._timers.start("repeat", REPEAT_SECONDS, self._repeat)

    def _send(self, pending: _PendingSuspicion, seconds: float) -> None:
        encoded = _encode(pending.row, pending.cause, seconds)
        concerned = audience(self._committer.replica.catalogue, pending.row)
        for session in self._publisher.subscribers(concerned):
            if session.suspicions:
                session.send_unacknowledged(encoded)


def _key(row: Listener) -> ListenerKey:
    return row.service, row.address, row.port


def _encode(row: Listener, cause: str, seconds: float) -> bytes:
    suspicion = Suspicion(row.service, row.address, row.port, row.epoch, seconds, cause if seconds else "")
    return frame(encode(suspicion))
