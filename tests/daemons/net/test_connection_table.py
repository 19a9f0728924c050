"""Connections to a port: the room of each origin, who gives way to whom, and the room of proven peers (P10)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from compass.daemons.net import connection_table
from compass.daemons.net.connection_table import (
    HTTPS,
    OPENGNSP,
    STALLED_SECONDS,
    UNPROVEN_SHARE_MAX,
    UPDATE,
    Connection,
    ConnectionTable,
    TableLimits,
    origin_of,
)
from compass.model.metrics import Gauge


class Port:
    """A table with limits, whose dropped connections leave it as those of a socket do."""

    def __init__(self, *limits: int) -> None:
        self.clock: Any = Clock()
        self.dropped: list[Connection] = []
        self.refused: list[str] = []
        self.gauge = Gauge()
        self.table = ConnectionTable(self.clock, TableLimits(*limits), self.refused.append, self.gauge)

    def connect(self, address: str, *, begun: bool = False) -> Connection | None:
        made = self.table.admit(address, lambda: self.dropped.append(made) if made else None)
        if made is not None:
            made.has_begun = begun
        return made


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a-name", "a-name"),
    ],
)
def test_the_origin_of_an_address(address: str, origin: str) -> None:
    """A machine with an IPv6 network of its own is one origin."""
    assert origin_of(address) == origin


def test_a_new_connection_takes_the_place_of_a_silent_one_of_its_origin() -> None:
    """At the limit of an origin its oldest silent connection ends; others are not affected, and none is refused."""
    port = Port(10, 2, 10, 10)
    other = port.connect("192.0.2.9")
    first, second = port.connect("192.0.2.1"), port.connect("192.0.2.1", begun=True)
    assert first and second and not port.dropped
    assert port.connect("192.0.2.1") and port.dropped == [first]
    assert port.table.open_connections == 3 == port.gauge.value and other not in port.dropped


def test_a_handshake_that_goes_on_is_not_ended_for_another() -> None:
    """A connection whose peer has begun gives way once it is stalled; until then a new one is refused."""
    port = Port(10, 2, 10, 10)
    old = [port.connect("192.0.2.1", begun=True) for _ in range(2)]
    assert port.connect("192.0.2.1") is None and port.refused == ["192.0.2.1"]
    port.clock.advance(STALLED_SECONDS)
    assert port.connect("192.0.2.1") is not None and port.dropped == old[:1]


def test_the_most_crowded_origin_makes_room_for_others() -> None:
    """At the limit of the port strangers with many connections lose one to a peer that has none."""
    port = Port(4, 3, 10, 10)
    crowd = [port.connect("192.0.2.1") for _ in range(3)]
    assert port.connect("192.0.2.2") and port.connect("192.0.2.3")
    assert port.dropped == crowd[:1] and port.table.open_connections == 4


def test_an_origin_with_fewer_connections_need_not_wait() -> None:
    """The most crowded origin loses a connection whose handshake has just begun; one that has as few does not."""
    port = Port(4, 3, 10, 10)
    crowd = [port.connect("192.0.2.1", begun=True) for _ in range(3)]
    assert port.connect("192.0.2.2", begun=True) and port.connect("192.0.2.3", begun=True)
    assert port.dropped == crowd[:1]
    assert port.connect("192.0.2.2", begun=True) is None and port.dropped == crowd[:1]


def test_strangers_do_not_use_the_room_of_proven_peers() -> None:
    """A proven connection neither counts among the others nor gives way, and has a limit of its own."""
    port = Port(1, 1, 3, 2)
    made = Connection("", 0.0, lambda: None)
    for _ in range(3):
        made = port.connect("192.0.2.1") or made
        port.table.proven(made)
        port.table.proven(made)
    assert port.dropped == [made] and port.table.open_connections == 3
    port.table.closed(made)
    port.table.closed(made)
    assert port.connect("192.0.2.1") and port.connect("192.0.2.1") and port.table.open_connections == 3
    for address in ("192.0.2.2", "192.0.2.3"):
        other = port.connect(address)
        assert other is not None
        port.table.proven(other)
        assert (other in port.dropped) == (address == "192.0.2.3")


def test_a_client_of_a_balancer_counts_for_itself() -> None:
    """The balancer's own address has its room back when the client is known."""
    port = Port(10, 1, 10, 10)
    first = port.connect("192.0.2.1")
    assert first is not None and port.table.moved(first, "198.51.100.1")
    second = port.connect("192.0.2.1")
    assert second is not None and not port.dropped
    second.has_begun = first.has_begun = True
    assert not port.table.moved(second, "198.51.100.1") and port.refused == ["198.51.100.1"]
    assert port.table.open_connections == 1


def test_a_small_limit_of_descriptors_is_not_all_used_by_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers have a quarter of what the process has."""
    monkeypatch.setattr(connection_table, "room_for", lambda reserved: 40)
    port = Port(1_000, 1_000, 10, 10)
    for _ in range(int(40 * UNPROVEN_SHARE_MAX)):
        assert port.connect("192.0.2.1") and not port.dropped
    assert port.connect("192.0.2.1") and len(port.dropped) == 1


def test_the_limits_leave_room() -> None:
    """A single origin does not have all of a port, and all hosts of a fleet may have one origin."""
    for limits in (OPENGNSP, HTTPS, UPDATE):
        assert limits.unproven_of_origin <= limits.unproven * 3 / 4
    assert OPENGNSP.proven_of_origin >= 10_000
