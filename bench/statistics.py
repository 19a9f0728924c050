"""Book of the measured figures: one function for each workload records its figures of one round.

A workload is run on all systems in turn, round after round, so that other load of the machine affects all of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.generator import Load, Plan
from bench.systems.system import System

GENERATOR_BUSY = 0.8
"""Share of a core above which the report warns that the generator may be the limit."""

Figures = dict[tuple[str, str], float]
"""(metric, unit): value."""


class Result(msgspec.Struct, frozen=True, rename={"kind": "workload"}):
    """Metric of one workload on one system, over all rounds."""

    kind: str
    system: str
    metric: str
    unit: str
    median: float
    min: float
    max: float
    rounds: int
    tls: bool
    clients: int
    note: str = ""


@dataclass
class Book:
    """All figures so far, in the order they came."""

    tell: Callable[[str], None]
    values: dict[tuple[str, str, bool, int, str, str], list[float]] = field(default_factory=dict)
    notes: dict[tuple[str, str, bool, int], str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Loads that failed, with the reason: their rows are missing or have fewer rounds."""

    @contextmanager
    def despite(self) -> Iterator[None]:
        """Record a failure in the block, so that the other figures are kept."""
        try:
            yield
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            self.tell(f"FAILED: {self.failures[-1]}")

    def add(self, workload: str, system: str, tls: bool, clients: int, figures: Figures) -> None:
        """The figures of one round."""
        for (metric, unit), value in figures.items():
            if metric == "generator" and value > GENERATOR_BUSY:
                self.notes[workload, system, tls, clients] = f"the generator used {value:.2f} of a core"
            self.values.setdefault((workload, system, tls, clients, metric, unit), []).append(value)

    def results(self) -> list[Result]:
        """Return the results of all metrics."""
        return [
            Result(
                workload,
                system,
                metric,
                unit,
                statistics.median(values),
                min(values),
                max(values),
                len(values),
                tls,
                clients,
                self.notes.get((workload, system, tls, clients), ""),
            )
            for (workload, system, tls, clients, metric, unit), values in self.values.items()
        ]

    def median(self, workload: str, system: str, metric: str, *, tls: bool, clients: int) -> float | None:
        """Return the median of all rounds; None: the metric was not measured."""
        for (w, s, t, c, m, _), values in self.values.items():
            if (w, s, t, c, m) == (workload, system, tls, clients, metric):
                return statistics.median(values)
        return None


@contextmanager
def loads(systems: list[System], plan_of: Callable[[System], Plan | None], directory: Path) -> Iterator[list[Any]]:
    """A load on each system that can do the workload, all of them ready; with the memory that a connection took."""
    with ExitStack() as stack:
        ready = []
        for system in systems:
            plan = plan_of(system)
            if plan is None:
                continue
            before = system.running.memory()
            load = stack.enter_context(Load(plan, directory / f"{system.label}-{plan.mode}-{plan.connections}"))
            load.ready()
            ready.append((system, load, (system.running.memory() - before) / plan.connections))
        yield ready


def rate(system: System, load: Load) -> Figures:
    """A closed load: answers a second, how long they took, processor time of the server for each."""
    before = system.running.cpu_seconds()
    load.go()
    result = load.result()
    used = system.running.cpu_seconds() - before
    load.ready()
    return {
        ("rate", "1/s"): result["answered"] / result["seconds"],
        ("p50", "ms"): result["p50"] * 1e3,
        ("p99", "ms"): result["p99"] * 1e3,
        ("cpu", "us"): used / result["answered"] * 1e6,
        ("generator", "cores"): result["cpu"] / result["seconds"],
    }


def spread(system: System, load: Load, watchers: int) -> Figures:
    """A fan-out: time from the writer's request to the last watcher, processor time of the server for each notice."""
    before = system.running.cpu_seconds()
    load.go()
    result = load.result()
    used = system.running.cpu_seconds() - before
    load.ready()
    changes = len(result["times"])
    return {
        ("to the last", "ms"): statistics.median(result["times"]) * 1e3,
        ("cpu", "us"): used / changes / watchers * 1e6,
        ("generator", "cores"): result["cpu"] / result["seconds"],
    }
