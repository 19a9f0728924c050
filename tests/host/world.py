"""A small world on virtual time: real name servers on a real in-memory store, real host daemons, links in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred, fail, maybeDeferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from compass.host.daemon import HostDaemon
from compass.host.processes import CannotWatch, NoSuchProcess, start_of
from compass.model.draft import Asker
from compass.model.replies import CredentialIssued, Refusal, Reply
from compass.model.requests import Apply, IssueCredential
from compass.model.rows import Category, Dependency, Policy, Service
from compass.server.nameserver import NameServer, Parts
from compass.store.store import Store

START = 1_800_000_000.0
ADMIN = Asker("admin", "root", "127.0.0.1")
STEP = 0.01


class End:
    """One end of a link; what is written arrives at the other end a moment later."""

    def __init__(self, clock: Clock, name: tuple[str, str]) -> None:
        self.clock = clock
        self.name = name
        self.other: End
        self.protocol: Any = None
        self.sent = bytearray()
        self.open = True
        self.cut = False

    def write(self, data: bytes) -> None:
        if self.open:
            self.sent += data
            self.clock.callLater(0.001, self.other.arrive, bytes(data))

    def arrive(self, data: bytes) -> None:
        if self.open and not self.cut:
            self.protocol.dataReceived(data)

    def loseConnection(self) -> None:
        self.clock.callLater(0.002, self.close)

    abortConnection = loseConnection

    def close(self) -> None:
        for end in (self, self.other):
            if end.open:
                end.open = False
                end.protocol.connectionLost(Failure(ConnectionDone()))

    def getPeer(self) -> tuple[str, str]:
        return self.name

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass


def link(clock: Clock, client: Any, server: Any, names: tuple[tuple[str, str], tuple[str, str]]) -> tuple[End, End]:
    """Connect two protocols; `names`: role and name of the client's and of the server's certificate."""
    ours, theirs = End(clock, names[1]), End(clock, names[0])
    ours.other, theirs.other = theirs, ours
    ours.protocol, theirs.protocol = client, server
    server.makeConnection(theirs)
    client.makeConnection(ours)
    return ours, theirs


def peer_of(transport: Any) -> tuple[str, str, str]:
    return (*transport.getPeer(), "")


@implementer(IStreamClientEndpoint)
class Dial:
    """A host's way to one server, which may be down."""

    def __init__(self, world: World, host: str, place: int) -> None:
        self.world, self.host, self.place = world, host, place

    def connect(self, factory: Any) -> Deferred[Any]:
        server = self.world.servers.get(self.place)
        self.world.dialled.append((self.world.clock.seconds(), self.host, self.place))
        if server is None:
            return fail(ConnectionRefusedError())
        client, end = factory.buildProtocol(None), server.buildProtocol(None)
        ends = link(self.world.clock, client, end, (("host", self.host), ("server", f"s{self.place}")))
        self.world.links.append(ends)
        return succeed(client)


class Processes:
    """Processes that end when a test says so."""

    def __init__(self) -> None:
        self.watched: dict[int, Callable[[], None]] = {}
        self.dead: set[int] = set()
        self.scarce = False

    def start_of(self, pid: int) -> str:
        return start_of(pid)

    def watch(self, pid: int, started: str, ended: Callable[[], None]) -> Callable[[], None]:
        if pid in self.dead:
            raise NoSuchProcess(f"there is no process {pid}")
        if self.scarce:
            raise CannotWatch(f"cannot watch process {pid}: too many open files")
        self.watched[pid] = ended
        return lambda: self.watched.pop(pid, None) and None

    def kill(self, pid: int) -> None:
        self.dead.add(pid)
        self.watched.pop(pid)()


class World:
    """Servers by place, hosts by name, one store."""

    def __init__(self, directory: Path, seed: int = 1) -> None:
        self.clock = Clock()
        self.random = Random(seed)
        self.directory = directory
        self.store = Store.open("sqlite://")
        self.servers: dict[int, NameServer] = {}
        self.links: list[tuple[End, End]] = []
        self.dialled: list[tuple[float, str, int]] = []
        self.hosts: dict[str, HostDaemon] = {}
        self.alive: set[tuple[str, int]] = set()
        self.processes = Processes()
        self.tokens = 0

    def now(self) -> float:
        return START + self.clock.seconds()

    def token(self) -> str:
        self.tokens += 1
        return f"token-{self.tokens}"

    def serve(self, place: int = 0) -> NameServer:
        """Start a server."""
        parts = Parts(
            clock=self.clock,
            now=self.now,
            token=self.token,
            storage=self.store,
            in_database=lambda work, *args: maybeDeferred(work, *args),
            peer_of=peer_of,
            probe=lambda policy, address, port: succeed("" if (address, port) in self.alive else "refused"),
            connect=self._connect,
        )
        server = NameServer(f"s{place}", "test", parts)
        ensureDeferred(server.start())
        self.servers[place] = server
        return server

    def fall(self, place: int = 0) -> None:
        """A server is gone, with all its connections, without a word."""
        server = self.servers.pop(place)
        server.stop()
        for ours, theirs in self.links:
            if theirs.protocol in server._sessions:
                ours.cut = True
                ours.close()
        self.run(0.05)

    def _connect(self, host: str, address: str, port: int, make: Callable[[], Any]) -> Deferred[Any]:
        daemon = self.hosts.get(host)
        if daemon is None:
            return fail(ConnectionRefusedError())
        session, client = make(), cast(Any, daemon.update_factory()).buildProtocol(None)
        self.links.append(link(self.clock, client, session, (("host", host), ("server", "s0"))))
        return succeed(session)

    def host(self, name: str = "h1", places: int = 1, **options: Any) -> HostDaemon:
        """Start a daemon; one of that name before is stopped, and the disk is the same."""
        if name in self.hosts:
            self.hosts[name].stop()
            self.run(0.05)
        daemon = HostDaemon(
            clock=self.clock,
            now=self.now,
            random=self.random.random,
            state_directory=self.directory / name,
            host_name=name,
            default_address="10.0.0.1",
            endpoints=cast(Any, [Dial(self, name, place) for place in range(places)]),
            process_watch=self.processes,
            peer_of=peer_of,
            **options,
        )
        self.hosts[name] = daemon
        daemon.start()
        self.run(0.1)
        return daemon

    def run(self, seconds: float, step: float = STEP) -> None:
        """Let time pass."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def wait(self, deferred: Deferred[Any], seconds: float = 10.0) -> Any:
        """The result, once it is there."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        for _ in range(round(seconds / STEP)):
            if results:
                break
            self.clock.advance(STEP)
        assert results, f"no answer within {seconds} s"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def admin(self, request: Any) -> Reply:
        """What an administrator asks for, and gets."""
        server = next(iter(self.servers.values()))
        reply: Reply = self.wait(server.commits.submit(request, ADMIN))
        assert not isinstance(reply, Refusal), reply
        return reply

    def credential(self, service: str) -> str:
        reply = self.admin(IssueCredential(service))
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
        self.admin(Apply(tuple(rows)))
        return {id: self.credential(id) for id in ("www.web", "chinaserver.openuss", "rescue.backup", "one.openuso")}
