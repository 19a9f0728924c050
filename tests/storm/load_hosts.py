"""Many hosts in one process: the real way up, watch and replica of each, over real TLS, without disk and local API.

As a program it reads commands from its standard input, a line each: `go` connects all hosts, `report REVISION` prints
how many of them are in step and hold that revision, `end` ends it.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from zope.interface import implementer

from compass.agent.replica.replica import Replica
from compass.agent.replica.sync import ReplicaSync, SyncSettings
from compass.agent.replica.wanted_services import WantedServices
from compass.agent.upstream.connector import UpstreamDependencies
from compass.agent.upstream.server_selector import ServerSelector, in_order
from compass.agent.upstream.upstream import Upstream
from compass.daemons.net.listen import PeerRoles
from compass.daemons.net.transport import wrap_tls
from compass.model.replies import Refusal, Reply
from compass.model.requests import Request
from compass.model.rows import Change
from compass.pki.identity import load_identity
from compass.pki.tls_contexts import client_context
from compass.wire.messages import Inquiry, Suspicion
from tests.support.agent_world import view_of

REFRESH_SECONDS = 3600.0


@implementer(IStreamClientEndpoint)
class Way:
    """Connector to the server, under the certificate of one host."""

    def __init__(self, reactor: Any, directory: Path, name: str, address: str, port: int) -> None:
        key, certificate = directory / f"{name}.key", directory / f"{name}.crt"
        identity = load_identity(key, certificate, directory / "authority.crt", datetime.now(UTC))
        self._context = client_context(identity, address)
        self._reactor = reactor
        self._place = address, port
        self.attempts = 0

    def connect(self, factory: Any) -> Deferred[Any]:
        self.attempts += 1
        wrapped = wrap_tls(self._context, factory, client=True)
        endpoint = TCP4ClientEndpoint(self._reactor, *self._place, timeout=5)
        return endpoint.connect(wrapped).addCallback(lambda tls: tls.wrappedProtocol)


class CountingUpstream(Upstream):
    """Counts what went wrong with what was asked."""

    refused = 0

    def ask(self, request: Request) -> Deferred[Reply]:
        def look(reply: Reply) -> Reply:
            self.refused += isinstance(reply, Refusal)
            return reply

        return super().ask(request).addCallback(look)


class Member:
    """A host."""

    def __init__(
        self,
        reactor: Any,
        way: Way,
        services: Sequence[str],
        changed: Callable[[Change], None] = lambda change: None,
    ) -> None:
        self._changed = changed
        self.way = way
        self.replica = Replica()
        self.view = view_of(self.replica)
        self.in_step = False
        endpoint: Any = way
        # The operating system's randomness is what daemons have; here a seed for each will do.
        chance = random.Random().random
        choice = ServerSelector(chance, in_order(["the server"]))
        peer_of = PeerRoles(None).identify
        self.upstream = CountingUpstream(
            UpstreamDependencies(
                clock=reactor, selector=choice, dial=lambda _: endpoint, peer_of=peer_of, software="storm"
            )
        )
        self._wanted = WantedServices(self, services)
        settings = SyncSettings(refresh_seconds=REFRESH_SECONDS)
        self.sync = ReplicaSync(reactor, self.upstream, self.replica, self._wanted, self, settings)
        self.upstream.add_listener(self)

    def start(self) -> None:
        """Go for a session."""
        self._wanted.restore(())
        self.sync.start()
        self.upstream.start()

    def stop(self) -> Deferred[None]:
        """Leave."""
        self.sync.stop()
        return self.upstream.stop()

    def holds(self, revision: int) -> bool:
        """Return whether the host follows a server and holds that revision."""
        return self.in_step and self.replica.catalogue.revision >= revision

    def services(self) -> frozenset[str]:
        """Return no service: none is registered here."""
        return frozenset()

    # Listener of the session.

    def session_settled(self) -> None:
        self.in_step = True

    def session_ended(self) -> None:
        self.in_step = False

    # Listener of the replica.

    def changed(self, change: Change) -> None:
        self._changed(change)

    def replaced(self) -> None:
        """Ignore a whole view."""

    def wanted_changed(self) -> None:
        """Ignore: the services are always the same."""

    def suspected(self, suspicion: Suspicion | None) -> None:
        """Ignore suspicions."""

    def inquired(self, inquiry: Inquiry) -> None:
        """Ignore: this host does not probe."""


class Crowd(LineOnlyReceiver):
    """Obeys the lines."""

    delimiter = b"\n"

    def __init__(self, reactor: Any, members: Sequence[Member]) -> None:
        self._reactor = reactor
        self._members = members

    def connectionMade(self) -> None:
        self._say({"ready": len(self._members)})

    def lineReceived(self, line: bytes) -> None:
        command, _, argument = line.decode().partition(" ")
        if command == "go":
            for member in self._members:
                member.start()
            self._say({"started": time.monotonic()})
        elif command == "report":
            self._say(self._report(int(argument)))
        else:
            self._reactor.stop()

    def connectionLost(self, reason: object = None) -> None:
        if self._reactor.running:
            self._reactor.stop()

    def _report(self, revision: int) -> dict[str, object]:
        members = self._members
        return {
            "at": time.monotonic(),
            "held": sum(member.holds(revision) for member in members),
            "attempts": sum(member.way.attempts for member in members),
            "refused": sum(member.upstream.refused for member in members),
        }

    def _say(self, what: dict[str, object]) -> None:
        transport: Any = self.transport
        transport.write(json.dumps(what).encode() + b"\n")


def main() -> None:
    """Arguments: directory of the certificates, address and port of the server, names and their services as JSON."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    directory, address, port, hosts = sys.argv[1:]
    members = [
        Member(reactor, Way(reactor, Path(directory), name, address, int(port)), services)
        for name, services in json.loads(Path(hosts).read_text()).items()
    ]
    StandardIO(Crowd(reactor, members))
    reactor.run()


if __name__ == "__main__":
    main()
