"""Server end of a session: replies to requests and pushes notices, in bounded memory."""

from __future__ import annotations

from collections import deque

import msgspec

from compass.model.replies import Refusal
from compass.model.requests import Request
from compass.wire import limits, messages
from compass.wire.connection import Connection
from compass.wire.events import AcknowledgementReceived, Event, RequestReceived, SessionEnded, SessionOpened
from compass.wire.frames import header

_TOGETHER_SECONDS = 0.1
"""Seconds within which notices share one deadline for their acknowledgement: so ACKNOWLEDGE_SECONDS bounds the memory
for a host that acknowledges nothing, and not the number of changes."""


class _Awaited(msgspec.Struct):
    """Group of notices that share a deadline for their acknowledgement."""

    first: int
    last: int
    since: float
    at: float


class ServerConnection(Connection):
    """Server end of a session."""

    end = "server"

    def __init__(self, now: float, frame_max: int) -> None:
        super().__init__(now, frame_max)
        self.frame_max = frame_max
        self.watching = False
        self._asked: set[int] = set()
        self._active_at = now
        self._awaited: deque[_Awaited] = deque()
        self._consumed_at = now
        self._timed: tuple[int, float] | None = None
        """Notice whose acknowledgement is timed: its revision, and the time of its commit."""

    def welcome(self, server: str, store: str, revision: int, software: str, version: int) -> None:
        """Reply to the hello of a `SessionOpened`."""
        self._send(messages.Welcome(version, server, store, revision, self.frame_max, software))

    def reply(self, number: int, reply: messages.Answer, now: float) -> None:
        """Reply to a request, unless the session has ended."""
        if self.state == "ended":
            return
        self._asked.discard(number)
        self._active_at = now
        encoded = reply.body if isinstance(reply, messages.EncodedReply) else messages.encode(reply)
        if len(encoded) > limits.FRAME_MAX_FROM_SERVER:
            text = (
                f"the answer has {len(encoded)} octets; at most {limits.FRAME_MAX_FROM_SERVER} are sent: ask for less"
            )
            encoded = messages.encode(Refusal("too-large", text))
        # Two items, so that the body of a reply to many peers is in memory once.
        self._queue(header(len(encoded), number))
        self._queue(encoded)

    def push(self, encoded: bytes, revision: int, now: float) -> None:
        """Queue the notice of a change that was committed at `now`: a frame that is encoded once for all sessions."""
        if self.state != "ended":
            self._queue(encoded, revision - 1)
            self.note_written(revision, now)

    def replay(self, encoded: bytes, revision: int, complete_to: int, now: float) -> None:
        """Queue a notice of an earlier change, or a resync, for a host that is complete up to `complete_to`."""
        if self.state != "ended":
            self._queue(encoded, complete_to)
            self.note_written(revision, now, timed=False)

    def note_written(self, revision: int, now: float, *, timed: bool = True) -> None:
        """Expect the acknowledgement of a notice that was committed at `now`; `timed`: measure its delay, of one notice
        at once."""
        if timed and self._timed is None:
            self._timed = revision, now
        last = self._awaited[-1] if self._awaited else None
        if last is not None and now < last.since + _TOGETHER_SECONDS:
            last.last, last.at = revision, now
        else:
            self._awaited.append(_Awaited(revision, revision, now, now))

    def bookmark(self, encoded: bytes, revision: int) -> None:
        """Queue an encoded bookmark, which needs no acknowledgement."""
        if self.state != "ended":
            self._queue(encoded, revision)

    def drop_pushes(self) -> int | None:
        """Drop queued notices of which nothing is written yet. Returns the revision up to which the host is complete,
        or None if nothing was dropped."""
        begun = [self._out.popleft()] if self._written else []
        dropped = [queued for queued in self._out if queued.complete_to >= 0]
        self._out = deque([*begun, *(queued for queued in self._out if queued.complete_to < 0)])
        if not dropped:
            return None
        self.octets_to_send -= sum(len(queued.octets) for queued in dropped)
        complete_to = min(queued.complete_to for queued in dropped)
        while self._awaited and self._awaited[-1].first > complete_to:
            self._awaited.pop()
        if self._awaited:
            self._awaited[-1].last = min(self._awaited[-1].last, complete_to)
        return complete_to

    def peer_consumed(self, now: float) -> None:
        """Record that the peer has read octets: it is slow but not dead."""
        self._consumed_at = now

    def inquire(self, inquiry: messages.Inquiry) -> None:
        """Send the host an inquiry; its result comes as a request, or never."""
        if self.state != "ended":
            self._send(inquiry)

    def send_unacknowledged(self, encoded: bytes) -> None:
        """Queue an encoded message that needs no acknowledgement and has no revision."""
        if self.state != "ended":
            self._queue(encoded)

    def goodbye(self, reason: str, retry_after_seconds: float = 0.0, instead: tuple[str, ...] = ()) -> None:
        """End the session from this side; `instead`: servers to which the client is redirected."""
        if self.state != "ended":
            self._send(messages.Goodbye(reason, retry_after_seconds, instead[: limits.INSTEAD_MAX]))
            self.state = "ended"

    @property
    def unacknowledged(self) -> int:
        """First pushed revision that may not be acknowledged yet; 0 if all are."""
        return self._awaited[0].first if self._awaited else 0

    @property
    def timed_since(self) -> float | None:
        """Commit time of the notice whose acknowledgement is timed, or None if the host has acknowledged it."""
        return self._timed[1] if self._timed is not None else None

    @property
    def in_flight(self) -> int:
        """Number of unanswered requests."""
        return len(self._asked)

    def deadline(self) -> float | None:
        if self.state == "greeting":
            return self._greeting_until
        if self.state == "ended":
            return None
        # Open requests do not delay this: a host that always has one must not let its notices accumulate.
        if self._awaited:
            return max(self._awaited[0].at, self._consumed_at) + limits.ACKNOWLEDGE_SECONDS
        return None if self.watching or self._asked else self._active_at + limits.IDLE_SECONDS

    def _time_out(self) -> SessionEnded:
        if self.state == "greeting":
            reason = f"no hello within {limits.GREETING_SECONDS:g} s"
        elif self._awaited:
            reason = f"no acknowledgement within {limits.ACKNOWLEDGE_SECONDS:g} s"
        else:
            reason = f"idle for {limits.IDLE_SECONDS:g} s"
        self._send(messages.Goodbye(reason))
        return self._end("timeout", reason)

    def _violated(self, refusal: Refusal) -> SessionEnded:
        self._send(refusal)
        return self._end("violation", refusal.message, violation=True)

    def _received(self, number: int, body: bytes, now: float) -> Event | None:
        try:
            message = messages.decode_from_client(body)
        except messages.InvalidMessage as unreadable:
            if self._is_skipped(number, unreadable):
                return None
            if self.state == "greeting" or number == 0 or number in self._asked:
                return self._violated(unreadable.refusal)
            self._send(unreadable.refusal, number)
            return None
        match message:
            case messages.Hello():
                return self._greeted(message)
            case messages.Acknowledge():
                if not self._transition("acknowledge"):
                    return self._violated(Refusal("out-of-turn", "acknowledge before hello"))
                return self._acknowledged(message, now)
            case request:
                return self._asked_for(number, request, now)

    def _greeted(self, hello: messages.Hello) -> Event:
        common = set(hello.versions[: limits.VERSIONS_OFFERED_MAX]) & set(limits.VERSIONS)
        if self.state == "greeting" and not common:
            spoken = ", ".join(map(str, limits.VERSIONS))
            return self._violated(Refusal("unsupported-version", f"this server speaks OpenGNSP {spoken}"))
        if not self._transition("hello"):
            return self._violated(Refusal("out-of-turn", "a second hello"))
        software = hello.software[: limits.SOFTWARE_MAX]
        return SessionOpened(messages.Hello((max(common),), software))

    def _acknowledged(self, message: messages.Acknowledge, now: float) -> Event:
        waited = None
        if self._timed is not None and self._timed[0] <= message.revision:
            waited = now - self._timed[1]
            self._timed = None
        awaited = self._awaited
        while awaited and awaited[0].last <= message.revision:
            awaited.popleft()
        if awaited and awaited[0].first <= message.revision:
            awaited[0].first = message.revision + 1
        return AcknowledgementReceived(message, waited)

    def _asked_for(self, number: int, request: Request, now: float) -> Event | None:
        if not self._transition("request"):
            return self._violated(Refusal("out-of-turn", "a request before hello"))
        if number == 0 or number in self._asked:
            return self._violated(Refusal("out-of-turn", f"request number {number} is 0 or in use"))
        if len(self._asked) >= limits.REQUESTS_IN_FLIGHT_MAX:
            busy = f"{limits.REQUESTS_IN_FLIGHT_MAX} requests of this session wait for an answer"
            self._send(Refusal("busy", busy, retry_after_seconds=1.0), number)
            return None
        self._asked.add(number)
        self._active_at = now
        return RequestReceived(number, request)
