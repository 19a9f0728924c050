"""What would take listeners out of use and is not in the store yet (opengnsp.md, "While the store is away").

Such a request is decided on the catalogue as it is, and when its commit takes too long the hosts that depend on the
listener are told of a suspicion: no change, no revision. The request is submitted again and again until the store has
judged it; then a notice follows, or the suspicion is withdrawn.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue
from compass.model.catalogue.interest import audience
from compass.model.interfaces import Clock, Timer
from compass.model.replies import Refusal, Reply
from compass.model.requests import Deregister, Suspect, Undecided, WeighedReport
from compass.model.rows import FAILING, Change, Listener, ListenerKey
from compass.model.rules.decide import decide
from compass.model.rules.draft import Decision, Principal
from compass.server.commit.request_queue import RETRY_AFTER_SECONDS
from compass.server.push.publisher import Publisher
from compass.server.sessions.session import Session
from compass.wire.frames import frame
from compass.wire.messages import Suspicion, encode

TELL_AFTER_SECONDS = 0.5
"""From a request to the suspicion, when it is not committed by then: with the way to the hosts less than the second in
which they have to know (P9), and longer than a commit takes on any disk that works."""
SUSPICION_SECONDS = 30.0
"""How long hosts believe a suspicion that is not told again: three times lost, or its server is gone."""
TOLD_AGAIN_SECONDS = 10.0
"""How often a suspicion that stands is told again."""
SUSPICIONS_MAX = 1_000
"""Listeners under suspicion: some racks. Beyond that the store has to be back first."""

_OVER = FAILING | {"offline"}
OutOfUseRequest = Deregister | WeighedReport | Suspect
"""Requests that take a listener out of use."""


class _PendingSuspicion(msgspec.Struct, eq=False):
    """A request that the store has not judged yet; told as a suspicion once it is about a row."""

    request: OutOfUseRequest
    asker: Principal
    row: Listener | None = None
    """The listener as it is in the catalogue."""
    cause: str = ""


class PendingSuspicions:
    """Submits requests, and tells hosts of those that the store does not take in time."""

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        now: Callable[[], float],
        submit: Callable[[Undecided, Principal], Deferred[Reply]],
        catalogue: Callable[[], Catalogue],
        push: Publisher,
    ) -> None:
        self._clock = clock
        self._now = now
        self._submit = submit
        self._catalogue = catalogue
        self._push = push
        self._held: dict[ListenerKey, _PendingSuspicion] = {}
        self._timers: dict[object, Timer] = {}

    def __len__(self) -> int:
        """Suspicions that stand."""
        return len(self._held)

    def stop(self) -> None:
        """Nothing stands any more; nobody is told."""
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._timers.clear()
        self._held.clear()

    def submit(
        self, request: Undecided, asker: Principal, late: Callable[[Reply], None] | None = None
    ) -> Deferred[Reply]:
        """The reply, as from the commit loop; of a request that takes a listener out of use no later than it is told
        as a suspicion. `late` is then called with what would be the reply."""
        if not isinstance(request, OutOfUseRequest):
            return self._submit(request, asker)
        answered: Deferred[Reply] = Deferred()
        held = _PendingSuspicion(request, asker)
        timer = self._clock.callLater(TELL_AFTER_SECONDS, self._take_up, held, answered, late)

        def decided(reply: Reply) -> None:
            if timer.active():
                timer.cancel()
            if answered.called:
                self._decided(reply, held)
            else:
                answered.callback(reply)

        self._submit(request, asker).addCallback(decided)
        return answered

    def committed(self, change: Change) -> None:
        """The log has something of a listener: a suspicion is settled when it is out of use or another instance."""
        row = change.row
        if not isinstance(row, Listener) or _key(row) not in self._held:
            return
        held = self._held[_key(row)]
        if change.removed or row.state in _OVER or held.row is None or row.epoch != held.row.epoch:
            del self._held[_key(row)]
        else:
            held.row = row

    def refuted(self, key: ListenerKey) -> None:
        """A probe was answered. Who deregisters knows better."""
        held = self._held.get(key)
        if held is not None and not isinstance(held.request, Deregister):
            self._withdraw(key)

    def watched(self, session: Session) -> None:
        """A host watches anew, which ends every suspicion there: once it has its answer it is told what stands."""
        if self._held:
            self._clock.callLater(0, self._tell_to, session)

    def _tell_to(self, session: Session) -> None:
        if not session.suspicions or self._push.session_of(session.host) is not session:
            return
        categories = self._push.categories_of(session.host)
        for held in self._held.values():
            if held.row is not None and categories & audience(self._catalogue(), held.row):
                session.send_unacknowledged(_encoded(held.row, held.cause, SUSPICION_SECONDS))

    def _take_up(
        self, held: _PendingSuspicion, answered: Deferred[Reply], late: Callable[[Reply], None] | None
    ) -> None:
        """The store takes its time: what would come of the request?"""
        decision = decide(self._catalogue(), held.request, held.asker, self._now(), "")
        if isinstance(decision.reply, Refusal):
            return
        if self._stands(held, decision):
            self._tell(held, SUSPICION_SECONDS)
            if not self._is_pending("again"):
                self._timers["again"] = self._clock.callLater(TOLD_AGAIN_SECONDS, self._tell_again)
            text = "the store does not answer now; dependants with a session here are told of a suspicion meanwhile"
            answered.callback(Refusal("store-unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS))
        if late is not None:
            late(decision.reply)

    def _stands(self, held: _PendingSuspicion, decision: Decision) -> bool:
        """Whether it is a new suspicion: the decision takes a listener out of use that is in use."""
        after = next((change.row for change in decision.changes if isinstance(change.row, Listener)), None)
        before = self._catalogue().listener(*_key(after)) if after is not None else None
        if after is None or before is None or before.state in _OVER or after.state not in _OVER:
            return False
        known = self._held.get(_key(before))
        if known is None:
            if len(self._held) >= SUSPICIONS_MAX:
                return False
        elif isinstance(known.request, Deregister) or not isinstance(held.request, Deregister):
            return False
        held.row, held.cause = before, after.cause
        self._held[_key(before)] = held
        return True

    def _decided(self, reply: Reply, held: _PendingSuspicion) -> None:
        """The store has judged a request that was told as a suspicion; or it is still away."""
        if held.row is None or self._held.get(_key(held.row)) is not held:
            return
        if isinstance(reply, Refusal) and reply.retry_after_seconds:
            self._timers[_key(held.row)] = self._clock.callLater(RETRY_AFTER_SECONDS, self._try_again, held)
        else:
            self._withdraw(_key(held.row))

    def _try_again(self, held: _PendingSuspicion) -> None:
        if held.row is not None:
            del self._timers[_key(held.row)]
            if self._held.get(_key(held.row)) is held:
                self._submit(held.request, held.asker).addCallback(self._decided, held)

    def _withdraw(self, key: ListenerKey) -> None:
        self._tell(self._held.pop(key), 0.0)

    def _tell_again(self) -> None:
        for held in self._held.values():
            self._tell(held, SUSPICION_SECONDS)
        if self._held:
            self._timers["again"] = self._clock.callLater(TOLD_AGAIN_SECONDS, self._tell_again)

    def _tell(self, held: _PendingSuspicion, seconds: float) -> None:
        if held.row is not None:
            encoded = _encoded(held.row, held.cause, seconds)
            for session in self._push.subscribers(audience(self._catalogue(), held.row)):
                if session.suspicions:
                    session.send_unacknowledged(encoded)

    def _is_pending(self, name: object) -> bool:
        timer = self._timers.get(name)
        return timer is not None and timer.active()


def _key(row: Listener) -> ListenerKey:
    return row.service, row.address, row.port


def _encoded(row: Listener, cause: str, seconds: float) -> bytes:
    told = Suspicion(row.service, row.address, row.port, row.epoch, seconds, cause if seconds else "")
    return frame(encode(told))
