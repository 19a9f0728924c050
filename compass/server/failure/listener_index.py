"""Listeners by host: which ones a lost or returning session concerns, and the digest of what is recorded for a host."""

from __future__ import annotations

from collections.abc import Iterable

from compass.model.catalogue.digest import instance_digest, to_hex
from compass.model.rows import ListenerKey


class ListenerIndex:
    """The listeners in the catalogue that are not offline, each under the one host that it runs on."""

    def __init__(self) -> None:
        self._host_of: dict[ListenerKey, str] = {}
        self._of_host: dict[str, dict[ListenerKey, int]] = {}
        """Epochs by host and listener."""
        self._digests: dict[str, int] = {}
        """Sum of the digests of a host's instances."""

    def __contains__(self, key: ListenerKey) -> bool:
        """Return whether a listener is indexed."""
        return key in self._host_of

    @property
    def hosts(self) -> list[str]:
        """Hosts with listeners."""
        return list(self._of_host)

    def of(self, host: str) -> Iterable[ListenerKey]:
        """Return the listeners of a host, in the order in which they came to it."""
        return list(self._of_host.get(host, ()))

    def host_of(self, key: ListenerKey) -> str:
        """Return the host of a listener; empty: the listener is not indexed."""
        return self._host_of.get(key, "")

    def digest(self, host: str) -> str:
        """Return the digest of the instances of a host."""
        return to_hex(self._digests.get(host, 0))

    def add(self, key: ListenerKey, host: str, epoch: int) -> None:
        """Index an instance under its host, and no longer under another one; one without a host is removed."""
        held = self._of_host.get(host, {}).get(key)
        if held == epoch and self._host_of[key] == host:
            return
        # An instance keeps the place of the one before on the same host.
        if held is None:
            self.remove(key)
        if not host:
            return
        before = instance_digest(key, held) if held is not None else 0
        self._host_of[key] = host
        self._of_host.setdefault(host, {})[key] = epoch
        self._digests[host] = self._digests.get(host, 0) - before + instance_digest(key, epoch)

    def remove(self, key: ListenerKey) -> None:
        """Remove a listener, if it is indexed."""
        host = self._host_of.pop(key, "")
        if host:
            epoch = self._of_host[host].pop(key)
            self._digests[host] -= instance_digest(key, epoch)
            if not self._of_host[host]:
                del self._of_host[host], self._digests[host]

    def clear(self) -> None:
        """Remove every listener."""
        self._host_of.clear()
        self._of_host.clear()
        self._digests.clear()
