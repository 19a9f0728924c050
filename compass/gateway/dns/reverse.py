"""Names of registered addresses: which services have a listener at an address, for PTR queries (RFC 1035 section 3.5).

The index follows the catalogue: between two revisions only the services whose listeners differ are read again.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from immutables import Map

from compass.model.catalogue.catalogue import Catalogue

IPV4_LABELS, IPV6_LABELS = 4, 32
"""Labels of a whole address before the zone: octets, or hexadecimal digits."""
_ZONES: dict[tuple[bytes, ...], int] = {(b"in-addr", b"arpa"): IPV4_LABELS, (b"ip6", b"arpa"): IPV6_LABELS}

Labels = tuple[bytes, ...]


class ReverseIndex:
    """Services by the labels of the addresses of their listeners, whatever their state but offline."""

    def __init__(self) -> None:
        self._listeners: Any = None
        self._read: dict[str, tuple[Any, frozenset[str]]] = {}
        self._services: dict[str, set[str]] = {}
        self._parents: frozenset[Labels] | None = None

    def services(self, catalogue: Catalogue, labels: Labels) -> tuple[str, list[str]] | None:
        """Return the address that a reverse name spells and its services; None: no address of a listener. The address
        is empty for a name above one."""
        count = _ZONES.get(labels[-2:])
        if count is None or len(labels) > count + 2:
            return None
        self._follow(catalogue)
        if len(labels) < count + 2:
            return ("", []) if labels in self._known_parents() else None
        address = _address(labels[:-2], count)
        found = self._services.get(address)
        return (address, sorted(found)) if found else None

    def _follow(self, catalogue: Catalogue) -> None:
        if catalogue.listeners is self._listeners:
            return
        self._listeners = catalogue.listeners
        for service in [one for one in self._read if one not in catalogue.listeners]:
            self._set(service, Map())
        for service, peers in catalogue.listeners.items():
            kept = self._read.get(service)
            if kept is None or kept[0] is not peers:
                self._set(service, peers)

    def _set(self, service: str, peers: Any) -> None:
        _, before = self._read.pop(service, (None, frozenset()))
        after = frozenset(peer.address for peer in peers.values() if peer.state != "offline")
        if len(peers):
            self._read[service] = peers, after
        for address in before - after:
            self._services[address].discard(service)
            if not self._services[address]:
                del self._services[address]
        for address in after - before:
            self._services.setdefault(address, set()).add(service)
        if before != after:
            self._parents = None

    def _known_parents(self) -> frozenset[Labels]:
        """Return the names above those of addresses: they exist (RFC 8020), and resolvers that minimise their queries
        ask for them first."""
        if self._parents is None:
            names = (labels_of(address) for address in self._services)
            self._parents = frozenset(name[at:] for name in names for at in range(1, len(name) - 1))
        return self._parents


def labels_of(address: str) -> Labels:
    """Return the labels of an address's reverse name."""
    return tuple(label.encode() for label in ipaddress.ip_address(address).reverse_pointer.split("."))


def _address(labels: Labels, count: int) -> str:
    """Return the address that labels spell, in canonical form; empty if they spell none."""
    parts = [label.decode("ascii", "replace") for label in reversed(labels)]
    try:
        if count == IPV4_LABELS:
            return str(ipaddress.IPv4Address(".".join(parts)))
        if any(len(part) != 1 for part in parts):
            return ""
        return str(ipaddress.IPv6Address(int("".join(parts), 16)))
    except ValueError:
        return ""
