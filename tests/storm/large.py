"""Large views on real processes: listeners with 8 kB of metadata up to the bounds, hosts that load them, a resync.

`make storm-large ARGS="--listeners 100000"` tries to register that many in what one host depends on, and shows where
it is refused; then how long hosts take to load what was accepted, what a resync costs the server in memory, and what
the sessions of others notice. Hosts that load are other machines in reality, and so are not given the
processor of the server and of the others, if there are two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from compass.admin.shell.connection import AdminSession, IdentityFiles, Server
from compass.model.replies import Refusal, Registered, Watching
from compass.model.requests import Pull, Register, Request, Watch
from compass.pki.authority import create_authority
from compass.wire.events import PushReceived, ReplyReceived
from compass.wire.messages import Resync
from tests.e2e.deployment import Deployment, Host
from tests.e2e.processes import ROOT, environment
from tests.storm.storm import rss_kib

CATEGORIES, SERVICES = 5, 5
"""Categories that `web` depends on, and services in each: together more than the bound of a view."""
PIPELINED = 200
PROBE_PAUSE_SECONDS = 0.005
LOAD_SECONDS = 600.0


def topology() -> str:
    """`web` depends on everything large, and `tiny` on one small category."""
    names = ", ".join(f'"big{n}"' for n in range(CATEGORIES))
    services = ", ".join(f'"s{n}"' for n in range(SERVICES))
    large = "\n".join(f"[category.big{n}]\nservices = [{services}]" for n in range(CATEGORIES))
    small = '[category.tiny]\ndepends_on = ["small"]\nservices = ["one"]\n[category.small]\nservices = ["one"]'
    return f'[category.web]\ndepends_on = [{names}]\nservices = ["portal"]\n{large}\n{small}\n'


def metadata(octets: int) -> dict[str, str]:
    """Metadata of some octets, in values of full length."""
    return {f"k{n:02}": "v" * 255 for n in range(max(1, octets // 255))}


class Pipeline:
    """A session that asks many requests at once."""

    def __init__(self, link: AdminSession) -> None:
        self.link = link
        self.pushed: list[Any] = []

    def ask_all(self, requests: Sequence[Request]) -> list[Any]:
        """The replies, in the order of the requests."""
        replies: dict[int, Any] = {}
        numbers: list[int] = []
        waiting = iter(requests)
        while len(replies) < len(requests):
            while len(numbers) - len(replies) < PIPELINED and (request := next(waiting, None)) is not None:
                numbers.append(self.link._connection.ask(request, time.monotonic()))
            self.link._write()
            self.read(replies)
        return [replies[number] for number in numbers]

    def read(self, replies: dict[int, Any]) -> None:
        """Read once."""
        for event in self.link._read():
            if isinstance(event, ReplyReceived):
                replies[event.number] = event.reply
            elif isinstance(event, PushReceived):
                self.pushed.append(event.message)


def fill(made: Deployment, count: int, octets: int) -> tuple[int, list[str]]:
    """Register listeners in turn in all services. Returns how many were accepted, and each refusal once."""
    what = metadata(octets)
    accepted, refusals = 0, {}
    each = -(-count // (CATEGORIES * SERVICES))
    with made.link() as link:
        pipeline = Pipeline(link)
        for number in range(CATEGORIES * SERVICES):
            service = f"s{number // CATEGORIES}.big{number % CATEGORIES}"
            for first in range(0, each, 1000):
                wanted = [
                    Register(service, "", f"10.{number}.{n // 250}.{n % 250 + 1}", 80, 1, metadata=what)
                    for n in range(first, min(first + 1000, each))
                ]
                replies = pipeline.ask_all(wanted)
                accepted += sum(isinstance(reply, Registered) for reply in replies)
                found = [reply.message for reply in replies if isinstance(reply, Refusal)]
                refusals.update({" ".join(text.split()[:2]): text for text in found[:1]})
                if found:
                    break
    return accepted, list(refusals.values())


@contextmanager
def apart() -> Iterator[None]:
    """Leave the first processors to what runs already: this process and those that it starts have the last one."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(all_of_them)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


@contextmanager
def prober(made: Deployment) -> Iterator[list[tuple[float, float]]]:
    """Pulls of a small view by another host meanwhile, in a process of their own; afterwards when each began, and its
    milliseconds."""
    identity = made.certify("host", f"prober{len(list(made.directory.iterdir()))}.example.net")
    files = [str(path) for path in (identity.certificate, identity.key, identity.authority)]
    command = [sys.executable, "-m", "tests.storm.large", "--probe", made.address, str(made.port), *files]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, made.server.pid))
    found: list[tuple[float, float]] = []
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield found
    finally:
        output, _ = process.communicate("end\n", timeout=60)
        found += [(began, took) for began, took in json.loads(output)]


def probe(address: str, port: str, *files: str) -> None:
    """The prober's process: pull until a line comes."""
    import select

    link = AdminSession.connect(
        [Server(address, int(port))], IdentityFiles(Path(files[0]), Path(files[1]), Path(files[2])), 5.0
    )
    print("ready", flush=True)
    took = []
    while not select.select([sys.stdin], [], [], PROBE_PAUSE_SECONDS)[0]:
        began = time.monotonic()
        link.ask(Pull("one.tiny"))
        took.append((began, (time.monotonic() - began) * 1000))
    print(json.dumps(took))


def p99(took: list[tuple[float, float]], since: float = 0.0) -> float:
    """The 99th percentile of the pulls since a time."""
    seconds = sorted(one for began, one in took if began >= since)
    return seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]


def quiet(made: Deployment, seconds: float) -> float:
    """The p99 of the prober while nothing else happens."""
    with prober(made) as took:
        time.sleep(seconds)
    return p99(took)


def load(made: Deployment, count: int, accepted: int) -> dict[str, Any]:
    """Start hosts, and wait until each has every listener."""
    with prober(made) as took, apart():
        began = time.monotonic()
        hosts = [made.add_host(f"web{n}", services=("portal.web",)) for n in range(count)]
        seconds = []
        for host in hosts:
            while held(host) < accepted:
                assert time.monotonic() - began < LOAD_SECONDS, f"{host.name} holds {held(host)} of {accepted}"
                time.sleep(0.1)
            seconds.append(time.monotonic() - began)
    rss = [rss_kib(host.daemon.pid) // 1024 for host in hosts]
    return {"seconds": seconds, "p99_ms": p99(took), "host_mib": rss}


def held(host: Host) -> int:
    status = host.status()
    return status.listeners if status is not None else -1


def resync(made: Deployment, octets: int) -> dict[str, Any]:
    """Let one host stop reading until it lags, and measure what its resync costs the server beyond what it had."""
    pid = made.server.pid
    identity = made.certify("host", "slow.example.net")
    what = metadata(octets)
    with made.link(identity) as slow, made.link() as writer, prober(made) as took, apart():
        pipeline = Pipeline(slow)
        watching = pipeline.ask_all([Watch(("portal.web",), resync=True)])[0]
        assert isinstance(watching, Watching) and watching.snapshot is not None
        slow._open_until = time.monotonic() + LOAD_SECONDS
        slow._connection.acknowledge(watching.revision)
        slow._write()
        changes = [
            Register("s0.big0", "", "10.0.0.1", 80, epoch, metadata=what | {"k00": f"{epoch:0255}"})
            for epoch in range(2, 1902)
        ]
        replies = Pipeline(writer).ask_all(changes)
        assert all(isinstance(reply, Registered) for reply in replies), replies[-1]
        time.sleep(0.1)
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        before, began = rss_kib(pid), time.monotonic()
        while not any(isinstance(message, Resync) for message in pipeline.pushed):
            pipeline.read({})
        seconds = time.monotonic() - began
        peak = int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0])
        time.sleep(0.1)
        (sent,) = [message for message in pipeline.pushed if isinstance(message, Resync)]
    return {
        "rows": len(sent.snapshot.rows),
        "seconds": seconds,
        "server_kib": peak - before,
        "p99_ms": p99(took, began),
    }


def measure(made: Deployment, options: argparse.Namespace) -> dict[str, Any]:
    """Everything, as figures."""
    count, octets, hosts = options.listeners, options.metadata, options.hosts
    made.start(topology())
    for thread in Path(f"/proc/{made.server.pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), options.nice)
    with made.link() as link:
        assert isinstance(link.ask(Register("one.small", "", "192.0.2.1", 80, 1)), Registered)
    before = quiet(made, 3.0)
    with prober(made) as took:
        began = time.monotonic()
        accepted, refusals = fill(made, count, octets)
        filled = time.monotonic() - began
    server = rss_kib(made.server.pid) // 1024
    calm = quiet(made, 5.0)
    found = {"accepted": accepted, "fill_seconds": filled, "refusals": refusals, "server_mib": server, "quiet_ms": calm}
    found |= {"empty_ms": before, "fill_ms": p99(took)}
    return found | {"resync": resync(made, octets), "load": load(made, hosts, accepted)}


def main() -> None:
    """All of it, as lines."""
    if sys.argv[1:2] == ["--probe"]:
        probe(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(prog="make storm-large", description=__doc__)
    parser.add_argument("--listeners", type=int, default=5_000, help="that are registered in what one host depends on")
    parser.add_argument("--metadata", type=int, default=8_160, help="octets of metadata of each")
    parser.add_argument("--hosts", type=int, default=2, help="that load the view")
    parser.add_argument("--nice", type=int, default=0, help="priority of the server and of the prober, -20 to 19")
    options = parser.parse_args()
    authority = create_authority("storm", datetime.now(UTC))
    with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory), authority) as made:
        found = measure(made, options)
    print(
        f"registered {found['accepted']} of {options.listeners} in {found['fill_seconds']:.0f} s, p99 of others "
        f"{found['fill_ms']:.2f} ms ({found['fill_ms'] / found['empty_ms']:.2f} times)"
    )
    for text in found["refusals"]:
        print(f"  refused: {text}")
    print(f"server {found['server_mib']} MiB, p99 of others when quiet {found['quiet_ms']:.2f} ms")
    one = found["resync"]
    print(
        f"resync of {one['rows']} rows in {one['seconds']:.1f} s: server + {one['server_kib']} KiB, "
        f"p99 of others {one['p99_ms']:.2f} ms ({one['p99_ms'] / found['quiet_ms']:.2f} times)"
    )
    many = found["load"]
    print(
        f"{options.hosts} hosts loaded all after {', '.join(f'{s:.1f}' for s in many['seconds'])} s, "
        f"{many['host_mib']} MiB each, p99 of others {many['p99_ms']:.2f} ms "
        f"({many['p99_ms'] / found['quiet_ms']:.2f} times)"
    )


if __name__ == "__main__":
    main()
