"""Long poll: one answer that waits for a change, for clients that do not read a stream of events."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from compass.model.interfaces import Clock
from compass.model.replies import Refusal


class LongPoll:
    """Watch until the first event, the timeout or the end of the connection.

    Events may be delivered before it is known whether the watch starts, as with a stream.
    """

    def __init__(self, request: Request, clock: Clock, seconds: float) -> None:
        self._ended: Deferred[None] = Deferred()
        self._stop: Callable[[], None] | None = None
        self._has_ended = False
        self._timer = clock.callLater(seconds, self._end)
        request.notifyFinish().addBoth(lambda _: self._end())

    def notify(self, event: object) -> None:
        """End the wait: an event was delivered."""
        self._end()

    def begin(self, watching: Deferred[Callable[[], None] | Refusal]) -> Deferred[Refusal | None]:
        """Wait, once the watch has started. Returns a Deferred of None at the end, or of the watch's refusal."""

        def started(result: Callable[[], None] | Refusal) -> Deferred[None] | Refusal:
            if isinstance(result, Refusal):
                self._end()
                return result
            if self._has_ended:
                result()
            self._stop = result
            return self._ended

        # The type checker does not see that a Deferred in a callback is awaited.
        return cast(Deferred[Refusal | None], watching.addCallback(started))

    def _end(self) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        if self._timer.active():
            self._timer.cancel()
        if self._stop is not None:
            self._stop()
        self._ended.callback(None)
