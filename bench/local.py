"""B6: a lookup on the host itself, by the client library, the host's API and DNS, compared with dnsmasq.

The host's daemon, the server and dnsmasq are real; the client is Python in one loop, so each figure has the cost of a
Python call in it. The library's shared view is timed in runs of a thousand: a clock would be most of one lookup.

A query takes 13 us if both programs share a core and 50 us if the kernel must wake the other program; the kernel
chooses at random. So both programs are pinned, to one core and to two, and each case is a row.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.dns import SERVICE, TARGETS, one_by_one, reference
from bench.statistics import Book
from bench.workloads import Size
from compass.client import Client
from compass.pki.authority import create_authority
from tests.e2e.deployment import Deployment, new_address
from tests.e2e.resolvers import Resolver

RUN = 1_000
"""Lookups of the shared view between two looks at the clock."""
QUERIES = 2_000
PLACES = ("same core", "other core")
"""Core of the program that answers, relative to that of the program that asks."""


def lookups(size: Size, book: Book, directory: Path) -> None:
    """Each kind in turn, round after round."""
    book.tell("B6 lookups on a host")
    directory.mkdir()
    with Deployment(directory, create_authority("bench", datetime.now(UTC))) as world, ExitStack() as stack:
        world.start()
        host = world.add_host("web", services=("portal.web",), dns=True)
        store = world.add_host("store")
        for one in (host, store):
            one.in_session()
        addresses = [world.register(store, SERVICE).address for _ in range(TARGETS)]
        client = stack.enter_context(Client("portal.web", f"unix:{host.socket}"))
        view = client.shared()
        kinds: dict[str, Callable[[], list[float]]] = {
            "compass library": lambda: _in_runs(lambda: view.listeners(SERVICE)),
            "compass library, a turn each": lambda: _each(lambda: client.resolve(SERVICE)),
            "compass host API": lambda: _each(lambda: host.api.resolve(SERVICE)),
        }
        asked = {"compass DNS": (host.daemon.pid, Resolver(host.address, host.dns_port))}
        if shutil.which("dnsmasq"):
            program, at = reference(directory, [new_address() for _ in addresses])
            stack.callback(program.clear_away)
            asked["dnsmasq"] = program.pid, at
        else:
            book.tell("dnsmasq is not installed (Debian: apt-get install dnsmasq-base): its row is left out")
        for name, (pid, resolver) in asked.items():
            for place in PLACES:
                kinds[f"{name}, {place}"] = _placed(pid, place, resolver)
        for _ in range(size.rounds):
            for name, measured in kinds.items():
                times = sorted(measured())
                figures = {("p50", "us"): statistics.median(times), ("p99", "us"): times[int(len(times) * 0.99)]}
                book.add("B6 lookups", name, False, 1, figures)


def _placed(pid: int, place: str, resolver: Resolver) -> Callable[[], list[float]]:
    def measured() -> list[float]:
        with _pinned(pid, place):
            return one_by_one(resolver, QUERIES)

    return measured


@contextmanager
def _pinned(pid: int, place: str) -> Iterator[None]:
    """This thread on one core, all threads of a process on the same or on another one, where there is another."""
    cores = sorted(os.sched_getaffinity(0))
    own, other = cores[0], cores[0 if place == PLACES[0] else -1]
    threads = [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
    try:
        os.sched_setaffinity(0, {own})
        for thread in threads:
            os.sched_setaffinity(thread, {other})
        yield
    finally:
        for thread in (0, *threads):
            os.sched_setaffinity(thread, cores)


def _in_runs(look_up: Callable[[], object]) -> list[float]:
    """Microseconds of one lookup, as the mean of each of 200 runs."""
    times = []
    for _ in range(200):
        began = time.perf_counter_ns()
        for _ in range(RUN):
            look_up()
        times.append((time.perf_counter_ns() - began) / RUN / 1e3)
    return times


def _each(look_up: Callable[[], object]) -> list[float]:
    """Microseconds of each lookup."""
    times = []
    for _ in range(QUERIES):
        began = time.perf_counter_ns()
        look_up()
        times.append((time.perf_counter_ns() - began) / 1e3)
    return times
