"""Server-sent events (HTML Living Standard, section 9.2) to a client that may read slowly or not at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from twisted.internet.interfaces import IPushProducer
from twisted.web.server import Request
from zope.interface import implementer

from compass.gateway.http.openapi import EVENTS
from compass.model.interfaces import Clock, Timer

HEARTBEAT_SECONDS = 15.0
"""Interval between comments on a silent stream: less than any proxy or library waits."""
EVENTS_HELD_MAX = 1000
"""Events that are kept for a client that does not read; one more closes the stream, which can be resumed."""
REVISION_MAX = 2**63 - 1
"""Largest revision: what SQL's BIGINT holds."""
Revision = Annotated[int, Meta(ge=0, le=REVISION_MAX)]


def resumes_at(request: Request, since: int | UnsetType) -> int | None:
    """Return the revision after which a stream resumes: `Last-Event-ID`, which a reconnecting client sends, or `since`.

    An invalid id means from the beginning, as an unknown one does.
    """
    last = request.getHeader("last-event-id")
    if last is None:
        return None if since is UNSET else since
    return int(last) if last.isascii() and last.isdigit() and len(last) <= len(str(REVISION_MAX)) else None


@implementer(IPushProducer)
class EventStream:
    """Response that never ends by itself. Events may be delivered before it is known whether the stream starts."""

    def __init__(self, request: Request, clock: Clock) -> None:
        self._request = request
        self._clock = clock
        self._held: deque[bytes] = deque()
        self._paused = True
        self._open = True
        self._stop: Callable[[], None] | None = None
        self._heartbeat: Timer | None = None
        request.notifyFinish().addBoth(self._finished)

    def is_allowed(self) -> bool:
        """Return whether the stream may continue: asked at each heartbeat."""
        return True

    def deliver(self, revision: int, kind: str, data: msgspec.Struct) -> None:
        """Write an event, or keep it while the client does not read."""
        if not self._open:
            return
        text = msgspec.json.encode(data).decode()
        self._held.append(f"id: {revision}\nevent: {kind}\ndata: {text}\n\n".encode())
        if not self._paused:
            self._flush()
        elif len(self._held) > EVENTS_HELD_MAX and self._stop is not None:
            self._drop()

    def refused(self, answer: Callable[[], bytes]) -> bytes | None:
        """Return the answer in place of a stream; None if the client has closed the connection."""
        return answer() if self._open else None

    def start(self, stop: Callable[[], None]) -> None:
        """Send all events, those delivered so far first, until the client closes the connection; then call `stop`."""
        if not self._open:
            stop()
            return
        self._stop = stop
        self._request.setHeader("Content-Type", EVENTS)
        self._request.setHeader("Cache-Control", "no-store")
        self._paused = False
        self._request.registerProducer(self, True)
        self._flush()
        self._beat_later()

    def pauseProducing(self) -> None:
        """Keep events: the transport's buffer is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Write the kept events: the transport's buffer is empty."""
        self._paused = False
        self._flush()

    def stopProducing(self) -> None:
        """Keep events: the transport is closed. `_finished` is called as well."""
        self._paused = True

    def _flush(self) -> None:
        while self._held and not self._paused and self._open:
            self._request.write(self._held.popleft())

    def _beat_later(self) -> None:
        self._heartbeat = self._clock.callLater(HEARTBEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        if not self.is_allowed():
            self._drop()
            return
        if not self._paused:
            self._request.write(b": still here\n\n")
        self._beat_later()

    def _drop(self) -> None:
        channel = self._request.channel
        if channel is not None:
            channel.forceAbortClient()

    def _finished(self, reason: object) -> None:
        self._open = False
        self._held.clear()
        if self._heartbeat is not None and self._heartbeat.active():
            self._heartbeat.cancel()
        if self._stop is not None:
            self._stop()
