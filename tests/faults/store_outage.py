"""The database goes away for a minute, in four ways, under a deployment of real processes that goes on meanwhile.

`stopped`: PostgreSQL is ended as by a loss of power and started again. `frozen`: its processes get SIGSTOP, then
SIGCONT. `standby`: it comes back as a standby that takes no writes, and is promoted in the end. `slow`: commits wait
for a standby that is not there.

The output: lookups that were answered meanwhile, time until every dependant was notified of a dead listener,
and when the log had everything that was asked for.

    python -m tests.faults.store_outage [--seconds 60] [--ways stopped,frozen,standby,slow]
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from compass.client.core.blocking_api import ApiProblem, HostApi
from compass.model.host_api import LocalDeregister, LocalEvent, LocalRegister, LocalReport, Outcome
from compass.model.replies import Dependencies, ServerStatus
from compass.model.requests import Status
from compass.pki.authority import Credentials, create_authority
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import eventually
from tests.store.test_errors import without_standby
from tests.support.postgresql import PostgreSQL

SERVICE = "account.openuso"
USER = "portal.web"
REGISTRATIONS = 5
"""Registrations that are requested while the store is unavailable."""
PAUSE_SECONDS = 0.02
ANSWER_SECONDS = 30.0
"""A program may wait for its registration as long as the server waits for the store."""
WAYS = ("stopped", "frozen", "standby", "slow")


class Seen(msgspec.Struct):
    """Result of one outage."""

    lookups: int = 0
    failed: int = 0
    """Lookups that were not answered, or gave nothing to use."""
    told_seconds: float = 0.0
    """Seconds from the report to the moment at which the last dependant was notified."""
    pending: int = 0
    """Registrations that were asked for and not committed while the store was away."""
    missing: int = 0
    """Registrations of these that are not in the log in the end."""
    settled_seconds: float = 0.0
    """Seconds from the store's return to the moment at which the log had everything."""


class Listeners:
    """Sockets of this process that accept, and that can die."""

    def __init__(self, address: str, count: int) -> None:
        self._open: dict[int, socket.socket] = {}
        for _ in range(count):
            port = free_port(address)
            self._open[port] = listening = socket.create_server((address, port))
            threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    @property
    def ports(self) -> list[int]:
        """Return the ports of the listeners that live."""
        return sorted(self._open)

    def close(self, port: int) -> None:
        """Stop the listener."""
        listening = self._open.pop(port)
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()

    @staticmethod
    def _accept(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                listening.accept()[0].close()


class Lookups:
    """A program on a host that resolves in a loop."""

    def __init__(self, host: Host) -> None:
        self._api = host.api
        self.answered = self.failed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            try:
                found = self._api.resolve(SERVICE).listeners
            except ApiProblem:
                found = ()
            self.answered, self.failed = self.answered + bool(found), self.failed + (not found)


class Stage:
    """A deployment over PostgreSQL: two hosts that use a service, and one that serves it."""

    def __init__(self, directory: Path, authority: Credentials, postgresql: PostgreSQL, settings: str = "") -> None:
        self.postgresql = postgresql
        self.deployment = Deployment(directory, authority, store=postgresql.new_url(), settings=settings)

    def start(self) -> None:
        """Everything is registered and known."""
        deployment = self.deployment
        deployment.start()
        self.web, self.other, self.storage = deployment.add_hosts("web", "other", "storage")
        self.listeners = Listeners(self.storage.address, 3)
        self.ports = self.listeners.ports
        for port in self.ports:
            deployment.register(self.storage, SERVICE, port)
        self.serving = deployment.register(self.storage, "northeast.openuss")
        self.token, self.leaving_token = deployment.token(SERVICE), deployment.token("northeast.openuss")
        self.dependants = [deployment.watch(host, USER) for host in (self.web, self.other)]
        for host in (self.web, self.other):
            host.resolves(SERVICE, "service", self.ports)

    @contextmanager
    def away(self, way: str) -> Iterator[None]:
        """Make the store unavailable in that way."""
        postgresql = self.postgresql
        match way:
            case "stopped":
                postgresql.stop()
                yield
                postgresql.start()
            case "frozen":
                postgresql.freeze()
                try:
                    yield
                finally:
                    postgresql.go_on()
            case "standby":
                postgresql.become_standby()
                yield
                postgresql.promote()
            case _:
                with without_standby(postgresql):
                    yield

    def trouble(self) -> str:
        """Return what the server says about its store."""
        return self.deployment.ask(Status(), ServerStatus).trouble

    def play(self, way: str, seconds: float) -> Seen:
        """Play one outage of this number of seconds, or until everything has been seen."""
        seen, before = Seen(), self.deployment.revision
        wished = [free_port(self.storage.address) for _ in range(REGISTRATIONS)]
        api = HostApi(self.storage.api.endpoint, ANSWER_SECONDS)
        lookups = [Lookups(host) for host in (self.web, self.other)]
        with ThreadPoolExecutor(REGISTRATIONS + 1) as pool:
            with self.away(way):
                until = time.monotonic() + seconds
                asked = [pool.submit(api.register, LocalRegister(SERVICE, port, self.token)) for port in wished]
                asked.append(pool.submit(self._leave, api))
                seen.told_seconds = self._meet_a_dead_one()
                seen.pending = sum(self._outcome(one) == "pending" for one in asked[:-1])
                self._outcome(asked[-1])
                eventually(self.trouble, "the server alerts administrators")
                time.sleep(max(until - time.monotonic(), 0.0))
                for one in lookups:
                    one.stop()
            back = time.monotonic()
        dead = (set(self.ports) - set(self.listeners.ports)).pop()
        self._await(lambda: self._settled(wished, dead, before), "the log has everything")
        seen.settled_seconds = time.monotonic() - back
        seen.lookups, seen.failed = sum(one.answered for one in lookups), sum(one.failed for one in lookups)
        rows = self.deployment.listeners(SERVICE)
        seen.missing = sum(rows[SERVICE, port].state != "up" for port in wished)
        self._come_again(dead)
        return seen

    def _meet_a_dead_one(self) -> float:
        """A listener dies, a program on one host finds out and reports it; until every dependant knows."""
        dead = self.listeners.ports[0]
        marks = [dependant.mark() for dependant in self.dependants]
        self.listeners.close(dead)
        began = time.monotonic()
        self.web.api.report(LocalReport(SERVICE, self.storage.address, dead, reporter=USER))
        told = [
            dependant.wait(lambda event: _state_in(event, dead) == "suspect", mark)[0]
            for dependant, mark in zip(self.dependants, marks, strict=True)
        ]
        for host in (self.web, self.other):
            assert dead not in host.resolved(SERVICE)[1], f"{host.name} still gives it out"
        return max(told) - began

    def _leave(self, api: HostApi) -> Outcome:
        one = self.serving
        return api.deregister(LocalDeregister(one.service, one.port, self.leaving_token))

    def _outcome(self, asked: Future[Outcome]) -> str:
        return asked.result(ANSWER_SECONDS).state

    def _settled(self, wished: list[int], dead: int, before: int) -> bool:
        rows = self.deployment.listeners()
        there = all(rows.get((SERVICE, port)) is not None for port in wished)
        gone = rows[self.serving.service, self.serving.port].state == "offline"
        return there and gone and rows[SERVICE, dead].state == "down" and not self.trouble()

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        eventually(condition, what)

    def _come_again(self, dead: int) -> None:
        """Restore the state before the outage: a new listener for the dead one, and the service that left."""
        self.ports.remove(dead)
        self.serving = self.deployment.register(self.storage, self.serving.service)
        fresh = Listeners(self.storage.address, 1)
        self.deployment.register(self.storage, SERVICE, fresh.ports[0])
        self.listeners._open.update(fresh._open)
        self.ports = self.listeners.ports


def _state_in(event: LocalEvent, port: int) -> str:
    """The state of a listener of the service in a snapshot; in a change nothing is suspect without a revision."""
    if not isinstance(event.data, Dependencies):
        return ""
    views = [one for category in event.data.categories for one in category.services if one.id == SERVICE]
    return next((peer.state for view in views for peer in view.listeners if peer.port == port), "")


def main() -> None:
    """Parse, play, and exit with 0 only if all promises held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--ways", default=",".join(WAYS))
    options = parser.parse_args()
    postgresql, good = PostgreSQL(), True
    try:
        with tempfile.TemporaryDirectory(prefix="compass-away-") as directory:
            stage = Stage(Path(directory), create_authority("faults", datetime.now(UTC)), postgresql)
            with stage.deployment:
                stage.start()
                for way in options.ways.split(","):
                    seen = stage.play(way, options.seconds)
                    asked = seen.lookups + seen.failed
                    print(f"{way} for {options.seconds:g} s:", flush=True)
                    print(f"  {seen.lookups} of {asked} lookups answered")
                    print(f"  the last dependant was notified of `suspect` {seen.told_seconds:.3f} s after the report")
                    print(f"  {seen.pending} registrations were pending, {seen.missing} of them are not in the log")
                    print(f"  {seen.settled_seconds:.1f} s after its return the log had everything", flush=True)
                    good = good and not seen.failed and not seen.missing and seen.told_seconds < 1.0
    finally:
        postgresql.remove()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
