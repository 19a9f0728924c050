"""The zone over TCP: limits of connections, of time, and of waiting answers (RFC 7766)."""

from __future__ import annotations

import struct
from typing import Any

import dns.message
import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from compass.gateway.dns import server as dns_gateway
from compass.gateway.dns.server import CONNECTIONS_MAX, IDLE_SECONDS, DnsServer
from compass.gateway.dns.zone import Zone
from tests.support.dns_world import STRICT, Source, world


class Listening:
    """Server whose connections are made by hand."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.server = DnsServer(Zone(Source(world().catalogue), "gns", "web1.example"), self.clock)
        self._factory = self.server.factory()

    def connect(self) -> tuple[Any, StringTransport] | None:
        """Return a new connection; None if it is refused."""
        protocol: Any = self._factory.buildProtocol(None)
        if protocol is None:
            return None
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport


def framed(name: str = "a.store.gns") -> bytes:
    octets = dns.message.make_query(name, "A").to_wire()
    return struct.pack("!H", len(octets)) + octets


def answers(transport: StringTransport) -> list[dns.message.Message]:
    """Return all written messages, without their length prefixes."""
    octets, found = transport.value(), []
    while octets:
        (length,) = struct.unpack_from("!H", octets)
        found.append(dns.message.from_wire(octets[2 : 2 + length], **STRICT))
        octets = octets[2 + length :]
    return found


def connected(listening: Listening) -> tuple[Any, StringTransport]:
    made = listening.connect()
    assert made is not None
    return made


def test_many_questions_in_one_connection_in_any_pieces() -> None:
    """Queries are answered in order, however the transport splits them."""
    protocol, transport = connected(Listening())
    for octet in framed("b.store.gns") + framed("none.gns"):
        protocol.dataReceived(bytes([octet]))
    protocol.dataReceived(framed() * 3)
    assert [message.rcode() for message in answers(transport)] == [0, 3, 0, 0, 0]


@pytest.mark.parametrize("octets", [b"\0\0", b"\0\1x", b"\0\x0c" + b"\x80" * 12])
def test_what_is_no_query_ends_the_connection(octets: bytes) -> None:
    """A message that gets no answer closes the connection."""
    protocol, transport = connected(Listening())
    protocol.dataReceived(octets)
    assert transport.disconnecting and not transport.value()


def test_a_connection_without_a_question_is_closed() -> None:
    """Parts of a query do not extend the timeout: a peer that sends single octets does not keep its connection."""
    listening = Listening()
    protocol, transport = connected(listening)
    listening.clock.advance(IDLE_SECONDS - 0.1)
    protocol.dataReceived(framed())
    listening.clock.advance(IDLE_SECONDS - 0.1)
    protocol.dataReceived(framed()[:5])
    assert not transport.disconnected
    listening.clock.advance(0.2)
    assert transport.disconnected


def test_who_does_not_read_is_not_read() -> None:
    """Queries wait until their answers can be written; waiting answers are dropped with the connection."""
    listening = Listening()
    protocol, transport = connected(listening)
    producer: Any = transport.producer
    protocol.dataReceived(framed())
    producer.pauseProducing()
    protocol.dataReceived(framed() * 2)
    assert len(answers(transport)) == 1 and transport.producerState == "paused"
    producer.resumeProducing()
    assert len(answers(transport)) == 3
    producer.pauseProducing()
    listening.clock.advance(IDLE_SECONDS)
    assert transport.disconnected


def test_so_many_connections_and_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection above the limit is refused until another one ends."""
    assert CONNECTIONS_MAX == 100
    monkeypatch.setattr(dns_gateway, "CONNECTIONS_MAX", 2)
    listening = Listening()
    first, _ = connected(listening)
    connected(listening)
    assert listening.connect() is None
    first.connectionLost(None)
    connected(listening)
    assert listening.connect() is None and listening.server.connections == 2
