"""Load of `make dns-load`: rate of answers compared with dnsmasq, lost answers, and the cost of a kill.

A real server and a host with DNS; dnsmasq holds the same names and addresses in its own table. dnsperf asks both the
same queries; a client in one loop measures single queries; then real services are killed, and the time is measured
for which lookups still return them: directly, through dnsmasq and through unbound.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import dns.message

from compass.pki.authority import create_authority
from tests.e2e.deployment import Deployment, Host, free_port, new_address
from tests.e2e.processes import Program, eventually
from tests.e2e.resolvers import Resolver, dnsmasq, unbound

CATEGORY, SERVICE = "openuso", "account.openuso"
NAME = "account.openuso.gns"
TARGETS = 3
"""Listeners of the service that is asked for."""


def reference(directory: Path, addresses: list[str]) -> tuple[Program, Resolver]:
    """dnsmasq with these addresses for the name, from its own memory."""
    at = Resolver(new_address(), 0)
    at.port = free_port(at.address)
    options = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"]
    options += [f"--listen-address={at.address}", f"--port={at.port}", "--pid-file=", "--user=root", "--local=/gns/"]
    options += [f"--host-record={NAME},{address}" for address in addresses]
    program = Program("dnsmasq", ["dnsmasq", *options], directory / "reference.log")
    program.start()
    at.answers(program, NAME, "A")
    return program, at


def dnsperf(at: Resolver, directory: Path, queries: int) -> dict[str, float]:
    """Return the figures of dnsperf for a number of queries of one name and two types."""
    questions = directory / "questions.txt"
    questions.write_text(f"{NAME} A\n{NAME} AAAA\n" * (queries // 2))
    command = ["dnsperf", "-s", at.address, "-p", str(at.port), "-d", str(questions), "-n", "1", "-e"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    found = {}
    for key, pattern in (
        ("sent", r"Queries sent:\s+(\d+)"),
        ("completed", r"Queries completed:\s+(\d+)"),
        ("lost", r"Queries lost:\s+(\d+)"),
        ("a second", r"Queries per second:\s+([\d.]+)"),
        ("latency ms", r"Average Latency \(s\):\s+([\d.]+)"),
    ):
        match = re.search(pattern, told)
        assert match, told
        found[key] = float(match[1]) * (1000 if key == "latency ms" else 1)
    return found


def one_by_one(at: Resolver, queries: int) -> list[float]:
    """Microseconds of single questions, asked by one client in a tight loop, sorted."""
    question = dns.message.make_query(NAME, "A", use_edns=0).to_wire()
    times = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((at.address, at.port))
        asking.settimeout(5)
        for _ in range(queries):
            began = time.perf_counter_ns()
            asking.send(question)
            asking.recv(4096)
            times.append((time.perf_counter_ns() - began) / 1000)
    return sorted(times)


def kills(world: Deployment, host: Host, resolvers: dict[str, Resolver], times: int) -> dict[str, list[float]]:
    """Milliseconds in which each resolver still gave the address of a killed service."""
    gone: dict[str, list[float]] = {what: [] for what in resolvers}
    for _ in range(times):
        for what, resolver in resolvers.items():
            service = world.run(host, SERVICE)
            eventually(lambda resolver=resolver: host.address in resolver.addresses(NAME), "it is there")  # type: ignore[misc]
            question = dns.message.make_query(NAME, "A").to_wire()
            address = socket.inet_aton(host.address)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.connect((resolver.address, resolver.port))
                asking.settimeout(5)
                began = time.perf_counter()
                service.signal(signal.SIGKILL)
                while True:
                    asking.send(question)
                    if address not in asking.recv(4096):
                        break
            gone[what].append((time.perf_counter() - began) * 1000)
    return gone


def measure(directory: Path, queries: int, times: int) -> bool:
    """All of it, printed; whether no answer was lost."""
    with ExitStack() as stack:
        world = stack.enter_context(Deployment(directory, create_authority("bench", datetime.now(UTC))))
        world.start()
        user = world.add_host("user", dns=True, services=("portal.web",))
        providers = world.add_hosts(*(f"p{number}" for number in range(TARGETS)))
        user.in_session()
        for host in providers:
            world.register(host, SERVICE)
        ours = Resolver(user.address, user.dns_port)
        eventually(lambda: len(ours.addresses(NAME)) == TARGETS, "all are there")
        program, theirs = reference(directory, [host.address for host in providers])
        stack.callback(program.clear_away)
        lost = 0.0
        medians = {}
        print(
            f"{queries} queries for {TARGETS} addresses\n{'':12}{'sent':>8}{'lost':>6}{'a second':>11}{'ms':>8}"
            f"{'one by one, us: p50':>22}{'p99':>8}"
        )
        for what, at in (("dnsmasq", theirs), ("compass", ours)):
            told, single = dnsperf(at, directory, queries), one_by_one(at, queries)
            lost += told["lost"] + told["sent"] - told["completed"]
            medians[what] = statistics.median(single)
            print(
                f"{what:12}{told['sent']:8.0f}{told['lost']:6.0f}{told['a second']:11.0f}{told['latency ms']:8.2f}"
                f"{medians[what]:22.0f}{single[len(single) * 99 // 100]:8.0f}"
            )
        print(f"p50: {medians['compass'] / medians['dnsmasq']:.1f} times dnsmasq's")
        resolvers = {"directly": ours}
        for name, make in (("dnsmasq", dnsmasq), ("unbound", unbound)):
            if shutil.which(name):
                front = Resolver(new_address(), 0)
                front.port = free_port(front.address)
                stack.callback(make(directory, front, ours).clear_away)
                resolvers[f"through {name}"] = front
        print(f"after each of {times} kills, ms until the right answer")
        for what, seconds in kills(world, world.add_hosts("killed")[0], resolvers, times).items():
            print(f"{what:18} median {statistics.median(seconds):6.1f}   most {max(seconds):6.1f}")
    return not lost


def main() -> int:
    """Read the arguments, measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.dns", description=__doc__.partition("\n")[0])
    parser.add_argument("--queries", type=int, default=10_000, help="of each measurement")
    parser.add_argument("--kills", type=int, default=20, help="of each kind of lookup")
    given = parser.parse_args()
    for program in ("dnsperf", "dnsmasq"):
        if not shutil.which(program):
            print(f"{program} is not installed (Debian: dnsperf, dnsmasq-base)", file=sys.stderr)
            return 3
    with tempfile.TemporaryDirectory() as directory:
        return 0 if measure(Path(directory), given.queries, given.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
