"""DNS server: the zone over UDP, and over TCP for answers that do not fit (RFC 7766)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from twisted.protocols.policies import TimeoutMixin

from compass.gateway.dns.messages import TCP_OCTETS_MAX, Query, read, write
from compass.gateway.dns.rcodes import RCODES
from compass.gateway.dns.zone import Zone
from compass.model.interfaces import Clock, Timer
from compass.model.metrics import Counter

CONNECTIONS_MAX = 100
"""Most TCP connections at once: resolvers open one for a truncated answer; one more is closed immediately."""
IDLE_SECONDS = 10.0
"""Time after which a TCP connection without a query is closed (RFC 7766 section 6.2.3: some seconds)."""
QUERIES_KEPT_MAX = 4_096
"""Most queries whose parsed form is kept: programs repeat the same query with another id."""


class DnsServer:
    """Server of one zone over UDP and TCP."""

    def __init__(self, zone: Zone, clock: Clock, answers: Counter | None = None) -> None:
        """`answers` counts by the name of the response code."""
        self._answers = answers if answers is not None else Counter()
        self._zone = zone
        self._read: dict[bytes, Query] = {}
        self._clock = clock
        self.connections = 0

    def answered(self, octets: bytes, over_tcp: bool) -> bytes | None:
        """Return the answer to a message; None for a message that gets no answer."""
        asked = octets[2:]
        query = self._read.get(asked)
        if query is None:
            query = read(octets)
            if query is None:
                return None
            if len(self._read) >= QUERIES_KEPT_MAX:
                self._read.clear()
            self._read[asked] = query
        limit = TCP_OCTETS_MAX if over_tcp else query.udp_octets
        answer = self._zone.answer(query)
        self._answers.add(RCODES.get(answer.rcode, "other"))
        return octets[:2] + write(query, answer, limit)

    def datagrams(self) -> DatagramProtocol:
        """Return the protocol for UDP."""
        return _Datagrams(self)

    def factory(self) -> Factory:
        """Return the factory for TCP."""
        return _Connections(self, self._clock)


class _Datagrams(DatagramProtocol):
    log = Logger()
    noisy = False

    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Answer one message, at once or never."""
        answer = self._server.answered(datagram, over_tcp=False)
        if answer is not None:
            try:
                # The transport's own `write` would check the address that the kernel has just reported.
                cast(Any, self.transport).socket.sendto(answer, addr)
            except OSError as error:
                # The socket's queue is full, or the client is unreachable: the client asks again.
                self.log.debug("an answer could not be sent: {error}", error=error)


class _Connections(Factory):
    noisy = False

    def __init__(self, server: DnsServer, clock: Clock) -> None:
        self.server = server
        self.clock = clock

    def buildProtocol(self, addr: Any) -> _Connection | None:
        """Return a connection; None if there are too many."""
        return _Connection(self.server, self.clock) if self.server.connections < CONNECTIONS_MAX else None


class _Connection(Int16StringReceiver, TimeoutMixin):
    """Connection of messages with a length prefix. While the peer does not read answers, its queries are not read."""

    def __init__(self, server: DnsServer, clock: Clock) -> None:
        self._server = server
        self._clock = clock

    def callLater(self, delay: float, callback: Callable[..., object]) -> Timer:
        """Set a timer for TimeoutMixin."""
        return self._clock.callLater(delay, callback)

    def connectionMade(self) -> None:
        """Count the connection, and start its timeout."""
        self._server.connections += 1
        cast(Any, self.transport).registerProducer(self, True)
        cast(Any, self).setTimeout(IDLE_SECONDS)

    def connectionLost(self, reason: Any = None) -> None:
        """Uncount the connection."""
        self._server.connections -= 1
        cast(Any, self).setTimeout(None)

    def stringReceived(self, string: bytes) -> None:
        """Answer one message; a message that is not a query closes the connection."""
        answer = self._server.answered(string, over_tcp=True)
        if answer is None:
            cast(Any, self.transport).loseConnection()
            return
        whole: Any = self
        whole.resetTimeout()
        whole.sendString(answer)

    def timeoutConnection(self) -> None:
        """Abort a connection without queries, or whose peer does not read; waiting answers are dropped."""
        cast(Any, self.transport).abortConnection()
