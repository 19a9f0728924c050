"""Table of the connections to one port: how many there are, from where, and which of them have proven who they are.

A peer that has not proven itself costs little and stays for a moment: its connection gives way to a newer one, from the
same origin first. So strangers cannot keep out a peer that can prove itself, also when all share the address of a
balancer, and the room of peers that have proven themselves is their own.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from compass.daemons.net.descriptors import room_for
from compass.model.interfaces import Clock
from compass.model.metrics import Gauge

STALLED_SECONDS = 1.0
"""Age from which a connection whose peer has sent something gives way: a handshake takes two round trips."""
UNPROVEN_SHARE_MAX = 0.25
"""Most of the process's descriptors that peers of one port have before they have proven themselves."""
IPV6_PREFIX = 64
"""Bits of an IPv6 address that count: one machine has all addresses of a network of this length (RFC 7421)."""


class TableLimits(NamedTuple):
    """Limits of one port."""

    unproven: int
    """Connections whose peers have not proven themselves."""
    unproven_of_origin: int
    """Such connections from one origin."""
    proven: int
    """Connections whose peers have shown a certificate or a token."""
    proven_of_origin: int
    """Such connections from one origin."""


OPENGNSP = TableLimits(16_000, 12_000, 20_000, 20_000)
"""Port of OpenGNSP: 10,000 hosts, all perhaps behind one balancer, connect at once, each with one session that ends and
one that is new. A connection that waits has 3 kB, so strangers have 48 MB at most."""
HTTPS = TableLimits(1_000, 200, 2_000, 1_000)
"""Port of HTTPS: consoles, tools and scrapers of one server, and a machine with many programs or an office behind one
router; hosts do not use it. Health checks of balancers prove nothing, and are short."""
UPDATE = TableLimits(200, 50, 64, 32)
"""Update port of a host: some servers, each of which dials once."""


class Connection:
    """A connection of the table."""

    def __init__(self, origin: str, since: float, drop: Callable[[], None]) -> None:
        self.origin = origin
        self.since = since
        self.drop = drop
        """Function that ends the connection."""
        self.has_begun = False
        """The peer has sent something."""
        self.is_proven = False


class ConnectionTable:
    """Connections to one port."""

    def __init__(
        self, clock: Clock, limits: TableLimits, refused: Callable[[str], None], open_connections: Gauge | None = None
    ) -> None:
        """`refused` is called with the origin of a connection that is refused or gives way."""
        self._clock = clock
        self._limits = limits
        self._refused = refused
        self._unproven: dict[str, dict[Connection, None]] = {}
        self._unproven_count = 0
        self._proven: Counter[str] = Counter()
        self._open = open_connections if open_connections is not None else Gauge()
        self._open.value = 0

    @property
    def open_connections(self) -> int:
        """Number of open connections."""
        return self._unproven_count + self._proven.total()

    def admit(self, address: str, drop: Callable[[], None]) -> Connection | None:
        """Add a connection. Returns None if it is refused: there is no room, and nothing that gives way."""
        connection = Connection(origin_of(address), self._clock.seconds(), drop)
        if not self._make_room(connection.origin):
            self._refused(connection.origin)
            return None
        self._add(connection)
        return connection

    def moved(self, connection: Connection, address: str) -> bool:
        """Count a connection under the address for which a balancer has opened it. Returns whether it may stay."""
        self.closed(connection)
        origin = origin_of(address)
        if not self._make_room(origin):
            self._refused(origin)
            return False
        connection.origin = origin
        self._add(connection)
        return True

    def proven(self, connection: Connection) -> None:
        """Count a connection as that of a known peer; it is dropped if there are too many of these."""
        if connection.is_proven or connection not in self._unproven.get(connection.origin, ()):
            return
        self.closed(connection)
        limits, origin = self._limits, connection.origin
        connection.is_proven = True
        self._proven[origin] += 1
        self._open.value = self.open_connections
        if self._proven.total() > limits.proven or self._proven[origin] > limits.proven_of_origin:
            self._refused(origin)
            connection.drop()

    def closed(self, connection: Connection) -> None:
        """Remove a connection; it may have been removed before."""
        origin = connection.origin
        if connection.is_proven:
            connection.is_proven = False
            self._proven[origin] -= 1
            if not self._proven[origin]:
                del self._proven[origin]
        elif connection in self._unproven.get(origin, ()):
            del self._unproven[origin][connection]
            self._unproven_count -= 1
            if not self._unproven[origin]:
                del self._unproven[origin]
        self._open.value = self.open_connections

    def _add(self, connection: Connection) -> None:
        self._unproven.setdefault(connection.origin, {})[connection] = None
        self._unproven_count += 1
        self._open.value = self.open_connections

    def _make_room(self, origin: str) -> bool:
        """Return whether one more unproven connection from an origin has room, perhaps in place of an older one."""
        if len(self._unproven.get(origin, ())) >= self._limits.unproven_of_origin:
            return self._give_way(origin)
        if self._unproven_count < min(self._limits.unproven, int(room_for(0) * UNPROVEN_SHARE_MAX)):
            return True
        crowded = max(self._unproven, key=lambda one: len(self._unproven[one]))
        fewer = len(self._unproven.get(origin, ())) + 1 < len(self._unproven[crowded])
        return self._give_way(crowded, at_once=fewer)

    def _give_way(self, origin: str, *, at_once: bool = False) -> bool:
        """End a connection of an origin: the oldest whose peer has sent nothing, else the oldest that is stalled.

        `at_once`: stalled or not, for an origin that has fewer connections.
        """
        of_origin = self._unproven[origin]
        oldest = next(iter(of_origin))
        silent = next((one for one in of_origin if not one.has_begun), None)
        if silent is None and not at_once and self._clock.seconds() - oldest.since < STALLED_SECONDS:
            return False
        leaving = silent or oldest
        self.closed(leaving)
        self._refused(origin)
        leaving.drop()
        return True


def origin_of(address: str) -> str:
    """Return the origin that an address is counted under: an IPv4 address, or the network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), IPV6_PREFIX), strict=False))
