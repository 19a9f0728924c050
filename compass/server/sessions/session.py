"""Sessions: one Twisted protocol around the wire's `ServerConnection`, whichever side connected.

A session reads from the certificate who its peer is, hands each request to the server, and writes replies and notices.
How it writes is flow control, in the class below it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from compass.model.interfaces import Clock, Stream
from compass.model.replies import Refusal
from compass.model.requests import Request, Watch
from compass.model.rules.draft import Principal
from compass.server.sessions.flow_control import FlowControl
from compass.server.sessions.write_turns import WriteTurns
from compass.wire import limits
from compass.wire.events import AcknowledgementReceived, Event, RequestReceived, SessionEnded, SessionOpened
from compass.wire.messages import Answer, Hello
from compass.wire.server_connection import ServerConnection

PeerOf = Callable[[Stream], tuple[str, str, str]]
"""Role and name in the peer's verified certificate, or in third place why they cannot be known."""
AddressesOf = Callable[[Stream], tuple[str, ...]]
"""IP addresses in the peer's verified certificate."""
REFUSED_SECONDS = 5.0
"""Seconds after which a peer with too many sessions may try again: it has to find out which program has them."""
NOT_OF_THE_HOST = frozenset({"busy", "not-ready", "store-unavailable", "unreachable", "forbidden"})
"""Codes of refused watches that pass by themselves, or that an administrator wanted: a host that is barred."""
FRAME_MAX = {"host": limits.FRAME_MAX_FROM_HOST, "admin": limits.FRAME_MAX_FROM_ADMIN}


class Greeting(NamedTuple):
    """Figures of the server for a peer that it accepts."""

    server: str
    store: str
    revision: int
    software: str
    renews: str = ""
    """Fingerprint of the authority whose certificates hosts can renew here; empty: none."""


class Redirect(NamedTuple):
    """Reason why a peer is not accepted, when it may come again, and servers to go to meanwhile."""

    reason: str
    retry_after_seconds: float
    instead: tuple[str, ...] = ()


class SessionHandler(Protocol):
    """The server behind its sessions."""

    def hello(self, session: Session) -> Greeting | Redirect:
        """Accept or redirect a peer that has said hello."""

    def request(self, request: Request, asker: Principal, session: Session | None) -> Answer | Deferred[Answer]:
        """Return the answer to a request: at once, or when there is one."""

    def acknowledged(self, session: Session, event: AcknowledgementReceived) -> None:
        """Note that the session's host holds a revision."""

    def refused(self, host: str, why: str) -> None:
        """Note that a host was refused for a reason that does not pass by itself."""

    def closed(self, session: Session) -> None:
        """Forget a session whose connection is closed."""


class SessionLimits(Protocol):
    """Limits of connections and sessions (P10)."""

    def opened(self, session: Session) -> None:
        """Count a new connection."""

    def authenticated(self, session: Session) -> str:
        """Count the session of a peer whose name is proven. Returns why the session is refused, or an empty string."""

    def closed(self, session: Session) -> None:
        """Uncount a session."""

    def count_failure(self, origin: str) -> bool:
        """Count a connection from `origin` that failed by its peer's fault. Returns whether to log it."""

    def log_refusal(self, name: str, origin: str, why: str) -> None:
        """Write to the security log that a peer was refused."""


class SessionContext(msgspec.Struct, eq=False):
    """Collaborators that all sessions of a server share."""

    clock: Clock
    peer_of: PeerOf
    limits: SessionLimits
    handler: SessionHandler
    """The server's handler; replaced when the catalogue is loaded."""
    turns: WriteTurns
    addresses_of: AddressesOf = lambda stream: ()
    refusals: Counter[str] = msgspec.field(default_factory=Counter)
    """Requests that were refused, by code."""


class Session(FlowControl):
    """The server end of one connection."""

    def __init__(self, context: SessionContext, dialled: str = "") -> None:
        """`dialled`: the host that this server connected to; empty: the peer connected."""
        super().__init__(context.clock, context.turns)
        self.dialled = dialled
        self.left = False
        """The connection was closed properly, by either side, not lost."""
        self.probes = False
        """The host answers inquiries."""
        self.software = ""
        """Software of the peer, as it says."""
        self.instance = ""
        """Run of the daemon, as its last watch said; empty: unknown."""
        self.suspicions = False
        """The host accepts suspicions."""
        self.takes_recorded = False
        """The host compares what it holds with what is recorded for it."""
        self.compares = False
        """The host compares digests."""
        self.has_registered = False
        """The peer has asked to register a listener on this session."""
        self.is_accepted = False
        """The host has acknowledged something on this session."""
        self._watch_number = 0
        """Request number of the last watch."""
        self._context = context

    # The transport's side.

    def connectionMade(self) -> None:
        super().connectionMade()
        # The peer is known when its first bytes arrive; until then only the greeting's time runs.
        self._timer = self._clock.callLater(limits.GREETING_SECONDS, self._time_passed)
        self._context.limits.opened(self)

    def dataReceived(self, data: bytes) -> None:
        connection = self._connection or self._admit()
        if connection is None:
            return
        self._receiving = True
        for event in connection.receive(data, self._clock.seconds()):
            self._handle(connection, event)
        self._receiving = False
        self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # Twisted sets this attribute and never clears it.
        self.connected = 0
        self.left = bool(reason.check(ConnectionDone))
        self._stop_timer()
        if self._connection is not None:
            self._connection.goodbye("lost")
        elif not reason.check(ConnectionDone, ConnectionLost, ConnectionAborted):
            where = f"host {self.dialled!r}" if self.dialled else "a peer"
            origin = origin_of(self._stream.getPeer())
            if self._context.limits.count_failure(origin):
                why = _describe(reason)
                self.log.warn("no session with {where} at {origin}: {why}", where=where, origin=origin, why=why)
        self._context.limits.closed(self)
        self._context.handler.closed(self)

    @property
    def certificate_end(self) -> float | None:
        """UNIX time at which the peer's certificate ends, or one above it; None: it is unknown."""
        end: float | None = getattr(self.transport, "peer_certificate_end", None)
        return end

    def certificate_expired(self, why: str) -> None:
        """End the session with its peer's certificate."""
        self.goodbye(why)

    # The peer.

    def certified_addresses(self) -> tuple[str, ...]:
        """Return the IP addresses in the peer's certificate."""
        return self._context.addresses_of(self._stream)

    def _admit(self) -> ServerConnection | None:
        """Read who the peer is; end the session if the certificate has no role that may ask here."""
        role, name, wrong = self._context.peer_of(self._stream)
        origin = origin_of(self._stream.getPeer())
        if not wrong and role not in FRAME_MAX:
            wrong = f"the certificate of {name!r} has the role {role}; host or admin is needed here"
        elif self.dialled and (role, name) != ("host", self.dialled):
            wrong = f"dialled host {self.dialled!r}, reached {role} {name!r}"
        self._connection = ServerConnection(self._clock.seconds(), FRAME_MAX.get(role, limits.FRAME_MAX_FROM_HOST))
        if wrong:
            self._refuse_peer(name, origin, wrong)
            return None
        self.asker = Principal("admin" if role == "admin" else "host", name, origin)
        refused = self._context.limits.authenticated(self)
        if refused:
            self._note_refused(refused)
            self.goodbye(refused, retry_after_seconds=REFUSED_SECONDS)
            return None
        return self._connection

    def _refuse_peer(self, name: str, origin: str, why: str) -> None:
        if self._context.limits.count_failure(origin):
            self.log.warn("session refused: {why} ({origin})", why=why, origin=origin)
        self._context.limits.log_refusal(name, origin, why)
        if name:
            self._context.handler.refused(name, why)
        self.goodbye(why)

    def _note_refused(self, why: str) -> None:
        if self.asker.role == "host" and self.asker.name:
            self._context.handler.refused(self.asker.name, why)

    # Events of the connection.

    def _handle(self, connection: ServerConnection, event: Event) -> None:
        match event:
            case RequestReceived(number, _) if connection.octets_to_send and self._is_overfull(connection):
                text = f"{limits.REPLIES_QUEUED_MAX} octets wait for this peer to read them; ask again when it has"
                self._reply(Refusal("busy", text, retry_after_seconds=1.0), number)
            case RequestReceived(number, request):
                if isinstance(request, Watch):
                    self._watch_number = number
                answer = self._context.handler.request(request, self.asker, self)
                if isinstance(answer, Deferred):
                    answer.addCallback(self._reply, number).addErrback(self._request_failed, number)
                else:
                    self._reply(answer, number)
            case AcknowledgementReceived():
                self._context.handler.acknowledged(self, event)
            case SessionOpened(Hello() as hello):
                self._greet(connection, hello)
            case SessionEnded(reason=reason, violation=violation):
                if violation:
                    self._note_refused(reason)
                warns = violation and self._context.limits.count_failure(self.asker.origin)
                log = self.log.warn if warns else self.log.debug
                log(
                    "session of {asker} from {origin} ended: {reason}",
                    asker=self.asker,
                    origin=self.asker.origin,
                    reason=reason,
                )
                self._close(connection)

    def _greet(self, connection: ServerConnection, hello: Hello) -> None:
        self.software = sys.intern(hello.software)
        match self._context.handler.hello(self):
            case Greeting(server, store, revision, software, renews):
                connection.welcome(server, store, revision, software, hello.versions[0], renews)
            case Redirect() as redirect:
                self.goodbye(*redirect)

    def _reply(self, reply: Answer, number: int) -> None:
        refusal = reply if isinstance(reply, Refusal) else None
        if self._connection is not None:
            refusal = self._connection.reply(number, reply, self._clock.seconds()) or refusal
        if refusal is not None:
            self._context.refusals[refusal.code] += 1
            if number == self._watch_number and refusal.code not in NOT_OF_THE_HOST:
                self._note_refused(refusal.message)
        if self._connection is not None:
            if self._replay or self._bookmark is not None:
                self._send_replay(self._connection)
            self._flush()

    def _request_failed(self, failure: Failure, number: int) -> None:
        self.log.failure("a request failed", failure)
        self._reply(Refusal("store-unavailable", "the server failed; its log says how"), number)

    def _time_passed(self) -> None:
        connection = self._connection
        if connection is None:
            self._abort("no hello in time")
        else:
            if self._awaits_turn:
                connection.peer_consumed(self._clock.seconds())
            for event in connection.expire(self._clock.seconds()):
                self._handle(connection, event)
            self._set_timer(connection)


def _describe(failure: Failure) -> str:
    """Return what failed as text; OpenSSL's errors are lists of triples, whose last part is the text."""
    match getattr(failure.value, "args", ()):
        case (list() as parts,):
            return "; ".join(str(part[-1]) for part in parts)
    return failure.getErrorMessage()


def origin_of(address: object) -> str:
    """Return the address that a connection came from, for the logs."""
    return str(getattr(address, "host", "") or getattr(address, "name", "") or address)
