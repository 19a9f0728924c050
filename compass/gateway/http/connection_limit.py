"""How many connections a gateway takes, in all and from one address (P10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.interfaces import IAddress
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

CONNECTIONS_MAX = 2_000
"""At once: consoles, tools and what scrapes a server; hosts do not come here."""
CONNECTIONS_PER_ORIGIN_MAX = 200
"""From one address: a machine with many programs, or an office behind one router; a tenth of all."""


class _Counted(ProtocolWrapper):
    """Says when it is gone."""

    origin = ""

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        crowd: Any = self.factory
        crowd.left(self.origin)
        cast(Any, super()).connectionLost(reason)


class ConnectionLimiter(WrappingFactory):
    """A factory in front of another that refuses what is too much."""

    protocol = _Counted
    noisy = False

    def __init__(self, factory: Any, admits: Callable[[str], bool]) -> None:
        """`admits`: whether an address is heard at all."""
        cast(Any, super()).__init__(factory)
        self._admits = admits
        self._here: Counter[str] = Counter()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A connection, or None when it is one too many."""
        origin = str(getattr(addr, "host", addr))
        full = self._here.total() >= CONNECTIONS_MAX or self._here[origin] >= CONNECTIONS_PER_ORIGIN_MAX
        if full or not self._admits(origin):
            return None
        made = cast(Any, super()).buildProtocol(addr)
        if made is not None:
            made.origin = origin
            self._here[origin] += 1
        return made

    @property
    def here(self) -> int:
        """Connections that are open."""
        return self._here.total()

    def left(self, origin: str) -> None:
        """One of them is gone."""
        self._here[origin] -= 1
        if not self._here[origin]:
            del self._here[origin]
