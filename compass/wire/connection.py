"""Base of both ends of a session, without input or output: bytes and times in, events and bytes out.

The shell that owns the transport calls `receive`, writes `bytes_to_send()`, and sets one timer at `deadline()` for
`expire`. `receive` returns events for any bytes in pieces of any size; after a violation by the peer it returns one
`SessionEnded` event and ignores all further bytes. A misuse by the shell raises an exception.
"""

from __future__ import annotations

from collections import deque
from operator import attrgetter
from typing import Any, NamedTuple

from compass.model.replies import Refusal
from compass.wire import limits, messages
from compass.wire.events import Event, SessionEnded
from compass.wire.frames import FrameReader, FrameTooLong, header
from compass.wire.states import TABLE, End, Input, SessionState


class Connection:
    """Base of both ends: frames, the state table, the end of a session."""

    end: End

    def __init__(self, now: float, frame_max: int) -> None:
        self.state: SessionState = "greeting"
        self._reader = FrameReader(frame_max)
        self._out: deque[Queued] = deque()
        self._written = 0
        """Octets of the first item of `_out` that were returned already."""
        self.octets_to_send = 0
        """Number of octets that `bytes_to_send()` would return now."""
        self.has_behind = False
        """More is to be queued when nothing is."""
        self._greeting_until = now + limits.GREETING_SECONDS

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Return the events that `data` completes, in order; after `SessionEnded` there are none."""
        if self.state == "ended":
            return []
        events: list[Event] = []
        try:
            for number, body in self._reader.feed(data):
                event = self._received(number, body, now)
                if event is not None:
                    events.append(event)
                if isinstance(event, SessionEnded):
                    break
        except FrameTooLong as error:
            events.append(self._violated(Refusal("too-large", str(error))))
        return events

    def bytes_to_send(self, at_most: int | None = None) -> bytes:
        """Return at most `at_most` of the queued octets; the next call returns the rest."""
        out = self._out
        if not out:
            return b""
        if at_most is None or self.octets_to_send <= at_most:
            pieces = list(map(_octets, out))
            pieces[0] = pieces[0][self._written :]
            out.clear()
            self._written = self.octets_to_send = 0
            if self.has_behind:
                self._refill()
            return b"".join(pieces)
        pieces = []
        room = at_most
        while room:
            octets = out[0].octets
            piece = octets[self._written : self._written + room]
            pieces.append(piece)
            room -= len(piece)
            self._written += len(piece)
            if self._written == len(octets):
                out.popleft()
                self._written = 0
        self.octets_to_send -= at_most
        return b"".join(pieces)

    def _refill(self) -> None:
        """Queue what comes behind everything that was queued."""

    def deadline(self) -> float | None:
        """Return the time at which `expire` must be called, or None."""
        raise NotImplementedError

    def expire(self, now: float) -> list[Event]:
        """End the session if its deadline has passed. Returns the event, or nothing before the deadline."""
        at = self.deadline()
        if at is None or now < at:
            return []
        return [self._time_out()]

    def _received(self, number: int, body: bytes, now: float) -> Event | None:
        raise NotImplementedError

    def _time_out(self) -> SessionEnded:
        raise NotImplementedError

    def _transition(self, given: Input) -> bool:
        """Make the transition of the table. Returns False if there is none."""
        target = TABLE[self.end][self.state].get(given)
        if target is None:
            return False
        self.state = target
        return True

    def _is_skipped(self, number: int, unreadable: messages.InvalidMessage) -> bool:
        """Return whether to skip a message: an unknown one, of a later version, that expects no reply (P13)."""
        return self.state == "open" and number == 0 and unreadable.refusal.code == "unknown-message"

    def _send(self, message: messages.Message, number: int = 0) -> None:
        body = messages.encode(message)
        self._queue(header(len(body), number) + body)

    def _queue(self, encoded: bytes, complete_to: int = -1) -> None:
        self._out.append(Queued(encoded, complete_to))
        self.octets_to_send += len(encoded)

    def _end(self, given: Input, reason: str, **details: Any) -> SessionEnded:
        self._transition(given)
        self.state = "ended"
        return SessionEnded(reason, **details)

    def _violated(self, refusal: Refusal) -> SessionEnded:
        raise NotImplementedError


class Queued(NamedTuple):
    """Queued octets. Of a push, with the revision up to which the host is complete before it; -1: not a push."""

    octets: bytes
    complete_to: int


_octets = attrgetter("octets")
