"""Requests that wait for a session, bounded in number and in time."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.defer import Deferred

from compass.model.interfaces import Clock, Timer
from compass.model.limits import ASK_PATIENCE_SECONDS as ASK_PATIENCE_SECONDS
from compass.model.replies import Refusal, Reply
from compass.model.requests import Request

WAITING_MAX = 1024
"""Requests that wait for a session; more are refused as busy."""


class PendingOwner(Protocol):
    """Owner of the queue; `upstream.Upstream`."""

    def unreachable(self) -> Refusal:
        """Return the refusal of a request that waited too long."""


class PendingRequests:
    """Queue of waiting requests."""

    def __init__(self, clock: Clock, owner: PendingOwner) -> None:
        self._clock = clock
        self._owner = owner
        self._requests: deque[tuple[Request, Deferred[Reply], Timer]] = deque()

    def add(self, request: Request) -> Deferred[Reply]:
        """Queue a request. Returns its reply if there is a session in time, else a refusal."""
        answer: Deferred[Reply] = Deferred()
        if len(self._requests) >= WAITING_MAX:
            busy = f"{WAITING_MAX} requests wait for a server; try again in a moment"
            answer.callback(Refusal("busy", busy, retry_after_seconds=1.0))
        else:
            patience = self._clock.callLater(ASK_PATIENCE_SECONDS, self._impatient, answer)
            self._requests.append((request, answer, patience))
        return answer

    def next(self) -> tuple[Request, Deferred[Reply]] | None:
        """Remove and return the oldest request, or None if there is none."""
        if not self._requests:
            return None
        request, answer, patience = self._requests.popleft()
        patience.cancel()
        return request, answer

    def refuse(self) -> None:
        """Refuse all: no session is expected."""
        while (waiting := self.next()) is not None:
            waiting[1].callback(self._owner.unreachable())

    def _impatient(self, answer: Deferred[Reply]) -> None:
        self._requests = deque(entry for entry in self._requests if entry[1] is not answer)
        answer.callback(self._owner.unreachable())
