"""`make bench`: what a real server does in a second, and how long a change takes to the last of many hosts."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from compass.admin.authority import create_authority
from compass.assembly.streams import secured
from compass.assembly.tls import dialling, load_identity
from compass.client.link import IdentityFiles
from compass.model.replies import Refusal
from compass.model.requests import Register, Request, Watch
from compass.wire.connection import ClientConnection, Event, Opened, Pushed, Replied
from compass.wire.messages import Notice
from tests.e2e.deployment import Deployment

SERVICE = "chinaserver.openuss"
SECONDS = 5.0
"""Of each measurement of registrations."""
CHANGES = 20
"""Of each measurement of the fan-out."""


class Session(Protocol):
    """The protocol and nothing else, so that the generator costs as little as it can."""

    def __init__(self, reactor: Any) -> None:
        self.opened: Deferred[Session] = Deferred()
        self.noticed: Callable[[int], None] = lambda revision: None
        self._reactor = reactor
        self._waiting: dict[int, Deferred[Any]] = {}

    def connectionMade(self) -> None:
        self.connection = ClientConnection(self._reactor.seconds(), "bench")
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        for event in self.connection.receive(data, self._reactor.seconds()):
            self._met(event)
        self._flush()

    def ask(self, request: Request) -> Deferred[Any]:
        answered: Deferred[Any] = Deferred()
        self._waiting[self.connection.ask(request, self._reactor.seconds())] = answered
        self._flush()
        return answered

    def _met(self, event: Event) -> None:
        match event:
            case Replied(number, reply):
                self._waiting.pop(number).callback(reply)
            case Pushed(Notice() as notice):
                self.connection.acknowledge(notice.change.revision)
                self.noticed(notice.change.revision)
            case Opened():
                self.opened.callback(self)

    def _flush(self) -> None:
        transport: Any = self.transport
        data = self.connection.bytes_to_send()
        if data:
            transport.write(data)


class Bench:
    """A deployment and what is measured on it."""

    def __init__(self, reactor: Any, deployment: Deployment) -> None:
        self._reactor = reactor
        self._deployment = deployment
        self._token = ""
        self.results: list[dict[str, Any]] = []

    async def run(self, clients: list[int], hosts: list[int]) -> None:
        """All of it, each row printed as it is there."""
        await deferToThread(self._deployment.start)
        self._token = await deferToThread(self._deployment.token, SERVICE)
        for number in clients:
            await self._registrations(number)
        for number in hosts:
            await self._fan_out(number)

    async def _sessions(self, number: int, prefix: str) -> list[Session]:
        def connect(index: int) -> Deferred[Session]:
            files: IdentityFiles = self._deployment.certify("host", f"{prefix}{index}.example.net")
            identity = load_identity(Path(files.key), Path(files.certificate), Path(files.authority), datetime.now(UTC))
            context = dialling(identity, self._deployment.address)
            factory = Factory.forProtocol(lambda: Session(self._reactor))
            wrapped = secured(context, factory, client=True)
            endpoint = TCP4ClientEndpoint(self._reactor, self._deployment.address, self._deployment.port)
            connected: Deferred[Any] = endpoint.connect(wrapped)
            return connected.addCallback(lambda tls: tls.wrappedProtocol.opened)

        sessions: list[Session] = []
        for begin in range(0, number, 100):
            sessions += await gatherResults([connect(index) for index in range(begin, min(begin + 100, number))])
        return sessions

    async def _registrations(self, number: int) -> None:
        sessions = await self._sessions(number, f"r{number}x")
        times: list[float] = []
        until = time.monotonic() + SECONDS

        async def ask(session: Session, address: str) -> None:
            epoch = time.time_ns() // 1000
            while time.monotonic() < until:
                epoch += 1
                began = time.perf_counter()
                reply = await session.ask(Register(SERVICE, self._token, address, 2028, epoch))
                assert not isinstance(reply, Refusal), reply
                times.append(time.perf_counter() - began)

        before = _cpu()
        addresses = [f"10.{number % 256}.{index // 250}.{index % 250 + 1}" for index in range(number)]
        await gatherResults(
            [Deferred.fromCoroutine(ask(s, address)) for s, address in zip(sessions, addresses, strict=True)]
        )
        busy = (_cpu() - before) / SECONDS
        self._tell("registrations", "rate", "1/s", len(times) / SECONDS, number, busy)
        ordered = sorted(times)
        self._tell("registrations", "p50", "ms", ordered[len(ordered) // 2] * 1000, number, busy)
        self._tell("registrations", "p99", "ms", ordered[int(len(ordered) * 0.99)] * 1000, number, busy)
        _leave(sessions)

    async def _fan_out(self, number: int) -> None:
        sessions = await self._sessions(number, f"f{number}x")
        for begin in range(0, number, 100):
            await gatherResults([s.ask(Watch(("portal.web",))) for s in sessions[begin : begin + 100]])
        (writer,) = await self._sessions(1, f"w{number}x")
        times = []
        for change in range(CHANGES):
            left = number
            told: Deferred[None] = Deferred()

            def noticed(revision: int, told: Deferred[None] = told) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    told.callback(None)

            for session in sessions:
                session.noticed = noticed
            began = time.perf_counter()
            reply = await writer.ask(Register(SERVICE, self._token, "10.0.0.1", number % 60_000 + 1, change + 1))
            assert not isinstance(reply, Refusal), reply
            await told
            times.append((time.perf_counter() - began) * 1000)
        self._tell("fan-out", "to the last, median", "ms", statistics.median(times), number, 0.0)
        self._tell("fan-out", "to the last, worst", "ms", max(times), number, 0.0)
        _leave(sessions)

    def _tell(self, workload: str, metric: str, unit: str, value: float, clients: int, busy: float) -> None:
        row = {"workload": workload, "metric": metric, "unit": unit, "value": value, "clients": clients, "tls": True}
        self.results.append(row)
        note = f"   the generator used {busy:.2f} of a core" if busy > 0.8 else ""
        print(f"{workload:15} {clients:6} sessions   {metric:22} {value:10,.1f} {unit}{note}", flush=True)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _leave(sessions: list[Session]) -> None:
    for session in sessions:
        transport: Any = session.transport
        transport.loseConnection()


def main() -> None:
    """Parse, measure, print; with --json also write the rows."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 64, 512], help="sessions that register")
    parser.add_argument("--hosts", type=int, nargs="*", default=[100, 1000], help="sessions that watch")
    parser.add_argument("--json", metavar="FILE", help="write the rows there, too")
    options = parser.parse_args()
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    failed: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="compass-bench-") as directory:
        with Deployment(Path(directory), create_authority("bench", datetime.now(UTC))) as deployment:
            bench = Bench(reactor, deployment)

            def begin() -> None:
                run = Deferred.fromCoroutine(bench.run(options.clients, options.hosts))
                run.addErrback(lambda failure: failed.append(bool(failure.printTraceback()) or True))
                run.addBoth(lambda _: reactor.stop())

            reactor.callWhenRunning(begin)
            reactor.run()
        if options.json:
            Path(options.json).write_text(json.dumps(bench.results, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
