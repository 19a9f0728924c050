"""A host that does not read while thousands of changes go by: what it costs the server, and what the others notice.

A program: all hosts and the writer of the changes are in it, so that one clock measures. Rounds in which all hosts
read and rounds in which one does not take turns; what it prints is one line of JSON for each.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater

from compass.agent.upstream.connector import UpstreamDependencies
from compass.agent.upstream.server_selector import ServerSelector, in_order
from compass.agent.upstream.upstream import Upstream
from compass.daemons.net.listen import PeerRoles
from compass.model.replies import Registered, Reply
from compass.model.requests import Pull, Register
from compass.model.rows import Change, Listener
from compass.wire.messages import Pushed, Welcome
from tests.storm.load_hosts import Member, Way
from tests.storm.storm import rss_kib

PADDING = {f"k{n}": "x" * 200 for n in range(4)}
"""Makes a notice some 1.1 kB, so that the kernel's buffers do not hide the reader that does not read."""
BURST = 5
LATE_SECONDS = 30.0
UNANSWERED_MAX = 256
"""Changes under way at most: a writer whose server does not keep the pace waits, and does not measure its own queue."""


class Writer:
    """An administrator who registers one listener again and again; also the follower of its own session."""

    def __init__(self, reactor: Any, way: Any) -> None:
        self._reactor = reactor
        choice = ServerSelector(lambda: 0.5, in_order(["the server"]))
        peer_of = PeerRoles(None).identify
        self.upstream = Upstream(
            UpstreamDependencies(clock=reactor, selector=choice, dial=lambda _: way, peer_of=peer_of, software="writer")
        )
        self.upstream.follow(self)
        self.opened = False
        self.leaving = False
        self.sent: dict[int, float] = {}
        self.revision = 0
        self._answered = 0
        self._epoch = 0

    def session_opened(self, welcome: Welcome) -> None:
        self.opened = True

    def session_pushed(self, messages: Sequence[Pushed]) -> None:
        raise AssertionError("an administrator is sent nothing")

    def session_ended(self) -> None:
        assert self.leaving, "the writer's session has ended"

    def write(self) -> Deferred[None]:
        """Commit one change."""
        self._epoch += 1
        self.sent[self._epoch] = time.monotonic()
        request = Register("northeast.openuss", "", "192.0.2.251", 2501, self._epoch, metadata=PADDING)
        return self.upstream.ask(request).addCallback(self._written)

    def _written(self, reply: Reply) -> None:
        assert isinstance(reply, Registered), reply
        self.revision = reply.revision
        self._answered += 1

    async def many(self, count: int, per_second: float) -> None:
        """Commit this number of changes, at that pace if the server keeps it."""
        waiting: list[Deferred[Any]] = []

        def burst(times: int) -> None:
            room = UNANSWERED_MAX - (self._epoch - self._answered)
            for _ in range(min(times * BURST, count - len(waiting), room)):
                waiting.append(self.write())
            if len(waiting) == count:
                pace.stop()

        pace = LoopingCall.withCount(burst)
        pace.clock = self._reactor
        await pace.start(BURST / per_second)
        for each in waiting:
            await each


class Scene:
    """The hosts, the writer and the measurements."""

    def __init__(self, reactor: Any, directory: Path, address: str, port: int, names: Sequence[str], pid: int) -> None:
        self._reactor = reactor
        self._pid = pid
        self.latencies: list[float] = []
        self.writer = Writer(reactor, Way(reactor, directory, "alice", address, port))
        ways = [Way(reactor, directory, name, address, port) for name in names]
        self.slow = Member(reactor, ways[0], ["portal.web"])
        self.others = [Member(reactor, way, ["portal.web"], self._told) for way in ways[1:]]

    def _told(self, change: Change) -> None:
        row = change.row
        if isinstance(row, Listener) and row.port == 2501:
            self.latencies.append(time.monotonic() - self.writer.sent[row.epoch])

    async def run(self, changes: int, per_second: float, warm: int, rounds: int) -> None:
        """Fill the server's tail, then the rounds."""
        self.writer.upstream.start()
        for member in [self.slow, *self.others]:
            member.start()
        await self._until(lambda: self.writer.opened and all(m.in_step for m in [self.slow, *self.others]))
        await self.writer.many(warm, per_second * 1.2)
        for number in range(rounds):
            await self._round(changes, per_second, stuck=bool(number % 2))
        self.writer.leaving = True
        self._reactor.stop()

    async def _round(self, changes: int, per_second: float, *, stuck: bool) -> None:
        await self._until(lambda: all(m.holds(self.writer.revision) for m in [self.slow, *self.others]))
        self.latencies.clear()
        before = rss_kib(self._pid)
        attempts = self.slow.way.attempts
        transport = self._transport()
        if stuck:
            transport.pauseProducing()
        began = time.monotonic()
        await self.writer.many(changes, per_second)
        took_seconds = time.monotonic() - began
        last = self.writer.revision
        await self._until(lambda: all(member.holds(last) for member in self.others))
        after = rss_kib(self._pid)
        held = self.slow.replica.catalogue.revision
        began = time.monotonic()
        if stuck:
            transport.resumeProducing()
        await self._until(lambda: self.slow.holds(last))
        caught_up_seconds = time.monotonic() - began
        pulled = await self.slow.upstream.ask(Pull("portal.web"))
        told = sorted(self.latencies)
        result = {
            "stuck": stuck,
            "changes": changes,
            "took_s": took_seconds,
            "missing": last - held,
            "p50_ms": told[len(told) // 2] * 1000,
            "p99_ms": told[len(told) * 99 // 100] * 1000,
            "told": len(told),
            "grown_kib": after - before,
            "caught_up_ms": caught_up_seconds * 1000,
            "equal": _same(pulled, self.slow.view.dependencies("portal.web")),
            "connections": self.slow.way.attempts - attempts,
        }
        print(json.dumps(result), flush=True)

    def _transport(self) -> Any:
        """Return the socket of the slow reader's connection, under TLS."""
        session: Any = self.slow.upstream._session
        return session.transport.transport

    async def _until(self, condition: Any) -> None:
        late = time.monotonic() + LATE_SECONDS
        while not condition():
            assert time.monotonic() < late, "not in time"
            await deferLater(self._reactor, 0.01, lambda: None)


def _same(pulled: Any, held: Any) -> bool:
    return bool(pulled.categories == held.categories)


def main() -> None:
    """Arguments: certificates, server's address, port and process id, hosts, changes, their pace, warming, rounds."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    directory, address, port, pid, hosts, *numbers = sys.argv[1:]
    changes, per_second, warm, rounds = map(int, numbers)
    scene = Scene(reactor, Path(directory), address, int(port), hosts.split(","), int(pid))
    failed: list[Any] = []

    def over(failure: Any) -> None:
        failed.append(failure)
        failure.printTraceback(file=sys.stderr)
        scene.writer.leaving = True
        reactor.stop()

    Deferred.fromCoroutine(scene.run(changes, per_second, warm, rounds)).addErrback(over)
    reactor.run()
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
