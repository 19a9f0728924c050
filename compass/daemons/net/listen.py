"""Ports and connections of both daemons: identity, endpoints, roles, TCP, UDP and Unix listeners."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from compass.daemons.config.reader import parse_listen
from compass.daemons.config.sections import DnsSettings, HostSettings, ServerSettings, TlsSettings
from compass.daemons.net.local_ports import LocalPort, LocalUnixPort
from compass.daemons.net.reuseport import NO_IPV6, DatagramPort, StreamPort
from compass.gateway.dns.server import DnsServer
from compass.gateway.dns.zone import DnsSource, Zone
from compass.model.metrics import Counter
from compass.model.names import InvalidName, parse_host_name, parse_network
from compass.model.rules.networks import ProbeNetworks, is_loopback
from compass.pki.identity import (
    Identity,
    IdentityError,
    PeerUnknown,
    RoleRules,
    leaf_problem,
    load_identity,
    role_and_name,
)
from compass.pki.tls_contexts import peer_of

BACKLOG = 4096
"""Connections that the kernel queues until they are accepted: all hosts may connect at the same moment. A connection
that finds no room is dropped silently, and the host's kernel tries again after 1, 3 and 7 seconds."""
DATAGRAM_OCTETS_MAX = 4096
"""Longest DNS query over UDP; a longer one is cut and then refused as malformed. A question has at most 260 octets."""

_log = Logger("compass.daemons")


def identity_of(settings: TlsSettings) -> Identity:
    """Return the daemon's identity. Raises IdentityError."""
    return load_identity(Path(settings.key), Path(settings.certificate), Path(settings.authority), datetime.now(UTC))


def rules_of(settings: TlsSettings) -> RoleRules | None:
    """Return the role rules of the configuration, or None if each certificate contains its role."""
    if not (settings.admin or settings.host or settings.server):
        return None
    return RoleRules(settings.admin, settings.host, settings.server)


def own_name(identity: Identity, settings: TlsSettings, role: str) -> str:
    """Return the name in the daemon's own certificate. Raises IdentityError if the certificate has another role."""
    try:
        found, name = role_and_name(identity.certificate, rules_of(settings))
        parse_host_name(name)
    except (PeerUnknown, InvalidName) as problem:
        raise IdentityError([f"{settings.certificate}: {problem}"]) from None
    if found != role:
        raise IdentityError(
            [f"{settings.certificate} has the role {found}; this daemon needs one with the role {role}"]
        )
    wrong = leaf_problem(identity.certificate, server=role == "server")
    if wrong:
        raise IdentityError([f"{settings.certificate}: {wrong}"])
    return name


def networks_of(settings: ServerSettings | HostSettings, own: Iterable[str]) -> ProbeNetworks:
    """Return the networks that the daemon probes. `own`: the addresses by which others reach the daemon."""
    return ProbeNetworks(
        tuple(parse_network(text) for text in settings.probe_networks),
        tuple(parse_network(text) for text in settings.probe_networks_denied),
        all(is_loopback(address) for address in own),
    )


class PeerRoles:
    """Roles and names of peers by their certificates, according to the configuration."""

    def __init__(self, rules: RoleRules | None) -> None:
        self._rules = rules

    def identify(self, transport: Any) -> tuple[str, str, str]:
        """Return the peer's role and name, or as third value why its certificate is not usable."""
        try:
            role, name = peer_of(transport, self._rules)
            return role, parse_host_name(name) if role == "host" else name, ""
        except (PeerUnknown, InvalidName) as problem:
            return "", "", str(problem)


def endpoint(reactor: Any, name: str, port: int, timeout_seconds: float) -> Any:
    """Return the endpoint to connect to. For an address, the plain one: that for names reports a refusal 0.3 s late."""
    try:
        version = ipaddress.ip_address(name).version
    except ValueError:
        return HostnameEndpoint(reactor, name, port, timeout=timeout_seconds)
    plain = TCP6ClientEndpoint if version == 6 else TCP4ClientEndpoint
    return plain(reactor, name, port, timeout=timeout_seconds)


def listen_local(reactor: Any, address: str, port: int, factory: Any) -> Any:
    """Listen on a TCP port for programs of this machine. Raises CannotListenError."""
    listening = LocalPort(port, factory, BACKLOG, address, reactor)
    listening.startListening()
    return listening


async def listen(reactor: Any, address: str, port: int, factory: Any) -> Any:
    """Listen on a TCP port; `::` is every IPv4 address on a machine without IPv6. Raises CannotListenError."""
    try:
        return _listen(reactor, port, factory, address)
    except CannotListenError as error:
        if address != "::" or getattr(error.socketError, "errno", None) not in NO_IPV6:
            raise
        _log.info("this machine has no IPv6: listening on 0.0.0.0 instead of [::]")
        return _listen(reactor, port, factory, "0.0.0.0")


def _listen(reactor: Any, port: int, factory: Any, interface: str) -> StreamPort:
    listening = StreamPort(port, factory, BACKLOG, interface, reactor)
    listening.startListening()
    return listening


async def listen_dns(
    reactor: Any,
    settings: DnsSettings,
    source: DnsSource,
    nameserver: str,
    ports: list[Any],
    answers: Counter | None = None,
    guard: Callable[[Any], Any] = lambda factory: factory,
) -> None:
    """Serve the zone over UDP and TCP, and append the ports as they open. `answers` counts by response code. `guard`
    returns what stands in front of the factory for TCP.

    Raises CannotListenError.
    """
    server = DnsServer(Zone(source, settings.zone, nameserver, settings.ttl, settings.addresses_max), reactor, answers)
    address, port = parse_listen(settings.listen)
    ports.append(await listen(reactor, address, port, guard(server.factory())))
    datagrams = DatagramPort(port, server.datagrams(), address, DATAGRAM_OCTETS_MAX, reactor)
    datagrams.startListening()
    ports.append(datagrams)


def listen_unix(reactor: Any, path: Path, mode: int, factory: Any) -> Any:
    """Listen on a Unix socket. The socket of a killed daemon is replaced. Raises CannotListenError if one is running.

    A connection to the socket finds out: a lock with a process id would mistake another process with the same id, which
    is common in containers, for the daemon.
    """
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            if path.is_socket():
                path.unlink()
        except OSError:
            # There is no socket, or none that can be used: listening reports it. A full queue is that of a daemon.
            pass
        else:
            raise CannotListenError(None, str(path), OSError(errno.EADDRINUSE, "a daemon already listens on it"))
    port = LocalUnixPort(os.fsencode(path), factory, BACKLOG, mode, reactor)
    port.startListening()
    return port
