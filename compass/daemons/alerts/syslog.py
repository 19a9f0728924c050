"""Syslog channel: RFC 5424 to the daemon on this machine, or to another one over TLS (RFC 5425)."""

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
from compass.model.text import escape
from compass.server.alerts.notifier import DeliveryFailed
from compass.server.alerts.outbox import Message
from compass.server.alerts.render import render_subject

_CODES = {"user": 1, "daemon": 3, **{f"local{number}": 16 + number for number in range(8)}}
"""Codes of the facilities (RFC 5424, table 1)."""
_SEVERITIES = {"opened": 1, "resolved": 5, "passed": 4, "digest": 1, "test": 6}
"""Severities by event (RFC 5424, table 2): alert, notice, warning, informational."""
CONNECT_SECONDS = 10.0
ENTERPRISE = "32473"
"""Enterprise number for documentation (RFC 5612); compass has none of its own."""
OCTETS_MAX = 2048
"""Longest message that every receiver should accept (RFC 5424, 6.1)."""
SETTLE_SECONDS = 0.2
"""Time after which a message over TCP counts as accepted, if the peer has not closed: syslog has no answers."""


def syslog_line(message: Message, facility: str, host: str, process: int) -> bytes:
    """Return one message in the form of RFC 5424, cut to the length that every receiver accepts."""
    priority = _CODES[facility] * 8 + _SEVERITIES[message.event]
    stamp = datetime.fromtimestamp(message.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    params = {"message": message.id, "event": message.event}
    if message.event not in ("digest", "test"):
        params["incident"] = message.news[0].alert.id
    data = " ".join(f'{name}="{_quoted(value)}"' for name, value in params.items())
    head = f"<{priority}>1 {stamp} {host} opengnssd {process} {message.event} [opengns@{ENTERPRISE} {data}] "
    # The byte order mark announces UTF-8 (6.4); no character is cut in two.
    line = head.encode() + b"\xef\xbb\xbf" + render_subject(message).encode()
    return line[:OCTETS_MAX].decode("utf-8", "ignore").encode()


def _quoted(value: str) -> str:
    value = escape(value)
    for special in '\\"]':
        value = value.replace(special, f"\\{special}")
    return value


def syslog_channel(
    reactor: Any, target: str, facility: str, authority: str, server: str
) -> Callable[[Message], Deferred[None]]:
    """Return the delivery of one message. A datagram counts as delivered once it is sent: there is no answer."""
    kind, _, address = target.partition(":")

    async def deliver(message: Message) -> None:
        line = syslog_line(message, facility, server, os.getpid())
        if kind == "unix":
            _send_datagram(socket.AF_UNIX, address, line, address)
            return
        host, port = parse_server(address)
        if kind == "udp":
            _send_datagram(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port), line, address)
            return
        endpoint: Any = HostnameEndpoint(reactor, host, port, CONNECT_SECONDS)
        if kind == "tls":
            endpoint = wrapClientTLS(client_tls(host, authority), endpoint)
        # Each message is preceded by its length (RFC 6587, 3.4.1; RFC 5425, 4.3).
        stream = _Stream(reactor, str(len(line)).encode() + b" " + line, secured=kind == "tls")
        try:
            await connectProtocol(endpoint, stream)
        except (ConnectError, DNSLookupError) as error:
            raise DeliveryFailed(f"{address} cannot be reached: {error}") from None
        await stream.ended

    return lambda message: Deferred.fromCoroutine(deliver(message))


def _send_datagram(family: socket.AddressFamily, address: Any, line: bytes, shown: str) -> None:
    """Send one datagram to this machine: one call that never waits. Raises DeliveryFailed."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sending:
            sending.setblocking(False)
            sending.connect(address)
            sending.send(line)
    except OSError as error:
        raise DeliveryFailed(f"{shown}: {error.strerror}") from None


@implementer(IHandshakeListener)
class _Stream(protocol.Protocol):
    """Connection that writes one line; the line counts as accepted if the peer has not closed for a moment after it."""

    def __init__(self, reactor: Any, line: bytes, *, secured: bool) -> None:
        self.ended: Deferred[None] = Deferred(lambda _: self._abort())
        """Deferred that fires when the connection is closed."""
        self._reactor = reactor
        self._line = line
        self._secured = secured
        self._settled = False

    def connectionMade(self) -> None:
        """Write at once if there is no TLS to wait for."""
        if not self._secured:
            self._write()

    def handshakeCompleted(self) -> None:
        """Write once the peer's certificate is verified."""
        self._write()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """Report success if this end closed the connection, or a failure if the peer did."""
        if self.ended.called:
            return
        # A peer that ends TLS without an alert does not refuse the message; a refusal is an error of TLS.
        if self._settled and reason.check(ConnectionDone, ConnectionLost):
            self.ended.callback(None)
        else:
            self.ended.errback(DeliveryFailed(f"the connection was lost: {reason.getErrorMessage()}", perhaps=True))

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
