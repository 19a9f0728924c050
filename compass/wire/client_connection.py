"""Client end of a session: sends requests and acknowledges notices."""

from __future__ import annotations

from compass.model.replies import Refusal
from compass.model.requests import Request
from compass.wire import limits
from compass.wire.connection import Connection
from compass.wire.events import Event, PushReceived, ReplyReceived, SessionEnded, SessionOpened
from compass.wire.frames import header
from compass.wire.messages import (
    Acknowledge,
    Bookmark,
    Goodbye,
    Held,
    Hello,
    Inquiry,
    InvalidMessage,
    Notice,
    Part,
    Recorded,
    Resync,
    Suspicion,
    Welcome,
    decode_from_server,
    encode,
)
from compass.wire.parts import PartReader, PartsTooLong


class RequestTooLong(Exception):
    """Request that the server would not accept."""

    def __init__(self, octets: int, limit: int) -> None:
        super().__init__(f"the request has {octets} octets, the server accepts {limit}")


class ClientConnection(Connection):
    """Client end of a session; it sends the hello at once."""

    end = "client"

    def __init__(
        self,
        now: float,
        software: str,
        frame_max: int = limits.FRAME_MAX_FROM_SERVER,
        request_max: int = 0xFFFFFFFF,
        message_max: int = limits.MESSAGE_MAX,
    ) -> None:
        """`request_max`: octets of the longest request, even if the server accepts longer ones. `message_max`: octets
        of the longest message that is put together from parts; 0: the server sends none in parts."""
        super().__init__(now, frame_max)
        self._request_max = request_max
        self._last_number = 0
        self._waiting: dict[int, float] = {}
        self._parts = PartReader(message_max)
        self._send(Hello(limits.VERSIONS, software, message_max))

    def ask(self, request: Request, now: float) -> int:
        """Queue a request after `SessionOpened`. Returns its number, which `ReplyReceived` repeats.

        Raises RequestTooLong, and then nothing is queued.
        """
        if self.state != "open":
            raise RuntimeError(f"asked in state {self.state}")
        body = encode(request)
        if len(body) > self._request_max:
            raise RequestTooLong(len(body), self._request_max)
        self._last_number = number = self._last_number % 0xFFFFFFFF + 1
        self._waiting[number] = now
        self._queue(header(len(body), number) + body)
        return number

    def acknowledge(self, revision: int, status: Held = "ok") -> None:
        """Acknowledge that everything up to `revision` is held, or report a problem."""
        if self.state == "open":
            self._send(Acknowledge(revision, status))

    def deadline(self) -> float | None:
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

    def _received(self, number: int, body: bytes | bytearray, now: float, *, whole: bool = True) -> Event | None:
        """Read the body of a frame (`whole`), or one that was put together from parts."""
        unfinished = self._parts.unfinished
        try:
            message = decode_from_server(body)
        except InvalidMessage as unreadable:
            if self._is_skipped(number, unreadable) and number not in unfinished:
                return None
            if self.state == "greeting" or number not in self._waiting:
                return self._violated(unreadable.refusal)
            message = unreadable.refusal
        if unfinished and number in unfinished and not isinstance(message, Part):
            if number == 0 and not isinstance(message, Goodbye | Refusal):
                return self._out_of_turn("a message between the parts of another one")
            self._parts.drop(number)
        match message:
            case Welcome() if message.version not in limits.VERSIONS:
                return self._out_of_turn(f"version {message.version}, which was not offered,")
            case Welcome():
                self._request_max = min(message.frame_max or self._request_max, self._request_max)
                return SessionOpened(message) if self._transition("welcome") else self._out_of_turn("welcome")
            case Notice() | Bookmark() | Resync() | Inquiry() | Suspicion() | Recorded():
                return PushReceived(message) if self._transition("push") else self._out_of_turn("notice")
            case Part():
                return self._part(number, message, now) if whole else self._out_of_turn("a part within parts")
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

    def _part(self, number: int, part: Part, now: float) -> Event | None:
        """Keep the octets of a message; read it when it is complete."""
        if not self._transition("reply" if number else "push") or (number and number not in self._waiting):
            return self._out_of_turn(f"a part with number {number}")
        if number:
            # The reply arrives: its time starts again, and stays the latest one of all.
            del self._waiting[number]
            self._waiting[number] = now
        try:
            body = self._parts.add(number, part)
        except PartsTooLong as error:
            return self._violated(Refusal("too-large", str(error)))
        return None if body is None else self._received(number, body, now, whole=False)

    def _out_of_turn(self, what: str) -> SessionEnded:
        return self._violated(Refusal("out-of-turn", f"{what} in state {self.state}"))
