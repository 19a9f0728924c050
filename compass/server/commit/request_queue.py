"""Undecided requests that wait for the store, each a bounded time (opengnsp.md, "Store outages").

A request is answered once: by the commit loop, or here when its time is over. A request whose time is over before its
transaction has begun is not carried out; of one whose transaction is under way the outcome is unknown, and repeating
the request is safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred

from compass.model.catalogue.octets import metadata_octets
from compass.model.interfaces import Clock
from compass.model.replies import Refusal, Reply
from compass.model.requests import Register, Undecided
from compass.model.rules.draft import Principal
from compass.server.commit.store_access import StoreAccess
from compass.system.timers import Timers

WAITING_MAX = 20_000
"""Requests waiting for a transaction; one more is refused as busy. At 10,000 a second that is two seconds."""
RETRY_AFTER_SECONDS = 1.0
"""Pause before the next attempt, as the refusal says; a client that repeats for long should lengthen its pauses."""


class PendingRequest(NamedTuple):
    """A request, its principal, its reply to come, and the time until which it waits."""

    request: Undecided
    principal: Principal
    reply: Deferred[Reply]
    until: float

    def answer(self, reply: Reply) -> None:
        """Fire the reply, unless the request was refused when its time was over."""
        if not self.reply.called:
            self.reply.callback(reply)


class RequestQueue:
    """Requests in order of arrival."""

    def __init__(self, clock: Clock, access: StoreAccess) -> None:
        self._clock = clock
        self._access = access
        self._waiting: deque[PendingRequest] = deque()
        self._begun: list[PendingRequest] = []
        """Requests of the transaction under way that have not timed out."""
        self._timers = Timers(clock)

    def __len__(self) -> int:
        """Return the number that wait for a transaction; those in one are not counted."""
        return len(self._waiting)

    def put(self, request: Undecided, principal: Principal) -> Deferred[Reply]:
        """Append a request. Returns its reply to come, a refusal at once if the queue is full."""
        reply: Deferred[Reply] = Deferred()
        if len(self._waiting) >= WAITING_MAX:
            busy = f"{WAITING_MAX} requests wait for the store"
            reply.callback(Refusal("busy", busy, retry_after_seconds=RETRY_AFTER_SECONDS))
            return reply
        until = self._clock.seconds() + self._access.wait_seconds
        self._waiting.append(PendingRequest(request, principal, reply, until))
        self._watch_time()
        return reply

    def take(self, most: int, octets_max: int) -> list[PendingRequest]:
        """Return the next requests, for a transaction that begins now; the transaction before is over.

        They are at most `most`, and end with the one that reaches `octets_max` octets of metadata.
        """
        self._begun = []
        octets = 0
        while self._waiting and len(self._begun) < most and octets < octets_max:
            pending = self._waiting.popleft()
            self._begun.append(pending)
            if isinstance(pending.request, Register) and pending.request.metadata:
                octets += metadata_octets(pending.request.metadata)
        return self._begun

    def put_back(self, batch: Sequence[PendingRequest]) -> None:
        """Put those of a batch that still wait in front again: nothing of the batch is in the store."""
        self._begun = []
        self._waiting.extendleft(one for one in reversed(batch) if not one.reply.called)

    def stop(self) -> None:
        """Stop the timer; requests no longer time out."""
        self._timers.cancel_all()

    def _watch_time(self) -> None:
        """Start one timer for all: they wait equally long, so the first request is the first to time out."""
        if "time over" in self._timers:
            return
        first = self._begun[0] if self._begun else self._waiting[0] if self._waiting else None
        if first is not None:
            self._timers.start("time over", max(first.until - self._clock.seconds(), 0.0), self._time_over)

    def _time_over(self) -> None:
        now, refusal = self._clock.seconds(), self._refusal()
        begun, late = self._begun, []
        while begun and begun[0].until <= now:
            late.append(begun[0])
            begun = begun[1:]
        self._begun = begun
        while self._waiting and self._waiting[0].until <= now:
            late.append(self._waiting.popleft())
        self._watch_time()
        for one in late:
            one.answer(refusal)

    def _refusal(self) -> Refusal:
        why = self._access.overdue() or "it has not answered"
        text = (
            f"the store could not be written within {self._access.wait_seconds:g} s ({why}); nothing of this is known "
            "to be done. Lookups and pushes go on. Ask again later: doing so is safe"
        )
        return Refusal("store-unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS)
