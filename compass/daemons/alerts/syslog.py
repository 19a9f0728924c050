"""Syslog as a way to administrators: RFC 5424 to the daemon beside us, or to another one over TLS (RFC 5425)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet import protocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionDone, ConnectionLost, DNSLookupError
from twisted.internet.interfaces import IHandshakeListener
from twisted.python.failure import Failure
from zope.interface import implementer

from compass.daemons.alerts.outbound_tls import client_tls
from compass.model.names import parse_server
from compass.server.alerts.notifier import DeliveryFailed
from compass.server.alerts.outbox import Message
from compass.server.alerts.render import render_subject

_CODES = {"user": 1, "daemon": 3, **{f"local{number}": 16 + number for number in range(8)}}
"""RFC 5424, table 1."""
_SEVERITIES = {"opened": 1, "resolved": 5, "passed": 4, "digest": 1, "test": 6}
"""RFC 5424, table 2: alert, notice, warning, informational."""
CONNECT_SECONDS = 10.0
ENTERPRISE = "32473"
"""RFC 5612: the number for documentation; compass has none of its own."""
OCTETS_MAX = 2048
"""RFC 5424, 6.1: what every receiver should take."""
SETTLE_SECONDS = 0.2
"""How long a TCP peer has to refuse what was written before it counts as taken: syslog has no answers."""


def syslog_line(message: Message, facility: str, host: str, process: int) -> bytes:
    """One message as RFC 5424 has it, cut to what every receiver takes."""
    priority = _CODES[facility] * 8 + _SEVERITIES[message.event]
    stamp = datetime.fromtimestamp(message.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    params = {"message": message.id, "event": message.event}
    if message.event not in ("digest", "test"):
        params["incident"] = message.news[0].alert.id
    data = " ".join(f'{name}="{_quoted(value)}"' for name, value in params.items())
    head = f"<{priority}>1 {stamp} {host} opengnssd {process} {message.event} [opengns@{ENTERPRISE} {data}] "
    # The mark says that what follows is UTF-8 (6.4); a character is never cut in two.
    line = head.encode() + b"\xef\xbb\xbf" + render_subject(message).encode()
    return line[:OCTETS_MAX].decode("utf-8", "ignore").encode()


def _quoted(value: str) -> str:
    value = "".join(one if one.isprintable() else " " for one in value)
    for special in '\\"]':
        value = value.replace(special, f"\\{special}")
    return value


def syslog(
    reactor: Any, target: str, facility: str, authority: str, server: str
) -> Callable[[Message], Deferred[None]]:
    """One attempt of a way. Over a datagram nobody says whether it arrived."""
    kind, _, place = target.partition(":")

    async def deliver(message: Message) -> None:
        line = syslog_line(message, facility, server, os.getpid())
        if kind == "unix":
            _datagram(socket.AF_UNIX, place, line, place)
            return
        host, port = parse_server(place)
        if kind == "udp":
            _datagram(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port), line, place)
            return
        endpoint: Any = HostnameEndpoint(reactor, host, port, CONNECT_SECONDS)
        if kind == "tls":
            endpoint = wrapClientTLS(client_tls(host, authority), endpoint)
        # Each message is preceded by its length (RFC 6587, 3.4.1; RFC 5425, 4.3).
        stream = _Stream(reactor, str(len(line)).encode() + b" " + line, secured=kind == "tls")
        try:
            await connectProtocol(endpoint, stream)
        except (ConnectError, DNSLookupError) as error:
            raise DeliveryFailed(f"{place} cannot be reached: {error}") from None
        await stream.over

    return lambda message: Deferred.fromCoroutine(deliver(message))


def _datagram(family: socket.AddressFamily, place: Any, line: bytes, shown: str) -> None:
    """To the daemon beside us: one call that never waits."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            sending.connect(place)
            sending.send(line)
    except OSError as error:
        raise DeliveryFailed(f"{shown}: {error.strerror}") from None


@implementer(IHandshakeListener)
class _Stream(protocol.Protocol):
    """Writes one line; it counts as taken when the peer has not closed the connection for a moment after that."""

    def __init__(self, reactor: Any, line: bytes, *, secured: bool) -> None:
        self.over: Deferred[None] = Deferred(lambda _: self._abort())
        """Fires when the connection is closed."""
        self._reactor = reactor
        self._line = line
        self._secured = secured
        self._settled = False

    def connectionMade(self) -> None:
        """Without TLS it is the peer that was meant."""
        if not self._secured:
            self._write()

    def handshakeCompleted(self) -> None:
        """Now we know whom we talk to."""
        self._write()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """By us, or by the peer, which has not taken it then."""
        if self.over.called:
            return
        # A peer that ends TLS without a word is none that refuses; one that refuses says so by an error of TLS.
        if self._settled and reason.check(ConnectionDone, ConnectionLost):
            self.over.callback(None)
        else:
            self.over.errback(DeliveryFailed(f"the connection was lost: {reason.getErrorMessage()}", perhaps=True))

    def _write(self) -> None:
        transport: Any = self.transport
        transport.write(self._line)
        self._reactor.callLater(SETTLE_SECONDS, self._close)

    def _close(self) -> None:
        self._settled = True
        transport: Any = self.transport
        transport.loseConnection()

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
