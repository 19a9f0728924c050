"""The simulated deployment as the tests of the host daemon speak of it: the seed's topology and shorthand."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from compass.agent.local_api import LocalApi
from compass.agent.replica.replica import Replica
from compass.agent.replica.suspicions import Suspicions
from compass.agent.replica.view import View
from compass.model.catalogue.catalogue import Catalogue
from compass.model.replies import CredentialIssued, Refusal, Reply
from compass.model.requests import Apply, IssueCredential
from compass.model.rows import Category, Dependency, Policy, Service
from compass.model.selection.selector import Selector
from compass.server.server import Server
from tests.support.virtual_world import ADMIN, SimulatedProcesses, World

ADDRESS = "10.0.0.1"
"""Address with which every host registers: the latest registration of a port replaces the others."""
SETTLED_SECONDS = 0.1
"""Enough for a session to open or to end, with every message as late as the network makes it."""


def view_of(replica: Replica) -> View:
    """Return what lookups on a host that holds this replica are answered from."""
    return View(Clock(), replica, Suspicions(), Selector(lambda: 0.5))


class Hosts(World):
    """Servers and daemons that are up, or gone, when the call returns. Process 1 lives on every machine."""

    def serve(self, name: str = "gns1") -> Server:
        """Start a server; comes back when it answers."""
        server = self.server(name)
        self.wait(server.started)
        return server.nameserver

    def fall(self, name: str = "gns1") -> None:
        """A server is gone, with all its connections, without a word."""
        self.servers[name].crash()
        self.run(SETTLED_SECONDS / 2)

    def daemon(self, name: str = "h1", **options: Any) -> LocalApi:
        """Start an agent; one of that name before is stopped, and the disk is the same. Returns what programs ask."""
        if name in self.hosts:
            self.hosts[name].stop()
            self.run(SETTLED_SECONDS / 2)
        if name not in self.processes:
            self.processes[name] = SimulatedProcesses()
            self.processes[name].start(1)
        host = self.host(name, **{"default_address": ADDRESS, **options})
        self.run(SETTLED_SECONDS)
        return host.daemon

    @property
    def catalogue(self) -> Catalogue:
        """Catalogue of a server."""
        return next(iter(self.servers.values())).nameserver.catalogue

    def administer(self, request: Any) -> Reply:
        """Send a request of an administrator. Returns the reply, which must not be a refusal."""
        server = next(iter(self.servers.values())).nameserver
        reply: Reply = self.wait(server.commits.submit(request, ADMIN))
        assert not isinstance(reply, Refusal), reply
        return reply

    def credential(self, service: str) -> str:
        """A new one."""
        reply = self.administer(IssueCredential(service))
        assert isinstance(reply, CredentialIssued)
        return reply.token

    def uss(self) -> dict[str, str]:
        """The seed's world: web depends on openuss, whose emergency service is rescue.backup. Gives credentials."""
        quick = Policy(probe_attempts=1)
        rows: list[Category | Service | Dependency] = [
            *(Category(name, policy=quick) for name in ("web", "openuso", "backup")),
            *map(Service, ("www.web", "chinaserver.openuss", "northeast.openuss", "one.openuso", "rescue.backup")),
            Category("openuss", "rescue.backup", policy=quick),
            Dependency("web", "openuss"),
        ]
        self.administer(Apply(tuple(rows)))
        return {id: self.credential(id) for id in ("www.web", "chinaserver.openuss", "rescue.backup", "one.openuso")}
