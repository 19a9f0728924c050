"""List of servers in `[host] servers`: entries to addresses, and to SRV names that are resolved by DNS.

    servers = [
        "gns1.example.org:4863",
        { name = "gns2.example.org", addresses = ["192.0.2.2", "198.51.100.2:4863"], networks = "active" },
        "_opengns._tcp.example.org",
    ]

Earlier entries are preferred, unless `prefer = "any"` makes all of them equal. The addresses of one server are
preferred in their order (`passive`: the second network is used when the first one fails) or equal (`active`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from compass.agent.upstream.server_selector import Candidate, ServerAddress
from compass.model.names import InvalidName, parse_address, parse_endpoint, parse_host_name, parse_server

ADDRESSES_MAX = 8
"""Most addresses of one server: more networks than a machine has."""
ENTRIES_MAX = 32
"""Most entries of `servers`: more servers than a deployment has; a longer list belongs into DNS."""

_SERVICE = re.compile(r"_[a-z0-9]([a-z0-9-]*[a-z0-9])?\._tcp\.(.+)", re.IGNORECASE)


class ServerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Server with several addresses. Its certificate must prove `name`, whichever address is used."""

    name: str
    addresses: tuple[str, ...] = ()
    """Each `address` or `address:port`; empty: the name is resolved."""
    networks: Literal["passive", "active"] = "passive"


class ServerList(msgspec.Struct, frozen=True):
    """Servers of the configuration."""

    candidates: tuple[Candidate, ...]
    """Addresses that the configuration names."""
    services: tuple[tuple[str, int], ...]
    """SRV names, each with the rank of its entry: 0 is preferred."""


def parse_service(text: str) -> str:
    """Parse an SRV name (RFC 2782) such as `_opengns._tcp.example.org`. Returns it in lower case, without a last dot.

    Raises InvalidName.
    """
    match = _SERVICE.fullmatch(text)
    if match is None:
        raise InvalidName(f"{text[:80]!r} is not an SRV name; write it as in _opengns._tcp.example.org")
    domain = parse_host_name(match[2].removesuffix("."))
    return f"{text.lower()[: match.start(2)]}{domain}"


def is_service(text: str) -> bool:
    """Return whether an entry is meant to be an SRV name."""
    return text.startswith("_")


def addresses_of(entry: str | ServerEntry) -> list[ServerAddress]:
    """Return the addresses of an entry, in its order. Raises InvalidName."""
    entry = ServerEntry(entry) if isinstance(entry, str) else entry
    name, port = parse_server(entry.name)
    found = [ServerAddress(name, *_parse_address(text, port)) for text in entry.addresses]
    if len(set(found)) < len(found):
        raise InvalidName(f"{entry.name[:80]!r} has one address twice")
    if len(found) > ADDRESSES_MAX:
        raise InvalidName(f"{entry.name[:80]!r} has {len(found)} addresses; at most {ADDRESSES_MAX}")
    return found or [ServerAddress(name, name, port)]


def known_servers(entries: Sequence[str | ServerEntry], prefer: Literal["first", "any"]) -> ServerList:
    """Return all entries. Raises InvalidName at the first invalid one; the configuration reader checks each entry."""
    candidates: list[Candidate] = []
    services: list[tuple[str, int]] = []
    for index, entry in enumerate(entries):
        rank = index if prefer == "first" else 0
        if isinstance(entry, str) and is_service(entry):
            services.append((parse_service(entry), rank))
            continue
        equal = isinstance(entry, ServerEntry) and entry.networks == "active"
        for number, address in enumerate(addresses_of(entry)):
            candidates.append(Candidate(address, (rank, 0 if equal else number)))
    return ServerList(tuple(candidates), tuple(services))


def _parse_address(text: str, port: int) -> tuple[str, int]:
    """Parse `address`, `[address]:port` or `address:port`; an IPv6 address alone needs no brackets."""
    if text.endswith("]") and text.startswith("["):
        return parse_address(text[1:-1]), port
    if text.count(":") == 1 or text.startswith("["):
        return parse_endpoint(text)
    return parse_address(text), port
