"""One answer that waits for a change: for programs that can ask again, and not read a stream of events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from compass.model.interfaces import Clock
from compass.model.replies import Refusal


class LongPoll:
    """Watches until the first event, until the time is over or until nobody waits any more; then asks for the answer.

    Events may come before it is known to go on at all, as with a stream.
    """

    def __init__(self, request: Request, clock: Clock, seconds: float, ask: Callable[[], Deferred[Any]]) -> None:
        self._ask = ask
        self._over: Deferred[Any] = Deferred()
        self._stop: Callable[[], None] | None = None
        self._has_ended = False
        self._timer = clock.callLater(seconds, self._end)
        request.notifyFinish().addBoth(lambda _: self._end())

    def notify(self, event: object) -> None:
        """There is news."""
        self._end()

    def begin(self, watching: Deferred[Callable[[], None] | Refusal]) -> Deferred[Any]:
        """What the watch gave; fires with the answer."""

        def answered(result: Callable[[], None] | Refusal) -> Deferred[Any] | Refusal:
            if isinstance(result, Refusal):
                self._end()
                return result
            if self._has_ended:
                result()
            self._stop = result
            return self._over.addCallback(lambda _: self._ask())

        return watching.addCallback(answered)

    def _end(self) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        if self._timer.active():
            self._timer.cancel()
        if self._stop is not None:
            self._stop()
        self._over.callback(None)
