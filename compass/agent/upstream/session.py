"""Shell of one session: bytes between a transport and the sans-IO `ClientConnection`, and one timer."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol as Interface
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from compass.agent.upstream.server_selector import ServerAddress
from compass.model.interfaces import Clock, Stream
from compass.model.replies import Refusal, Reply
from compass.model.requests import Request
from compass.system.timers import Timers
from compass.wire import limits
from compass.wire.client_connection import ClientConnection, RequestTooLong
from compass.wire.events import Event, PushReceived, ReplyReceived, SessionEnded, SessionOpened
from compass.wire.messages import Bookmark, Held, Inquiry, Notice, Recorded, Resync, Suspicion, Welcome

QUEUED_MAX = 4096
"""Requests that wait because `REQUESTS_IN_FLIGHT_MAX` are under way; more are refused as busy."""
CLOSE_SECONDS = 2.0
"""Seconds from our goodbye to the end of the transport; then it is aborted."""


class Owner(Interface):
    """Owner of a session, which gets its events."""

    def connected(self, session: Session) -> bool:
        """Return whether the connection is wanted."""

    def opened(self, session: Session, welcome: Welcome) -> None:
        """Handle the welcome."""

    def pushed(
        self, session: Session, messages: Sequence[Notice | Bookmark | Inquiry | Resync | Suspicion | Recorded]
    ) -> None:
        """Handle what arrived together, in order."""

    def ended(self, session: Session, end: SessionEnded) -> None:
        """Handle the end of the connection."""


class Session(Protocol):
    """Session: one connection to a server. `server`: the address that was dialled; None if the server dialled."""

    def __init__(self, clock: Clock, owner: Owner, software: str, server: ServerAddress | None) -> None:
        self._clock = clock
        self._owner = owner
        self._software = software
        self.server = server
        self.leaving = False
        """This host closes the session, not the server."""
        self._connection: ClientConnection | None = None
        self._asked: dict[int, Deferred[Reply]] = {}
        self._queue: deque[tuple[Request, Deferred[Reply]]] = deque()
        self._timers = Timers(clock)
        self._expires_at: float | None = None
        """Time of the pending timer `deadline`, in the clock's seconds; None: it is not pending."""
        self._is_closing = False
        """The transport is being closed, or is closed."""
        self._end = SessionEnded("")

    @property
    def unanswered(self) -> int:
        """Number of requests without a reply, those in the queue included."""
        return len(self._asked) + len(self._queue)

    @property
    def local_address(self) -> str:
        """Address of this end of the connection; empty: unknown."""
        where = getattr(self.transport, "getHost", None)
        return str(getattr(where(), "host", "")) if where is not None else ""

    def ask(self, request: Request) -> Deferred[Reply]:
        """Send a request. Returns the reply, or a refusal if the request is too long or too many wait."""
        answer: Deferred[Reply] = Deferred()
        if self.leaving or self._connection is None or self._connection.state != "open":
            answer.callback(lost(self._end.reason))
        elif len(self._asked) < limits.REQUESTS_IN_FLIGHT_MAX:
            self._send(self._connection, request, answer)
            self._flush()
        elif len(self._queue) < QUEUED_MAX:
            self._queue.append((request, answer))
        else:
            answer.callback(Refusal("busy", f"{QUEUED_MAX} requests wait already", retry_after_seconds=1.0))
        return answer

    def acknowledge(self, revision: int, status: Held = "ok") -> None:
        """Acknowledge what the replica holds."""
        if self._connection is not None:
            self._connection.acknowledge(revision, status)
            self._flush()

    def close(
        self, seconds: float = CLOSE_SECONDS, reason: str = "this host left it", retry_after_seconds: float = 0.0
    ) -> None:
        """Close the session; abort the transport if that takes longer than `seconds`."""
        if not self.leaving:
            self._end = SessionEnded(reason, retry_after_seconds=retry_after_seconds)
        self.leaving = True
        if self.transport is not None and not self._is_closing:
            self._is_closing = True
            self._timers.start("abort", seconds, self._abort)
            cast(Stream, self.transport).loseConnection()

    def connectionMade(self) -> None:
        """Greet, unless the owner does not want the connection."""
        if not self._owner.connected(self):
            self.close()
            return
        self._connection = ClientConnection(
            self._clock.seconds(), self._software, request_max=limits.FRAME_MAX_FROM_HOST
        )
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        """Handle bytes from the server."""
        if self._connection is not None and not self.leaving:
            self._happened(self._connection.receive(data, self._clock.seconds()))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Handle the end of the transport, whichever side closed it."""
        self._is_closing = True
        self._timers.cancel_all()
        if not self._end.reason:
            self._end = SessionEnded(f"the connection was lost: {reason.getErrorMessage()}")
        asked = [*self._asked.values(), *(answer for _, answer in self._queue)]
        self._asked.clear()
        self._queue.clear()
        self._connection = None
        for answer in asked:
            answer.callback(lost(self._end.reason))
        self._owner.ended(self, self._end)

    def _happened(self, events: list[Event]) -> None:
        """Work off events; pushes that arrived together are handed on together, so that one acknowledgement does."""
        pushed: list[Notice | Bookmark | Inquiry | Resync | Suspicion | Recorded] = []
        # A push changes neither the deadline nor what is to be sent; an acknowledgement is written at once.
        flush = not events
        for event in events:
            if isinstance(event, PushReceived):
                pushed.append(event.message)
                continue
            flush = True
            if pushed:
                self._owner.pushed(self, tuple(pushed))
                pushed.clear()
            match event:
                case SessionOpened(peer=Welcome() as welcome):
                    self._owner.opened(self, welcome)
                case ReplyReceived():
                    self._asked.pop(event.number).callback(event.reply)
                    if self._queue:
                        self._ask_queued()
                case SessionEnded():
                    self._end = event
                    if self.transport is not None:
                        cast(Stream, self.transport).loseConnection()
                    if not self._is_closing:
                        self._is_closing = True
                        self._timers.start("abort", CLOSE_SECONDS, self._abort)
        if pushed:
            self._owner.pushed(self, tuple(pushed))
        if flush:
            self._flush()

    def _ask_queued(self) -> None:
        connection = self._connection
        if connection is None or connection.state != "open":
            return
        while self._queue and len(self._asked) < limits.REQUESTS_IN_FLIGHT_MAX:
            request, answer = self._queue.popleft()
            self._send(connection, request, answer)

    def _send(self, connection: ClientConnection, request: Request, answer: Deferred[Reply]) -> None:
        try:
            self._asked[connection.ask(request, self._clock.seconds())] = answer
        except RequestTooLong as problem:
            answer.callback(Refusal("too-large", f"{problem}; shorten its metadata"))

    def _flush(self) -> None:
        """Write what there is and keep the one timer at the connection's deadline."""
        if self._connection is None or self.transport is None:
            return
        if self._connection.octets_to_send:
            cast(Stream, self.transport).write(self._connection.bytes_to_send())
        deadline = self._connection.deadline()
        if deadline is not None and (self._expires_at is None or self._expires_at > deadline):
            now = self._clock.seconds()
            self._expires_at = max(deadline, now)
            self._timers.start("deadline", self._expires_at - now, self._expired)
        elif deadline is None and self._expires_at is not None:
            self._expires_at = None
            self._timers.cancel("deadline")

    def _expired(self) -> None:
        self._expires_at = None
        if self._connection is not None:
            self._happened(self._connection.expire(self._clock.seconds()))

    def _abort(self) -> None:
        if self.transport is not None:
            cast(Stream, self.transport).abortConnection()


def lost(reason: str) -> Refusal:
    """The answer to a request whose own answer can no longer come."""
    text = f"the session with the server ended before the answer came ({reason}); whether it was carried out is unknown"
    return Refusal("unreachable", text, retry_after_seconds=1.0)
