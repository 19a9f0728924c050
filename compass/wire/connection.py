"""One end of a session without input or output: bytes and times in, events and bytes out.

The shell that owns the transport calls `receive`, writes `bytes_to_send()`, and keeps one timer at `deadline()`
for `expire`. Whatever bytes arrive in whatever pieces, `receive` returns events; a peer's violation gives one
`Ended` event and makes the connection deaf. Our own misuse raises instead.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import msgspec

from compass.model.replies import Refusal, Reply
from compass.model.requests import Request
from compass.wire import limits
from compass.wire.frames import FrameReader, FrameTooLong, frame, header
from compass.wire.messages import (
    Acknowledge,
    Bookmark,
    Goodbye,
    Held,
    Hello,
    Inquiry,
    InvalidMessage,
    Message,
    Notice,
    Resync,
    Suspicion,
    Welcome,
    decode_from_client,
    decode_from_server,
    encode,
)
from compass.wire.states import TABLE, End, Input, SessionState


class RequestReceived(msgspec.Struct, frozen=True):
    """A request to answer, with `reply(number, ...)`."""

    number: int
    request: Request


class ReplyReceived(msgspec.Struct, frozen=True):
    """The answer to the request of that number."""

    number: int
    reply: Reply


class PushReceived(msgspec.Struct, frozen=True):
    """A notice, a bookmark, a resync, an inquiry or a suspicion from the server."""

    message: Notice | Bookmark | Resync | Inquiry | Suspicion


class AcknowledgementReceived(msgspec.Struct, frozen=True):
    """The host holds everything up to that revision, or tells of a gap."""

    acknowledge: Acknowledge


class SessionOpened(msgspec.Struct, frozen=True):
    """The greeting is done."""

    peer: Hello | Welcome


class SessionEnded(msgspec.Struct, frozen=True):
    """Nothing more will come of this session; write what is left to send and close."""

    reason: str
    violation: bool = False
    """The peer broke the protocol."""
    retry_after_seconds: float = 0.0
    instead: tuple[str, ...] = ()
    """Servers that the peer sends us to, as it spelled them."""


_TOGETHER_SECONDS = 0.1
"""Notices pushed within so long are waited for together: what is kept of a host that acknowledges nothing is bounded
by ACKNOWLEDGE_SECONDS and not by the number of changes."""


class _Queued(NamedTuple):
    """Octets to be written. Of a push, up to where the host has been told everything before it; else -1."""

    octets: bytes
    told_before: int


class _Awaited(msgspec.Struct):
    """Notices of which the last one's acknowledgement is waited for."""

    first: int
    last: int
    since: float
    at: float


Event = RequestReceived | ReplyReceived | PushReceived | AcknowledgementReceived | SessionOpened | SessionEnded


class Connection:
    """What both ends share: frames, the state table, the end of it all."""

    end: End

    def __init__(self, now: float, frame_max: int) -> None:
        self.state: SessionState = "greeting"
        self._reader = FrameReader(frame_max)
        self._out: deque[_Queued] = deque()
        self._written = 0
        """Octets of the first in `_out` that were given out already."""
        self.octets_to_send = 0
        """What `bytes_to_send` would give now."""
        self._greeting_until = now + limits.GREETING_SECONDS

    def receive(self, data: bytes, now: float) -> list[Event]:
        """The events that `data` completes, in order; after `Ended` there are none."""
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
        """What is to be written now; empty when nothing is. The rest comes with the next call."""
        out = self._out
        if not out:
            return b""
        if at_most is None or self.octets_to_send <= at_most:
            pieces = [queued.octets for queued in out]
            pieces[0] = pieces[0][self._written :]
            out.clear()
            self._written = self.octets_to_send = 0
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

    def deadline(self) -> float | None:
        """When `expire` wants to be called, or None."""
        raise NotImplementedError

    def expire(self, now: float) -> list[Event]:
        """The end of a session whose deadline has passed; nothing when it has not."""
        at = self.deadline()
        if at is None or now < at:
            return []
        return [self._time_out()]

    def _received(self, number: int, body: bytes, now: float) -> Event | None:
        raise NotImplementedError

    def _time_out(self) -> SessionEnded:
        raise NotImplementedError

    def _transition(self, given: Input) -> bool:
        """Take the table's step; False when it has none."""
        target = TABLE[self.end][self.state].get(given)
        if target is None:
            return False
        self.state = target
        return True

    def _is_skipped(self, number: int, unreadable: InvalidMessage) -> bool:
        """A later version may say things that expect no answer; this one goes on without them (P13)."""
        return self.state == "open" and number == 0 and unreadable.refusal.code == "unknown-message"

    def _send(self, message: Message, number: int = 0) -> None:
        self._queue(frame(encode(message), number))

    def _queue(self, encoded: bytes, told_before: int = -1) -> None:
        self._out.append(_Queued(encoded, told_before))
        self.octets_to_send += len(encoded)

    def _end(self, given: Input, reason: str, **details: Any) -> SessionEnded:
        self._transition(given)
        self.state = "ended"
        return SessionEnded(reason, **details)

    def _violated(self, refusal: Refusal) -> SessionEnded:
        raise NotImplementedError


class ServerConnection(Connection):
    """The end that answers and pushes."""

    end = "server"

    def __init__(self, now: float, frame_max: int) -> None:
        super().__init__(now, frame_max)
        self.frame_max = frame_max
        self.watching = False
        self._asked: set[int] = set()
        self._active_at = now
        self._awaited: deque[_Awaited] = deque()
        self._took_at = now

    def welcome(self, server: str, store: str, revision: int, software: str, version: int) -> None:
        """Answer the hello that `Opened` told of."""
        self._send(Welcome(version, server, store, revision, self.frame_max, software))

    def reply(self, number: int, reply: Reply | bytes, now: float) -> None:
        """Answer a request; bytes are a body that many get. A session that has ended gets nothing any more."""
        if self.state == "ended":
            return
        self._asked.discard(number)
        self._active_at = now
        encoded = reply if isinstance(reply, bytes) else encode(reply)
        if len(encoded) > limits.FRAME_MAX_FROM_SERVER:
            text = (
                f"the answer has {len(encoded)} octets; at most {limits.FRAME_MAX_FROM_SERVER} are sent: ask for less"
            )
            encoded = encode(Refusal("too-large", text))
        # Apart, so that a body which many get is in memory once.
        self._queue(header(len(encoded), number))
        self._queue(encoded)

    def push(self, encoded: bytes, revision: int, now: float, told_before: int | None = None) -> None:
        """Send a frame that was encoded once for all sessions; `revision` is to be acknowledged.

        `told_before`: up to where the host was told everything before it, when that is not just the revision before.
        """
        if self.state == "ended":
            return
        self._queue(encoded, revision - 1 if told_before is None else told_before)
        self.note_written(revision, now)

    def note_written(self, revision: int, now: float) -> None:
        """A push that was written without being queued here is to be acknowledged."""
        last = self._awaited[-1] if self._awaited else None
        if last is not None and now < last.since + _TOGETHER_SECONDS:
            last.last, last.at = revision, now
        else:
            self._awaited.append(_Awaited(revision, revision, now, now))

    def bookmark(self, encoded: bytes, revision: int) -> None:
        """Send an encoded bookmark, which needs no acknowledgement."""
        if self.state != "ended":
            self._queue(encoded, revision)

    def drop_pushes(self) -> int | None:
        """Release what was pushed and not begun to be written; up to where the host is told then. None: nothing was."""
        begun = [self._out.popleft()] if self._written else []
        dropped = [queued for queued in self._out if queued.told_before >= 0]
        self._out = deque([*begun, *(queued for queued in self._out if queued.told_before < 0)])
        if not dropped:
            return None
        self.octets_to_send -= sum(len(queued.octets) for queued in dropped)
        told = min(queued.told_before for queued in dropped)
        while self._awaited and self._awaited[-1].first > told:
            self._awaited.pop()
        if self._awaited:
            self._awaited[-1].last = min(self._awaited[-1].last, told)
        return told

    def peer_consumed(self, now: float) -> None:
        """The peer has taken octets: it is slow but not dead."""
        self._took_at = now

    def inquire(self, inquiry: Inquiry) -> None:
        """Ask the host to probe a listener; what it finds comes as a request of its own, or never."""
        if self.state != "ended":
            self._send(inquiry)

    def send_unacknowledged(self, encoded: bytes) -> None:
        """Send an encoded message that needs no acknowledgement and says nothing about revisions."""
        if self.state != "ended":
            self._queue(encoded)

    def goodbye(self, reason: str, retry_after_seconds: float = 0.0, instead: tuple[str, ...] = ()) -> None:
        """End the session from our side; `instead`: servers where the client should go."""
        if self.state != "ended":
            self._send(Goodbye(reason, retry_after_seconds, instead[: limits.INSTEAD_MAX]))
            self.state = "ended"

    @property
    def unacknowledged(self) -> int:
        """The first pushed revision that may not be acknowledged yet; 0 when all are."""
        return self._awaited[0].first if self._awaited else 0

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return len(self._asked)

    def deadline(self) -> float | None:
        """The earliest of greeting, acknowledgement and idle time."""
        if self.state == "greeting":
            return self._greeting_until
        if self.state == "ended":
            return None
        # Not put off by open requests: a host that always has one must not let what is pushed to it pile up.
        if self._awaited:
            return max(self._awaited[0].at, self._took_at) + limits.ACKNOWLEDGE_SECONDS
        return None if self.watching or self._asked else self._active_at + limits.IDLE_SECONDS

    def _time_out(self) -> SessionEnded:
        if self.state == "greeting":
            reason = f"no hello within {limits.GREETING_SECONDS:g} s"
        elif self._awaited:
            reason = f"no acknowledgement within {limits.ACKNOWLEDGE_SECONDS:g} s"
        else:
            reason = f"idle for {limits.IDLE_SECONDS:g} s"
        self._send(Goodbye(reason))
        return self._end("timeout", reason)

    def _violated(self, refusal: Refusal) -> SessionEnded:
        self._send(refusal)
        return self._end("violation", refusal.message, violation=True)

    def _received(self, number: int, body: bytes, now: float) -> Event | None:
        try:
            message = decode_from_client(body)
        except InvalidMessage as unreadable:
            if self._is_skipped(number, unreadable):
                return None
            if self.state == "greeting" or number == 0 or number in self._asked:
                return self._violated(unreadable.refusal)
            self._send(unreadable.refusal, number)
            return None
        match message:
            case Hello():
                return self._greeted(message)
            case Acknowledge():
                if not self._transition("acknowledge"):
                    return self._violated(Refusal("out-of-turn", "acknowledge before hello"))
                return self._acknowledged(message)
            case request:
                return self._asked_for(number, request, now)

    def _greeted(self, hello: Hello) -> Event:
        common = set(hello.versions[: limits.VERSIONS_OFFERED_MAX]) & set(limits.VERSIONS)
        if self.state == "greeting" and not common:
            spoken = ", ".join(map(str, limits.VERSIONS))
            return self._violated(Refusal("unsupported-version", f"this server speaks OpenGNSP {spoken}"))
        if not self._transition("hello"):
            return self._violated(Refusal("out-of-turn", "a second hello"))
        software = hello.software[: limits.SOFTWARE_MAX]
        return SessionOpened(Hello((max(common),), software))

    def _acknowledged(self, message: Acknowledge) -> Event:
        awaited = self._awaited
        while awaited and awaited[0].last <= message.revision:
            awaited.popleft()
        if awaited and awaited[0].first <= message.revision:
            awaited[0].first = message.revision + 1
        return AcknowledgementReceived(message)

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


class ClientConnection(Connection):
    """The end that greets, asks and acknowledges; it says hello at once."""

    end = "client"

    def __init__(self, now: float, software: str, frame_max: int = limits.FRAME_MAX_FROM_SERVER) -> None:
        super().__init__(now, frame_max)
        self._last_number = 0
        self._waiting: dict[int, float] = {}
        self._send(Hello(limits.VERSIONS, software))

    def ask(self, request: Request, now: float) -> int:
        """Queue a request; its number comes back with `Replied`. Only after `Opened`."""
        if self.state != "open":
            raise RuntimeError(f"asked in state {self.state}")
        self._last_number = self._last_number % 0xFFFFFFFF + 1
        self._waiting[self._last_number] = now
        self._send(request, self._last_number)
        return self._last_number

    def acknowledge(self, revision: int, status: Held = "ok") -> None:
        """Say what is held."""
        if self.state == "open":
            self._send(Acknowledge(revision, status))

    def deadline(self) -> float | None:
        """The earliest of welcome and reply."""
        if self.state == "greeting":
            return self._greeting_until
        if self.state == "ended" or not self._waiting:
            return None
        return next(iter(self._waiting.values())) + limits.REPLY_SECONDS

    def _time_out(self) -> SessionEnded:
        if self.state == "greeting":
            return self._end("timeout", f"no welcome within {limits.GREETING_SECONDS:g} s")
        return self._end("timeout", f"no reply within {limits.REPLY_SECONDS:g} s")

    def _violated(self, refusal: Refusal) -> SessionEnded:
        return self._end("violation", f"the server broke the protocol: {refusal.message}", violation=True)

    def _received(self, number: int, body: bytes, now: float) -> Event | None:
        try:
            message = decode_from_server(body)
        except InvalidMessage as unreadable:
            if self._is_skipped(number, unreadable):
                return None
            if self.state == "greeting" or number not in self._waiting:
                return self._violated(unreadable.refusal)
            del self._waiting[number]
            return ReplyReceived(number, unreadable.refusal)
        match message:
            case Welcome() if message.version not in limits.VERSIONS:
                return self._out_of_turn(f"version {message.version}, which was not offered,")
            case Welcome():
                return SessionOpened(message) if self._transition("welcome") else self._out_of_turn("welcome")
            case Notice() | Bookmark() | Resync() | Inquiry() | Suspicion():
                return PushReceived(message) if self._transition("push") else self._out_of_turn("notice")
            case Goodbye():
                instead = message.instead[: limits.INSTEAD_MAX]
                return self._end(
                    "goodbye", message.reason, retry_after_seconds=message.retry_after_seconds, instead=instead
                )
            case Refusal() if number == 0:
                return self._end("refusal", message.message, retry_after_seconds=message.retry_after_seconds)
            case reply:
                if number not in self._waiting or not self._transition("reply"):
                    return self._out_of_turn(f"a reply to request {number}")
                del self._waiting[number]
                return ReplyReceived(number, reply)

    def _out_of_turn(self, what: str) -> SessionEnded:
        return self._violated(Refusal("out-of-turn", f"{what} in state {self.state}"))
