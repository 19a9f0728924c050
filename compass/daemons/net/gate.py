"""Gate in front of TLS: connections are counted before they cost anything, and TLS begins with a peer's first octets.

A connection that waits here has a socket and two small objects. Once its peer has begun a handshake, the gate replaces
itself by the TLS protocol and is not in the way of any octet.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from compass.daemons.net.connection_table import Connection, ConnectionTable
from compass.daemons.net.handshake_queue import HandshakeQueue
from compass.daemons.net.proxy_protocol import Balancers, InvalidHeader, read_header
from compass.daemons.net.transport import TlsFactory
from compass.daemons.process.minute_log import MinuteLog
from compass.model.interfaces import Clock, Timer
from compass.model.limits import TURN_SECONDS as TURN_SECONDS

BEGIN_SECONDS = 5.0
"""Seconds from a connection to the beginning of its TLS handshake, which a client sends at once: two packets may be
lost."""
HANDSHAKE_OCTET = 0x16
"""First octet of a TLS connection: a handshake record (RFC 8446 section 5.1)."""

_log = Logger()


class Gate(Factory):
    """Factory of the connections to one port."""

    noisy = False

    def __init__(self, clock: Clock, tls: TlsFactory, table: ConnectionTable, balancers: Balancers) -> None:
        self.clock = clock
        self.tls = tls
        self.table = table
        self.balancers = balancers
        self.handshakes = HandshakeQueue(clock)
        self.plain = MinuteLog(_log, "no session with a peer at {origin}: it does not begin TLS ({n} connections)")
        self.headless = MinuteLog(_log, "{n} connections of balancer {origin} without a PROXY header: {why}")

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Return a connection that waits for its peer; None if there is no room for it."""
        waiting = WaitingConnection(self, addr)
        connection = self.table.admit(str(getattr(addr, "host", addr)), waiting.drop)
        waiting.connection = connection
        return waiting if connection is not None else None


class WaitingConnection(Protocol):
    """Connection whose peer has not begun a handshake, or has to wait for its turn."""

    def __init__(self, gate: Gate, address: IAddress | None) -> None:
        self._gate = gate
        self._address: Any = address
        self._awaits_header = gate.balancers.include(str(getattr(address, "host", "")))
        self._octets = b""
        self._timer: Timer | None = None
        self._has_ended = False
        self.connection: Connection | None = None

    def connectionMade(self) -> None:
        """Give the peer some seconds."""
        self._expect(BEGIN_SECONDS)

    def dataReceived(self, data: bytes) -> None:
        """Keep octets until TLS can begin; end what is not TLS."""
        self._octets += data
        if self._awaits_header and not self._read_header():
            return
        if not self._octets or self.connection is None:
            return
        if self._octets[0] != HANDSHAKE_OCTET:
            self._gate.handshakes.failed(self.connection.origin)
            self._gate.plain.add(self._gate.clock, origin=self.connection.origin)
            self.drop()
            return
        self.connection.has_begun = True
        cast(Any, self.transport).pauseProducing()
        self._expect(TURN_SECONDS)
        self._gate.handshakes.start(self.connection, self._begin)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Make room."""
        self._end()
        if self.connection is not None:
            self._gate.handshakes.ended(self.connection)
            self._gate.table.closed(self.connection)

    def drop(self) -> None:
        """End the connection."""
        if not self._has_ended:
            self._end()
            if self.connection is not None:
                self._gate.handshakes.ended(self.connection)
            cast(Any, self.transport).abortConnection()

    def _expect(self, seconds: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._gate.clock.callLater(seconds, self.drop)

    def _end(self) -> None:
        self._has_ended = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _read_header(self) -> bool:
        """Read for whom the balancer has opened the connection. Returns whether this is known and it may stay."""
        assert self.connection is not None
        try:
            header = read_header(self._octets)
        except InvalidHeader as problem:
            self._gate.headless.add(self._gate.clock, origin=self.connection.origin, why=str(problem))
            self.drop()
            return False
        if header is None:
            return False
        self._awaits_header = False
        self._octets = self._octets[header.octets :]
        if not header.address:
            return True
        made = IPv6Address if ":" in header.address else IPv4Address
        self._address = made("TCP", header.address, header.port)
        if self._gate.table.moved(self.connection, header.address):
            return True
        self.drop()
        return False

    def _begin(self) -> None:
        """Hand the connection to TLS."""
        if self._has_ended or self.connection is None:
            return
        transport: Any = self.transport
        tls = self._gate.tls.buildProtocol(self._address)
        if tls is None:
            self.drop()
            return
        self._end()
        self.connection.drop = tls.abortConnection
        tls.admitted(Place(self._gate, self.connection), self._address)
        transport.protocol = tls
        tls.makeConnection(transport)
        transport.resumeProducing()
        octets, self._octets = self._octets, b""
        tls.dataReceived(octets)


class Place:
    """Place of a connection behind the gate."""

    def __init__(self, gate: Gate, connection: Connection) -> None:
        self._gate = gate
        self._connection = connection

    def completed(self) -> None:
        """Let another handshake begin: this one is complete."""
        self._gate.handshakes.ended(self._connection)

    def proven(self) -> None:
        """Count the connection as that of a known peer."""
        self._gate.table.proven(self._connection)

    def closed(self, *, complete: bool) -> None:
        """Uncount the connection; one without a complete handshake has failed."""
        self._gate.handshakes.ended(self._connection)
        self._gate.table.closed(self._connection)
        if not complete:
            self._gate.handshakes.failed(self._connection.origin)
