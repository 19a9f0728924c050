"""Gain of each fast path: the same load on a server with the path and on one without it, in turn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.generator import Load, Plan
from bench.growth import fill
from bench.statistics import Book, Figures, rate, spread
from bench.systems.compass import Compass
from bench.systems.daemon import WITHOUT
from bench.workloads import Size

WATCHERS = 1_000
CLIENTS = 64

Measure = Callable[[Compass, Load], Figures]
Case = tuple[str, Callable[[Compass], Plan], Measure, bool, int]


def _fan_out(compass: Compass) -> Plan:
    return compass.fan_out(WATCHERS)


def _spread(compass: Compass, load: Load) -> Figures:
    return spread(compass, load, WATCHERS)


def _registrations(clients: int) -> Callable[[Compass], Plan]:
    return lambda compass: compass.registrations(clients)


CASES: dict[str, Case] = {
    "prompt writes": ("fan-out, TLS", _fan_out, _spread, True, 0),
    "rows by the statement": ("registrations", _registrations(CLIENTS), rate, False, 0),
    "kept pulls": ("lists", lambda compass: compass.lists(CLIENTS), rate, False, 0),
    "idle collector": ("registrations beside 100,000 listeners", _registrations(CLIENTS), rate, False, 100_000),
}
"""Each path with the load that it is there for, whether that is encrypted, and the listeners that are there before."""
assert CASES.keys() == WITHOUT.keys()


def measure(size: Size, book: Book, directory: Path) -> None:
    """Each path in turn; the rows say `compass` with it and `compass without` without it."""
    for number, (path, (load, plan_of, measured, tls, listeners)) in enumerate(CASES.items()):
        book.tell(f"fast paths: {path} ({load})")
        both = []
        for without in ("", path):
            place = directory / f"path-{number}-{len(without)}"
            store = f"sqlite:///{place}.sqlite"
            if listeners:
                fill(store, listeners)
            both.append(Compass(place, tls=tls, store=store, without=without))
        names = ("compass", "compass without")
        try:
            for system in both:
                system.start()
            loads = []
            for system in both:
                plan = plan_of(system)
                plan.settings.update({"seconds": size.seconds, "rounds": size.changes})
                loads.append(Load(plan, system.directory / "load"))
                loads[-1].ready()
            for _ in range(size.rounds):
                for name, system, running in zip(names, both, loads, strict=True):
                    figures = measured(system, running)
                    clients = CLIENTS if measured is rate else WATCHERS
                    book.add(f"Fast path: {path} ({load})", name, tls, clients, figures)
            for running in loads:
                running.__exit__()
        finally:
            for system in both:
                system.stop()
