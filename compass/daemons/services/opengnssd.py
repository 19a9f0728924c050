"""Service of opengnssd: configuration, store, TLS and reactor, assembled."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import msgspec
from twisted.application.service import Service
from twisted.internet import protocol
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, maybeDeferred
from twisted.logger import Logger

import compass
from compass.console import pages as console
from compass.daemons.alerts.channels import alert_channels
from compass.daemons.certificates.renewal import CertificateRenewal, OwnIssuer
from compass.daemons.certificates.signer import AuthoritySigner
from compass.daemons.config.reader import WILDCARDS, parse_listen
from compass.daemons.config.settings import ServerConfig
from compass.daemons.net import connection_table
from compass.daemons.net.connection_table import ConnectionTable, TableLimits
from compass.daemons.net.database_thread import DatabaseThread
from compass.daemons.net.gate import Gate
from compass.daemons.net.listen import (
    PeerRoles,
    endpoint,
    listen,
    listen_dns,
    networks_of,
    rules_of,
)
from compass.daemons.net.live_identity import LiveIdentity
from compass.daemons.net.proxy_protocol import Balancers
from compass.daemons.net.transport import TlsFactory, wrap_tls
from compass.daemons.process import gc
from compass.daemons.process.run_id import is_over, new_run_id
from compass.gateway.metrics.exposition import Metrics, Snapshot
from compass.gateway.server_api import routes
from compass.model.catalogue.lookup_scope import LookupScope
from compass.model.metrics import Gauge
from compass.model.names import format_endpoint, parse_group
from compass.model.replies import Reply
from compass.model.requests import Request
from compass.model.rules.draft import Principal
from compass.model.rules.networks import ProbeNetworks
from compass.model.selection.selector import Selector
from compass.model.selection.unanswered import UnansweredLookups, is_without_listener
from compass.pki.authority import names_of
from compass.pki.tls_contexts import addresses_of, client_context, https_context, server_context
from compass.server.cluster.announcer import Announcer
from compass.server.commit.log_trimmer import LogBounds
from compass.server.components import ServerDependencies
from compass.server.failure.probes import Prober
from compass.server.metrics import ServerMetrics
from compass.server.server import Server
from compass.server.sessions.rate_limit import ChangeRates, Rate
from compass.server.sessions.session import Session
from compass.store.cluster import SqlClusterStore
from compass.store.notifications import ChangeNotifier
from compass.store.store import Store

SOFTWARE = f"compass/{compass.__version__}"
DIAL_SECONDS = 5.0
"""Time limit for connecting to a host's Update listener; after a failure it is tried again later."""


class ServerService(Service):
    """Service of the server daemon, or of one of its workers."""

    log = Logger()

    def __init__(self, reactor: Any, config: ServerConfig, worker: int = 0) -> None:
        """Read the certificates. Raises IdentityError before anything is opened or served.

        A worker (1, 2, ...) listens only once it can serve, since the others serve meanwhile, and leaves log entries
        that concern all workers to its parent.
        """
        self._reactor = reactor
        self._config = config
        self._worker = worker
        self._identity = identity = LiveIdentity(reactor, config.tls, "server", logs=worker <= 1)
        self._name = identity.name
        self._signer = AuthoritySigner(config, identity.identity.authorities) if config.server.authority else None
        self._renewal: CertificateRenewal | None = None
        # Of several workers one renews; the others read the new files.
        if self._signer is not None and worker <= 1:
            issuer = OwnIssuer(self._signer, identity)
            self._renewal = CertificateRenewal(reactor, config.tls, identity, issuer)
        self._peers: routes.PeerIdentifier = PeerRoles(rules_of(config.tls))
        self._networks = networks_of(config.server, (parse_listen(text)[0] for text in config.server.listen))
        self._database = DatabaseThread(reactor)
        self._beside = DatabaseThread(reactor)
        self._store: Store | None = None
        self._roster: SqlClusterStore | None = None
        self._server: Server | None = None
        self._wakeups: ChangeNotifier | None = None
        self._ports: list[Any] = []
        self._dns_source: ServerSource | None = None
        build = {"version": compass.__version__, "worker": str(worker or "")}
        self._metrics = Metrics(reactor, build, Snapshot(ServerMetrics, "opengns_server_", self._take_snapshot))

    def _parts(self, store: Store, roster: SqlClusterStore) -> ServerDependencies:
        settings = self._config.server
        return ServerDependencies(
            clock=self._reactor,
            now=time.time,
            token=lambda: secrets.token_urlsafe(32),
            storage=store,
            in_database=self._database,
            peer_of=self._peers.identify,
            probe=Prober(self._reactor, SOFTWARE, self._networks).probe,
            connect=connector(self._reactor, self._identity, self._networks),
            random=random.SystemRandom().random,
            ways=alert_channels(self._reactor, settings.alert_command, self._config.alerts, self._name),
            id=new_run_id(),
            roster=roster,
            beside=self._beside,
            keep=LogBounds(
                settings.keep_updates, settings.keep_others, settings.keep_updates_octets, settings.keep_others_octets
            ),
            addresses_of=lambda stream: addresses_of(cast(Any, stream)),
            change_rates=ChangeRates(
                Rate(settings.credential_changes_per_second, settings.credential_changes_burst),
                Rate(settings.host_changes_per_second, settings.host_changes_burst),
            ),
            store_wait_seconds=settings.store_wait_seconds,
            development=settings.development,
            certificates=lambda: self._identity.certificates,
            signer=self._signer,
            reports_certificates=self._worker <= 1,
        )

    def startService(self) -> None:
        """Open the store, listen, load; `started` fails with StoreUnavailable or CannotListenError.

        The store is opened here and not before: twistd forks in between.
        """
        super().startService()
        gc.raise_threshold()
        self._identity.start()
        if self._renewal is not None:
            self._renewal.start()
        self._database.start()
        self._beside.start()
        self.started = Deferred.fromCoroutine(self._start())
        self.started.addErrback(lambda failure: failure.trap(CancelledError) and None)

    async def _start(self) -> None:
        self._store = store = await self._database.run(Store.open, self._config.server.store)
        if store.backup is not None:
            self.log.info("the store was upgraded; a copy of the old store is {copy}", copy=store.backup)
        if store.newer:
            self.log.info(
                "the store has the newer schema {schema}, which this program can use during an upgrade",
                schema=store.newer,
            )
        self._roster = roster = store.roster()
        for ended in await self._beside.run(roster.remove_ended, is_over):
            self.log.info("run {id} of a server of this machine has ended without leaving", id=ended[:28])
        name = self._config.server.name or self._name
        if self._worker:
            name += f"#{self._worker}"
        self._server = server = Server(name, SOFTWARE, self._parts(store, roster))
        if not self._worker:
            await self._listen(server)
        await server.start()
        self._database.guard(store.cut)
        self._beside.guard(roster.cut)
        self._wakeups = store.wakeups(partial(self._reactor.callFromThread, server.commits.store_advanced))
        if self._wakeups is not None:
            self._wakeups.start()
        gc.freeze_loaded()
        if self._worker:
            await self._listen(server)
        for port in () if self._worker else self._ports:
            bound = port.getHost()
            self.log.info("opengnssd listens on {where}", where=format_endpoint(bound.host, bound.port))
        # All workers share one address, so only one of them announces it.
        if self._config.server.announce and self._worker <= 1:
            self._ports.append(self._announce(*parse_group(self._config.server.announce)))

    def ask(self, asker: Principal, request: Request) -> Deferred[Reply]:
        """Answer a request of this process itself, once the service has started."""
        assert self._server is not None
        return self._server.https.ask_as(asker, request)

    def _take_snapshot(self) -> ServerMetrics:
        assert self._server is not None
        taken = self._server.https.metrics()
        if self._dns_source is None:
            return taken
        return msgspec.structs.replace(taken, services_unanswered=self._dns_source.unanswered())

    async def _listen(self, server: Server) -> None:
        tls = wrap_tls(server_context(self._identity), server, client=False, own=self._identity)
        factory = self._gate(tls, connection_table.OPENGNSP, server)
        for text in self._config.server.listen:
            address, port = parse_listen(text)
            self._ports.append(await listen(self._reactor, address, port, factory))
        await self._listen_https(server)
        if self._config.dns is not None and self._config.dns.listen:
            source = self._dns_source = ServerSource(server, Selector(random.SystemRandom().random))
            await listen_dns(
                self._reactor, self._config.dns, source, self._name, self._ports, self._metrics.gateways.dns_answers
            )

    async def _listen_https(self, server: Server) -> None:
        """Serve the HTTPS API. TLS accepts clients without a certificate, because a token authenticates as well."""
        https = self._config.https
        endpoints = [parse_listen(text) for text in https.listen]
        if https.worker_ports and self._worker:
            address, port = parse_listen(https.worker_ports)
            endpoints.append((address, port + self._worker - 1))
        if not endpoints:
            return
        is_open = https.metrics == "open"
        api = routes.site(
            server.https,
            self._reactor,
            self._peers,
            console.routes(),
            metrics=self._metrics,
            metrics_are_open=is_open,
            names=(*names_of(self._identity.identity.certificate), self._name, self._config.server.name, *https.names),
        )
        tls = wrap_tls(https_context(self._identity), api, client=False, own=self._identity)
        factory = self._gate(tls, connection_table.HTTPS, server, self._metrics.gateways.http_connections)
        for host, port in endpoints:
            self._ports.append(await listen(self._reactor, host, port, factory))

    def _gate(
        self, tls: TlsFactory, limits: TableLimits, server: Server, open_connections: Gauge | None = None
    ) -> Gate:
        """Return the factory of one port: it counts connections before TLS begins."""
        tls.on_refused = server.connections.handshake_refused
        table = ConnectionTable(self._reactor, limits, server.connections.count_refused, open_connections)
        return Gate(self._reactor, tls, table, Balancers(self._config.server.balancers))

    def _announce(self, group: str, port: int) -> Any:
        """Announce this server's addresses by multicast; receivers of a wildcard use the datagram's source address."""
        endpoints = [parse_listen(text) for text in self._config.server.listen]
        served = endpoints[0][1]
        own = [address for address, at in endpoints if at == served and address not in WILDCARDS.values()]
        announcer = Announcer(self._reactor, random.SystemRandom().random, (group, port), self._name, own, served)
        self.log.info("opengnssd announces itself to {group}", group=format_endpoint(group, port))
        return self._reactor.listenMulticast(0, announcer)

    def stopService(self) -> Deferred[Any]:
        """Send a goodbye to each session, wait for the last commit, and close the store."""
        super().stopService()
        self.started.cancel()
        self._identity.stop()
        if self._renewal is not None:
            self._renewal.stop()
        if self._server is not None:
            self._server.stop()
        if self._wakeups is not None:
            self._wakeups.stop()
        closing = [maybeDeferred(port.stopListening) for port in self._ports]

        def finish(_: object) -> None:
            if self._roster is not None:
                self._roster.close()
            if self._store is not None:
                self._store.close()
            self.log.info("opengnssd has stopped")

        ended = gatherResults(closing, consumeErrors=True)
        ended.addBoth(lambda _: gatherResults([self._database.stop(), self._beside.stop()]))
        return ended.addBoth(finish)


class ServerSource:
    """Source of DNS answers: a server's whole catalogue."""

    def __init__(self, server: Server, pools: Selector) -> None:
        self._server = server
        self.pools = pools
        self._sight: LookupScope | None = None
        self._unanswered = UnansweredLookups()

    def found_none(self, name: str) -> None:
        """Note that a lookup of an existing service or category has found no listener."""
        self._unanswered.asked(name, time.monotonic())

    def unanswered(self) -> int:
        """Return the number of names that are asked for again and again and have no listener."""
        scope = self.sight()
        if scope is None:
            return 0
        has_none = partial(is_without_listener, scope.catalogue)
        return len(self._unanswered.names(time.monotonic(), has_none, ()))

    def sight(self) -> LookupScope | None:
        """Return the whole catalogue; None until the catalogue is loaded (P5)."""
        if self._server.https.ready() is None:
            return None
        catalogue = self._server.catalogue
        if self._sight is None or self._sight.catalogue is not catalogue:
            self._sight = LookupScope(catalogue)
        return self._sight


class DialDenied(Exception):
    """The configuration forbids connections to the Update address of a host."""


def connector(
    reactor: Any, identity: LiveIdentity, networks: ProbeNetworks
) -> Callable[[str, str, int, Callable[[], Session]], Deferred[Session]]:
    """Return a function that connects to a host's Update listener, whose certificate must contain the host's name."""

    def connect(host: str, address: str, port: int, make: Callable[[], Session]) -> Deferred[Session]:
        denied = networks.refusal(address)
        if denied:
            return fail(DialDenied(denied))
        context = client_context(identity.current(), host)
        factory = wrap_tls(context, protocol.Factory.forProtocol(make), client=True, own=identity)
        connected: Deferred[Any] = endpoint(reactor, address, port, DIAL_SECONDS).connect(factory)
        return connected.addCallback(lambda wrapped: wrapped.wrappedProtocol)

    return connect
