"""`make bench`: compass and its peers on this machine, in turn, round after round; ratios, and what the goals say."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import ablation, generator, report
from bench.failover_time import incidents
from bench.goals import goals
from bench.growth import growth
from bench.local import lookups
from bench.statistics import Book
from bench.systems.baseline_socket import BareEcho, BareSend
from bench.systems.compass import Compass, CompassOnPostgreSQL
from bench.systems.etcd import Etcd
from bench.systems.nats import Nats
from bench.systems.redis import Redis
from bench.systems.running import NotInstalled
from bench.systems.system import System
from bench.systems.zookeeper import ZooKeeper
from bench.workloads import FULL, QUICK, Size, cold_start, fan_out, list_octets, lists, registrations

PACKAGES = {"etcd": "etcd-server", "Redis": "redis-server", "ZooKeeper": "zookeeper", "NATS": "nats-server"}
SLOW = ("B8", "paths")
"""Left out of the quick run."""
WORKLOADS = ("B1", "B2", "B3", "B4", "B6", "B7", "B8", "paths")


def main() -> None:
    """Parse the arguments, measure, and print the figures."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes: fewer rounds, fewer clients")
    parser.add_argument("--only", nargs="*", choices=WORKLOADS, default=None, help="these workloads")
    parser.add_argument("--no-peers", action="store_true", help="compass alone")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results there, too")
    options = parser.parse_args()
    if options.only is None:
        options.only = [name for name in WORKLOADS if not (options.quick and name in SLOW)]
    _need_generator()
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", file=sys.stderr, flush=True)

    book, about = Book(tell), report.machine()
    size = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="compass-bench-") as directory:
        systems = _measure(options, size, book, Path(directory))
    reached = goals(book)
    report.show(book, reached)
    if options.json:
        report.write(options.json, about, systems, book, reached)
    for failure in book.failures:
        tell(f"FAILED: {failure}")
    tell("done")
    sys.exit(bool(book.failures))


def _measure(options: argparse.Namespace, size: Size, book: Book, directory: Path) -> list[System]:
    systems: list[System] = []
    try:
        plain, secure = _compass(directory, systems)
        octets = list_octets(plain, directory)
        peers: list[Callable[[], System]] = [
            lambda: CompassOnPostgreSQL(directory / "compass-postgresql"),
            lambda: BareSend(directory / "bare-send"),
            lambda: BareEcho(directory / "bare-echo", octets),
        ]
        if not options.no_peers:
            peers += [lambda: Etcd(directory / "etcd"), lambda: Etcd(directory / "etcd-tls", tls=True)]
            peers += [lambda: ZooKeeper(directory / "zookeeper"), lambda: Redis(directory / "redis")]
            peers += [lambda: Nats(directory / "nats")]
        _start(peers, systems, book)
        _shared(options.only, systems, size, book, directory)
        if "B7" in options.only:
            with book.despite():
                incidents(secure, size, book, directory)
    finally:
        for system in systems:
            system.stop()
    if "B6" in options.only:
        with book.despite():
            lookups(size, book, directory / "B6")
    if "paths" in options.only:
        with book.despite():
            ablation.measure(size, book, directory)
    if "B8" in options.only:
        with book.despite():
            growth(size, book, directory)
    return systems


def _compass(directory: Path, systems: list[System]) -> tuple[Compass, Compass]:
    plain, secure = Compass(directory / "compass", tls=False), Compass(directory / "compass-tls", tls=True)
    for system in (plain, secure):
        system.start()
        systems.append(system)
    return plain, secure


def _start(makers: list[Callable[[], System]], systems: list[System], book: Book) -> None:
    for make in makers:
        system = make()
        try:
            system.start()
        except NotInstalled:
            package = PACKAGES.get(system.name, "")
            book.tell(f"{system.name} is not installed (Debian: apt-get install {package}): its rows are left out")
        else:
            systems.append(system)


def _shared(only: list[str], systems: list[System], size: Size, book: Book, directory: Path) -> None:
    steps = {"B1": registrations, "B3": lists, "B2": fan_out, "B4": cold_start}
    for name, step in steps.items():
        if name in only:
            with book.despite():
                step(systems, size, book, directory)


def _need_generator() -> None:
    """Compile the generator; on a bare machine of which we are root, install what that takes."""
    missing = generator.missing()
    if missing and os.getuid() == 0 and shutil.which("apt-get"):
        print(f"Installing {' '.join(missing)}, for the load generator", file=sys.stderr)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", *command], check=True, env=environment, stdout=subprocess.DEVNULL)
        missing = generator.missing()
    if missing:
        sys.exit(
            f"The load generator is written in C and needs {', '.join(missing)} (Debian's names). Install them first."
        )
    generator.build()


if __name__ == "__main__":
    main()
