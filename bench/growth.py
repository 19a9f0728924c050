"""B8 and B9: what a catalogue of 1,000 to 100,000 listeners costs each operation, and the start of the server."""

from __future__ import annotations

import math
import time
from pathlib import Path

from bench.generator import Load
from bench.statistics import Book, rate, spread
from bench.systems.compass import Compass
from bench.systems.system import System
from bench.workloads import Size
from compass.model.rows import Category, Change, Listener, Row, Service
from compass.store.store import Store

CLIENTS = 64
WATCHERS = 1_000
LISTENERS_A_CATEGORY = 100
"""1,000 listeners in 10 categories, 10,000 in 100, 100,000 in 1,000: ten services of ten listeners in each."""
BATCH = 1_000
BEGAN = 1.79e9


def growth(size: Size, book: Book, directory: Path) -> None:
    """Measure the registrations, fan-outs and lists of B1 to B3 over a growing number of unrelated listeners."""
    for listeners in size.growth:
        book.tell(f"B8 growth: {listeners:,} listeners in {listeners // LISTENERS_A_CATEGORY:,} categories")
        store = f"sqlite:///{directory / f'grown-{listeners}.sqlite'}"
        fill(store, listeners)
        system = Compass(directory / f"grown-{listeners}", tls=False, store=store)
        began = time.monotonic()
        system.start()
        try:
            took = time.monotonic() - began
            _loads(system, listeners, size, book, directory / f"B8-{listeners}")
            figures = {("start to ready", "s"): took, ("memory", "MB"): system.running.memory() / 1e6}
            book.add("B9 start", system.name, False, listeners, figures)
        finally:
            system.stop()


def _loads(system: System, listeners: int, size: Size, book: Book, directory: Path) -> None:
    plans = {"registrations": system.registrations(CLIENTS), "lists": system.lists(CLIENTS)}
    for name, plan in plans.items():
        assert plan is not None
        plan.settings["seconds"] = size.seconds
        with Load(plan, directory / name) as load:
            load.ready()
            for _ in range(size.rounds):
                book.add(f"B8 {name}", system.name, False, listeners, rate(system, load))
    plan = system.fan_out(WATCHERS)
    assert plan is not None
    plan.settings["rounds"] = size.changes
    with Load(plan, directory / "fan-out") as load:
        load.ready()
        for _ in range(size.rounds):
            book.add("B8 fan-out", system.name, False, listeners, spread(system, load, WATCHERS))


def fill(store: str, listeners: int) -> None:
    """Write a store with a number of listeners on which no workload depends."""
    rows: list[Row] = []
    for number in range(math.ceil(listeners / LISTENERS_A_CATEGORY)):
        category = f"g{number}"
        rows.append(Category(category))
        rows += [Service(f"s{service}.{category}") for service in range(10)]
    for number in range(listeners):
        group, within = divmod(number, LISTENERS_A_CATEGORY)
        service, listener = divmod(within, 10)
        address = f"10.{number // 65_536}.{number // 256 % 256}.{number % 256}"
        rows.append(Listener(f"s{service}.g{group}", address, 80 + listener, "up", BEGAN, 1))
    opened = Store.open(store)
    try:
        topics: dict[str, int] = {}
        for first in range(0, len(rows), BATCH):
            changes = []
            for revision, row in enumerate(rows[first : first + BATCH], first + 1):
                topic = row.service if isinstance(row, Listener) else ""
                changes.append(Change(revision, topics.get(topic, 0), BEGAN, "register", row))
                topics[topic] = revision
            opened.commit(first, changes, (), ())
    finally:
        opened.close()
