"""TCP and TLS transports of both daemons: writes reach the kernel at once, and the kernel detects dead peers.

Twisted buffers writes until the reactor's next turn, so that the pieces of one answer leave together. compass writes
whole frames, and writes one change to thousands of sessions: each session's turn cost as much as the rest of a notice.
`PromptTransport` passes octets to the kernel within the call, unless earlier octets are still waiting.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol, cast

from cryptography import x509
from OpenSSL import SSL
from twisted.internet import tcp
from twisted.internet.interfaces import IHandshakeListener, ITransport
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from compass.daemons.net.descriptors import CarefulPort
from compass.model.interfaces import Timer
from compass.pki.tls_contexts import CertificateEnds, CertificateExpired
from compass.pki.tls_errors import TlsFailed, alert_of, explain_alert, explain_error

KEEPALIVE_IDLE_SECONDS = range(8, 18)
"""Times of silence after which the kernel probes a session. This needs no message of compass; 10,000 silent sessions
cost 800 small packets per second. Each session has one of these times: otherwise a notice to all would be followed by
probes of all at the same moment, most of which a machine's queues, of 1,000 packets by default, would lose."""
KEEPALIVE_INTERVAL_SECONDS = 4
"""Interval between two such probes."""
KEEPALIVE_PROBES = 3
"""Unanswered probes after which a session is lost; so a host that vanishes is detected after 30 s at the latest."""
NOT_SENT_OCTETS_MAX = 128 * 1024
"""Octets that the kernel buffers beyond what the peer's window allows: for a peer that does not read it would be
megabytes, and buffered octets can neither be released nor replaced by newer ones."""


def tune(handle: socket.socket) -> None:
    """Set the options of a session's socket."""
    idle = KEEPALIVE_IDLE_SECONDS[handle.fileno() % len(KEEPALIVE_IDLE_SECONDS)]
    # If TCP_USER_TIMEOUT is set, Linux does not count probes but uses this time alone (RFC 5482): all probes must fit.
    # It is also the time for which the peer's kernel may leave sent octets unacknowledged.
    lost = idle + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL_SECONDS
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SECONDS),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", 18), lost * 1000),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25), NOT_SENT_OCTETS_MAX),
    ):
        handle.setsockopt(level, option, value)


EXPIRY_CHECK_SECONDS = 3600.0
"""Longest time between two looks at the end of a peer's certificate: the clock of the machine may be set meanwhile."""


def origin_of(address: object) -> str:
    """Return the address that a connection came from, for the logs."""
    return str(getattr(address, "host", "") or getattr(address, "name", "") or address)


class Admission(Protocol):
    """Place of a connection in the count of its port."""

    def completed(self) -> None:
        """Note that its handshake is complete."""

    def proven(self) -> None:
        """Count it as that of a known peer."""

    def closed(self, *, complete: bool) -> None:
        """Uncount it; `complete`: its handshake was."""


class PromptTransport(tcp.Server):
    """Transport that writes to the socket within `write`, unless earlier octets still wait; all else is Twisted's.

    Only public methods are overridden or called: `startWriting` requests a turn of the reactor exactly when the buffer
    of the base class is not empty.
    """

    _waits = False

    def write(self, data: bytes) -> None:
        """See ITransport."""
        if self._waits or not self.connected:
            super().write(data)
            return
        sent = self.writeSomeData(data)
        if sent == len(data):
            return
        # An error occurs again, and is handled, in the reactor's turn.
        super().write(data[sent:] if isinstance(sent, int) and sent > 0 else data)

    def startWriting(self) -> None:  # noqa: N802
        """See FileDescriptor."""
        self._waits = True
        super().startWriting()

    def stopWriting(self) -> None:  # noqa: N802
        """See FileDescriptor."""
        self._waits = False
        super().stopWriting()


class PromptPort(CarefulPort):
    """Listening port whose connections are prompt and tuned."""

    transport = PromptTransport


class TlsConnection(TLSMemoryBIOProtocol):
    """TLS without Twisted's aggregation of small writes: a notice must not wait for the next one.

    A connection ends with the certificate of its peer. OpenSSL verifies a certificate once, in a full handshake.
    """

    peer_certificate_end: float | None = None
    """UNIX time at which the first certificate of the peer's chain ends; None: the peer has shown none."""
    peer_refusal = ""
    """Reason for which this end refuses a certificate of the peer."""
    peer_subject = ""
    """Subject of the peer's own certificate that this end refuses, or one above it."""
    _place: Admission | None = None
    _client: Any = None
    """Address of the peer, if a balancer has connected for it."""
    _is_complete = False
    """The handshake is complete."""
    _expiry: Timer | None = None

    def admitted(self, place: Admission, client: Any) -> None:
        """Count the connection at its place; `client` is the peer's address."""
        self._place = place
        self._client = client

    def proven(self) -> None:
        """Count the connection as that of a known peer."""
        if self._place is not None:
            self._place.proven()

    def getPeer(self) -> Any:
        """Return the address of the peer, also behind a balancer that says for whom it connects."""
        return self._client if self._client is not None else cast(Any, super()).getPeer()

    @property
    def peer_certificate(self) -> x509.Certificate | None:
        """Certificate of the peer, once the handshake is complete; None: it has shown none.

        It is read from OpenSSL each time: one that was searched for extensions takes 3 kB, as much as half a session.
        """
        handle = self.getHandle() if self._is_complete else None
        return None if handle is None else cast(Any, handle).get_peer_certificate(as_cryptography=True)

    @property
    def peer_serves(self) -> bool:
        """True if this end has connected, so that the peer is the server of this connection."""
        factory: Any = self.factory
        return bool(factory.is_client)

    def makeConnection(self, transport: ITransport) -> None:
        """Set the options of the socket, and begin."""
        handle: Any = getattr(transport, "getHandle", lambda: None)()
        if handle is not None:
            tune(handle)
        super().makeConnection(transport)

    def dataReceived(self, bytes: bytes) -> None:
        """Decrypt octets. A client knows its peer when the handshake is complete; it resumes no sessions."""
        super().dataReceived(bytes)
        if not self._is_complete and self.peer_serves and self.peer_finished():
            self.handshake_completed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop the timer, and make room."""
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        if self._place is not None:
            self._place.closed(complete=self._is_complete)
        if self.wrappedProtocol is not None:
            self.wrappedProtocol = cast(Any, _Ending(self.wrappedProtocol, self))
        super().connectionLost(reason)

    def report_refusal(self, reason: Failure) -> None:
        """Report a peer that has connected if one end has refused the certificate of the other, or its absence.

        What is no handshake at all, such as plain text from a port scanner, is in the log only.
        """
        on_refused = cast(Any, self.factory).on_refused
        if self._is_complete or self.peer_serves or on_refused is None:
            return
        error = reason.value
        if not isinstance(error, SSL.Error) or not error.args:
            return
        if self.peer_refusal or alert_of(error) or "certificate" in explain_error(error):
            on_refused(origin_of(self.getPeer()), self.peer_subject, str(self.explain(reason).value))

    def explain(self, reason: Failure) -> Failure:
        """Return the reason of an end in words if it is an error of TLS; it is unchanged otherwise."""
        error = reason.value
        if not isinstance(error, SSL.Error) or not error.args:
            return reason
        alert = alert_of(error)
        if alert:
            return Failure(TlsFailed(cast(Any, self.factory).own.refused(alert)))
        return Failure(TlsFailed(self.peer_refusal or explain_error(error)))

    def peer_finished(self) -> bool:
        """Return whether the peer has completed the handshake."""
        connection = self.getHandle()
        return connection is not None and connection.get_peer_finished() is not None

    def handshake_completed(self) -> None:
        """Watch the end of the peer's certificate; end the connection if a resumed session is past it."""
        self._is_complete = True
        if self._place is not None:
            self._place.completed()
        connection, factory = self.getHandle(), cast(Any, self.factory)
        certificate = self.peer_certificate
        if certificate is not None:
            self.proven()
            end = factory.ends.end_of(connection, certificate)
            self.peer_certificate_end = end.timestamp() if end.year > 1 else None
            self._watch(end)

    def peer_renewed(self, certificate: x509.Certificate) -> None:
        """End the connection with a new certificate of the peer: this end has issued it, for the same name and role."""
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        end = certificate.not_valid_after_utc
        self.peer_certificate_end = end.timestamp()
        self._watch(end)

    def _watch(self, end: datetime) -> None:
        """End the connection with the certificate; now and then check the clock of the machine, which may be set."""
        clock: Any = getattr(self.transport, "reactor", None)
        left = (end - datetime.now(UTC)).total_seconds()
        if left <= 0:
            certificate = self.peer_certificate
            assert certificate is not None
            self._end_expired(CertificateExpired(end, certificate))
        elif clock is not None:
            self._expiry = clock.callLater(min(left, EXPIRY_CHECK_SECONDS), self._watch, end)

    def _end_expired(self, expired: CertificateExpired) -> None:
        say_goodbye = getattr(self.wrappedProtocol, "certificate_expired", None)
        if say_goodbye is not None:
            say_goodbye(str(expired))
        else:
            cast(Any, self).failVerification(Failure(expired))


class _Ending:
    """Stand-in for the inner protocol at the end of a connection: it puts the reason into words."""

    def __init__(self, inner: Any, tls: TlsConnection) -> None:
        self._inner = inner
        self._tls = tls

    def connectionLost(self, reason: Failure) -> None:
        self._tls.report_refusal(reason)
        self._inner.connectionLost(self._tls.explain(reason))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class OwnCertificates(Protocol):
    """Certificates of this end, which a peer may refuse."""

    def refused(self, alert: str) -> str:
        """Return what an alert of a peer says about them."""


class _Unknown:
    """Certificates of an end that does not watch its files."""

    def refused(self, alert: str) -> str:
        return explain_alert(alert, (), 0.0)


@implementer(IHandshakeListener)
class _Handshake(TwistedProtocol):
    """Place holder of a server's protocol during the handshake: the peer is examined before its first octet is read."""

    def __init__(self, tls: TlsConnection, inner: Any) -> None:
        self._tls = tls
        self._inner = inner

    def makeConnection(self, transport: ITransport) -> None:
        self._inner.makeConnection(transport)

    def handshakeCompleted(self) -> None:
        tls: Any = self._tls
        tls.handshake_completed()
        tls.wrappedProtocol = self._inner

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._inner.connectionLost(reason)


class TlsFactory(TLSMemoryBIOFactory):
    """TLS factory that passes on a refusal of the inner factory; Twisted's makes a connection that fails instead."""

    protocol = TlsConnection
    noisy = False

    on_refused: Callable[[str, str, str], None] | None = None
    """Called with origin, subject and reason of each peer whose handshake has failed by a refusal."""

    def __init__(self, context: Any, is_client: bool, factory: Any, own: OwnCertificates | None = None) -> None:
        super().__init__(context, is_client, factory)
        self.is_client = is_client
        self.own = own or _Unknown()
        self.ends = CertificateEnds()

    def buildProtocol(self, addr: Any) -> Any:
        """Return a connection, or None if the inner factory refuses it."""
        inner = self.wrappedFactory.buildProtocol(addr)
        if inner is None:
            return None
        made: Any = self.protocol(self, inner)
        if not self.is_client:
            made.wrappedProtocol = _Handshake(made, inner)
        return made


def wrap_tls(context: Any, factory: Any, *, client: bool, own: OwnCertificates | None = None) -> Any:
    """Return `factory` behind TLS. `context`: from `server_context` or `client_context` of `compass.pki.tls_contexts`.
    `own`: certificates of this end, for the text about a refusal.

    Both factories are Twisted's, whose interfaces the type checker does not understand.
    """
    return TlsFactory(context, client, factory, own)
