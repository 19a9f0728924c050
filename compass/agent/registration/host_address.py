"""Address of this host for listeners whose programs name none: the configured one, or the one that is found now.

It may change while the agent runs (DHCP, a resume on another network, a new interface), or between two runs by the
configuration. A registration with this address is stored as such and follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.logger import Logger

from compass.model.interfaces import Clock
from compass.system.timers import Timers

LOOK_SECONDS = 5.0
"""Interval between two looks at the address, which are a system call and no packet; each session begins with one."""


class Follower(Protocol):
    """Component that uses the address."""

    def address_changed(self, old: str, new: str) -> None:
        """Handle a change while the agent runs."""


class AddressDependencies(Protocol):
    """Part of the agent's dependencies that says the address."""

    @property
    def clock(self) -> Clock:
        """Clock of the timers."""

    @property
    def default_address(self) -> str:
        """Configured address, or the one to begin with."""

    @property
    def find_address(self) -> Callable[[], str] | None:
        """Function that returns the current address, or an empty string if there is no network; None: the configured
        one stays."""


class HostAddress:
    """Current address of this host."""

    _log = Logger()

    def __init__(self, parts: AddressDependencies) -> None:
        self._timers = Timers(parts.clock)
        self._find = find = parts.find_address
        self._followers: list[Follower] = []
        self.current = (find() if find is not None else "") or parts.default_address
        """Current address; the last one while there is no network."""

    def follow(self, follower: Follower) -> None:
        """Notify a component of changes; components are notified in the order in which they were added."""
        self._followers.append(follower)

    def start(self) -> None:
        """Look at the address from now on."""
        if self._find is not None:
            self._timers.start("look", LOOK_SECONDS, self._look_again)

    def stop(self) -> None:
        """Stop looking."""
        self._timers.cancel_all()

    def look(self) -> None:
        """Find the address, and notify the followers of a change."""
        found = self._find() if self._find is not None else ""
        if not found or found == self.current:
            return
        old, self.current = self.current, found
        self._log.info("the address of this host changed from {old} to {new}", old=old, new=found)
        for follower in self._followers:
            follower.address_changed(old, found)

    def _look_again(self) -> None:
        self._timers.start("look", LOOK_SECONDS, self._look_again)
        self.look()
