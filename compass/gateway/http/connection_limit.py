"""Limit of the connections that a gateway accepts, in all and from one address (P10)."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol, cast

from twisted.internet.interfaces import IAddress
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from compass.model.metrics import Gauge

CONNECTIONS_MAX = 2_000
"""Connections at once: consoles, tools and scrapers of one server; hosts do not use this port."""
CONNECTIONS_PER_ORIGIN_MAX = 200
"""Connections from one address: a machine with many programs, or an office behind one router; a tenth of all."""


class OriginFilter(Protocol):
    """Filter of the addresses that may connect at all."""

    def is_allowed(self, origin: str) -> bool:
        """Return whether a connection of an address is accepted."""


class _CountedConnection(ProtocolWrapper):
    origin = ""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        limiter: Any = self.factory
        limiter.connection_lost(self.origin)
        cast(Any, super()).connectionLost(reason)


class ConnectionLimiter(WrappingFactory):
    """Factory in front of another factory; refuses connections above the limits."""

    protocol = _CountedConnection
    noisy = False

    def __init__(self, factory: Any, origins: OriginFilter, open_connections: Gauge | None = None) -> None:
        """`open_connections` is kept up to date."""
        cast(Any, super()).__init__(factory)
        self._origins = origins
        self._by_origin: Counter[str] = Counter()
        self._open = open_connections if open_connections is not None else Gauge()
        self._open.value = 0

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Return a connection, or None when it is above a limit."""
        origin = str(getattr(addr, "host", addr))
        full = self.open_connections >= CONNECTIONS_MAX or self._by_origin[origin] >= CONNECTIONS_PER_ORIGIN_MAX
        if full or not self._origins.is_allowed(origin):
            return None
        made = cast(Any, super()).buildProtocol(addr)
        if made is not None:
            made.origin = origin
            self._by_origin[origin] += 1
            self._open.value = self.open_connections
        return made

    @property
    def open_connections(self) -> int:
        """Number of open connections."""
        return self._by_origin.total()

    def connection_lost(self, origin: str) -> None:
        """Count a closed connection of an address."""
        self._by_origin[origin] -= 1
        if not self._by_origin[origin]:
            del self._by_origin[origin]
        self._open.value = self.open_connections
