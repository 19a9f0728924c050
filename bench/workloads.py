"""The workloads that every system has an equivalent of: registrations, fan-out, lists, cold starts, idle sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.generator import Load, Plan
from bench.statistics import Book, loads, rate, spread
from bench.systems.compass import Compass
from bench.systems.system import System

SETTLE_SECONDS = 1.0
"""After sessions by the thousand were closed, before the next begin."""


@dataclass(frozen=True)
class Size:
    """Sizes of all workloads."""

    rounds: int
    seconds: float
    """Duration of a closed load in one round."""
    clients: tuple[int, ...]
    watchers: tuple[int, ...]
    changes: int
    """Changes of a fan-out in one round."""
    gap_seconds: float
    """Between two of them: in which the acknowledgements of the first are taken in."""
    hosts: int
    """Hosts of cold starts, whose idle costs are measured as well."""
    starts: int
    idle_seconds: float
    growth: tuple[int, ...]
    """Listeners in the catalogue."""
    incidents: int


QUICK = Size(3, 0.4, (1, 64), (1_000,), 3, 0.05, 200, 1, 1.0, (1_000, 10_000), 3)
FULL = Size(5, 1.0, (1, 64, 512), (1_000, 10_000), 5, 0.25, 10_000, 3, 10.0, (1_000, 10_000, 100_000), 12)


def registrations(systems: list[System], size: Size, book: Book, directory: Path) -> None:
    """B1: durable changes of one record a client, one request in flight each."""
    for clients in size.clients:
        _closed("B1 registrations", systems, clients, lambda s: s.registrations(clients), size, book, directory)  # noqa: B023


def lists(systems: list[System], size: Size, book: Book, directory: Path) -> None:
    """B3: a list of 10 services with 3 listeners each, 64 connections."""
    _closed("B3 lists", systems, 64, lambda system: system.lists(64), size, book, directory)


def _closed(
    workload: str,
    systems: list[System],
    clients: int,
    plan_of: Callable[[System], Plan | None],
    size: Size,
    book: Book,
    directory: Path,
) -> None:
    book.tell(f"{workload}, {clients} clients")

    def timed(system: System) -> Plan | None:
        plan = plan_of(system)
        if plan is not None:
            plan.settings["seconds"] = size.seconds
        return plan

    with loads(systems, timed, directory / workload[:2]) as ready:
        for _ in range(size.rounds):
            for system, load, _ in ready:
                book.add(workload, system.name, system.tls, clients, rate(system, load))


def fan_out(systems: list[System], size: Size, book: Book, directory: Path) -> None:
    """B2: one change to all watchers; they acknowledge, or read again, as the system's own clients do."""
    for watchers in size.watchers:
        book.tell(f"B2 fan-out to {watchers:,} watchers (connecting)")

        def plan_of(system: System, watchers: int = watchers) -> Plan | None:
            plan = system.fan_out(watchers)
            if plan is not None:
                plan.settings |= {"rounds": size.changes, "gap": size.gap_seconds}
                plan.settings["in_flight"] = min(plan.settings.get("in_flight", 200), 200)
            return plan

        with loads(systems, plan_of, directory / "B2") as ready:
            book.tell(f"B2 fan-out to {watchers:,} watchers")
            for system, load, memory in ready:
                book.add("B2 fan-out", system.name, system.tls, watchers, {("memory a session", "kB"): memory / 1000})
                spread(system, load, watchers)
            for _ in range(size.rounds):
                for system, load, _ in ready:
                    book.add("B2 fan-out", system.name, system.tls, watchers, spread(system, load, watchers))
            if watchers == max(size.watchers):
                _idle([(system, load) for system, load, _ in ready], size, watchers, book)
        time.sleep(SETTLE_SECONDS)


def _idle(held: list[tuple[System, Load]], size: Size, sessions: int, book: Book) -> None:
    """B5: all these sessions are open and nothing happens."""
    book.tell(f"B5 idle, {sessions:,} sessions each")
    before = [system.running.cpu_seconds() for system, _ in held]
    segments = _segments()
    time.sleep(size.idle_seconds)
    sent = (_segments() - segments) / size.idle_seconds * 60
    for (system, _), used in zip(held, before, strict=True):
        share = (system.running.cpu_seconds() - used) / size.idle_seconds * 100
        figures = {("cpu", "%"): share, ("memory", "MB"): system.running.memory() / 1e6}
        book.add("B5 idle", system.name, system.tls, sessions, figures)
    book.add("B5 idle", "all systems together", False, sessions, {("packets", "1/min"): sent})


def _segments() -> int:
    """TCP segments that this machine has sent."""
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")]
    return int(dict(zip(*lines, strict=True))["OutSegs"])


def cold_start(systems: list[System], size: Size, book: Book, directory: Path) -> None:
    """B4: all hosts connect at once and are in step, full and resumed handshakes; then all at once leave."""
    for resumed in (False, True):
        book.tell(f"B4 cold start of {size.hosts:,} hosts{', TLS resumed' if resumed else ''}")
        for _ in range(size.starts):
            for system in systems:
                plan = system.cold_start(size.hosts, resumed=resumed)
                if plan is None or (resumed and not system.tls):
                    continue
                with book.despite():
                    _start_all(system, plan, size, book, directory / "B4" / system.label, resumed=resumed)
                time.sleep(SETTLE_SECONDS)


def _start_all(system: System, plan: Plan, size: Size, book: Book, directory: Path, *, resumed: bool) -> None:
    with Load(plan, directory) as load:
        load.ready()
        before = system.running.cpu_seconds()
        load.go()
        result = load.result()
        used = system.running.cpu_seconds() - before
    figures = {
        ("all in step", "s"): result["seconds"],
        ("cpu a host", "us"): used / size.hosts * 1e6,
        ("connections tried again", "1"): float(result["retries"]),
    }
    if resumed:
        figures["handshakes resumed", "1"] = float(result["reused"])
    name = "B4 cold start, resumed" if resumed else "B4 cold start"
    book.add(name, system.name, system.tls, size.hosts, figures)


def list_octets(compass: Compass, directory: Path) -> int:
    """Return the size of compass's answer to a pull: the bare echo answers with the same number of octets."""
    from compass.admin.shell.connection import AdminSession
    from compass.model.requests import Pull
    from compass.wire.frames import frame
    from compass.wire.messages import encode

    with compass.link() as link:
        assert isinstance(link, AdminSession)
        return len(frame(encode(link.ask(Pull("portal.web")))))
