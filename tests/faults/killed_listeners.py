"""30 of 100 listener processes are killed in one moment while 50 hosts resolve and connect in a loop (G27).

Every host runs a real `opengnscd` with two listeners registered at it by process id, and a client that asks its own
daemon for the service, connects to the first listener it is given, and reports it when that fails. It prints the
errors that clients met, and when the last of them was given a dead listener.

    python -m tests.faults.killed_listeners [--hosts 50] [--killed 30]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from compass.client.core.blocking_api import ApiProblem
from compass.model.host_api import LocalRegister, LocalReport
from compass.pki.authority import create_authority
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import eventually

SERVICE = "chinaserver.openuss"
USER = "portal.web"
LISTENERS_PER_HOST = 2
PAUSE_SECONDS = 0.02
"""Between two lookups of one client: 50 clients make 2,500 connections a second at most."""
GRACE_SECONDS = 2.0
"""Time after which no client may be given a dead listener."""
WATCHED_SECONDS = 6.0
START_TOGETHER = 10

LISTENER = """
import socket, sys
listening = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
while True:
    listening.accept()[0].close()
"""


class Served:
    """A listener process, registered at its host by its process id."""

    def __init__(self, deployment: Deployment, host: Host, token: str) -> None:
        self.place = host.address, free_port(host.address)
        command = [sys.executable, "-S", "-E", "-c", LISTENER, self.place[0], str(self.place[1])]
        self.process = subprocess.Popen(command)
        eventually(self._accepts, f"{self.place} listens")
        host.api.register(LocalRegister(SERVICE, self.place[1], token, pid=self.process.pid))

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(self.place) == 0


class User:
    """A client on a host: what it was given, when, and how often no listener answered."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.lookups = 0
        self.refused: list[float] = []
        self.given: list[tuple[float, tuple[str, int]]] = []
        self.failed_lookups = 0
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def stop(self) -> None:
        self._stop.set()
        self.thread.join()

    def _work(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            try:
                listeners = self.host.api.resolve(SERVICE).listeners
            except ApiProblem:
                self.failed_lookups += 1
                continue
            self.lookups += 1
            now = time.monotonic()
            self.given += [(now, (peer.address, peer.port)) for peer in listeners]
            if listeners:
                self._use((listeners[0].address, listeners[0].port))

    def _use(self, place: tuple[str, int]) -> None:
        with socket.socket() as connection:
            connection.settimeout(1.0)
            if connection.connect_ex(place):
                self.refused.append(time.monotonic())
                with contextlib.suppress(ApiProblem):
                    # Its own host may have reported its death already.
                    self.host.api.report(LocalReport(SERVICE, *place, "unreachable", USER))


def play(hosts: int, killed: int, directory: Path) -> bool:
    """Run the whole check. Returns whether no client was given a dead listener after the grace time."""
    authority = create_authority("faults", datetime.now(UTC))
    with Deployment(directory, authority) as deployment:
        deployment.start()
        token = deployment.token(SERVICE)
        print(f"starting {hosts} opengnscd", flush=True)
        names = [f"h{number}" for number in range(hosts)]
        daemons: list[Host] = []
        for begin in range(0, hosts, START_TOGETHER):
            daemons += deployment.add_hosts(*names[begin : begin + START_TOGETHER])
        served = [Served(deployment, host, token) for host in daemons for _ in range(LISTENERS_PER_HOST)]
        for host in daemons:
            host.api.dependencies(USER)
        places = sorted(one.place[1] for one in served)
        for host in daemons:
            host.resolves(SERVICE, "service", places)
        users = [User(host) for host in daemons]
        try:
            return _kill_and_watch(served, users, killed)
        finally:
            for one in served:
                one.process.kill()
                one.process.wait()


def _kill_and_watch(served: list[Served], users: list[User], killed: int) -> bool:
    for user in users:
        user.thread.start()
    time.sleep(2.0)
    victims = random.Random(30).sample(served, killed)
    dead = {one.place for one in victims}
    at = time.monotonic()
    for one in victims:
        os.kill(one.process.pid, signal.SIGKILL)
    print(f"killed {killed} of {len(served)} listeners in {(time.monotonic() - at) * 1000:.1f} ms", flush=True)
    time.sleep(WATCHED_SECONDS)
    for user in users:
        user.stop()
    stale = [when - at for user in users for when, place in user.given if place in dead and when > at]
    refused = [when - at for user in users for when in user.refused]
    lookups = sum(user.lookups for user in users)
    print(f"{lookups} lookups by {len(users)} hosts, {sum(user.failed_lookups for user in users)} of them failed")
    print(f"{len(refused)} connections met a dead listener, the last after {max(refused, default=0.0):.3f} s")
    print(f"the last answer with a dead listener in it came after {max(stale, default=0.0):.3f} s")
    late = [seconds for seconds in stale if seconds > GRACE_SECONDS]
    print(f"answers with a dead listener after {GRACE_SECONDS:g} s: {len(late)}")
    return not late and not any(user.failed_lookups for user in users)


def main() -> None:
    """Parse, play, and exit with 0 only if the promise held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--killed", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compass-faults-") as directory:
        sys.exit(0 if play(options.hosts, options.killed, Path(directory)) else 1)


if __name__ == "__main__":
    main()
