"""HTTP requests at the host's API: the real site in front of a real daemon with a real server, on virtual time.

Only the sockets are missing: octets go straight to Twisted's HTTP channel and come back from it. The invariant: no
request makes anything fail inside (a line in the log at level critical, a status of 500), what is a request is
answered, and nothing piles up.
"""

from __future__ import annotations

import gc
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from compass.agent.local_users import GUESS_SECONDS
from compass.agent.metrics import AgentMetrics
from compass.gateway.host_api.routes import site
from compass.gateway.http.status_codes import STATUS
from compass.gateway.metrics.exposition import Metrics, Snapshot
from tests.fuzz.http_requests import Maker
from tests.support.virtual_world import World

TOPOLOGY = {"web": ["portal.web", ">disk"], "disk": ["store.disk", ">web"]}
REQUESTS_PER_WORLD = 20_000
"""Number of requests after which everything begins again, so that a seed is found again in reasonable time."""
ANSWER_SECONDS = 6.0
"""Virtual seconds within which everything that is answered at all is answered: longer than any patience of the host."""
STATUSES = {200, 202, 304, 308, 401, 405, 415, *STATUS.values()}
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


class Broken(AssertionError):
    """The invariant does not hold; the text has what is needed to see it again."""


class Wire:
    """The transport of one connection, in memory."""

    def __init__(self, clock: Any) -> None:
        self.disconnecting = False
        self._clock = clock
        self.written = bytearray()
        self.protocol: Any = None
        self.open = True
        self._producer: Any = None

    def write(self, data: bytes) -> None:
        if self.open and not self.disconnecting:
            self.written += data

    def writeSequence(self, pieces: Any) -> None:
        for piece in pieces:
            self.write(piece)

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            self._clock.callLater(0, self.close, ConnectionDone())

    def abortConnection(self) -> None:
        self.disconnecting = True
        self._clock.callLater(0, self.close, ConnectionLost())

    def close(self, why: Exception) -> None:
        """The connection is gone."""
        if self.open:
            self.open = False
            self.protocol.connectionLost(Failure(why))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        """Reading stops; what is fed meanwhile is the channel's to keep."""

    def resumeProducing(self) -> None:
        """Reading goes on."""

    def stopProducing(self) -> None:
        """Reading is over."""

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 50000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 4866)

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802
        """There is nothing to delay."""


@contextmanager
def critical() -> Iterator[list[str]]:
    """Collect what is logged at level critical while the block runs, exceptions lost in a Deferred included."""
    found: list[str] = []

    def look(event: LogEvent) -> None:
        if event["log_level"] is LogLevel.critical:
            failure = event.get("log_failure")
            found.append(failure.getTraceback() if failure is not None else str(formatEvent(event)))

    observe: Any = look
    globalLogPublisher.addObserver(observe)
    try:
        yield found
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(observe)


class Api:
    """A world with one server, a host whose API is under fuzz, and another host that is notified."""

    topology: dict[str, list[str]] = TOPOLOGY

    def __init__(self, seed: int, directory: Path) -> None:
        self.world = World(seed, directory)
        self.random = self.world.random
        self.tokens = self.world.declare(self.topology)
        self.world.server()
        self.host = self.world.host("web1")
        self.host.processes.start(11)
        self.host.processes.start(12)
        self.maker = Maker(self.random, self.tokens)
        metrics = Metrics(self.world.clock, {}, Snapshot(AgentMetrics, "opengns_host_", self.host.daemon.metrics))
        self.factory: Any = site(self.host.daemon, self.world.clock, metrics)
        self.seen: Counter[str] = Counter()
        self._open: list[Wire] = []
        self.world.run(2.0)

    def connect(self) -> Wire:
        """A new connection."""
        wire = Wire(self.world.clock)
        wire.protocol = self.factory.buildProtocol(wire.getPeer())
        wire.protocol.makeConnection(wire)
        return wire

    def play(self) -> None:
        """Open one connection with a few requests, one after the other or all at once, in pieces."""
        random = self.random
        wire = self.connect()
        sent = b""
        for _ in range(random.randrange(1, 5)):
            octets, must = self.maker.request()
            sent += octets
            self.seen["requests"] += 1
            begun = len(wire.written)
            self._feed(wire, octets)
            self._let_time_pass()
            if must and wire.open and not wire.disconnecting:
                self._answered(wire, begun, octets, sent)
            if not wire.open or wire.disconnecting:
                break
            # Behind an answer that stays open nothing is answered.
            if not must or wire.protocol.requests:
                break
        self._judge(wire, sent)
        # Some programs hang up at once, some stay: watching, holding, or silent.
        if wire.open and random.random() < 0.1 and len(self._open) < 50:
            self._open.append(wire)
        else:
            wire.close(ConnectionDone())
        if len(self._open) > 40:
            self._open.pop(random.randrange(len(self._open))).close(ConnectionDone())

    def trouble(self) -> None:
        """The server goes away or comes back: what is asked then goes other ways."""
        if "gns1" in self.world.servers:
            self.world.servers["gns1"].crash()
        else:
            self.world.server()
        self.world.run(self.random.random() * 3)
        if self.random.random() < 0.5:
            # Long enough for wrong credentials to be forgotten: registrations may then be pending.
            self.world.run(GUESS_SECONDS)

    def finish(self) -> None:
        """Close every connection; whatever waited must end without a word."""
        for wire in self._open:
            wire.close(ConnectionDone())
        self.world.run(30.0)
        self.host.agent.stop()
        self.world.run(5.0)

    def _feed(self, wire: Wire, octets: bytes) -> None:
        random = self.random
        cuts = sorted(random.randrange(len(octets) + 1) for _ in range(random.choice((0, 0, 1, 3))))
        for begin, until in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            if wire.open and not wire.disconnecting and begin < until:
                try:
                    wire.protocol.dataReceived(octets[begin:until])
                except Exception as error:
                    raise Broken(f"{error!r} from {octets[begin:until]!r} of {octets!r}") from error

    def _let_time_pass(self) -> None:
        if self.random.random() < 0.3:
            self.world.run(self.random.choice((0.001, 0.02, 0.02, 0.02)))

    def _answered(self, wire: Wire, begun: int, octets: bytes, sent: bytes) -> None:
        """A request that is not damaged is answered, at the latest when the host's patience is over."""
        if len(wire.written) == begun and b"/v1/" in octets and wire.open:
            clock = self.world.clock
            until = clock.seconds() + ANSWER_SECONDS
            while len(wire.written) == begun and wire.open and clock.seconds() < until:
                self.world.run(0.05)
            if len(wire.written) == begun and wire.open:
                raise Broken(f"no answer to {octets!r} after {sent!r}")

    def _judge(self, wire: Wire, sent: bytes) -> None:
        written = bytes(wire.written)
        if written and not written.startswith(b"HTTP/1."):
            raise Broken(f"{written[:200]!r} in answer to {sent!r}")
        for match in _STATUS.finditer(written):
            status = int(match[1])
            self.seen[f"status {status}"] += 1
            if status not in STATUSES | {100, 400, 404, 414, 431}:
                raise Broken(f"status {status} in answer to {sent!r}: {written[-2000:]!r}")
        _, _, body = written.partition(b"\r\n\r\n")
        if (
            written.count(b"HTTP/1.") == 1
            and b"Content-Type: application/json" in written
            and b"chunked" not in written
        ):
            try:
                json.loads(body or b"null")
            except ValueError:
                raise Broken(f"no JSON: {written[-500:]!r} in answer to {sent!r}") from None


def run(
    seed: int,
    requests: int,
    directory: Path,
    report: Callable[[Counter[str]], None] | None = None,
    kind: Callable[[int, Path], Api] = Api,
) -> Counter[str]:
    """Send this number of requests. Returns what happened, counted; raises Broken with the world's seed."""
    random = Random(seed)
    seen: Counter[str] = Counter()
    while seen["requests"] < requests:
        world_seed = random.getrandbits(32)
        with critical() as found:
            api = kind(world_seed, directory / str(world_seed))
            try:
                goal = min(REQUESTS_PER_WORLD, requests - seen["requests"])
                while api.seen["requests"] < goal:
                    api.play()
                    if api.random.random() < 0.002:
                        api.trouble()
                    if found:
                        raise Broken(found[0])
                api.finish()
            except Broken as broken:
                raise Broken(f"world {world_seed} at request {api.seen['requests']}: {broken}") from broken
            api.world.store.close()
            seen.update(api.seen)
            seen["worlds"] += 1
            del api
        if found:
            raise Broken(f"world {world_seed}, at its end: {found[0]}")
        if report is not None:
            report(seen)
    return seen
