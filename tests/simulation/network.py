"""Network in memory on virtual time: links that delay, split, cut and drop, driven by one seeded source.

Bytes of one direction arrive in order, as TCP delivers them; their times and pieces are random. Both ends notice a
link that is *cut*; neither end notices one that is *silent* (a machine lost, a cable pulled).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

BUFFER_OCTETS = 65536
"""Octets that a real socket and transport hold before the producer is paused, approximately."""
SLOW_SECONDS = (0.05, 0.8)
"""Range of the seconds that a slow line adds to each write."""
BURST_SECONDS = 0.7
"""Interval between the deliveries of a bursty line."""


class Place:
    """Address of an end, as `getPeer` returns it."""

    def __init__(self, host: str) -> None:
        self.host = host


class End:
    """End of a link, with the interface of a Twisted transport."""

    def __init__(self, network: Network, local: tuple[str, str], remote: tuple[str, str]) -> None:
        self.network = network
        self.peer = remote
        """Role and name that the other side's certificate would show."""
        self.local = local
        self.other: End
        self.protocol: Any = None
        self.closed = False
        self.reading = True
        self.octets_written = 0
        self._under_way = 0
        self._arrives_at = 0.0
        self._producer: Any = None
        self._paused = False
        self._unread: list[bytes] = []
        self._closing = False
        self._random = network.random_for(local[1], remote[1])

    def write(self, data: bytes) -> None:
        if self.closed or self._closing or not data:
            return
        self.octets_written += len(data)
        if self.network.silent(self, self.other):
            return
        for piece in self.network.pieces(data, self._random):
            self._under_way += self.network.size(piece)
            self._later(partial(self._arrive, piece))
        if self._under_way > self.network.buffer_octets and self._producer is not None and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        if not self.closed and not self._closing:
            self._closing = True
            self._later(lambda: self._finish(ConnectionDone()))

    def abortConnection(self) -> None:
        self._finish(ConnectionAborted())

    def getPeer(self) -> Place:
        return Place(self.peer[1])

    def getHost(self) -> Place:
        return Place(self.local[1])

    def registerProducer(self, producer: object, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pause_reading(self) -> None:
        """This end does not read: what is sent to it stays in the sender's buffers."""
        self.reading = False

    def resume_reading(self) -> None:
        """Resume reading."""
        self.reading = True
        unread, self._unread = self._unread, []
        for piece in unread:
            self._deliver(piece)

    def lost(self, reason: Exception) -> None:
        """Report the loss of the connection to the protocol, once."""
        if not self.closed:
            self.closed = True
            self.protocol.connectionLost(Failure(reason))

    def _finish(self, reason: Exception) -> None:
        if self.closed:
            return
        if not self.network.silent(self, self.other):
            self._later(lambda: self.other.lost(ConnectionDone() if self._closing else ConnectionLost()))
        self.lost(reason)

    def _later(self, call: Callable[[], None]) -> None:
        """Deliver in order: no octets overtake earlier ones."""
        clock = self.network.clock
        arrives_at = self.network.arrival(self.local[1], self.peer[1], self._random)
        self._arrives_at = max(self._arrives_at, arrives_at)
        clock.callLater(self._arrives_at - clock.seconds(), call)

    def _arrive(self, piece: bytes) -> None:
        if not self.network.silent(self, self.other):
            self.other._deliver(piece, self)

    def _deliver(self, piece: bytes, sender: End | None = None) -> None:
        if self.closed:
            return
        if not self.reading:
            self._unread.append(piece)
            return
        sender = sender or self.other
        sender._read(self.network.size(piece))
        self.protocol.dataReceived(piece)

    def _read(self, octets: int) -> None:
        self._under_way -= octets
        if (
            self._paused
            and self._under_way <= self.network.buffer_octets
            and self._producer is not None
            and not self.closed
        ):
            self._paused = False
            self._producer.resumeProducing()


class Network:
    """Machines by name, what listens on them, and the weather between them."""

    def __init__(self, clock: Clock, random: Random, latency_seconds: tuple[float, float] = (0.0002, 0.005)) -> None:
        self.clock = clock
        self.random = random
        self.latency_seconds = latency_seconds
        self.buffer_octets = BUFFER_OCTETS
        self.split = 0.2
        """Share of the writes that arrive in pieces."""
        self.seed = ""
        """Seed of one random source for each link, so that an omission at one does not change another; empty: one
        source for all."""
        self.weather: dict[frozenset[str], str] = {}
        """Lines between two machines that are `slow`, or `bursty`: nothing for a while, then all at once."""
        self.expired: set[str] = set()
        """Machines whose certificate has expired."""
        self._links: dict[tuple[str, str], int] = {}
        self.ends: list[End] = []
        self.dialled: list[tuple[float, str, str]] = []
        """Attempts to connect with time, caller and peer, those without an answer included."""
        self._listening: dict[str, tuple[tuple[str, str], Any]] = {}
        self._silent: dict[tuple[str, str], None] = {}
        """Silenced pairs in the order of silencing: a set's order differs between runs of Python."""

    def expire(self, machine: str) -> None:
        """The certificate of a machine ends: its connections do, and its peers refuse new ones until it is renewed."""
        self.expired.add(machine)
        for end in [end for end in self.ends if machine in (end.local[1], end.peer[1]) and not end.closed]:
            end.lost(ConnectionLost())

    def renew(self, machine: str) -> None:
        """The machine has a new certificate."""
        self.expired.discard(machine)

    def listen(self, machine: str, identity: tuple[str, str], factory: Any) -> None:
        """`machine` takes connections with `factory`; `identity` is the role and name of its certificate."""
        self._listening[machine] = (identity, factory)

    def stop_listening(self, machine: str) -> None:
        """Connections to it are refused from now on."""
        self._listening.pop(machine, None)

    def connect(
        self,
        machine: str,
        identity: tuple[str, str],
        make: Callable[[], Any],
        killed: Callable[[], bool] = lambda: False,
    ) -> Deferred[Any]:
        """A connection to `machine`; the protocol that `make` gives is the dialling side's, who hears nothing any more
        once it has been `killed`."""
        self.dialled.append((self.clock.seconds(), identity[1], machine))
        answered: Deferred[Any] = Deferred()

        def reach() -> None:
            if answered.called or killed():
                return  # The caller has given up or ended.
            if (identity[1], machine) in self._silent or (machine, identity[1]) in self._silent:
                return  # There is no answer; the caller's own timeout ends the attempt.
            if machine not in self._listening or {identity[1], machine.partition(":")[0]} & self.expired:
                answered.errback(ConnectionRefusedError())
                return
            theirs, factory = self._listening[machine]
            near, far = End(self, identity, theirs), End(self, theirs, identity)
            near.other, far.other = far, near
            near.protocol = make()
            far.protocol = factory.buildProtocol(Place(identity[1])) if near.protocol is not None else None
            if far.protocol is None:
                answered.errback(ConnectionRefusedError())
                return
            self.ends += [near, far]
            far.protocol.makeConnection(far)
            near.protocol.makeConnection(near)
            answered.callback(near.protocol)

        self.clock.callLater(self.delay(), reach)
        return answered

    def endpoint(self, machine: str, identity: tuple[str, str], process: Any) -> Any:
        """A client endpoint that connects to `machine` as `identity`, as long as `process` is not killed."""
        return _Endpoint(self, machine, identity, process)

    def between(self, one: str, other: str) -> list[End]:
        """The open ends at `one` of links with `other`."""
        return [end for end in self.ends if not end.closed and (end.local[1], end.peer[1]) == (one, other)]

    def cut(self, one: str, other: str) -> None:
        """Reset every link between the two."""
        for end in [*self.between(one, other), *self.between(other, one)]:
            end.lost(ConnectionLost())

    def silence(self, one: str, other: str, *, both: bool = True) -> None:
        """Drop silently what `one` sends to `other`, and with `both` also the other direction."""
        self._silent[one, other] = None
        if both:
            self._silent[other, one] = None

    def heal(self) -> None:
        """All links carry again. What was lost stays lost, so the streams are dead: they are reset."""
        for one, other in list(self._silent):
            self.cut(one, other)
        self._silent.clear()

    def crash(self, machine: str) -> None:
        """The process on it is killed: its connections are reset, and nothing listens."""
        self.stop_listening(machine)
        for end in list(self.ends):
            if end.local[1] == machine and not end.closed:
                end.closed = True
                end.other.lost(ConnectionLost())

    def heal_between(self, one: str, other: str) -> None:
        """The line between the two carries again, with the streams on it reset."""
        if (one, other) in self._silent or (other, one) in self._silent:
            self._silent.pop((one, other), None)
            self._silent.pop((other, one), None)
            self.cut(one, other)

    def calm(self) -> None:
        """Restore the speed of every line, and let every end read."""
        self.weather.clear()
        for end in self.ends:
            if not end.closed and not end.reading:
                end.resume_reading()

    def random_for(self, one: str, other: str) -> Random:
        """The source of chance of a new link."""
        if not self.seed:
            return self.random
        number = self._links[one, other] = self._links.get((one, other), 0) + 1
        return Random(f"{self.seed} {one} {other} {number}")

    def arrival(self, one: str, other: str, random: Random) -> float:
        """Return the time at which octets that are sent now arrive."""
        at = float(self.clock.seconds()) + random.uniform(*self.latency_seconds)
        kind = self.weather.get(frozenset((one, other))) if self.weather else None
        if kind == "slow":
            at += random.uniform(*SLOW_SECONDS)
        elif kind == "bursty":
            at += BURST_SECONDS - at % BURST_SECONDS
        return at

    def silent(self, sender: End, receiver: End) -> bool:
        return (sender.local[1], receiver.local[1]) in self._silent

    def delay(self) -> float:
        return self.random.uniform(*self.latency_seconds)

    def pieces(self, data: bytes, random: Random) -> list[bytes]:
        if len(data) < 2 or random.random() > self.split:
            return [data]
        at = random.randrange(1, len(data))
        return [data[:at], data[at:]]

    def size(self, piece: bytes) -> int:
        """Octets that a piece occupies in the buffers."""
        return len(piece)


@implementer(IStreamClientEndpoint)
class _Endpoint:
    def __init__(self, network: Network, machine: str, identity: tuple[str, str], process: Any) -> None:
        self._network = network
        self._machine = machine
        self._identity = identity
        self._process = process

    def connect(self, factory: Any) -> Deferred[Any]:
        def make() -> Any:
            return factory.buildProtocol(None)

        return self._network.connect(self._machine, self._identity, make, lambda: self._process.killed)
