"""A storm: very many hosts come in the same moment, at first start and after the server was killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from compass.model.replies import Registered
from compass.model.requests import Register
from tests.e2e.deployment import Deployment
from tests.e2e.processes import ROOT, environment

LISTENERS = 100
"""Listeners in the catalogue: each host's snapshot has most of them."""
SERVICES = (("portal.web",), ("forum.web",), ("account.openuso",), ("chinaserver.openuss",))
PROCESSES = 2
LOOK_SECONDS = 0.05
TOPOLOGY = """
[category.web]
depends_on = ["openuso", "openuss"]
services = ["portal", "forum"]

[category.openuso]
depends_on = ["openuss"]
services = ["account"]

[category.openuss]
depends_on = ["openuss"]
services = ["chinaserver", "northeast", "northwest"]
"""


class Course(NamedTuple):
    """Result of one storm. Seconds are from its beginning until all hosts were in step and held the last change."""

    name: str
    hosts: int
    half_seconds: float
    all_seconds: float
    serving_seconds: float
    """Seconds until the server answered an administrator: part of the above."""
    connections: int
    refused: int


class Hosts:
    """The processes with the hosts."""

    def __init__(self, deployment: Deployment, count: int) -> None:
        names = {f"h{n}.example.net": SERVICES[n % len(SERVICES)] for n in range(count)}
        for name in names:
            deployment.certify("host", name)
        self.count = count
        self._processes = []
        for n in range(PROCESSES):
            listed = deployment.directory / f"crowd{n}.json"
            listed.write_text(json.dumps(dict(list(names.items())[n::PROCESSES])))
            place = [str(deployment.directory), deployment.address, str(deployment.port), str(listed)]
            command = [sys.executable, "-m", "tests.storm.load_hosts", *place]
            pipe = subprocess.PIPE
            self._processes.append(
                subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, text=True)
            )
        self._heard()

    def tell(self, line: str) -> list[dict[str, Any]]:
        """Return what all processes answer to a line."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
        return self._heard()

    def totals(self, revision: int) -> dict[str, Any]:
        """The sums of their reports."""
        reports = self.tell(f"report {revision}")
        return {key: sum(report[key] for report in reports) for key in ("held", "attempts", "refused")}

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait(30)

    def _heard(self) -> list[dict[str, Any]]:
        found = []
        for process in self._processes:
            assert process.stdout is not None
            found.append(json.loads(process.stdout.readline()))
        return found


@contextmanager
def hosts_of(deployment: Deployment, count: int) -> Iterator[Hosts]:
    """Make this number of hosts, which have not connected yet."""
    hosts = Hosts(deployment, count)
    try:
        yield hosts
    finally:
        hosts.close()


def fill(deployment: Deployment) -> int:
    """Listeners for the catalogue; the last revision."""
    last = 0
    with deployment.link() as link:
        for n in range(LISTENERS):
            reply = link.ask(Register("chinaserver.openuss", "", f"192.0.2.{1 + n}", 2000 + n, 1))
            assert isinstance(reply, Registered), reply
            last = reply.revision
    return last


def change(deployment: Deployment, epoch: int) -> int:
    """A change that concerns all hosts; its revision."""
    with deployment.link() as link:
        reply = link.ask(Register("northeast.openuss", "", "192.0.2.250", 2500, epoch))
    assert isinstance(reply, Registered), reply
    return reply.revision


def storms(deployment: Deployment, count: int, patience_seconds: float = 60.0) -> list[Course]:
    """First start, and a kill -9 of the server with an immediate restart."""
    deployment.start(TOPOLOGY)
    last = fill(deployment)
    with hosts_of(deployment, count) as hosts:
        before = hosts.totals(0)
        began = time.monotonic()
        hosts.tell("go")
        first = _course("first start", deployment, hosts, began, began, last, before, patience_seconds)

        before = hosts.totals(0)
        began = time.monotonic()
        deployment.server.kill()
        deployment.server.start()
        deployment.serves()
        serving = time.monotonic()
        last = change(deployment, 2)
        again = _course("after kill -9", deployment, hosts, began, serving, last, before, patience_seconds)
    return [first, again]


def _course(
    name: str,
    deployment: Deployment,
    hosts: Hosts,
    began: float,
    serving: float,
    revision: int,
    before: dict[str, Any],
    patience_seconds: float,
) -> Course:
    half = 0.0
    while True:
        totals = hosts.totals(revision)
        passed = time.monotonic() - began
        half = half or (passed if totals["held"] * 2 >= hosts.count else 0.0)
        if totals["held"] == hosts.count:
            break
        assert passed < patience_seconds, f"{totals} of {hosts.count}:\n{deployment.server.shown_log()}"
        time.sleep(LOOK_SECONDS)
    connections, refused = (totals[key] - before[key] for key in ("attempts", "refused"))
    return Course(name, hosts.count, half, passed, serving - began, connections, refused)


def rss_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def slow_reader(
    deployment: Deployment,
    changes: int,
    *,
    per_second: int = 1_250,
    warm: int = 21_000,
    rounds: int = 6,
    others: int = 8,
) -> Iterator[dict[str, Any]]:
    """Rounds in which all hosts read the changes and, every second one, in which one of them does not."""
    deployment.start(TOPOLOGY)
    names = [f"h{n}.example.net" for n in range(1 + others)]
    for name in names:
        deployment.certify("host", name)
    place = [str(deployment.directory), deployment.address, str(deployment.port), str(deployment.server.pid)]
    numbers = [str(number) for number in (changes, per_second, warm, rounds)]
    command = [sys.executable, "-m", "tests.storm.slow", *place, ",".join(names), *numbers]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            yield json.loads(line)
        assert process.wait(30) == 0, deployment.server.shown_log()
    finally:
        process.kill()
        process.wait(30)
