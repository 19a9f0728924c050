"""Several real `opengnssd` over one store, with hosts that know all of them and are recorded, in one process."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThreadPool

from compass.admin.shell.connection import AdminSession, ConnectionFailed, IdentityFiles, Server
from compass.agent.agent import Agent
from compass.agent.dependencies import AgentDependencies
from compass.agent.registration.process_watch import ProcessWatch
from compass.agent.upstream.server_selector import Candidate, ServerAddress, ServerSelector
from compass.daemons.config.sections import TlsSettings
from compass.daemons.net.listen import PeerRoles
from compass.daemons.net.live_identity import LiveIdentity
from compass.daemons.services.opengnscd import dialler
from compass.model.host_api import LocalDeregister, LocalRegister, Outcome, Resolved
from compass.model.replies import Dependencies, Lags, ServerStatus
from compass.model.requests import Lag, Register, Status
from compass.model.rows import Listener
from compass.pki.authority import Credentials
from compass.store.store import Store
from compass.system.machine import this_machine
from tests.e2e.deployment import ANSWER_SECONDS, Deployment, free_port, new_address
from tests.e2e.processes import Program, eventually, python
from tests.histories.checker import check
from tests.histories.events import Logged, Settled, Started, Table
from tests.simulation.recording import HostRecorder, Recorder

T = TypeVar("T")

SERVICES = ("chinaserver.openuss", "northeast.openuss", "northwest.openuss", "account.openuso")
USER = "portal.web"
SETTLE_SECONDS = 60.0
LOOKUP_SECONDS = 0.05
"""Between two lookups of one host's program."""


class Member:
    """Server of the cluster: its process, its address and its name."""

    def __init__(self, name: str, program: Program, address: str, port: int) -> None:
        self.name, self.program, self.address, self.port = name, program, address, port


class Cluster(Deployment):
    """`members` are the servers, the first of which is the deployment's own."""

    def __init__(self, directory: Path, authority: Credentials, store: str, servers: int, settings: str = "") -> None:
        super().__init__(directory, authority, store=store, settings=settings)
        self.members = [Member("gns1.example.net", self.server, self.address, self.port)]
        for number in range(2, servers + 1):
            self.members.append(self._member(f"gns{number}.example.net", settings))

    def __enter__(self) -> Cluster:
        return self

    def _member(self, name: str, settings: str) -> Member:
        address = new_address()
        port = free_port(address)
        self.certify("server", name, address)
        config = self.directory / f"{name}.toml"
        where = f'[server]\nstore = "{self.store}"\nlisten = ["{address}:{port}"]\n{settings}'
        config.write_text(where + self._tls(name))
        command = python("compass.daemons.main:server", "--config", str(config))
        program = Program(name, command, self.directory / f"{name}.log")
        self.programs.append(program)
        return Member(name, program, address, port)

    def start(self, topology: str = "") -> None:
        """Start all of them; the first one applies the topology."""
        for member in self.members[1:]:
            member.program.start()
        super().start(topology) if topology else super().start()
        for member in self.members[1:]:
            self.serving(member)
        # A permanent listener: a lookup that does not find it has failed.
        with self.link() as link:
            link.ask(Register(SERVICES[0], self.token(SERVICES[0]), "192.0.2.1", 2028, 1))

    def serving(self, member: Member) -> None:
        """Wait until it answers."""
        eventually(lambda: self.status(member), f"{member.name} serves")

    def link_to(self, member: Member, identity: IdentityFiles | None = None) -> AdminSession:
        """A session with one of them."""
        return AdminSession.connect([Server(member.address, member.port)], identity or self.admin, ANSWER_SECONDS)

    def status(self, member: Member) -> ServerStatus | None:
        """Return the status of a server; None if it does not answer."""
        assert member.program.runs, f"{member.name} has ended:\n{member.program.shown_log()}"
        with contextlib.suppress(ConnectionFailed), self.link_to(member) as link:
            reply = link.ask(Status())
            return reply if isinstance(reply, ServerStatus) else None
        return None

    def all_held(self, hosts: int) -> bool:
        """Return whether all running servers are at one revision, and each host has acknowledged all at its server."""
        running = [member for member in self.members if member.program.runs]
        told = [self.status(member) for member in running]
        revisions = {status.revision for status in told if status is not None}
        if None in told or len(revisions) > 1:
            return False
        held: set[str] = set()
        for member in running:
            with self.link_to(member) as link:
                lags = link.ask(Lag())
            assert isinstance(lags, Lags), lags
            held |= {lag.host for lag in lags.hosts if lag.session and lag.pending == 0}
        return len(held) == hosts


class LoadedHost:
    """Client daemon that looks up all the time and, under load, registers and deregisters."""

    def __init__(self, reactor: Any, cluster: Cluster, number: int, recorder: Recorder, pause_seconds: float) -> None:
        self.name = f"h{number}.example.net"
        self.address = f"198.51.100.{number + 1}"
        self.outcomes: Counter[str] = Counter()
        self.answers: list[tuple[float, str]] = []
        """Time and result of each request that was answered."""
        self.lookups: Counter[str] = Counter()
        self._reactor = reactor
        self._pause = pause_seconds
        self._service = SERVICES[number % len(SERVICES)]
        self._token = cluster.token(self._service)
        self._recorder = recorder
        self._registered: dict[tuple[str, int], Outcome] = {}
        self._load: Any = None
        self._lookup: Any = None
        files = cluster.certify("host", self.name)
        paths = (str(files.certificate), str(files.key), str(files.authority))
        identity = LiveIdentity(reactor, TlsSettings(*paths), "host")
        turn = number % len(cluster.members)
        known = cluster.members[turn:] + cluster.members[:turn]
        self.agent = Agent(
            AgentDependencies(
                clock=reactor,
                now=time.time,
                random=random.random,
                state_directory=cluster.directory / self.name,
                host_name=self.name,
                default_address=self.address,
                selector=ServerSelector(
                    random.random, [Candidate(ServerAddress(one.address, one.address, one.port)) for one in known]
                ),
                dial=dialler(reactor, identity),
                process_watch=ProcessWatch(reactor),
                machine=this_machine(self.name),
                peer_of=PeerRoles(None).identify,
            )
        )
        self.daemon = self.agent.api
        HostRecorder(recorder, self.name, self.agent.components)

    def start(self) -> Deferred[Any]:
        """Begin, and fire when it knows its dependencies."""
        self._recorder(Started(self._recorder.clock(), self.name))
        self.agent.start()
        return self.daemon.dependencies(USER).addCallback(self._known)

    def _known(self, answer: Any) -> Any:
        if isinstance(answer, Dependencies):
            return self._look_up()
        # Not ready: fifty hosts come at once. From the first answer on it must always be there.
        return pause(self._reactor, LOOKUP_SECONDS).addCallback(
            lambda _: self.daemon.dependencies(USER).addCallback(self._known)
        )

    def _look_up(self) -> None:
        """Look up at intervals, as a program would: a service with permanent listeners must always be answered."""
        self._lookup = self._reactor.callLater(LOOKUP_SECONDS, self._look_up)
        found = self.daemon.resolve(SERVICES[0])
        self.lookups["answered" if isinstance(found, Resolved) and found.source == "service" else "failed"] += 1

    def load(self) -> None:
        """Wish for something now and again and again."""
        self._load = self._reactor.callLater(random.uniform(0.5, 1.5) * self._pause, self.load)
        key = service, port = self._service, random.randrange(2000, 2004)
        if key in self._registered and random.random() < 0.5:
            outcome = self._registered.pop(key)
            wish = LocalDeregister(service, port, self._token, self.address, outcome.epoch)
            asked: Deferred[Any] = self.daemon.deregister(wish)
        else:
            asked = self.daemon.register(LocalRegister(service, port, self._token, self.address))
        asked.addCallback(self._told, key)

    def rest(self) -> None:
        """Wish for nothing more."""
        if self._load is not None:
            self._load.cancel()

    def stop(self) -> Deferred[None]:
        """Leave."""
        self._lookup.cancel()
        return self.agent.stop()

    def _told(self, outcome: Any, key: tuple[str, int]) -> None:
        how = getattr(outcome, "state", "") or getattr(outcome, "code", "")
        self.outcomes[how] += 1
        self.answers.append((self._recorder.clock(), how))
        if isinstance(outcome, Outcome) and outcome.state != "offline":
            self._registered[key] = outcome

    @property
    def server(self) -> str:
        """The server that it is in session with, or nothing."""
        # Not from the daemon's status: that counts everything it holds, and this is asked a thousand times a second.
        upstream = self.agent.components.upstream
        return "" if upstream.problem else upstream.server

    def delivered(self) -> bool:
        """Return whether the host has a session, and a server has accepted all of its registrations."""
        registrations = self.daemon.status().registrations
        return bool(self.server) and all(own.state == "registered" for own in registrations)

    def settled(self) -> Settled:
        """Return the host's dependencies at the end."""
        found: list[Any] = []
        self.daemon.dependencies(USER).addCallback(found.append)
        answer = found[0]
        at = self._recorder.clock()
        if isinstance(answer, Dependencies):
            return Settled(at, self.name, USER, "listed", answer.categories)
        return Settled(at, self.name, USER, answer.code)


async def settle(reactor: Any, cluster: Cluster, hosts: list[LoadedHost], recorder: Recorder) -> bool:
    """End the load, wait until all changes are delivered, and record all rows. Returns whether they were delivered."""
    for host in hosts:
        host.rest()
    until = time.monotonic() + SETTLE_SECONDS
    calm = False
    while not calm and time.monotonic() < until:
        await pause(reactor, 0.3)
        if all(host.delivered() for host in hosts):
            calm = await in_thread(reactor, cluster.all_held, len(hosts))
    for host in hosts:
        recorder(host.settled())
    await gatherResults([host.stop() for host in hosts])
    return calm


def judge(cluster: Cluster, recorder: Recorder, hosts: list[LoadedHost]) -> list[str]:
    """Read the log and the tables, run the checker, and print the counts. Returns the broken promises."""
    store = Store.open(cluster.store)
    tables = store.load()
    changes = store.changes_after(0, 10_000_000)
    store.close()
    at = recorder.clock()
    for change in changes:
        recorder(Logged(at, "store", change))
    recorder(Table(at, "store", tables.revision, tuple(tables.rows)))
    outcomes: Counter[str] = Counter()
    lookups: Counter[str] = Counter()
    for host in hosts:
        outcomes += host.outcomes
        lookups += host.lookups
    broken = [str(violation)[:400] for violation in check(recorder.history)]
    print(f"{len(changes)} changes in the log; wishes by outcome: {dict(outcomes)}; lookups: {dict(lookups)}")
    print(f"{len(recorder.history)} events checked; broken promises: {len(broken)}")
    if lookups["failed"]:
        broken.append(f"{lookups['failed']} lookups failed")
    for change in changes:
        if isinstance(change.row, Listener) and change.operation not in ("register", "deregister"):
            broken.append(f"a listener that no program changed: {change}")
    return broken


def in_thread(reactor: Any, work: Callable[..., T], *args: Any) -> Deferred[T]:
    """Run blocking work on a thread of a reactor, which need not be the global one."""
    done: Deferred[T] = deferToThreadPool(reactor, reactor.getThreadPool(), work, *args)
    return done


def pause(reactor: Any, seconds: float) -> Deferred[None]:
    """Return a Deferred that fires after a pause."""
    over: Deferred[None] = Deferred()
    reactor.callLater(seconds, over.callback, None)
    return over
