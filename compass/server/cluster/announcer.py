"""Announcements of this server by multicast, to its own network only (opengnsp.md, "Announcements")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from compass.model.interfaces import Clock
from compass.system.timers import Timers
from compass.wire import limits
from compass.wire.announcement import Announcement, encode

EVERY_SECONDS = 10.0
"""Between two announcements: a host that starts waits five seconds on average, if it knows no other address."""
FIRST_SECONDS = (1.0, 3.0)
"""Pauses before the second and third announcement: hosts wait for a server that has just started, and a datagram may
get lost."""


class Announcer(DatagramProtocol):
    """Announces `name` at `addresses` and `port` until its port is closed."""

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
        self._timers = Timers(clock)
        self._random = random
        self._group = group
        announced = tuple(addresses)[: limits.ANNOUNCED_ADDRESSES_MAX]
        self._datagram = encode(Announcement(name, port, announced, EVERY_SECONDS))
        self._interfaces = [address for address in addresses if ":" not in address] or [""]
        self._sent = 0

    def startProtocol(self) -> None:
        """Send the first announcement."""
        transport: Any = self.transport
        transport.setTTL(1)
        self._announce()

    def stopProtocol(self) -> None:
        """Stop announcing. Nothing is withdrawn: hosts find out by themselves which servers answer."""
        self._timers.cancel_all()

    def _announce(self) -> None:
        pause = FIRST_SECONDS[self._sent] if self._sent < len(FIRST_SECONDS) else EVERY_SECONDS
        self._sent += 1
        # Somewhat sooner than announced, and at random, so that two servers do not keep colliding.
        self._timers.start("announce", pause * (0.75 + self._random() / 4), self._announce)
        transport: Any = self.transport
        for interface in self._interfaces:
            try:
                if interface:
                    transport.setOutgoingInterface(interface)
                transport.write(self._datagram, self._group)
            except OSError as error:
                self._log.warn("not announced on {interface}: {why}", interface=interface or "any", why=error)
