"""Services on whose behalf a host watches, and the users whose programs asked for them.

What one user asks for takes no place of another: beyond its share a user's own oldest service gives way, and when all
places are taken, one of the user who has most.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from compass.model.limits import HOST_SERVICES_MAX
from compass.model.replies import Refusal

WANTED_PER_USER_MAX = 64
"""Services that one user's programs ask about, not counting those that are registered here: a quarter of a host's."""
ASKERS_MAX = 64
"""Users that are remembered for one service: with this number it stays in any case."""


class RegisteredServices(Protocol):
    """Source of the services that have an instance on this host; the journal of registrations."""

    def services(self) -> frozenset[str]:
        """Return their ids."""


class WantedServices:
    """Services by their last request, each with the users who asked for it since the start."""

    def __init__(
        self,
        registered: RegisteredServices,
        configured: Sequence[str] = (),
        trusted: frozenset[int] = frozenset(),
    ) -> None:
        """`trusted`: users who may have all places."""
        self._registered = registered
        self._trusted = trusted
        self._configured = configured
        self._wanted: dict[str, frozenset[int]] = {}

    def __contains__(self, service: str) -> bool:
        return service in self._wanted

    def __len__(self) -> int:
        return len(self._wanted)

    @property
    def all(self) -> tuple[str, ...]:
        """Ids, the one asked for least recently first."""
        return tuple(self._wanted)

    def askers(self, service: str) -> frozenset[int]:
        """Return the users who asked for a service."""
        return self._wanted.get(service, frozenset())

    def restore(self, services: Iterable[str]) -> None:
        """Add the configured services, those of the last run and the registered ones."""
        every = dict.fromkeys([*self._configured, *services, *sorted(self._registered.services())])
        self._wanted.update(dict.fromkeys(list(every)[:HOST_SERVICES_MAX], frozenset[int]()))

    def add(self, service: str, user: int | None = None) -> Refusal | None:
        """Add a service, or make it the newest; refused if there are too many and none can give way.

        `user`: whose program asks; None: the service is registered here.
        """
        askers = self._wanted.get(service)
        if askers is None:
            refusal = self._make_room(user)
            if refusal is not None:
                return refusal
            askers = frozenset()
        elif user is not None and user not in askers:
            self._keep_share(user)
        self._wanted.pop(service, None)
        self._wanted[service] = askers | {user} if user is not None and len(askers) < ASKERS_MAX else askers
        return None

    def forget(self, unknown: Iterable[str]) -> None:
        """Drop services that do not exist, unless they are registered or configured here."""
        for service in set(unknown).intersection(self._idle()):
            del self._wanted[service]

    def _make_room(self, user: int | None) -> Refusal | None:
        """Make room for a service that a user asks for. Returns why there is none."""
        if user is not None:
            self._keep_share(user)
        if len(self._wanted) < HOST_SERVICES_MAX:
            return None
        idle = self._idle()
        counts = Counter(asker for service in idle for asker in self._wanted[service])

        def weight(service: str) -> float:
            """Return how many services that asker of this one has who has fewest; most for one without an asker."""
            return min((counts[asker] for asker in self._wanted[service]), default=math.inf)

        victim = max(idle, key=weight, default=None)
        if victim is None or (user is not None and weight(victim) < counts[user]):
            text = f"this host has {HOST_SERVICES_MAX} services, the most there can be; deregister one first"
            return Refusal("too-large", text)
        del self._wanted[victim]
        return None

    def _keep_share(self, user: int) -> None:
        """Drop a user's interest in the oldest services beyond the share, to make room for one more."""
        if user in self._trusted:
            return
        own = [service for service in self._idle() if user in self._wanted[service]]
        for service in own[: max(len(own) - WANTED_PER_USER_MAX + 1, 0)]:
            self._wanted[service] -= {user}
            if not self._wanted[service]:
                del self._wanted[service]

    def _idle(self) -> list[str]:
        """Return the services that are neither registered nor configured here, the oldest first."""
        needed = self._registered.services().union(self._configured)
        return [service for service in self._wanted if service not in needed]
