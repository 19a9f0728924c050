"""PROXY protocol, version 2 (HAProxy's proxy-protocol.txt): for whom a balancer has opened a connection.

Only the balancers that the configuration names are asked for the header: any other peer could write any address in it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from compass.model.names import parse_network

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
HEADER_OCTETS = 16
"""Octets before the addresses: signature, version and command, family, length."""
HEADER_OCTETS_MAX = 2048
"""Longest header in octets: addresses have 36, and balancers add some fields of their own."""
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESS_OCTETS = {0x11: 4, 0x21: 16}
"""Octets of an address by family: TCP over IPv4 and IPv6."""


class InvalidHeader(Exception):
    """The peer has sent something else than a header of version 2."""


class Header(NamedTuple):
    """A header that has arrived."""

    octets: int
    """Octets of the header; the connection's own follow."""
    address: str
    """Address of the client; empty: the balancer speaks for itself, to check this server's health."""
    port: int


def read_header(octets: bytes) -> Header | None:
    """Return the header at the beginning of a connection, or None if it has not arrived completely.

    Raises InvalidHeader.
    """
    if octets[: len(SIGNATURE)] != SIGNATURE[: len(octets)]:
        raise InvalidHeader("no header of the PROXY protocol, version 2")
    if len(octets) < HEADER_OCTETS:
        return None
    command, family = octets[12], octets[13]
    end = HEADER_OCTETS + int.from_bytes(octets[14:16], "big")
    if command not in (_LOCAL, _PROXY) or end > HEADER_OCTETS_MAX:
        raise InvalidHeader("an unknown command, or too long a header, of the PROXY protocol")
    if len(octets) < end:
        return None
    if command == _LOCAL:
        return Header(end, "", 0)
    size = _ADDRESS_OCTETS.get(family)
    if size is None or end < HEADER_OCTETS + 2 * size + 4:
        raise InvalidHeader("the PROXY protocol's header has no addresses of TCP")
    source = octets[HEADER_OCTETS : HEADER_OCTETS + size]
    ports = octets[HEADER_OCTETS + 2 * size :]
    return Header(end, str(ipaddress.ip_address(source)), int.from_bytes(ports[:2], "big"))


class Balancers:
    """Addresses and networks of the balancers that send the header."""

    def __init__(self, named: Sequence[str]) -> None:
        self._networks = [parse_network(text) for text in named]

    def include(self, address: str) -> bool:
        """Return whether an address is that of a balancer."""
        if not self._networks:
            return False
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._networks)
