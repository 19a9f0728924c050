"""opengnssd assembled: configuration, store, TLS and reactor become one service."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.application.service import Service
from twisted.internet import protocol
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ProcessDone
from twisted.logger import Logger
from twisted.python.failure import Failure

import compass
from compass.assembly.config import ServerConfig, parse_listen
from compass.assembly.parts import DatabaseThread, identity_of, listen, own_name, peers, rules_of
from compass.assembly.streams import secured
from compass.assembly.tls import Identity, accepting, dialling
from compass.model.names import show_endpoint
from compass.server.alerts import RunCommand
from compass.server.nameserver import NameServer, Parts
from compass.server.probes import Prober
from compass.server.sessions import Session
from compass.store.store import Store

SOFTWARE = f"compass/{compass.__version__}"
DIAL_SECONDS = 5.0
"""To reach a host's Update listener; one that takes longer is tried again later."""
ALERT_COMMAND_SECONDS = 30.0
"""An alert command that runs longer is ended, so that the next alert gets out."""
STOP_SECONDS = 5.0
"""For sessions to take their leave when the daemon stops."""


class ServerService(Service):
    """The server daemon."""

    log = Logger()

    def __init__(self, reactor: Any, config: ServerConfig) -> None:
        """Reads certificates and opens the store: raises IdentityError or StoreProblem before anything is served."""
        self._reactor = reactor
        self._config = config
        self._identity = identity_of(config.tls)
        for warning in self._identity.warnings:
            self.log.warn("{warning}", warning=warning)
        name = own_name(self._identity, config.tls, "server")
        self._store = Store.open(config.server.store)
        self._database = DatabaseThread(reactor)
        self._ports: list[Any] = []
        self._server = NameServer(config.server.name or name, SOFTWARE, self._parts())

    def _parts(self) -> Parts:
        settings = self._config.server
        command = settings.alert_command
        return Parts(
            clock=self._reactor,
            now=time.time,
            token=lambda: secrets.token_urlsafe(32),
            storage=self._store,
            in_database=self._database.run,
            peer_of=peers(rules_of(self._config.tls)),
            probe=Prober(self._reactor, SOFTWARE).probe,
            connect=connector(self._reactor, self._identity),
            run_command=command_runner(self._reactor, command) if command else None,
            keep_updates=settings.keep_updates,
            keep_others=settings.keep_others,
        )

    def startService(self) -> None:
        """Listen and load. A port in use or a store that fails ends the program with a message."""
        super().startService()
        self._database.start()
        self.started = Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        factory = secured(accepting(self._identity), self._server, client=False)
        for text in self._config.server.listen:
            address, port = parse_listen(text)
            self._ports.append(await listen(self._reactor, address, port, factory))
        await self._server.start()
        for port in self._ports:
            bound = port.getHost()
            self.log.info("opengnssd listens on {where}", where=show_endpoint(bound.host, bound.port))

    def stopService(self) -> Deferred[Any]:
        """Say goodbye, let the last commit end, close the store."""
        super().stopService()
        self._server.stop()
        closed = gatherResults([maybeDeferred(port.stopListening) for port in self._ports], consumeErrors=True)

        def finish(_: object) -> None:
            self._database.stop()
            self._store.close()

        return closed.addBoth(finish)


def connector(reactor: Any, identity: Identity) -> Callable[[str, str, int, Callable[[], Session]], Deferred[Session]]:
    """Dials a host's Update listener; its certificate must show the host's name."""

    def connect(host: str, address: str, port: int, make: Callable[[], Session]) -> Deferred[Session]:
        factory = secured(dialling(identity, host), protocol.Factory.forProtocol(make), client=True)
        endpoint = HostnameEndpoint(reactor, address, port, timeout=DIAL_SECONDS)
        return endpoint.connect(factory).addCallback(lambda wrapped: wrapped.wrappedProtocol)

    return connect


def command_runner(reactor: Any, command: tuple[str, ...]) -> RunCommand:
    """Runs the alert command with the news on its standard input."""

    def run(news: bytes) -> Deferred[None]:
        process = _Command(news)
        transport = reactor.spawnProcess(process, command[0], command, env=None)
        ended: Deferred[None] = process.ended

        def kill() -> None:
            transport.signalProcess("KILL")

        timer = reactor.callLater(ALERT_COMMAND_SECONDS, kill)

        def over(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        return ended.addBoth(over)

    return run


class _Command(protocol.ProcessProtocol):
    def __init__(self, news: bytes) -> None:
        self.ended: Deferred[None] = Deferred()
        self._news = news

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._news)
        transport.closeStdin()

    def processEnded(self, reason: Failure) -> None:
        if reason.check(ProcessDone):
            self.ended.callback(None)
        else:
            self.ended.errback(reason)


def describe(config: ServerConfig) -> str:
    """The effective configuration as JSON, for the log and --check."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2).decode()
