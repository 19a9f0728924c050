"""Addresses that a daemon connects to because a row names them: probes, and the Update addresses of hosts.

The registrant of a listener chooses an address that servers and hosts connect to. So a daemon has a list of networks
that it probes; addresses that only the daemon reaches, its loopback and its link, are denied unless configured.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable

import msgspec

from compass.model.names import InvalidName, parse_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
LINK_LOCAL: tuple[Network, ...] = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))
"""Link-local networks: what answers there belongs to the link, such as the metadata service of a cloud."""


class ProbeDenied(str):
    """Reason why an address was not probed: no evidence about its listener."""

    __slots__ = ()


class NoProbe(ProbeDenied):
    """Reason for a listener of a category whose policy has no probe: nothing but reports and its own host judges it."""

    __slots__ = ()


class ProbeNetworks(msgspec.Struct, frozen=True):
    """Networks that a daemon connects to on behalf of a row."""

    allowed: tuple[Network, ...] = ()
    """The only networks; none: all, except the daemon's loopback and link-local addresses."""
    denied: tuple[Network, ...] = ()
    is_local: bool = False
    """True if the daemon serves its own machine only: then the loopback is where the listeners are."""

    def refusal(self, address: str) -> str:
        """Return why the daemon does not connect to an address; empty: it does."""
        if _contains(self.denied, address):
            return f"{address} is in probe_networks_denied"
        if _contains(self.allowed, address):
            return ""
        if self.allowed:
            return f"{address} is in none of probe_networks"
        if _contains(LINK_LOCAL, address) or (_contains(LOOPBACK, address) and not self.is_local):
            kind = "link-local" if _contains(LINK_LOCAL, address) else "this machine itself"
            return f"{address} is {kind}, which is probed only if probe_networks names it"
        return ""


def may_dial(update_address: str, origin: str, certified: Collection[str]) -> bool:
    """Return whether a host may be dialled at its Update address: that of its session, or one in its certificate.

    A loopback or link-local address in a certificate is that of the host, not of the server: it is valid only for a
    session that comes from such an address.
    """
    try:
        origin = parse_address(origin)
    except InvalidName:
        origin = ""
    if update_address == origin:
        return True
    if update_address not in certified:
        return False
    return all(not _contains(kind, update_address) or _contains(kind, origin) for kind in (LOOPBACK, LINK_LOCAL))


def is_loopback(address: str) -> bool:
    """Return whether an address is one of the loopback."""
    return _contains(LOOPBACK, address)


def _contains(networks: Iterable[Network], address: str) -> bool:
    try:
        # An IPv4 address in IPv6 form reaches the IPv4 network.
        parsed = ipaddress.ip_address(parse_address(address))
    except InvalidName:
        return False
    return any(parsed in network for network in networks)
