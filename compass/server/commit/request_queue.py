"""Undecided requests that wait for the store, each a bounded time (opengnsp.md, "While the store is away").

A request is answered once: by the commit loop, or here when its time is over. Whose time is over before its
transaction has begun is not carried out; of one under way nobody knows, and asking again is safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred

from compass.model.interfaces import Clock, Timer
from compass.model.replies import Refusal, Reply
from compass.model.requests import Undecided
from compass.model.rules.draft import Principal

WAITING_MAX = 20_000
"""Requests waiting for a transaction; one more is refused as busy. At 10,000 a second that is two seconds."""
STORE_WAIT_SECONDS = 3.0
"""How long a request waits for the store before it is refused, unless configured: longer than a database's restart or
a slow disk takes, and short enough for a person at a prompt."""
RETRY_AFTER_SECONDS = 1.0
"""When to ask again, as the refusal says; whoever asks for long should come more and more rarely."""


class PendingRequest(NamedTuple):
    """A request, who asked, who waits for the answer, and until when."""

    request: Undecided
    asker: Principal
    answered: Deferred[Reply]
    until: float


class RequestQueue:
    """Requests in the order in which they came. `trouble` says what the store said the last time, or nothing."""

    def __init__(self, clock: Clock, wait_seconds: float, trouble: Callable[[], str]) -> None:
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._trouble = trouble
        self._waiting: deque[PendingRequest] = deque()
        self._begun: list[PendingRequest] = []
        self._timer: Timer | None = None

    def __len__(self) -> int:
        """How many wait for a transaction; those in one are not counted."""
        return len(self._waiting)

    def put(self, request: Undecided, asker: Principal) -> Deferred[Reply]:
        """The reply, from whoever gives it first."""
        answered: Deferred[Reply] = Deferred()
        if len(self._waiting) >= WAITING_MAX:
            busy = f"{WAITING_MAX} requests wait for the store"
            answered.callback(Refusal("busy", busy, retry_after_seconds=RETRY_AFTER_SECONDS))
            return answered
        self._waiting.append(PendingRequest(request, asker, answered, self._clock.seconds() + self._wait_seconds))
        self._watch_time()
        return answered

    def take(self, most: int) -> list[PendingRequest]:
        """The next requests, for a transaction that begins now; those of the one before are done."""
        self._begun = [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]
        return self._begun

    def give_back(self, batch: Sequence[PendingRequest]) -> None:
        """Nothing of it is in the store: those who still wait come first again."""
        self._begun = []
        self._waiting.extendleft(one for one in reversed(batch) if not one.answered.called)

    def stop(self) -> None:
        """Nobody is answered by time any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _watch_time(self) -> None:
        """One timer for all: they wait equally long, so the first in line is the first whose time is over."""
        if self._timer is not None and self._timer.active():
            return
        first = self._begun[0] if self._begun else self._waiting[0] if self._waiting else None
        if first is not None:
            pause = max(first.until - self._clock.seconds(), 0.0)
            self._timer = self._clock.callLater(pause, self._time_over)

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
            if not one.answered.called:
                one.answered.callback(refusal)

    def _refusal(self) -> Refusal:
        why = self._trouble() or "it has not answered"
        text = (
            f"the store could not be written within {self._wait_seconds:g} s ({why}); nothing of this is known to be "
            "done. Lookups and pushes go on. Ask again later: doing so is safe"
        )
        return Refusal("store-unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS)
