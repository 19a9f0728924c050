"""Where servers are, as configured: entries of `[host] servers` to ways and to names that DNS is asked for.

    servers = [
        "gns1.example.org:4863",
        { name = "gns2.example.org", addresses = ["192.0.2.2", "198.51.100.2:4863"], networks = "active" },
        "_opengns._tcp.example.org",
    ]

An entry that comes first is preferred, unless `prefer = "any"` makes all of them equal. The addresses of one server
are preferred in their order (`passive`: the second network is for when the first one fails) or not (`active`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from compass.agent.upstream.server_selector import Candidate, ServerAddress
from compass.model.names import InvalidName, parse_address, parse_endpoint, parse_host_name, parse_server

ADDRESSES_MAX = 8
"""Addresses of one server: more networks than a machine has."""
ENTRIES_MAX = 32
"""Entries of `servers`: more servers than a deployment has; a list that long belongs into DNS."""

_SERVICE = re.compile(r"_[a-z0-9]([a-z0-9-]*[a-z0-9])?\._tcp\.(.+)", re.IGNORECASE)


class ServerEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A server with several addresses. Its certificate must prove `name`, whichever it is reached at."""

    name: str
    addresses: tuple[str, ...] = ()
    """`address`, `address:port`; none: the name is looked up."""
    networks: Literal["passive", "active"] = "passive"


class ServerList(msgspec.Struct, frozen=True):
    """What the configuration says."""

    offers: tuple[Candidate, ...]
    """Ways that it gives itself."""
    services: tuple[tuple[str, int], ...]
    """SRV names, each with the rank of its entry."""


def parse_service(text: str) -> str:
    """An SRV name (RFC 2782) such as `_opengns._tcp.example.org`, in lower case, no dot last. Raises InvalidName."""
    match = _SERVICE.fullmatch(text)
    if match is None:
        raise InvalidName(f"{text[:80]!r} is not an SRV name; write it as in _opengns._tcp.example.org")
    domain = parse_host_name(match[2].removesuffix("."))
    return f"{text.lower()[: match.start(2)]}{domain}"


def is_service(text: str) -> bool:
    """Whether an entry is meant to be an SRV name."""
    return text.startswith("_")


def addresses_of(entry: str | ServerEntry) -> list[ServerAddress]:
    """The ways of an entry, in its order. Raises InvalidName."""
    entry = ServerEntry(entry) if isinstance(entry, str) else entry
    name, port = parse_server(entry.name)
    ways = [ServerAddress(name, *_place(text, port)) for text in entry.addresses]
    if len(set(ways)) < len(ways):
        raise InvalidName(f"{entry.name[:80]!r} has one address twice")
    if len(ways) > ADDRESSES_MAX:
        raise InvalidName(f"{entry.name[:80]!r} has {len(ways)} addresses; at most {ADDRESSES_MAX}")
    return ways or [ServerAddress(name, name, port)]


def known_servers(entries: Sequence[str | ServerEntry], prefer: Literal["first", "any"]) -> ServerList:
    """All entries. Raises InvalidName at the first that is wrong; configuration files are checked entry by entry."""
    offers: list[Candidate] = []
    services: list[tuple[str, int]] = []
    for place, entry in enumerate(entries):
        rank = place if prefer == "first" else 0
        if isinstance(entry, str) and is_service(entry):
            services.append((parse_service(entry), rank))
            continue
        equal = isinstance(entry, ServerEntry) and entry.networks == "active"
        offers += [Candidate(way, (rank, 0 if equal else number)) for number, way in enumerate(addresses_of(entry))]
    return ServerList(tuple(offers), tuple(services))


def _place(text: str, port: int) -> tuple[str, int]:
    """`address`, `[address]:port` or `address:port`; an IPv6 address alone needs no brackets."""
    if text.endswith("]") and text.startswith("["):
        return parse_address(text[1:-1]), port
    if text.count(":") == 1 or text.startswith("["):
        return parse_endpoint(text)
    return parse_address(text), port
