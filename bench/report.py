"""The results for people, as tables, and for programs, as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench.goals import Goal
from bench.statistics import Book, Result
from bench.systems.system import System

REFERENCE = "compass"


def machine() -> dict[str, Any]:
    """Return the description of the machine and the versions."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024**2
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def write(path: Path, about: dict[str, Any], systems: Sequence[System], book: Book, goals: Sequence[Goal]) -> None:
    """All of it as JSON."""
    told = [
        {"workload": g.workload, "goal": g.text, "least": g.least, "bound": g.bound}
        | {"value": g.value, "unit": g.unit, "verdict": g.verdict}
        for g in goals
    ]
    versions = {system.name: system.version for system in systems}
    whole = {"machine": about, "versions": versions, "results": book.results(), "goals": told}
    whole["failures"] = book.failures
    path.write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n")


def show(book: Book, goals: Sequence[Goal]) -> None:
    """A table a workload, with ratios against compass on the same terms; then the goals."""
    console = Console(width=150 if not os.isatty(1) else None)
    results = book.results()
    for workload in dict.fromkeys(result.kind for result in results):
        console.print(_table(workload, [result for result in results if result.kind == workload]))
    table = Table("workload", "goal", "bound", "measured", "", title="Goals", title_justify="left")
    for goal in goals:
        sign = ">=" if goal.least else "<="
        value = "" if goal.value is None else f"{_figure(goal.value)} {goal.unit}"
        table.add_row(goal.workload, goal.text, f"{sign} {_figure(goal.bound)} {goal.unit}", value, goal.verdict)
    console.print(table)


def _table(workload: str, results: Sequence[Result]) -> Table:
    columns = ("clients", "system", "metric", "median", "min to max", "compass against it", "note")
    table = Table(*columns, title=workload, title_justify="left")
    for result in results:
        if result.metric == "generator":
            continue
        ours = next((r for r in results if r.system == REFERENCE and _same(r, result)), None)
        ratio = f"{ours.median / result.median:.2f} x" if ours and ours is not result and result.median else ""
        name = f"{result.system}{' (TLS)' if result.tls else ''}"
        spread = f"{_figure(result.min)} to {_figure(result.max)}"
        cells = (f"{result.clients:,}", name, result.metric, f"{_figure(result.median)} {result.unit}", spread, ratio)
        table.add_row(*cells, result.note)
    return table


def _same(ours: Result, other: Result) -> bool:
    return (ours.metric, ours.clients, ours.tls) == (other.metric, other.clients, other.tls)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
