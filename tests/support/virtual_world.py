"""A whole deployment in one process on virtual time from a seed: real server and host shells, real SQL in memory.

What is simulated is only what surrounds them: time, the network, the database thread's latency, and whether a
listener answers a probe. The same seed gives the same trace.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from compass.agent.agent import Agent
from compass.agent.dependencies import AgentDependencies
from compass.agent.registration.process_watch import CannotWatch, NoSuchProcess
from compass.agent.upstream.server_selector import ServerSelector, in_order
from compass.model.catalogue.catalogue import catalogue_of
from compass.model.replies import CredentialIssued, Refusal, Reply
from compass.model.requests import IssueCredential, Put, Request
from compass.model.rows import Category, Dependency, Policy, Service
from compass.model.rules.decide import decide
from compass.model.rules.draft import Principal
from compass.model.rules.networks import NoProbe
from compass.server.alerts.notifier import Channel
from compass.server.alerts.outbox import PER_MINUTE_MAX, Message
from compass.server.alerts.render import render_json
from compass.server.components import ServerDependencies
from compass.server.server import Server
from compass.server.sessions.session import Session
from compass.store.cluster import SqlClusterStore
from compass.store.store import Store
from compass.system.machine import Machine
from compass.wire import limits
from compass.wire.client_connection import ClientConnection
from compass.wire.events import Event, PushReceived, ReplyReceived, SessionEnded, SessionOpened
from tests.simulation.database import SimulatedThread
from tests.simulation.network import Network
from tests.simulation.timeline import Timeline

EPOCH = 1_800_000_000.0
"""UNIX time at virtual second 0."""
ADMIN = Principal("admin", "root", "console")
TICK_SECONDS = 1e-6
"""Shortest step of time, so that calls that are due at once do not stop it for ever."""
ADMISSION_ATTEMPTS = 100
"""Attempts of a session at a server that does not admit it; a drained server never admits a host."""


class World:
    """The machines of a deployment. `trace` collects what anybody wants to be compared between two runs."""

    def __init__(self, seed: int, directory: Path, store: str = "sqlite://") -> None:
        self.random = Random(seed)
        self.clock: Any = Timeline()
        self.network = Network(self.clock, self.random)
        self.store = Store.open(store)
        self.rosters: list[SqlClusterStore] = []
        self.starts = count(1)
        """Numbers the runs of servers."""
        self.directory = directory
        self.servers: dict[str, SimulatedServer] = {}
        self.hosts: dict[str, SimulatedHost] = {}
        self.killed: list[SimulatedServer] = []
        """Nothing of a killed process may run any more, not even the end of its coroutines in the garbage collector."""
        self.receiving: Callable[[Message], Deferred[None] | None] | None = None
        """Receiver of messages to administrators in place of `news`: delivery may fail, or never end."""
        self.dead: set[tuple[str, int]] = set()
        """Listeners that do not answer a probe."""
        self.apart: set[tuple[str, str]] = set()
        """Machine and address between which packets are dropped: a probe from there gets no answer."""
        self.processes: dict[str, SimulatedProcesses] = {}
        self.trace: list[str] = []

    def roster(self) -> SqlClusterStore:
        """Return a server's access to the cluster's table."""
        self.rosters.append(self.store.roster())
        return self.rosters[-1]

    def close(self) -> None:
        """Let the connections of the store go."""
        for roster in self.rosters:
            roster.close()
        self.store.close()

    def now(self) -> float:
        return EPOCH + float(self.clock.seconds())

    def addresses_of(self, stream: Any) -> tuple[str, ...]:
        """The addresses in a host's certificate: that of its machine."""
        host = self.hosts.get(stream.peer[1])
        return (host.address,) if host is not None else ()

    def probed(self, server: str, address: str, port: int, problem: str) -> None:
        """A probe is under way, with this outcome; for those who look on."""

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.clock.seconds() + seconds
        while self.clock.seconds() < until:
            self._step(until)

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> float:
        """Let time pass until something holds; how long that took. Fails when it never does."""
        began = self.clock.seconds()
        while not condition():
            assert self.clock.seconds() - began < seconds, f"not within {seconds} virtual seconds"
            self._step(began + seconds)
        return float(self.clock.seconds() - began)

    def probe(self, machine: str, clock: Any, policy: Policy, address: str, port: int) -> Deferred[str]:
        """Return a Deferred of the result of a probe from a machine: soon, or after the probe's time limit."""
        if policy.probe == "none":
            return succeed(NoProbe("not probed"))
        answered: Deferred[str] = Deferred()
        seconds, problem = self.network.delay(), ""
        if (machine, address) in self.apart:
            seconds = policy.probe_timeout_seconds
            problem = f"no answer within {seconds:g} s"
        elif (address, port) in self.dead:
            problem = "connection refused"
        self.probed(machine, address, port, problem)
        clock.callLater(seconds, answered.callback, problem)
        return answered

    def _step(self, until: float) -> None:
        """Advance to the time of the next timer, or to `until` if that is earlier."""
        now = self.clock.seconds()
        due = self.clock.next_at(until)
        self.clock.advance(max(min(due, until) - now, TICK_SECONDS))

    def wait(self, deferred: Deferred[Any], seconds: float = 30.0) -> Any:
        """The result of a deferred. Raises what it failed with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.until(lambda: bool(results), seconds)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def server(
        self, name: str = "gns1", database_seconds: tuple[float, float] = (0.0001, 0.003), **options: Any
    ) -> SimulatedServer:
        """Start a server over the one store. `options`: fields of ServerDependencies."""
        self.servers[name] = server = SimulatedServer(self, name, database_seconds, **options)
        server.start()
        return server

    def host(self, name: str, **options: Any) -> SimulatedHost:
        """Start a host's daemon; one of the same name before it left its disk behind."""
        self.hosts[name] = host = SimulatedHost(self, name, **options)
        host.agent.start()
        return host

    def admin(self, server: str = "gns1") -> Client:
        """An administrator's session."""
        return self.client(("admin", "root"), server)

    def client(self, identity: tuple[str, str], server: str = "gns1", message_max: int = limits.MESSAGE_MAX) -> Client:
        """A bare session of any role, open; comes back when a server is not ready yet."""
        for _ in range(ADMISSION_ATTEMPTS):
            client = self.stranger(identity, server, message_max)
            self.until(lambda client=client: client.opened is not None or client.lost)  # type: ignore[misc]
            if client.ended is None or not client.ended.retry_after_seconds:
                return client
            self.run(client.ended.retry_after_seconds)
        raise TimeoutError(f"{identity} was never let in: {client.ended}")

    def stranger(
        self, identity: tuple[str, str], server: str = "gns1", message_max: int = limits.MESSAGE_MAX
    ) -> Client:
        """A connection on which the greeting is under way."""
        client = Client(self, identity, message_max)
        self.wait(self.network.connect(server, identity, lambda: client))
        return client

    def declare(self, topology: dict[str, list[str]], backups: dict[str, str] | None = None) -> dict[str, str]:
        """Categories, services and dependencies put into the store before any server runs; the services' tokens.

        `topology`: service ids under each category, and `>other` for each dependency.
        """
        requests: list[Any] = [Put(Category(name), True) for name in topology]
        requests += [Put(Service(id), True) for ids in topology.values() for id in ids if id[0] != ">"]
        requests += [Put(Dependency(c, on[1:]), True) for c, ids in topology.items() for on in ids if on[0] == ">"]
        policy = Policy(recovery_seconds=1.0)
        requests += [Put(Category(c, backup, policy)) for c, backup in (backups or {}).items()]
        requests += [IssueCredential(id) for ids in topology.values() for id in ids if id[0] != ">"]
        loaded = self.store.load()
        catalogue = catalogue_of(loaded.rows, loaded.topics, loaded.revision)
        tokens = {}
        for number, request in enumerate(requests):
            decision = decide(catalogue, request, ADMIN, self.now(), f"token-{number}")
            assert not isinstance(decision.reply, Refusal), decision.reply
            self.store.commit(catalogue.revision, decision.changes, [], [])
            catalogue = decision.catalogue
            if isinstance(decision.reply, CredentialIssued):
                tokens[request.service] = decision.reply.token
        return tokens


def _peer(stream: Any) -> tuple[str, str, str]:
    return (*stream.peer, "")


class Process:
    """The clock as one process sees it: when the process is killed, its timers are gone."""

    def __init__(self, clock: Clock) -> None:
        self._clock: Any = clock
        self._calls: list[Any] = []
        self._active = 0
        """Number of active ones at the last check."""
        self.killed = False

    def seconds(self) -> float:
        return float(self._clock.seconds())

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any, **kw: Any) -> Any:
        def call() -> None:
            if not self.killed:
                callable(*args, **kw)

        if len(self._calls) > 2 * self._active:
            self._calls = [known for known in self._calls if known.active()]
            self._active = len(self._calls)
        self._calls.append(self._clock.callLater(delay, call))
        return self._calls[-1]

    def kill(self) -> None:
        self.killed = True
        for call in self._calls:
            if call.active():
                call.cancel()


class SimulatedServer:
    """Process of opengnssd."""

    def __init__(self, world: World, name: str, database_seconds: tuple[float, float], **options: Any) -> None:
        self.world = world
        self.name = name
        self.process = Process(world.clock)
        self.thread = SimulatedThread(world.clock, world.random, database_seconds)
        # Its own randomness: what it does moves nothing else in time.
        self.beside = SimulatedThread(world.clock, Random(name), database_seconds)
        self.probed: list[tuple[str, int]] = []
        self.news: list[bytes] = []
        self.nameserver = Server(
            name,
            "simulation",
            ServerDependencies(
                clock=self.process,
                now=world.now,
                token=lambda: f"token-{world.random.getrandbits(256):x}",
                storage=world.store,
                in_database=self.thread,
                peer_of=_peer,
                probe=self._probe,
                connect=self._connect,
                id=f"{name}-{next(world.starts)}",
                roster=world.roster(),
                beside=self.beside,
                random=Random(name).random,
                addresses_of=world.addresses_of,
                ways=(Channel("command", "command", self._run_command, per_minute=PER_MINUTE_MAX),),
                **options,
            ),
        )

    def start(self) -> Deferred[None]:
        """Listen at once, answer when the catalogue is complete."""
        self.world.network.listen(self.name, ("server", self.name), self.nameserver)
        self.started = Deferred.fromCoroutine(self.nameserver.start())
        return self.started

    def crash(self) -> None:
        """kill -9."""
        self.world.killed.append(self)
        self.process.kill()
        self.thread.kill()
        self.beside.kill()
        self.world.network.crash(self.name)
        del self.world.servers[self.name]

    def stop(self) -> None:
        """SIGTERM."""
        self.world.network.stop_listening(self.name)
        self.nameserver.stop()
        del self.world.servers[self.name]

    def _probe(self, policy: Policy, address: str, port: int) -> Deferred[str]:
        self.probed.append((address, port))
        return self.world.probe(self.name, self.world.clock, policy, address, port)

    def _connect(self, host: str, address: str, port: int, make: Callable[[], Session]) -> Deferred[Session]:
        if self.process.killed:
            # Its timers continue, because their owner is unknown.
            return Deferred()
        identity = ("server", self.name)
        return self.world.network.connect(f"{host}:update", identity, make, lambda: self.process.killed)

    def _run_command(self, message: Message) -> Deferred[None]:
        if self.world.receiving is not None:
            answer = self.world.receiving(message)
            if answer is not None:
                return answer
        self.news.append(msgspec.json.encode(render_json(message, self.name)))
        return succeed(None)


class SimulatedHost:
    """Process of opengnscd with the services registered at it."""

    def __init__(self, world: World, name: str, servers: tuple[str, ...] = ("gns1",), **options: Any) -> None:
        self.world = world
        self.name = name
        self.process = Process(world.clock)
        self.processes = world.processes.setdefault(name, SimulatedProcesses())
        self.probed: list[tuple[str, int]] = []
        identity = ("host", name)
        if options.get("mode") == "short":
            options.setdefault("update_port", 4865)
        place = 1 + list(dict.fromkeys([*world.hosts, name])).index(name)
        options.setdefault("default_address", f"10.0.0.{place}")
        self.address: str = options["default_address"]
        self.agent = Agent(
            AgentDependencies(
                clock=self.process,
                now=world.now,
                random=world.random.random,
                state_directory=world.directory / name,
                host_name=name,
                machine=self.processes.machine(name),
                selector=ServerSelector(world.random.random, in_order(servers)),
                dial=lambda way: world.network.endpoint(way.name, identity, self.process),
                process_watch=self.processes,
                instance=f"{name}-{next(world.starts)}",
                peer_of=_peer,
                probe=self._probe,
                **options,
            )
        )
        self.daemon = self.agent.api
        """Interface for programs on the host."""
        self.upstream, self.replica = self.agent.components.upstream, self.agent.components.replica
        if options.get("update_port"):
            world.network.listen(f"{name}:update", identity, self.upstream.update_factory())

    def crash(self) -> None:
        """kill -9 of the daemon: its services go on, its disk stays."""
        self.process.kill()
        self.processes.forget_watches()
        self.world.network.crash(self.name)
        self.world.network.stop_listening(f"{self.name}:update")

    def _probe(self, policy: Policy, address: str, port: int) -> Deferred[str]:
        self.probed.append((address, port))
        return self.world.probe(self.name, self.process, policy, address, port)

    def stop(self) -> None:
        """SIGTERM of the daemon."""
        self.world.network.stop_listening(f"{self.name}:update")
        self.agent.stop()


class SimulatedProcesses:
    """The process table of a host: which pids live. It outlives the daemon that watches them."""

    def __init__(self) -> None:
        self.living: set[int] = set()
        self.boot, self.namespace = "boot 1", "namespace 1"
        """Boot and namespace of these process numbers; a test changes them for another machine or container."""
        self.problem = ""
        self.scarce = False
        """True if the system cannot watch another process."""
        self._watched: dict[int, Callable[[], None]] = {}

    def machine(self, host: str) -> Machine:
        """The identity that the daemon of a host finds there."""
        return Machine(self.boot, self.namespace, "id", host)

    def start_of(self, pid: int) -> str:
        if pid not in self.living:
            raise NoSuchProcess(f"there is no process {pid}")
        return f"start of {pid}"

    def watch(self, pid: int, started: str, ended: Callable[[], None]) -> Callable[[], None]:
        self.start_of(pid)
        if self.scarce:
            raise CannotWatch(f"cannot watch process {pid}: too many open files")
        self._watched[pid] = ended

        def stop() -> None:
            # The watch of a renewed instance begins before that of the old one ends.
            if self._watched.get(pid) is ended:
                del self._watched[pid]

        return stop

    def start(self, pid: int) -> int:
        """A process begins."""
        self.living.add(pid)
        return pid

    def forget_watches(self) -> None:
        """Forget all watches: the process that watched has ended."""
        self._watched.clear()

    def kill(self, pid: int) -> None:
        """kill -9 of a process."""
        self.living.discard(pid)
        ended = self._watched.pop(pid, None)
        if ended is not None:
            ended()


class Client:
    """The protocol and nothing else: what a stranger's implementation would see."""

    def __init__(self, world: World, identity: tuple[str, str], message_max: int = limits.MESSAGE_MAX) -> None:
        self.world = world
        self.identity = identity
        self.connection = ClientConnection(world.clock.seconds(), "bare client", message_max=message_max)
        self.opened: SessionOpened | None = None
        self.ended: SessionEnded | None = None
        self.lost = False
        self.pushed: list[Any] = []
        self.replies: dict[int, Reply] = {}
        self.octets = 0
        self.acknowledging = True
        self.watching: Any = None
        """The answer to its last watch."""
        self.transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.connection.bytes_to_send())

    def dataReceived(self, data: bytes) -> None:
        self.octets += len(data)
        for event in self.connection.receive(data, self.world.clock.seconds()):
            self._met(event)
        self.flush()

    def connectionLost(self, reason: Any) -> None:
        self.lost = True

    def ask(self, request: Request) -> Any:
        """The reply, after as much virtual time as it takes."""
        number = self.connection.ask(request, self.world.clock.seconds())
        self.flush()
        self.world.until(lambda: number in self.replies or self.lost)
        return self.replies.get(number)

    def send(self, request: Request) -> int:
        """Ask and do not wait; the reply will be in `replies`."""
        number = self.connection.ask(request, self.world.clock.seconds())
        self.flush()
        return number

    def flush(self) -> None:
        data = self.connection.bytes_to_send()
        if data and not self.lost:
            self.transport.write(data)

    def _met(self, event: Event) -> None:
        match event:
            case SessionOpened():
                self.opened = event
            case ReplyReceived(number, reply):
                self.replies[number] = reply
            case PushReceived(message):
                self.pushed.append(message)
                if self.acknowledging and hasattr(message, "change"):
                    self.connection.acknowledge(message.change.revision)
            case SessionEnded():
                self.ended = event
                self.transport.loseConnection()
