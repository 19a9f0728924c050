"""The database thread on virtual time: work is done when its time has come, and its callers wait as with a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure


class SimulatedThread:
    """Database thread with one transaction at a time, which takes time and fails on demand before or after its work."""

    def __init__(self, clock: Clock, random: Random, latency_seconds: tuple[float, float] = (0.0001, 0.003)) -> None:
        self._clock = clock
        self._random = random
        self._latency_seconds = latency_seconds
        self._queue: deque[tuple[Callable[..., Any], tuple[Any, ...], Deferred[Any]]] = deque()
        self._busy = False
        self._stopped = False
        self.failing: Exception | None = None
        """Raised instead of doing the work, as long as it is set."""
        self.failing_after: Exception | None = None
        """Raised once, after the work has been done: a commit whose answer is lost."""
        self.hanging = False
        """A database that was stopped as by SIGSTOP: what is asked is neither done nor refused until it goes on."""

    def run(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The result of `work`, later."""
        done: Deferred[Any] = Deferred()
        self._queue.append((work, args, done))
        self._next()
        return done

    def kill(self) -> None:
        """Kill the process: work that has not begun is dropped, and no result is reported."""
        self._stopped = True
        self._queue.clear()

    def go_on(self) -> None:
        """End the hang and do the work that was requested meanwhile."""
        self.hanging = False
        if self._busy:
            self._work()

    def _next(self) -> None:
        if self._busy or not self._queue:
            return
        self._busy = True
        self._clock.callLater(self._random.uniform(*self._latency_seconds), self._work)

    def _work(self) -> None:
        if self._stopped or self.hanging or not self._queue:
            return
        work, args, done = self._queue.popleft()
        try:
            if self.failing is not None:
                raise self.failing
            result = work(*args)
            if self.failing_after is not None:
                error, self.failing_after = self.failing_after, None
                raise error
        except Exception:
            result = Failure()
        self._busy = False
        done.callback(result) if not isinstance(result, Failure) else done.errback(result)
        self._next()
