"""20 rounds of `kill -9` of a real `opengnssd` under load from 50 hosts; a checker reads everything that they saw.

The server is a process of its own. The hosts are 50 real client daemons in this process, over real TLS, each with its
own certificate, disk and book; all of what they are sent, apply and answer is recorded, and so is every answer to what
they ask for. At the end the checker compares the record with the update log: nothing lost, repeated, out of order,
missing or empty.

    python -m tests.faults.killed_servers [--hosts 50] [--rounds 20]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from compass.admin.authority import create_authority
from compass.assembly.hostd import dialler
from compass.assembly.parts import peers
from compass.assembly.tls import load_identity
from compass.host.choice import Choice, Offer, Way
from compass.host.daemon import HostDaemon
from compass.host.processes import ProcessWatch
from compass.model.local import LocalDeregister, LocalRegister, Outcome
from compass.model.replies import Dependencies
from compass.store.store import Store
from tests.e2e.deployment import Deployment
from tests.histories.checker import check
from tests.histories.events import Logged, Settled, Started, Stopped, Table
from tests.simulation.recording import HostRecorder, Recorder

SERVICES = ("chinaserver.openuss", "northeast.openuss", "northwest.openuss", "account.openuso")
USER = "portal.web"
PAUSE_SECONDS = 0.5
"""Between two wishes of one host: some 100 a second from 50, and 5,000 notices."""
BUSY_SECONDS = (0.1, 1.5)
"""From the return of nine tenths of the hosts to the next kill."""
RETURN_SECONDS = 30.0
SETTLE_SECONDS = 60.0


class LoadedHost:
    """One client daemon that keeps registering and deregistering."""

    def __init__(self, reactor: Any, deployment: Deployment, number: int, recorder: Recorder) -> None:
        self.name = f"h{number}.example.net"
        self.address = f"198.51.100.{number + 1}"
        self.outcomes: Counter[str] = Counter()
        self._reactor = reactor
        self._service = SERVICES[number % len(SERVICES)]
        self._token = deployment.token(self._service)
        self._recorder = recorder
        self._registered: dict[tuple[str, int], Outcome] = {}
        self._load: Any = None
        files = deployment.certify("host", self.name)
        identity = load_identity(Path(files.key), Path(files.certificate), Path(files.authority), datetime.now(UTC))
        self.daemon = HostDaemon(
            clock=reactor,
            now=time.time,
            random=random.random,
            state_directory=deployment.directory / self.name,
            host_name=self.name,
            default_address=self.address,
            choice=Choice(random.random, [Offer(Way(deployment.address, deployment.address, deployment.port))]),
            dial=dialler(reactor, identity),
            process_watch=ProcessWatch(reactor),
            peer_of=peers(None),
        )
        HostRecorder(recorder, self.name, self.daemon)

    def start(self) -> Deferred[Any]:
        """Begin, and fire when it knows its dependencies."""
        self._recorder(Started(self._recorder.clock(), self.name))
        self.daemon.start()
        return self.daemon.dependencies(USER)

    def load(self) -> None:
        """Wish for something now and again and again."""
        self._load = self._reactor.callLater(random.uniform(0.5, 1.5) * PAUSE_SECONDS, self.load)
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
        self._load.cancel()

    def _told(self, outcome: Any, key: tuple[str, int]) -> None:
        self.outcomes[getattr(outcome, "state", "") or getattr(outcome, "code", "")] += 1
        if isinstance(outcome, Outcome) and outcome.state != "offline":
            self._registered[key] = outcome

    def delivered(self) -> bool:
        """Whether it is in session and nothing that was wished for is still to be told to a server."""
        status = self.daemon.status()
        return status.session == "open" and all(own.state == "registered" for own in status.registrations)

    def settled(self) -> Settled:
        """What its dependencies are in the end."""
        found: list[Any] = []
        self.daemon.dependencies(USER).addCallback(found.append)
        answer = found[0]
        at = self._recorder.clock()
        if isinstance(answer, Dependencies):
            return Settled(at, self.name, USER, "listed", answer.categories)
        return Settled(at, self.name, USER, answer.code)


async def play(reactor: Any, deployment: Deployment, hosts: int, rounds: int) -> bool:
    """The whole of it; whether the checker found nothing."""
    recorder = Recorder(time.monotonic)
    await deferToThread(deployment.start)
    loaded = [LoadedHost(reactor, deployment, number, recorder) for number in range(hosts)]
    recorder(Started(recorder.clock(), "gns1"))
    await gatherResults([host.start() for host in loaded])
    print(f"{hosts} hosts in session; {rounds} rounds of kill -9", flush=True)
    for host in loaded:
        host.load()
    back: list[int] = []
    for _ in range(rounds):
        until = time.monotonic() + RETURN_SECONDS
        while _in_session(loaded) < hosts * 0.9 and time.monotonic() < until:
            await _pause(reactor, 0.05)
        await _pause(reactor, random.uniform(*BUSY_SECONDS))
        back.append(_in_session(loaded))
        deployment.server.kill()
        recorder(Stopped(recorder.clock(), "gns1", "kill"))
        deployment.server.start()
        recorder(Started(recorder.clock(), "gns1"))
        await deferToThread(deployment.serves)
    print(f"hosts in session at each kill: {back}", flush=True)
    for host in loaded:
        host.rest()
    began = time.monotonic()
    revision = 0
    while time.monotonic() - began < SETTLE_SECONDS:
        await _pause(reactor, 0.5)
        if not all(host.delivered() for host in loaded):
            continue
        revision = await deferToThread(lambda: deployment.revision)
        lags = await deferToThread(deployment.lags)
        if all(lag.session and lag.pending == 0 for lag in lags.values()) and len(lags) == hosts:
            break
    print(f"all hosts settled at revision {revision} after {time.monotonic() - began:.1f} s", flush=True)
    for host in loaded:
        recorder(host.settled())
    await gatherResults([host.daemon.stop() for host in loaded])
    await deferToThread(deployment.server.stop)
    return _judge(deployment, recorder, loaded)


def _judge(deployment: Deployment, recorder: Recorder, loaded: list[LoadedHost]) -> bool:
    store = Store.open(deployment.store)
    tables = store.load()
    changes = store.changes_after(0, 10_000_000)
    store.close()
    at = recorder.clock()
    for change in changes:
        recorder(Logged(at, "gns1", change))
    recorder(Table(at, "store", tables.revision, tuple(tables.rows)))
    outcomes: Counter[str] = Counter()
    for host in loaded:
        outcomes += host.outcomes
    violations = check(recorder.history)
    print(f"{len(changes)} changes in the log; wishes by outcome: {dict(outcomes)}")
    print(f"{len(recorder.history)} events checked; broken promises: {len(violations)}")
    for violation in violations[:20]:
        print(f"  {violation}"[:400])
    return not violations


def _in_session(loaded: list[LoadedHost]) -> int:
    return sum(host.daemon.status().session == "open" for host in loaded)


def _pause(reactor: Any, seconds: float) -> Deferred[None]:
    over: Deferred[None] = Deferred()
    reactor.callLater(seconds, over.callback, None)
    return over


def main() -> None:
    """Parse, play, and exit with 0 only if no promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    held: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="compass-faults-") as directory:
        authority = create_authority("faults", datetime.now(UTC))
        with Deployment(Path(directory), authority) as deployment:

            def begin() -> None:
                played = Deferred.fromCoroutine(play(reactor, deployment, options.hosts, options.rounds))
                played.addCallbacks(held.append, lambda failure: failure.printTraceback())
                played.addBoth(lambda _: reactor.stop())

            reactor.callWhenRunning(begin)
            reactor.run()
    sys.exit(0 if held == [True] else 1)


if __name__ == "__main__":
    main()
