"""Listeners by host: which ones a lost or returning session concerns."""

from __future__ import annotations

from collections.abc import Iterable

from compass.model.rows import ListenerKey


class ListenerIndex:
    """The listeners in the catalogue that are not offline, each under the one host that it runs on."""

    def __init__(self) -> None:
        self._host_of: dict[ListenerKey, str] = {}
        self._of_host: dict[str, dict[ListenerKey, None]] = {}

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

    def add(self, key: ListenerKey, host: str) -> None:
        """Index a listener under its host, and no longer under another one; a listener without a host is removed."""
        if self._host_of.get(key, host) != host:
            self.remove(key)
        if host:
            self._host_of[key] = host
            self._of_host.setdefault(host, {})[key] = None

    def remove(self, key: ListenerKey) -> None:
        """Remove a listener, if it is indexed."""
        host = self._host_of.pop(key, "")
        if host:
            del self._of_host[host][key]
            if not self._of_host[host]:
                del self._of_host[host]

    def clear(self) -> None:
        """Remove every listener."""
        self._host_of.clear()
        self._of_host.clear()
