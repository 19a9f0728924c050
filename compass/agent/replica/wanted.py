"""Services on whose behalf this host watches: those that programs asked for, a bounded number of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from compass.model.limits import HOST_SERVICES_MAX
from compass.model.replies import Refusal


class RegisteredServices(Protocol):
    """Source of the services that have an instance on this host; the journal of registrations."""

    def services(self) -> frozenset[str]:
        """Return their ids."""


class WantedServices:
    """Service ids in the order in which they were last asked for; the oldest one that is not needed gives way."""

    def __init__(self, registered: RegisteredServices, configured: Sequence[str] = ()) -> None:
        self._registered = registered
        self._configured = configured
        self._wanted: dict[str, None] = {}

    def __contains__(self, service: str) -> bool:
        return service in self._wanted

    def __len__(self) -> int:
        return len(self._wanted)

    @property
    def all(self) -> tuple[str, ...]:
        """Ids, the one asked for least recently first."""
        return tuple(self._wanted)

    def restore(self, services: Iterable[str]) -> None:
        """Add the configured services, those of the last run and the registered ones."""
        every = dict.fromkeys([*self._configured, *services, *sorted(self._registered.services())])
        self._wanted.update(dict.fromkeys(list(every)[:HOST_SERVICES_MAX]))

    def add(self, service: str) -> Refusal | None:
        """Add a service, or make it the newest; refused if there are too many and all of them are needed."""
        self._wanted.pop(service, None)
        if len(self._wanted) >= HOST_SERVICES_MAX:
            needed = self._needed()
            idle = next((other for other in self._wanted if other not in needed), None)
            if idle is None:
                text = f"this host has {HOST_SERVICES_MAX} services, the most there can be; deregister one first"
                return Refusal("too-large", text)
            del self._wanted[idle]
        self._wanted[service] = None
        return None

    def forget(self, unknown: Iterable[str]) -> None:
        """Drop services that do not exist, unless they are registered or configured here."""
        needed = self._needed()
        for service in unknown:
            if service not in needed:
                self._wanted.pop(service, None)

    def _needed(self) -> frozenset[str]:
        return self._registered.services().union(self._configured)
