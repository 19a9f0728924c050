"""Sessions: one Twisted protocol around the wire's `ServerConnection`, whoever dialled.

A session reads who its peer is from the certificate, hands each request on, and writes replies and notices. A host
that reads too slowly is taken off the stream: what is queued for it is released, nothing more is queued, and when it
reads again it is told at once all it has missed. One that does not read at all is let go, and resumes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from compass.model.interfaces import Clock, Stream, Timer
from compass.model.replies import Refusal, Reply, SecurityEntry
from compass.model.requests import Request
from compass.model.rules.draft import Principal
from compass.wire import limits
from compass.wire.events import AcknowledgementReceived, Event, RequestReceived, SessionEnded, SessionOpened
from compass.wire.messages import Acknowledge, Hello, Inquiry
from compass.wire.server_connection import ServerConnection

Answer: TypeAlias = Reply | bytes
"""A reply, or its body as encoded."""


class SessionHandler(Protocol):
    """What a session needs of the server behind it."""

    name: str
    software: str

    def ready(self) -> tuple[str, int] | None:
        """The store's id and revision, or None while the catalogue is not complete (P5)."""

    def elsewhere(self, session: Session) -> tuple[str, float, tuple[str, ...]] | None:
        """Why this peer is not wanted here, when it may come again, and where to go; None: it is welcome."""

    def ask(self, session: Session, request: Request) -> Answer | Deferred[Answer]:
        """The answer to a request of that session: at once, or when it is there."""

    def acknowledged(self, session: Session, acknowledge: Acknowledge) -> None:
        """The session's host holds a revision."""

    def note(self, entry: SecurityEntry) -> None:
        """Write to the security log."""

    def failed(self, origin: str) -> bool:
        """A connection from there came to nothing by its own fault; whether that is still worth a line in the log."""

    def missed(self, session: Session, since: int) -> list[CatchUp] | None:
        """All that a session which fell behind was not told after `since`, or None when it cannot be told."""

    def refused(self, refusal: Refusal) -> None:
        """A request was answered with that."""

    def opened(self, session: Session) -> None:
        """The connection is there."""

    def known(self, session: Session) -> str:
        """The peer has proven who it is; why it may not have this session, or nothing."""

    def closed(self, session: Session) -> None:
        """The connection is gone."""


class CatchUp(NamedTuple):
    """A notice or a resync as encoded; the revision that the host holds with it, and everything it had before."""

    revision: int
    encoded: bytes
    told_before: int


PeerOf = Callable[[Stream], tuple[str, str, str]]
"""Role and name in the peer's verified certificate, or in third place why they cannot be known."""
REFUSED_SECONDS = 5.0
"""After which a peer with too many sessions may try again: it has to find out which of its programs has them."""
CLOSE_SECONDS = 2.0
"""From our goodbye to the end of the transport; then it is cut. A host that is lost is missed only from then on."""
FRAME_MAX = {"host": limits.FRAME_MAX_FROM_HOST, "admin": limits.FRAME_MAX_FROM_ADMIN}


@implementer(IPushProducer)
class Session(TwistedProtocol):
    """The server end of one connection."""

    log = Logger()

    def __init__(
        self, desk: SessionHandler, clock: Clock, now: Callable[[], float], peer_of: PeerOf, dialled: str = ""
    ) -> None:
        """`clock` runs the timers, `now` is UNIX time; `dialled`: the host that we connected to."""
        self.dialled = dialled
        self.host = ""
        self.left = False
        """The peer closed it properly, or we did; it was not lost."""
        self.probes = False
        """Its host answers inquiries."""
        self.suspicions = False
        """Its host takes suspicions."""
        self.asker = Principal("host", "", "")
        self.takes_resync = False
        self.compares = False
        """Its host compares digests."""
        self._desk = desk
        self._clock = clock
        self._now = now
        self._peer_of = peer_of
        self._connection: ServerConnection | None = None
        self._timer: Timer | None = None
        self._paused = False
        self._receiving = False
        self._missed: list[tuple[int, bytes]] = []
        self._bookmark: tuple[bytes, int] | None = None
        self._told: int | None = None
        """Of a host that fell behind: up to where it was told everything. None: it is in step."""

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
            origin = origin_of(self._stream().getPeer())
            if self._desk.failed(origin):
                why = _words(reason)
                self.log.warn("no session with {where} at {origin}: {why}", where=where, origin=origin, why=why)
        self._desk.closed(self)

    def pauseProducing(self) -> None:
        """The transport has enough; hold what comes."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport has written what it had."""
        self._paused = False
        if self._connection is not None:
            self._connection.peer_consumed(self._clock.seconds())
        self._flush()

    def stopProducing(self) -> None:
        """The transport is gone."""
        self._paused = True

    # The server's side.

    @property
    def waiting(self) -> bool:
        """Whether something was not told, not acknowledged or not answered yet."""
        connection = self._connection
        if connection is None:
            return False
        return self._told is not None or bool(connection.unacknowledged or connection.in_flight)

    @property
    def behind(self) -> bool:
        """Whether it reads so slowly that it was taken off the stream."""
        return self._told is not None

    @property
    def queued_octets(self) -> int:
        """What waits for the transport to take it."""
        return self._connection.octets_to_send if self._connection is not None else 0

    def watch(
        self, missed: list[tuple[int, bytes]], takes_resync: bool, bookmark: tuple[bytes, int] | None = None
    ) -> None:
        """The session is a host's subscription from now on; `missed` and `bookmark` follow the reply to its watch."""
        self._missed = missed
        self._bookmark = bookmark
        self._told = None
        self.takes_resync = takes_resync
        self.host = self.asker.name
        if self._connection is not None:
            self._connection.watching = True

    def deliver(self, encoded: bytes, revision: int) -> None:
        """Write a notice that was encoded for all."""
        connection = self._connection
        if connection is None or connection.state != "open" or self._told is not None:
            return
        if not (self._paused or self._receiving or connection.octets_to_send):
            # The usual case, thousands of times for one change: nothing is queued, nothing joined.
            connection.note_written(revision, self._clock.seconds())
            self._stream().write(encoded)
            if self._timer is None or not self._timer.active():
                self._set_timer(connection)
        elif connection.octets_to_send + len(encoded) > limits.SEND_QUEUE_MAX and self._paused:
            dropped = connection.drop_pushes()
            self._told = revision - 1 if dropped is None else dropped
            self._limit(connection)
        else:
            connection.push(encoded, revision, self._clock.seconds())
            self._flush()

    def deliver_bookmark(self, encoded: bytes, revision: int) -> None:
        """Write a bookmark that was encoded for all."""
        if self._connection is not None and self._told is None:
            self._connection.bookmark(encoded, revision)
            self._flush()

    def inquire(self, inquiry: Inquiry) -> None:
        """Ask this session's host to probe a listener."""
        if self._connection is not None:
            self._connection.inquire(inquiry)
            self._flush()

    def send_unacknowledged(self, encoded: bytes) -> None:
        """Write a suspicion that was encoded for all; one who reads too slowly is told the next time."""
        connection = self._connection
        if connection is not None and connection.state == "open" and self._told is None:
            connection.send_unacknowledged(encoded)
            self._flush()

    def goodbye(self, reason: str, retry_after_seconds: float = 0.0, instead: tuple[str, ...] = ()) -> None:
        """End the session from our side; `instead`: servers where its host should go."""
        if self._connection is None:
            self._abort(reason)
            return
        self._connection.goodbye(reason, retry_after_seconds, instead)
        self._close(self._connection)

    def _admit(self) -> ServerConnection | None:
        """Learn who the peer is; a certificate without a role that may ask here ends the session."""
        transport = self._stream()
        role, name, wrong = self._peer_of(transport)
        origin = origin_of(transport.getPeer())
        if not wrong and role not in FRAME_MAX:
            wrong = f"the certificate of {name!r} has the role {role}; host or admin is needed here"
        elif self.dialled and (role, name) != ("host", self.dialled):
            wrong = f"dialled host {self.dialled!r}, reached {role} {name!r}"
        self._connection = ServerConnection(self._clock.seconds(), FRAME_MAX.get(role, limits.FRAME_MAX_FROM_HOST))
        if wrong:
            self._refuse_peer(name, origin, wrong)
            return None
        self.asker = Principal("admin" if role == "admin" else "host", name, origin)
        refused = self._desk.known(self)
        if refused:
            self.goodbye(refused, retry_after_seconds=REFUSED_SECONDS)
            return None
        return self._connection

    def _refuse_peer(self, name: str, origin: str, why: str) -> None:
        if self._desk.failed(origin):
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
            case RequestReceived(number, _) if self._overfull(connection):
                text = f"{limits.REPLIES_QUEUED_MAX} octets wait for this peer to read them; ask again when it has"
                self._reply(Refusal("busy", text, retry_after_seconds=1.0), number)
            case RequestReceived(number, request):
                answer = self._desk.ask(self, request)
                if isinstance(answer, Deferred):
                    answer.addCallback(self._reply, number).addErrback(self._failed, number)
                else:
                    self._reply(answer, number)
            case AcknowledgementReceived(acknowledge):
                self._desk.acknowledged(self, acknowledge)
            case SessionOpened(Hello() as hello):
                self._opened(connection, hello)
            case SessionEnded(reason=reason, violation=violation):
                log = self.log.warn if violation and self._desk.failed(self.asker.origin) else self.log.debug
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
        elif elsewhere := self._desk.elsewhere(self):
            self.goodbye(*elsewhere)
        else:
            store, revision = ready
            connection.welcome(self._desk.name, store, revision, self._desk.software, hello.versions[0])

    def _overfull(self, connection: ServerConnection) -> bool:
        """Whether answers wait that the peer asked for faster than it reads them."""
        if connection.octets_to_send > limits.REPLIES_QUEUED_MAX:
            self._write_out(connection)
        return connection.octets_to_send > limits.REPLIES_QUEUED_MAX

    def _reply(self, reply: Answer, number: int) -> None:
        if isinstance(reply, Refusal):
            self._desk.refused(reply)
        if self._connection is not None:
            now = self._clock.seconds()
            self._connection.reply(number, reply, now)
            missed, self._missed = self._missed, []
            for revision, encoded in missed:
                self._connection.push(encoded, revision, now)
            bookmark, self._bookmark = self._bookmark, None
            if bookmark is not None:
                self._connection.bookmark(*bookmark)
            self._flush()

    def _failed(self, failure: Failure, number: int) -> None:
        self.log.failure("a request failed", failure)
        self._reply(Refusal("store-unavailable", "the server failed; its log says how"), number)

    def _flush(self) -> None:
        """Write what there is, unless the transport has enough already; keep the timer at the deadline."""
        connection = self._connection
        if connection is None or self._receiving:
            return
        self._write_out(connection)
        if self._told is not None and not self._paused and connection.state == "open":
            self._catch_up(connection, self._told)
        if self._paused:
            self._limit(connection)
        self._set_timer(connection)

    def _write_out(self, connection: ServerConnection) -> None:
        """As much as the transport takes without being asked to hold it for long."""
        while not self._paused:
            data = connection.bytes_to_send(limits.WRITE_OCTETS)
            if not data:
                return
            self._stream().write(data)

    def _catch_up(self, connection: ServerConnection, told: int) -> None:
        """It reads again: tell it what it has missed in one go."""
        self._told = None
        missed = self._desk.missed(self, told)
        if missed is None:
            self.goodbye("it read too slowly; it resumes on a new session")
            return
        for one in missed:
            connection.push(one.encoded, one.revision, self._clock.seconds(), one.told_before)
        self._write_out(connection)

    def _limit(self, connection: ServerConnection) -> None:
        if connection.octets_to_send > limits.SEND_BUFFER_MAX:
            self._abort("it reads too slowly")

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
        if not self._paused:
            # The rest, for the transport to write before it closes; a peer that does not read gets no goodbye.
            self._stream().write(connection.bytes_to_send())
        # A stream waits for its producer before it closes, and there is nothing more to come from us.
        self._stream().unregisterProducer()
        self._stream().loseConnection()
        # A peer that does not read would keep the transport open for ever.
        self._timer = self._clock.callLater(CLOSE_SECONDS, self._abort, "it does not read")

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


def origin_of(address: object) -> str:
    """The address a connection came from, for the logs."""
    return str(getattr(address, "host", "") or getattr(address, "name", "") or address)
