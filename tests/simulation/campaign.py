"""A random history of a deployment, from a seed: everything that happens to one, and what must hold at its end.

Each step is one thing that happens somewhere: a registration, a death, a report true or false, a cut or silent
line, a killed daemon or server, a store that is away. At the end the faults stop, time passes, and `verify` compares
what the log, the tables, the server and every host believe.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from compass.model.catalogue import Catalogue, catalogue_of
from compass.model.interest import dependencies_of
from compass.model.local import LocalDeregister, LocalRegister, LocalReport, Outcome
from compass.model.replies import Dependencies, Refusal
from compass.model.requests import Put, Remove
from compass.model.rows import Dependency, Listener, Service
from compass.model.storage import StoreUnavailable
from tests.simulation.world import ADMIN, World

TOPOLOGY = {
    "web": ["portal.web", "forum.web", ">openuso", ">openuss"],
    "openuso": ["account.openuso", ">openuso"],
    "openuss": ["chinaserver.openuss", "northeast.openuss", ">openuso"],
    "rescue": ["emergency.rescue"],
}
BACKUPS = {"openuss": "emergency.rescue"}
SETTLE_SECONDS = 400.0
"""Longer than any back-off, pause or refresh of either daemon, so that what can heal has healed."""


class Campaign:
    """One history. `run` makes it, `verify` judges it."""

    def __init__(self, seed: int, directory: Path, hosts: int = 5) -> None:
        self.world = World(seed, directory)
        self.random = self.world.random
        self.tokens = self.world.declare(TOPOLOGY, BACKUPS)
        self.services = sorted(self.tokens)
        self.names = [f"h{number}" for number in range(hosts)]
        self.watched = {name: self.services[number % len(self.services)] for number, name in enumerate(self.names)}
        self.instances: dict[int, tuple[str, str, str, int]] = {}
        """pid -> host, service, address, port of each process that was registered and lives."""
        self.promised: list[tuple[str, Outcome]] = []
        """What was answered as committed: operation and outcome."""
        self._last_pid = 0
        self._listening: dict[tuple[str, int], int] = {}
        """Which process listens on a port of a host: never two."""

    def run(self, steps: int) -> None:
        """Start everything and let `steps` things happen."""
        self.world.server()
        for name in self.names:
            self._start_host(name)
        self.world.run(1.0)
        choices: list[tuple[Callable[[], None], int]] = [
            (self.register, 30),
            (self.kill_process, 10),
            (self.deregister, 10),
            (self.report, 15),
            (self.revive, 8),
            (self.cut, 6),
            (self.silence, 3),
            (self.heal, 4),
            (self.kill_host, 3),
            (self.kill_server, 3),
            (self.lose_store, 3),
            (self.change_topology, 5),
        ]
        actions = [action for action, _ in choices]
        weights = [weight for _, weight in choices]
        for _ in range(steps):
            action = self.random.choices(actions, weights)[0]
            self.world.trace.append(f"{self.world.clock.seconds():.6f} {action.__name__}")
            action()
            self.world.run(self.random.expovariate(4.0))

    def settle(self) -> None:
        """Faults end, and time passes."""
        self.world.network.heal()
        for server in self.world.servers.values():
            server.thread.failing = None
        if not self.world.servers:
            self.world.server()
        self.world.dead.clear()
        self.world.run(SETTLE_SECONDS)

    # What happens.

    def register(self) -> None:
        """A process starts on a host and registers, on a port of its own or on one that was used before."""
        name, service = self.random.choice(self.names), self.random.choice(self.services)
        self._last_pid += 1
        pid = self._last_pid
        port = self.random.randrange(8000, 8004)
        if (name, port) in self._listening:
            return
        self._listening[name, port] = pid
        host = self.world.hosts[name]
        host.processes.start(pid)
        asked = host.daemon.register(LocalRegister(service, port, self.tokens[service], pid=pid))
        self._promise("register", asked, pid, name)

    def deregister(self) -> None:
        """A process stops as it should."""
        if self.instances:
            pid = self.random.choice(sorted(self.instances))
            name, service, address, port = self.instances.pop(pid)
            host = self.world.hosts[name]
            asked = host.daemon.deregister(LocalDeregister(service, port, self.tokens[service], address))
            self._promise("deregister", asked)
            host.processes.kill(pid)
            del self._listening[name, port]

    def kill_process(self) -> None:
        """A process is killed."""
        if self.instances:
            pid = self.random.choice(sorted(self.instances))
            name, _, _, port = self.instances.pop(pid)
            self.world.hosts[name].processes.kill(pid)
            del self._listening[name, port]

    def report(self) -> None:
        """A user of a listener finds it dead, or believes so."""
        name = self.random.choice(self.names)
        daemon = self.world.hosts[name].daemon
        view = self._view(name)
        peers = [peer for category in view.categories for service in category.services for peer in service.listeners]
        if peers:
            peer = self.random.choice(peers)
            if self.random.random() < 0.6:
                self.world.dead.add((peer.address, peer.port))
            state: Any = self.random.choice(["unreachable", "unreachable", "slow"])
            daemon.report(LocalReport(peer.service, peer.address, peer.port, state, self.watched[name]))

    def revive(self) -> None:
        """Listeners that did not answer do so again."""
        self.world.dead.clear()

    def cut(self) -> None:
        """The connections between a host and a server are reset."""
        if self.world.servers:
            self.world.network.cut(self.random.choice(self.names), self._any_server())

    def silence(self) -> None:
        """A line goes dead without a word, in one direction or both."""
        if self.world.servers:
            self.world.network.silence(
                self.random.choice(self.names), self._any_server(), both=self.random.random() < 0.5
            )

    def heal(self) -> None:
        """All lines carry again."""
        self.world.network.heal()

    def kill_host(self) -> None:
        """kill -9 of a host's daemon, and a new one on its disk. The host's processes go on."""
        name = self.random.choice(self.names)
        self.world.hosts[name].crash()
        self.world.run(self.random.expovariate(2.0))
        self._start_host(name)

    def kill_server(self) -> None:
        """kill -9 of the server, and a new one over the same store."""
        if self.world.servers:
            self.world.servers[self._any_server()].crash()
            self.world.run(self.random.expovariate(1.0))
        self.world.server()

    def lose_store(self) -> None:
        """The store is away, or back."""
        for server in self.world.servers.values():
            if server.thread.failing is None:
                server.thread.failing = StoreUnavailable("simulated")
            else:
                server.thread.failing = None
            if self.random.random() < 0.3:
                server.thread.failing, server.thread.failing_after = None, StoreUnavailable("answer lost")

    def change_topology(self) -> None:
        """An administrator adds or removes a service or a dependency."""
        if not self.world.servers or not self._server().nameserver.ready():
            return
        change: Any = self.random.choice(
            [
                Put(Service(f"extra{self.random.randrange(3)}.openuss"), True),
                Remove("service", f"extra{self.random.randrange(3)}.openuss"),
                Put(Dependency("openuso", "openuss"), True),
                Remove("dependency", "openuso openuss"),
                Remove("dependency", "web openuss"),
                Put(Dependency("web", "openuss"), True),
            ]
        )
        self._server().nameserver.commits.submit(change, ADMIN)

    # What must hold.

    def verify(self) -> None:
        """Everything agrees, and nothing that was answered is lost."""
        changes = self.world.store.changes_after(0, 1_000_000)
        loaded = self.world.store.load()
        assert [change.revision for change in changes] == list(range(1, loaded.revision + 1)), "P2: a gap in the log"
        replayed = Catalogue()
        for change in changes:
            replayed = replayed.apply(change)
        tables = catalogue_of(loaded.rows, loaded.topics, loaded.revision)
        assert replayed == tables, "P2: replaying the log does not give the tables"
        server = self._server().nameserver
        assert server.catalogue == tables, "P2: the server's catalogue is not what the store has"
        self._verify_promises({change.revision: change.row for change in changes})
        for name in self.names:
            mine = self._view(name).categories
            theirs = dependencies_of(tables, self.watched[name]).categories
            assert mine == theirs, f"P3, P4: {name} does not end equal to a pull:\n{mine}\n{theirs}"
        for pid, (name, service, address, port) in self.instances.items():
            row = tables.listener(service, address, port)
            assert row is not None and row.state != "offline", f"{pid} on {name} lives and is not registered: {row}"

    def _verify_promises(self, rows: dict[int, Any]) -> None:
        for operation, outcome in self.promised:
            row = rows.get(outcome.revision)
            assert row is not None, f"P1: {operation} was answered with revision {outcome.revision}, which is not there"

    def _promise(self, operation: str, asked: Deferred[Any], pid: int = 0, name: str = "") -> None:
        def answered(outcome: Any) -> None:
            self.world.trace.append(f"{self.world.clock.seconds():.6f} {operation} {outcome}")
            if isinstance(outcome, Outcome):
                if outcome.revision:
                    self.promised.append((operation, outcome))
                if pid and pid in self.world.hosts[name].processes.living:
                    self.instances[pid] = name, outcome.service, outcome.address, outcome.port

        asked.addCallback(answered)

    def _start_host(self, name: str) -> None:
        host = self.world.host(name)
        host.daemon.dependencies(self.watched[name])

    def _view(self, name: str) -> Dependencies:
        found: list[Dependencies | Refusal] = []
        self.world.hosts[name].daemon.dependencies(self.watched[name]).addCallback(found.append)
        return found[0] if found and isinstance(found[0], Dependencies) else Dependencies(self.watched[name], 0)

    def _any_server(self) -> str:
        return self.random.choice(sorted(self.world.servers))

    def _server(self) -> Any:
        return next(iter(self.world.servers.values()))


def usable(listener: Listener) -> bool:
    """Whether new users are given it."""
    return listener.state in ("up", "slow")
