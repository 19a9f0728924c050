"""Server end of a session: replies to requests and pushes notices, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import cast

import msgspec

from compass.model.replies import Refusal
from compass.model.requests import Request
from compass.model.text import escape_line
from compass.wire import limits
from compass.wire.connection import Connection, Queued
from compass.wire.events import AcknowledgementReceived, Event, RequestReceived, SessionEnded, SessionOpened
from compass.wire.frames import header
from compass.wire.messages import (
    Acknowledge,
    Answer,
    EncodedReply,
    Goodbye,
    Hello,
    Inquiry,
    InvalidMessage,
    StreamedReply,
    Welcome,
    decode_from_client,
    encode,
)
from compass.wire.parts import PartWriter, pieces_of

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
        self.message_max = 0
        """Octets of the longest message that the peer puts together from parts; 0: it accepts none."""
        self.octets_behind = 0
        """Octets queued behind messages in parts, in addition to `octets_to_send`."""
        self.messages_behind = 0
        """Messages in parts of which none was sent yet."""
        self._writer: PartWriter | None = None
        """Message of which parts are being sent."""
        self._behind: deque[Queued | PartWriter] = deque()
        """Pushes and messages in parts that come after it, in order."""
        self._write_until = 0.0
        self._applies = 0.0
        """Seconds that the peer needs to apply the messages in parts that it has not acknowledged."""

    def welcome(self, server: str, store: str, revision: int, software: str, version: int, renews: str = "") -> None:
        """Reply to the hello of a `SessionOpened`."""
        self._send(Welcome(version, server, store, revision, self.frame_max, software, renews))

    def reply(self, number: int, reply: Answer, now: float) -> Refusal | None:
        """Reply to a request, unless the session has ended. Returns the refusal that was sent in place of a reply that
        is too long for the peer."""
        if self.state == "ended":
            return None
        self._asked.discard(number)
        self._active_at = now
        refusal = pieces = None
        encoded = b""
        if isinstance(reply, StreamedReply) and self.message_max:
            pieces = reply.pieces
        elif isinstance(reply, StreamedReply):
            encoded = _joined(reply.pieces)
        else:
            encoded = reply.body if isinstance(reply, EncodedReply) else encode(reply)
        if limits.FRAME_MAX_FROM_SERVER < len(encoded) <= self.message_max:
            pieces = pieces_of(encoded)
        elif len(encoded) > limits.FRAME_MAX_FROM_SERVER:
            refusal = _too_long(max(limits.FRAME_MAX_FROM_SERVER, self.message_max))
            encoded = encode(refusal)
        if pieces is not None and self.messages_behind < limits.MESSAGES_QUEUED_MAX:
            self._stream(PartWriter(pieces, number), now)
            return None
        if pieces is not None:
            text = f"{limits.MESSAGES_QUEUED_MAX} long answers wait for this peer to read them; ask again when it has"
            encoded = encode(Refusal("busy", text, retry_after_seconds=1.0))
        # Two items, so that the body of a reply to many peers is in memory once.
        self._queue(header(len(encoded), number))
        self._queue(encoded)
        return refusal

    def push(self, encoded: bytes, revision: int, now: float) -> None:
        """Queue the notice of a change that was committed at `now`: a frame that is encoded once for all sessions."""
        if self.state != "ended":
            (self._queue_push if self.has_behind else self._queue)(encoded, revision - 1)
            self.note_written(revision, now)

    def replay(self, encoded: bytes, revision: int, complete_to: int, now: float) -> None:
        """Queue a notice of an earlier change, or a resync, for a host that is complete up to `complete_to`."""
        if self.state != "ended":
            (self._queue_push if self.has_behind else self._queue)(encoded, complete_to)
            self.note_written(revision, now, timed=False)

    def resync(self, pieces: Iterator[bytes], revision: int, complete_to: int, now: float) -> None:
        """Queue a resync that is encoded while the host reads it; the host is complete up to `complete_to`."""
        if self.state != "ended":
            self._stream(PartWriter(pieces, 0, complete_to), now)
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
            (self._queue_push if self.has_behind else self._queue)(encoded, revision)

    def drop_pushes(self) -> int | None:
        """Drop queued notices of which nothing is written yet. Returns the revision up to which the host is complete,
        or None if nothing was dropped."""
        begun = [self._out.popleft()] if self._written else []
        dropped = [queued for queued in self._out if queued.complete_to >= 0]
        self._out = deque([*begun, *(queued for queued in self._out if queued.complete_to < 0)])
        self.octets_to_send -= sum(len(queued.octets) for queued in dropped)
        behind = [item for item in self._behind if item.complete_to >= 0]
        self._behind = deque(item for item in self._behind if item.complete_to < 0)
        self.octets_behind = sum(len(item.octets) for item in self._behind)
        self.messages_behind = sum(isinstance(item, PartWriter) for item in self._behind)
        if not dropped and not behind:
            return None
        complete_to = min(item.complete_to for item in (*dropped, *behind))
        while self._awaited and self._awaited[-1].first > complete_to:
            self._awaited.pop()
        if self._awaited:
            self._awaited[-1].last = min(self._awaited[-1].last, complete_to)
        return complete_to

    # Messages in parts.

    def _stream(self, writer: PartWriter, now: float) -> None:
        """Send a message in parts after what is queued. Later replies overtake its parts, later pushes do not."""
        self._behind.append(writer)
        self.messages_behind += 1
        self.has_behind = True
        self._refill(now)

    def _queue_push(self, encoded: bytes, complete_to: int) -> None:
        """Queue what must not overtake a message in parts."""
        self._behind.append(Queued(encoded, complete_to))
        self.octets_behind += len(encoded)

    def _refill(self, now: float = 0.0) -> None:
        """Make the next part once nothing else is queued; queue what waits behind a message when all of it is made."""
        if self._out or self.state == "ended":
            return
        if self._writer is None and self._behind and isinstance(self._behind[0], PartWriter):
            self._writer = cast(PartWriter, self._behind.popleft())
            self.messages_behind -= 1
            self._write_until = max(now, self._consumed_at) + limits.MESSAGE_SECONDS
            self._consumed_at = max(now, self._consumed_at)
        if self._writer is not None:
            self._write_part(self._writer)
        while self._writer is None and self._behind and not isinstance(self._behind[0], PartWriter):
            queued = self._behind.popleft()
            self._queue(queued.octets, queued.complete_to)
            self.octets_behind -= len(queued.octets)
        self.has_behind = self._writer is not None or bool(self._behind)

    def _write_part(self, writer: PartWriter) -> None:
        encoded = writer.next_frame()
        if writer.written <= self.message_max:
            self._queue(encoded)
        elif writer.number:
            self._send(_too_long(self.message_max), writer.number)
        else:
            self.goodbye(_too_long(self.message_max).message)
        if writer.done or writer.written > self.message_max:
            self._writer = None
            self._applies += writer.written / limits.APPLY_OCTETS_PER_SECOND_MIN

    def peer_consumed(self, now: float) -> None:
        """Record that the peer has read octets: it is slow but not dead."""
        self._consumed_at = now

    def inquire(self, inquiry: Inquiry) -> None:
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
            self._send(Goodbye(reason, retry_after_seconds, instead[: limits.INSTEAD_MAX]))
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
        if self._writer is not None:
            return min(self._consumed_at + limits.ACKNOWLEDGE_SECONDS, self._write_until)
        # Open requests do not delay this: a host that always has one must not let its notices accumulate.
        if self._awaited:
            return max(self._awaited[0].at, self._consumed_at) + limits.ACKNOWLEDGE_SECONDS + self._applies
        return None if self.watching or self._asked else self._active_at + limits.IDLE_SECONDS

    def _time_out(self) -> SessionEnded:
        if self.state == "greeting":
            reason = f"no hello within {limits.GREETING_SECONDS:g} s"
        elif self._writer is not None:
            reason = f"no part read within {limits.ACKNOWLEDGE_SECONDS:g} s, or not all within the time for a message"
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
                return self._acknowledged(message, now)
            case request:
                return self._asked_for(number, request, now)

    def _greeted(self, hello: Hello) -> Event:
        common = set(hello.versions[: limits.VERSIONS_OFFERED_MAX]) & set(limits.VERSIONS)
        if self.state == "greeting" and not common:
            spoken = ", ".join(map(str, limits.VERSIONS))
            return self._violated(Refusal("unsupported-version", f"this server speaks OpenGNSP {spoken}"))
        if not self._transition("hello"):
            return self._violated(Refusal("out-of-turn", "a second hello"))
        software = escape_line(hello.software[: limits.SOFTWARE_MAX], limits.SOFTWARE_MAX)
        self.message_max = max(0, min(hello.parts, limits.MESSAGE_MAX))
        return SessionOpened(Hello((max(common),), software, self.message_max))

    def _acknowledged(self, message: Acknowledge, now: float) -> Event:
        waited = None
        if self._timed is not None and self._timed[0] <= message.revision:
            waited = now - self._timed[1]
            self._timed = None
        awaited = self._awaited
        while awaited and awaited[0].last <= message.revision:
            awaited.popleft()
        if awaited and awaited[0].first <= message.revision:
            awaited[0].first = message.revision + 1
        if not awaited:
            self._applies = 0.0
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


def _joined(pieces: Iterator[bytes]) -> bytes:
    """Return an encoded message for a peer that accepts no parts; only its beginning if it is longer than a frame."""
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > limits.FRAME_MAX_FROM_SERVER:
            break
    return bytes(body)


def _too_long(most: int) -> Refusal:
    """Return the refusal of a request whose reply the peer cannot receive."""
    text = f"the answer has more than {most} octets, the most that this client accepts: ask for less, or update it"
    return Refusal("too-large", text)
