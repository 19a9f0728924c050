"""Sessions: one Twisted protocol around the wire's `ServerConnection`, whoever dialled.

A session reads who its peer is from the certificate, hands each request on, and writes replies and notices. A peer
that reads slowly is buffered up to a limit and then let go: it resumes from its revision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from compass.model.draft import Asker
from compass.model.ports import Clock, Stream, Timer
from compass.model.replies import Refusal, Reply, SecurityEntry
from compass.model.requests import Request
from compass.wire import limits
from compass.wire.connection import Acknowledged, Asked, Ended, Event, Opened, ServerConnection
from compass.wire.messages import Acknowledge, Hello, Inquiry


class Desk(Protocol):
    """What a session needs of the server behind it."""

    name: str
    software: str

    def ready(self) -> tuple[str, int] | None:
        """The store's id and revision, or None while the catalogue is not complete (P5)."""

    def ask(self, session: Session, request: Request) -> Deferred[Reply]:
        """The reply to a request of that session."""

    def acknowledged(self, session: Session, acknowledge: Acknowledge) -> None:
        """The session's host holds a revision."""

    def note(self, entry: SecurityEntry) -> None:
        """Write to the security log."""

    def opened(self, session: Session) -> None:
        """The connection is there."""

    def closed(self, session: Session) -> None:
        """The connection is gone."""


PeerOf = Callable[[Stream], tuple[str, str, str]]
"""Role and name in the peer's verified certificate, or in third place why they cannot be known."""
FRAME_MAX = {"host": limits.FRAME_MAX_FROM_HOST, "admin": limits.FRAME_MAX_FROM_ADMIN}


@implementer(IPushProducer)
class Session(TwistedProtocol):
    """The server end of one connection."""

    log = Logger()

    def __init__(self, desk: Desk, clock: Clock, now: Callable[[], float], peer_of: PeerOf, dialled: str = "") -> None:
        """`clock` runs the timers, `now` is UNIX time; `dialled`: the host that we connected to."""
        self.dialled = dialled
        self.host = ""
        self.left = False
        """The peer closed it properly, or we did; it was not lost."""
        self.probes = False
        """Its host answers inquiries."""
        self.asker = Asker("host", "", "")
        self._desk = desk
        self._clock = clock
        self._now = now
        self._peer_of = peer_of
        self._connection: ServerConnection | None = None
        self._timer: Timer | None = None
        self._paused = False
        self._receiving = False
        self._missed: list[tuple[int, bytes]] = []

    # The transport's side.

    def connectionMade(self) -> None:
        self._stream().registerProducer(self, True)
        # The peer is known when its first bytes arrive; until then only the greeting's time runs.
        self._timer = self._clock.callLater(limits.GREETING_SECONDS, self._time_passed)
        self._desk.opened(self)

    def dataReceived(self, data: bytes) -> None:
        connection = self._connection or self._admit()
        if connection is None:
            return
        self._receiving = True
        for event in connection.receive(data, self._clock.seconds()):
            self._met(connection, event)
        self._receiving = False
        self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Twisted only ever sets it.
        self.connected = 0
        self.left = bool(reason.check(ConnectionDone))
        self._stop_timer()
        if self._connection is not None:
            self._connection.goodbye("lost")
        elif not reason.check(ConnectionDone, ConnectionLost, ConnectionAborted):
            where = f"host {self.dialled!r}" if self.dialled else "a peer"
            origin = _origin(self._stream().getPeer())
            self.log.warn("no session with {where} at {origin}: {why}", where=where, origin=origin, why=_words(reason))
        self._desk.closed(self)

    def pauseProducing(self) -> None:
        """The transport has enough; hold what comes."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport has written what it had."""
        self._paused = False
        self._flush()

    def stopProducing(self) -> None:
        """The transport is gone."""
        self._paused = True

    # The server's side.

    @property
    def waiting(self) -> int:
        """Notices not acknowledged and requests not answered."""
        connection = self._connection
        return connection.unacknowledged + connection.in_flight if connection else 0

    def watch(self, missed: list[tuple[int, bytes]]) -> None:
        """The session is a host's subscription from now on; `missed` follows the reply to its watch."""
        self._missed = missed
        self.host = self.asker.name
        if self._connection is not None:
            self._connection.watching = True

    def deliver(self, encoded: bytes, revision: int) -> None:
        """Write a notice that was encoded for all."""
        if self._connection is not None:
            self._connection.push(encoded, revision, self._clock.seconds())
            self._flush()

    def deliver_bookmark(self, encoded: bytes) -> None:
        """Write a bookmark that was encoded for all."""
        if self._connection is not None:
            self._connection.bookmark(encoded)
            self._flush()

    def inquire(self, inquiry: Inquiry) -> None:
        """Ask this session's host to probe a listener."""
        if self._connection is not None:
            self._connection.inquire(inquiry)
            self._flush()

    def goodbye(self, reason: str, retry_after_seconds: float = 0.0) -> None:
        """End the session from our side."""
        if self._connection is None:
            self._abort(reason)
            return
        self._connection.goodbye(reason, retry_after_seconds)
        self._close(self._connection)

    def _admit(self) -> ServerConnection | None:
        """Learn who the peer is; a certificate without a role that may ask here ends the session."""
        transport = self._stream()
        role, name, wrong = self._peer_of(transport)
        origin = _origin(transport.getPeer())
        if not wrong and role not in FRAME_MAX:
            wrong = f"the certificate of {name!r} has the role {role}; host or admin is needed here"
        elif self.dialled and (role, name) != ("host", self.dialled):
            wrong = f"dialled host {self.dialled!r}, reached {role} {name!r}"
        self._connection = ServerConnection(self._clock.seconds(), FRAME_MAX.get(role, limits.FRAME_MAX_FROM_HOST))
        if wrong:
            self._refuse_peer(name, origin, wrong)
            return None
        self.asker = Asker("admin" if role == "admin" else "host", name, origin)
        return self._connection

    def _refuse_peer(self, name: str, origin: str, why: str) -> None:
        self.log.warn("session refused: {why} ({origin})", why=why, origin=origin)
        self._desk.note(
            SecurityEntry(
                number=0,
                time=self._now(),
                operation="connect",
                subject="",
                parameters="{}",
                origin=origin,
                principal=name,
                reason=why,
            )
        )
        self.goodbye(why)

    def _met(self, connection: ServerConnection, event: Event) -> None:
        match event:
            case Asked(number, request):
                self._desk.ask(self, request).addCallback(self._reply, number).addErrback(self._failed, number)
            case Acknowledged(acknowledge):
                self._desk.acknowledged(self, acknowledge)
            case Opened(Hello() as hello):
                self._opened(connection, hello)
            case Ended(reason=reason, violation=violation):
                log = self.log.warn if violation else self.log.debug
                log(
                    "session of {asker} from {origin} ended: {reason}",
                    asker=self.asker,
                    origin=self.asker.origin,
                    reason=reason,
                )
                self._close(connection)

    def _opened(self, connection: ServerConnection, hello: Hello) -> None:
        ready = self._desk.ready()
        if ready is None:
            self.goodbye("this server has not loaded its catalogue yet", retry_after_seconds=1.0)
        else:
            store, revision = ready
            connection.welcome(self._desk.name, store, revision, self._desk.software, hello.versions[0])

    def _reply(self, reply: Reply, number: int) -> None:
        if self._connection is not None:
            now = self._clock.seconds()
            self._connection.reply(number, reply, now)
            missed, self._missed = self._missed, []
            for revision, encoded in missed:
                self._connection.push(encoded, revision, now)
            self._flush()

    def _failed(self, failure: Failure, number: int) -> None:
        self.log.failure("a request failed", failure)
        self._reply(Refusal("store-unavailable", "the server failed; its log says how"), number)

    def _flush(self) -> None:
        """Write what there is, unless the transport has enough already; keep the timer at the deadline."""
        connection = self._connection
        if connection is None or self._receiving:
            return
        if not self._paused:
            self._write_out(connection)
        elif connection.octets_to_send > limits.SEND_BUFFER_MAX:
            self._abort("it reads too slowly")
            return
        self._set_timer(connection)

    def _write_out(self, connection: ServerConnection) -> None:
        data = connection.bytes_to_send()
        if data:
            self._stream().write(data)

    def _set_timer(self, connection: ServerConnection) -> None:
        """One timer, moved only when the deadline comes nearer: most deadlines move away."""
        at = connection.deadline()
        if at is None:
            return
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= at:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._time_passed)

    def _time_passed(self) -> None:
        connection = self._connection
        if connection is None:
            self._abort("no hello in time")
        else:
            for event in connection.expire(self._clock.seconds()):
                self._met(connection, event)
            self._set_timer(connection)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _close(self, connection: ServerConnection) -> None:
        self._stop_timer()
        self._write_out(connection)
        # A stream waits for its producer before it closes, and there is nothing more to come from us.
        self._stream().unregisterProducer()
        self._stream().loseConnection()
        # A peer that does not read would keep the transport open for ever.
        self._timer = self._clock.callLater(limits.GREETING_SECONDS, self._abort, "it does not read")

    def _abort(self, reason: str) -> None:
        self.log.debug("connection of {asker} dropped: {reason}", asker=self.asker, reason=reason)
        self._stream().abortConnection()

    def _stream(self) -> Stream:
        return cast(Stream, self.transport)


def _words(failure: Failure) -> str:
    """What went wrong, for people; OpenSSL's errors are lists of triples, of which the last part is in words."""
    match getattr(failure.value, "args", ()):
        case (list() as parts,):
            return "; ".join(str(part[-1]) for part in parts)
    return failure.getErrorMessage()


def _origin(address: object) -> str:
    """The address a connection came from, for the logs."""
    return str(getattr(address, "host", "") or getattr(address, "name", "") or address)
