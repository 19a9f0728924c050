"""opengnscd assembled: configuration, TLS, process watch and HTTP API become one service."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger
from zope.interface import implementer

import compass
from compass.assembly.config import HostConfig, HostSettings, parse_listen, parse_server
from compass.assembly.parts import endpoint, identity_of, listen, listen_unix, own_name, peers, rules_of
from compass.assembly.streams import secured
from compass.assembly.tls import Identity, accepting, dialling
from compass.gateway.agent_check import AgentCheck
from compass.gateway.host_http import site
from compass.host.daemon import HostDaemon
from compass.host.processes import ProcessWatch
from compass.model.names import parse_host_name, show_endpoint
from compass.server.probes import Prober

SOFTWARE = f"compass/{compass.__version__}"
CONNECT_SECONDS = 5.0
"""To reach a server; then the next one is tried."""
SOCKET_MODE = 0o666
"""Every program on the host may ask, as with the loopback port; what a service may change needs its credential."""


class HostService(Service):
    """The client daemon."""

    log = Logger()

    def __init__(self, reactor: Any, config: HostConfig) -> None:
        """Reads the certificates: raises IdentityError before anything is served."""
        self._reactor = reactor
        self._settings = settings = config.host
        self._identity = identity = identity_of(config.tls)
        for warning in identity.warnings:
            self.log.warn("{warning}", warning=warning)
        self._ports: list[Any] = []
        self._daemon = HostDaemon(
            clock=reactor,
            now=time.time,
            random=random.SystemRandom().random,
            state_directory=Path(settings.state_directory),
            host_name=parse_host_name(own_name(identity, config.tls, "host")),
            default_address=settings.address,
            endpoints=[_endpoint(reactor, identity, *parse_server(server)) for server in settings.servers],
            process_watch=ProcessWatch(reactor),
            peer_of=peers(rules_of(config.tls)),
            update_port=parse_listen(settings.update)[1] if settings.update else 0,
            mode=settings.session,
            refresh_seconds=settings.refresh_seconds,
            software=SOFTWARE,
            probe=Prober(reactor, SOFTWARE).probe,
        )

    def startService(self) -> None:
        """Answer from what the disk has, then go for a session; `started` fails with CannotListenError."""
        super().startService()
        self.started = Deferred.fromCoroutine(self._start(self._settings))
        self.started.addErrback(lambda failure: failure.trap(CancelledError) and None)

    async def _start(self, settings: HostSettings) -> None:
        api = site(self._daemon, self._reactor)
        if settings.api:
            self._ports.append(await listen(self._reactor, *parse_listen(settings.api), api))
        if settings.socket:
            self._ports.append(listen_unix(self._reactor, Path(settings.socket), SOCKET_MODE, api))
        if settings.agent:
            check = AgentCheck(self._daemon.service, self._reactor)
            self._ports.append(await listen(self._reactor, *parse_listen(settings.agent), check))
        if settings.update:
            factory = secured(accepting(self._identity), self._daemon.update_factory(), client=False)
            self._ports.append(await listen(self._reactor, *parse_listen(settings.update), factory))
        self._daemon.start()
        for port in self._ports:
            bound = port.getHost()
            where = show_endpoint(bound.host, bound.port) if hasattr(bound, "port") else os.fsdecode(bound.name)
            self.log.info("opengnscd listens on {where}", where=where)

    def stopService(self) -> Deferred[Any]:
        """Leave the server; everything registered here stays so."""
        super().stopService()
        self.started.cancel()
        closing = [maybeDeferred(port.stopListening) for port in self._ports]
        stopped = gatherResults([*closing, self._daemon.stop()], consumeErrors=True)
        return stopped.addBoth(lambda _: self.log.info("opengnscd has stopped"))


def _endpoint(reactor: Any, identity: Identity, name: str, port: int) -> IStreamClientEndpoint:
    # The type checker cannot see what zope.interface's decorator declares.
    return cast(IStreamClientEndpoint, _TlsEndpoint(reactor, identity, name, port))


@implementer(IStreamClientEndpoint)
class _TlsEndpoint:
    """Connects to a server whose certificate shows the name that the configuration gives."""

    def __init__(self, reactor: Any, identity: Identity, name: str, port: int) -> None:
        self._reactor = reactor
        self._context = dialling(identity, name)
        self._name = name
        self._port = port

    def connect(self, factory: Any) -> Deferred[Any]:
        wrapped = secured(self._context, factory, client=True)
        where = endpoint(self._reactor, self._name, self._port, CONNECT_SECONDS)
        connected: Deferred[Any] = where.connect(wrapped)
        return connected.addCallback(lambda tls: tls.wrappedProtocol)
