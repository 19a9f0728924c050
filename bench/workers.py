"""`make bench-workers`: what a second worker process is worth, as ratios of registrations and of pulls a second.

Both servers run at the same time on the same machine, each over its own store, and are loaded in turn, round after
round; the load comes over mutual TLS from the generator in C, which uses a share of the cores that is printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import generator
from bench.generator import ROOT
from bench.statistics import Figures, loads, rate
from bench.systems.compass import Compass
from bench.systems.running import Running
from tests.support.postgresql import PostgreSQL

CLIENTS = 64
WORKLOADS = ("pulls", "registrations")


class Workers(Compass):
    """`opengnssd` as it is installed, with a number of workers."""

    def __init__(self, directory: Path, workers: int, store: str) -> None:
        super().__init__(directory, tls=True, store=store)
        self.workers = workers
        self.name = f"workers = {workers}"

    def start(self) -> None:
        """Write the configuration, without any other port."""
        self.identity("server", "gns1.example.net", ("127.0.0.1",))
        self._admin = self.identity("admin", "bench")
        here = self.directory
        config = here / "opengnssd.toml"
        config.write_text(
            f'[server]\nstore = "{self._store}"\nlisten = ["127.0.0.1:{self.port}"]\nworkers = {self.workers}\n'
            f'[tls]\ncertificate = "{here}/gns1.example.net.crt"\nkey = "{here}/gns1.example.net.key"\n'
            f'authority = "{here}/authority.crt"\n'
        )
        command = [sys.executable, "-c", "from compass.daemons.main import server; server()", "--config", str(config)]
        self.running = Running(command, here / "opengnssd.log", os.environ | {"PYTHONPATH": str(ROOT)})
        self.running.listens("127.0.0.1", self.port)
        self._serves()
        self.fill()


def measure(engine: str, directory: Path, workers: int, rounds: int, seconds: float) -> None:
    """Measure both workloads on both servers over one engine, and print a line for each."""
    database = PostgreSQL() if engine == "postgresql" else None
    stores = [database.new_url() if database else "" for _ in range(2)]
    one, more = (Workers(directory / f"{n}", n, store) for n, store in zip((1, workers), stores, strict=True))
    try:
        for server in (one, more):
            server.start()
        for workload in WORKLOADS:
            _tell(engine, workload, workers, *_compared(one, more, workload, directory, rounds, seconds))
    finally:
        for server in (one, more):
            if hasattr(server, "running"):
                server.stop()
        if database:
            database.remove()


def _compared(
    one: Workers, more: Workers, workload: str, directory: Path, rounds: int, seconds: float
) -> tuple[list[Figures], list[Figures]]:
    def plan_of(server: Any) -> Any:
        plan = server.lists(CLIENTS) if workload == "pulls" else server.registrations(CLIENTS)
        plan.settings["seconds"] = seconds
        return plan

    figures: tuple[list[Figures], list[Figures]] = [], []
    with loads([one, more], plan_of, directory / workload) as ready:
        for _ in range(rounds):
            for found, (server, load, _) in zip(figures, ready, strict=True):
                found.append(rate(server, load))
    return figures


def _tell(engine: str, workload: str, workers: int, one: list[Figures], more: list[Figures]) -> None:
    def median(figures: list[Figures], metric: tuple[str, str]) -> float:
        return statistics.median(found[metric] for found in figures)

    rates = median(one, ("rate", "1/s")), median(more, ("rate", "1/s"))
    ratios = sorted(b["rate", "1/s"] / a["rate", "1/s"] for a, b in zip(one, more, strict=True))
    print(
        f"{engine:10} {workload:13} {rates[0]:9,.0f}/s with 1, {rates[1]:9,.0f}/s with {workers}: "
        f"{statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f}); "
        f"processor time {median(one, ('cpu', 'us')):.0f} and {median(more, ('cpu', 'us')):.0f} us each, "
        f"p99 {median(one, ('p99', 'ms')):.0f} and {median(more, ('p99', 'ms')):.0f} ms, "
        f"the generator used {median(one, ('generator', 'cores')):.2f} and {median(more, ('generator', 'cores')):.2f} "
        f"of {os.cpu_count()} cores",
        flush=True,
    )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="make bench-workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="how many are compared with one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one round on one server")
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), action="append", help="one; otherwise both")
    options = parser.parse_args()
    absent = generator.missing()
    if absent:
        sys.exit(f"The load generator has to be compiled; install {' '.join(absent)} (Debian's names)")
    generator.build()
    with tempfile.TemporaryDirectory(prefix="compass-bench-") as directory:
        for engine in options.engine or ("sqlite", "postgresql"):
            measure(engine, Path(directory) / engine, options.workers, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
