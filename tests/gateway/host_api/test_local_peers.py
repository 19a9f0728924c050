"""Turns of the users of this machine: what one connection sends at once is handed on in pieces."""

from __future__ import annotations

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from compass.agent.local_users import (
    REQUESTS_BEHIND_SECONDS_MAX,
    REQUESTS_BURST_MAX,
    REQUESTS_PER_SECOND_MAX,
    LocalUsers,
)
from compass.gateway.host_api.local_peers import REQUESTS_AT_ONCE, LocalPeer, LocalPeers

REQUEST = b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n"
USER = 1000


class Received(Protocol):
    """Protocol behind the peer, which notes what arrives."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        """Note a piece."""
        self.pieces.append(data)

    @property
    def complete(self) -> int:
        """Number of requests that have arrived whole."""
        return b"".join(self.pieces).count(b"\r\n\r\n")


class Peer:
    """Connection of a user, with the protocol behind it."""

    def __init__(self, clock: Clock, limits: LocalUsers) -> None:
        self.received = Received()
        factory = LocalPeers(Factory.forProtocol(lambda: self.received), limits, clock)
        self.transport = StringTransport()
        user = limits.connect(USER)
        assert user is not None
        self.peer: LocalPeer = factory.build(None, user)
        self.peer.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Let octets arrive, unless the connection is not read."""
        assert self.transport.producerState == "producing"
        self.peer.dataReceived(data)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> LocalUsers:
    return LocalUsers(clock)


@pytest.fixture
def peer(clock: Clock, limits: LocalUsers) -> Peer:
    return Peer(clock, limits)


def test_a_request_is_handed_on_at_once(peer: Peer) -> None:
    peer.send(REQUEST)
    assert peer.received.pieces == [REQUEST]
    assert peer.transport.producerState == "producing"


@pytest.mark.parametrize(("number", "pieces"), [(REQUESTS_AT_ONCE, 1), (REQUESTS_AT_ONCE + 1, 2)])
def test_pipelined_requests_are_handed_on_a_few_at_a_time(peer: Peer, clock: Clock, number: int, pieces: int) -> None:
    """Others have a turn between the pieces, and the connection is read again after the last."""
    peer.send(REQUEST * number)
    assert peer.received.complete == min(number, REQUESTS_AT_ONCE)
    for _ in range(pieces):
        clock.advance(0.0)
    assert peer.received.complete == number and len(peer.received.pieces) == pieces
    assert b"".join(peer.received.pieces) == REQUEST * number
    assert peer.transport.producerState == "producing"


def test_requests_beyond_the_burst_wait_for_the_rate(peer: Peer, clock: Clock) -> None:
    """Nothing is lost, nothing more is read meanwhile, and the rate is that of the user."""
    number = REQUESTS_BURST_MAX + 100
    peer.send(REQUEST * number)
    while peer.received.complete + REQUESTS_AT_ONCE <= REQUESTS_BURST_MAX:
        before = peer.received.complete
        clock.advance(0.0)
        if peer.received.complete == before:
            break
    assert REQUESTS_BURST_MAX - REQUESTS_AT_ONCE <= peer.received.complete <= REQUESTS_BURST_MAX
    assert peer.transport.producerState == "paused"
    clock.pump([0.005] * int(100 / REQUESTS_PER_SECOND_MAX / 0.005 * 1.2))
    assert b"".join(peer.received.pieces) == REQUEST * number
    assert peer.transport.producerState == "producing"


def test_a_connection_that_would_wait_too_long_is_closed(peer: Peer, limits: LocalUsers) -> None:
    """The user's other connections have used what the next seconds bring."""
    used = REQUESTS_BURST_MAX + int(REQUESTS_BEHIND_SECONDS_MAX * REQUESTS_PER_SECOND_MAX)
    limits.turn(USER, used)
    peer.send(REQUEST)
    assert peer.transport.disconnecting and peer.received.pieces == []


def test_what_is_handed_on_may_pause_the_peer(peer: Peer, clock: Clock) -> None:
    """A protocol that pauses the connection is not overruled by the peer's turn."""
    peer.send(REQUEST * (REQUESTS_AT_ONCE + 1))
    peer.peer.pauseProducing()
    clock.advance(0.0)
    clock.advance(0.0)
    assert peer.received.complete == REQUESTS_AT_ONCE + 1 and peer.transport.producerState == "paused"
    peer.peer.resumeProducing()
    assert peer.transport.producerState == "producing"
