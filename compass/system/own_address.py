"""Address from which this machine reaches others, as its routes say now. Nothing is sent."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

ANYWHERE = ("192.0.2.1", "2001:db8::1")
"""Addresses that no machine has (RFC 5737, RFC 3849): the way to them is that of the default route."""
DISCARD_PORT = 9
"""Port of the connected UDP socket, to which nothing is sent."""


def find_address(targets: Iterable[str]) -> str:
    """Return the source address on the way to the first target that has a route; empty: there is no network.

    Targets that are names are left out: a lookup could block. Link-local addresses are of no use to other hosts.
    """
    for target in (*targets, *ANYWHERE):
        try:
            version = ipaddress.ip_address(target).version
            with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.connect((target, DISCARD_PORT))
                found = str(asking.getsockname()[0])
        except (OSError, ValueError):
            continue
        address = ipaddress.ip_address(found)
        if not (address.is_link_local or address.is_unspecified):
            return found
    return ""
