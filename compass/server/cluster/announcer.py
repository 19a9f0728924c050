"""A server that announces itself by multicast, to its own network only (opengnsp.md, "Announcements")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from compass.model.interfaces import Clock, Timer
from compass.wire import limits
from compass.wire.announcement import Announcement, encode

EVERY_SECONDS = 10.0
"""Between two announcements: a host that starts waits five seconds on average, if it knows no other way."""
FIRST_SECONDS = (1.0, 3.0)
"""The second and third announcement follow sooner: hosts wait for a server that has just started, and a datagram may
get lost."""


class Announcer(DatagramProtocol):
    """Announces `name` at `addresses` and `port` until it is stopped."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        random: Callable[[], float],
        group: tuple[str, int],
        name: str,
        addresses: Sequence[str],
        port: int,
    ) -> None:
        self._clock = clock
        self._random = random
        self._group = group
        said = Announcement(name, port, tuple(addresses)[: limits.ANNOUNCED_ADDRESSES_MAX], EVERY_SECONDS)
        self._datagram = encode(said)
        self._interfaces = [address for address in addresses if ":" not in address] or [""]
        self._sent = 0
        self._timer: Timer | None = None

    def startProtocol(self) -> None:
        """Say it for the first time."""
        transport: Any = self.transport
        transport.setTTL(1)
        self._announce()

    def stopProtocol(self) -> None:
        """Be silent. Nothing is taken back: hosts see for themselves who answers."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _announce(self) -> None:
        pause = FIRST_SECONDS[self._sent] if self._sent < len(FIRST_SECONDS) else EVERY_SECONDS
        self._sent += 1
        # Somewhat sooner than announced, at a time of its own: two servers do not go on colliding.
        self._timer = self._clock.callLater(pause * (0.75 + self._random() / 4), self._announce)
        transport: Any = self.transport
        for interface in self._interfaces:
            try:
                if interface:
                    transport.setOutgoingInterface(interface)
                transport.write(self._datagram, self._group)
            except OSError as error:
                self._log.warn("not announced on {interface}: {why}", interface=interface or "any", why=error)
