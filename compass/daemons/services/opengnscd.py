"""Service of opengnscd: configuration, TLS, process watch and HTTP API, assembled."""

from __future__ import annotations

import grp
import os
import random
import resource
import secrets
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from twisted.names.client import Resolver
from zope.interface import implementer

import compass
from compass.agent.agent import Agent
from compass.agent.dependencies import AgentDependencies
from compass.agent.hooks.runner import reactions_of
from compass.agent.local_users import CONNECTIONS_MAX, DESCRIPTORS_KEPT, LocalUsers
from compass.agent.metrics import AgentMetrics
from compass.agent.registration.process_watch import ProcessWatch
from compass.agent.upstream.connector import Dial
from compass.agent.upstream.dns_discovery import ResolverLookup, SrvLookup
from compass.agent.upstream.multicast import AnnouncementListener
from compass.agent.upstream.server_selector import ServerAddress, ServerSelector
from compass.daemons.certificates.renewal import CertificateRenewal, SessionIssuer
from compass.daemons.config.reader import parse_listen
from compass.daemons.config.sections import AUTO_ADDRESS, NOT_SHARED, HostSettings
from compass.daemons.config.server_list import known_servers
from compass.daemons.config.settings import HostConfig
from compass.daemons.net.connection_table import UPDATE, ConnectionTable
from compass.daemons.net.gate import Gate
from compass.daemons.net.inherited import InheritedPorts
from compass.daemons.net.listen import (
    PeerRoles,
    endpoint,
    listen,
    listen_dns,
    listen_local,
    listen_unix,
    networks_of,
    rules_of,
)
from compass.daemons.net.live_identity import LiveIdentity
from compass.daemons.net.own_listeners import check_means
from compass.daemons.net.proxy_protocol import Balancers
from compass.daemons.net.transport import wrap_tls
from compass.daemons.process import gc
from compass.daemons.process.own_directories import OwnDirectories
from compass.gateway.dns.server import CONNECTIONS_MAX as DNS_CONNECTIONS_MAX
from compass.gateway.haproxy_agent import CONNECTIONS_MAX as AGENT_CONNECTIONS_MAX
from compass.gateway.haproxy_agent import AgentCheck
from compass.gateway.host_api.local_peers import LocalPeers
from compass.gateway.host_api.routes import site
from compass.gateway.metrics.exposition import Metrics, Snapshot
from compass.model.host_api import HostStatus
from compass.model.names import format_endpoint, parse_endpoint, parse_group, parse_host_name
from compass.pki.tls_contexts import client_context, server_context
from compass.server.failure.probes import Prober
from compass.system.machine import find_address, this_machine
from compass.system.systemd import passed_sockets, passed_variables

SOFTWARE = f"compass/{compass.__version__}"
CONNECT_SECONDS = 5.0
"""Time limit for connecting to a server; then the next one is tried."""
RESOLV_CONF = "/etc/resolv.conf"
"""File with the DNS servers of the system (resolv.conf(5))."""
WILDCARD = "0.0.0.0"
"""Address in place of an unknown one: it is not a loopback address."""
LOOPBACK = "127.0.0.1"
"""Address of this host while there is no network."""
SOCKET_MODE = 0o666
"""Mode of the socket: every program on the host may ask, as on the loopback port; changes need a credential."""


TRUSTED_USERS = frozenset({0, os.geteuid()})
"""Users whose programs have no limits: root and the daemon's own user can stop the daemon anyway."""


def _connections_max() -> int:
    """Return how many connections local programs may have, with the descriptors that this process may open."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if descriptors == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, max(descriptors - DESCRIPTORS_KEPT, descriptors // 2))


def _view_directory(settings: HostSettings) -> Path | None:
    """Return the directory of the shared view; None if the view is not shared."""
    if settings.view == NOT_SHARED or not (settings.view or settings.socket):
        return None
    return Path(settings.view) if settings.view else Path(settings.socket).parent / "view"


class HostService(Service):
    """Service of the client daemon."""

    log = Logger()

    def __init__(self, reactor: Any, config: HostConfig) -> None:
        """Read the certificates. Raises IdentityError before anything is served."""
        self._reactor = reactor
        self._settings = settings = config.host
        self._dns = config.dns
        self._identity = identity = LiveIdentity(reactor, config.tls, "host")
        self._ports: list[Any] = []
        self._directories = OwnDirectories(reactor)
        self._name = parse_host_name(identity.name)
        known = known_servers(settings.servers, settings.prefer)
        draw = random.SystemRandom().random
        self._selector = ServerSelector(draw, known.candidates)
        self._agent = Agent(self._dependencies(config))
        upstream = self._agent.components.upstream
        identity.recovered.append(upstream.retry_now)
        issuer = SessionIssuer(upstream.ask, lambda: self._renewal.start())
        self._renewal = CertificateRenewal(reactor, config.tls, identity, issuer)
        upstream.follow(issuer)
        self._service_names: list[SrvLookup] = []
        if known.services:
            lookup = ResolverLookup(_resolver(reactor, settings.resolver))
            for name, rank in known.services:
                self._selector.expect(name)
                self._service_names.append(SrvLookup(reactor, draw, lookup, name, rank, upstream))

    def _dependencies(self, config: HostConfig) -> AgentDependencies:
        settings, reactor, identity = self._settings, self._reactor, self._identity
        is_auto = settings.address == AUTO_ADDRESS
        own = self._find_address() if is_auto else settings.address
        prober = Prober(reactor, SOFTWARE, networks_of(settings, (own or WILDCARD,)))
        return AgentDependencies(
            clock=reactor,
            now=time.time,
            random=random.SystemRandom().random,
            state_directory=Path(settings.state_directory),
            host_name=self._name,
            machine=this_machine(self._name),
            default_address=own or LOOPBACK,
            find_address=self._find_address if is_auto else None,
            selector=self._selector,
            dial=dialler(reactor, identity),
            process_watch=ProcessWatch(reactor),
            peer_of=PeerRoles(rules_of(config.tls)).identify,
            update_port=parse_listen(settings.update)[1] if settings.update else 0,
            mode=settings.session,
            refresh_seconds=None if settings.refresh_seconds == "auto" else settings.refresh_seconds,
            software=SOFTWARE,
            instance=secrets.token_hex(8),
            probe=prober.probe,
            own_probe=prober.probe,
            checks=check_means(reactor, SOFTWARE, config.checks),
            zone=settings.zone,
            services=settings.services,
            view=_view_directory(settings),
            reactions=reactions_of(
                reactor, config.hooks, config.templates, Path(settings.state_directory), self._name, settings.zone
            ),
            trusted_users=TRUSTED_USERS,
            connections_max=_connections_max(),
            view_group=grp.getgrnam(settings.view_group).gr_gid if settings.view_group else None,
            certificates=lambda: identity.certificates,
            dns=config.dns.listen if config.dns is not None else "",
            dns_zone=config.dns.zone if config.dns is not None and config.dns.listen else "",
            development=settings.development,
        )

    def startService(self) -> None:
        """Answer from the disk cache, then connect to a server; `started` fails if the daemon cannot serve."""
        super().startService()
        gc.raise_threshold()
        self._identity.start()
        self.started = Deferred.fromCoroutine(self._start(self._settings))
        self.started.addErrback(lambda failure: failure.trap(CancelledError) and None)

    def status(self) -> HostStatus:
        """Return the state of the agent."""
        return self._agent.api.status()

    def _find_address(self) -> str:
        """Return the address from which this machine reaches its servers now; empty: there is no network."""
        return find_address(server.address for server in self._selector.servers)

    async def _start(self, settings: HostSettings) -> None:
        await self._directories.lock(Path(settings.state_directory), "state_directory")
        agent, view, upstream = self._agent, self._agent.components.view, self._agent.components.upstream
        metrics = Metrics(
            self._reactor, {"version": compass.__version__}, Snapshot(AgentMetrics, "opengns_host_", agent.api.metrics)
        )
        api = LocalPeers(site(agent.api, self._reactor, metrics), agent.components.users, self._reactor)
        held = InheritedPorts(self._reactor, passed_sockets(passed_variables()))
        if settings.api:
            place = parse_listen(settings.api)
            self._ports.append(held.adopt(place, api) or listen_local(self._reactor, *place, api))
        if settings.socket:
            path = Path(settings.socket)
            self._ports.append(held.adopt(path, api) or listen_unix(self._reactor, path, SOCKET_MODE, api))
        held.warn_of_unused()
        if settings.agent:
            check = LocalPeers(AgentCheck(view, self._reactor), self._port_users(AGENT_CONNECTIONS_MAX))
            self._ports.append(listen_local(self._reactor, *parse_listen(settings.agent), check))
        if settings.update:
            tls = wrap_tls(server_context(self._identity), upstream.update_factory(), client=False, own=self._identity)
            table = ConnectionTable(self._reactor, UPDATE, lambda origin: None)
            factory = Gate(self._reactor, tls, table, Balancers(()))
            self._ports.append(await listen(self._reactor, *parse_listen(settings.update), factory))
        if self._dns is not None and self._dns.listen:
            guard = partial(LocalPeers, limits=self._port_users(DNS_CONNECTIONS_MAX))
            await listen_dns(
                self._reactor, self._dns, view, self._name, self._ports, metrics.gateways.dns_answers, guard
            )
        if (shared := _view_directory(settings)) is not None:
            await self._directories.lock(shared, "view")
        for warning in agent.api.status().warnings:
            self.log.warn("{warning}", warning=warning)
        agent.start()
        gc.freeze_loaded()
        for name in self._service_names:
            name.start()
        if settings.announcements:
            self._ports.append(self._hear_announcements(*parse_group(settings.announcements)))
        for port in self._ports:
            bound = port.getHost()
            where = format_endpoint(bound.host, bound.port) if hasattr(bound, "port") else os.fsdecode(bound.name)
            self.log.info("opengnscd listens on {where}", where=where)

    def _port_users(self, connections: int) -> LocalUsers:
        """Return the limits of a port with this number of connections, of which one user has half at most."""
        return LocalUsers(self._reactor, TRUSTED_USERS, connections, connections // 2)

    def _hear_announcements(self, group: str, port: int) -> Any:
        """Listen on the group's own address: datagrams that were sent to this host alone are not announcements."""
        address = self._agent.components.address.current
        interface = "" if ":" in address else address
        upstream = self._agent.components.upstream
        listening = AnnouncementListener(self._reactor, self._selector, group, interface, upstream)
        try:
            return self._reactor.listenMulticast(port, listening, interface=group, listenMultiple=True)
        except CannotListenError as error:
            raise CannotListenError(group, port, error.socketError) from None

    def stopService(self) -> Deferred[Any]:
        """Disconnect from the server; all registrations of this host stay."""
        super().stopService()
        self.started.cancel()
        self._identity.stop()
        self._renewal.stop()
        for name in self._service_names:
            name.stop()
        closing = [maybeDeferred(port.stopListening) for port in self._ports]
        stopped = gatherResults([*closing, self._agent.stop()], consumeErrors=True)
        stopped.addBoth(lambda _: self._directories.release())
        return stopped.addBoth(lambda _: self.log.info("opengnscd has stopped"))


def dialler(reactor: Any, identity: LiveIdentity) -> Dial:
    """Return a function that makes the endpoint of a server's address."""

    def dial(address: ServerAddress) -> IStreamClientEndpoint:
        # The type checker does not see what zope.interface's decorator declares.
        return cast(IStreamClientEndpoint, _TlsEndpoint(reactor, identity, address))

    return dial


@implementer(IStreamClientEndpoint)
class _TlsEndpoint:
    """Endpoint of a server whose certificate must contain the name of the address."""

    def __init__(self, reactor: Any, identity: LiveIdentity, address: ServerAddress) -> None:
        self._reactor = reactor
        self._identity = identity
        self._server = address

    def connect(self, factory: Any) -> Deferred[Any]:
        server = self._server
        try:
            context = client_context(self._identity.current(), server.name)
        except ValueError as error:
            # An announcement of an unknown sender may contain a name that no certificate can prove.
            return fail(error)
        where = endpoint(self._reactor, server.address, server.port, CONNECT_SECONDS)
        connected: Deferred[Any] = where.connect(wrap_tls(context, factory, client=True, own=self._identity))
        return connected.addCallback(lambda tls: tls.wrappedProtocol)


def _resolver(reactor: Any, where: str) -> Any:
    """Return the resolver with the DNS server of the configuration, or those of the system."""
    return (
        Resolver(servers=[parse_endpoint(where)], reactor=reactor) if where else Resolver(RESOLV_CONF, reactor=reactor)
    )
