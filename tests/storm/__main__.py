"""`make storm`: what storms and slow readers cost a real server, as tables."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from compass.pki.authority import create_authority
from tests.e2e.deployment import Deployment
from tests.storm.storm import slow_reader, storms


@contextmanager
def deployment() -> Iterator[Deployment]:
    """A server of its own for each measurement."""
    authority = create_authority("storm", datetime.now(UTC))
    with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory), authority) as made:
        yield made


def main() -> None:
    """Both measurements."""
    parser = argparse.ArgumentParser(prog="make storm", description=__doc__)
    parser.add_argument("--hosts", type=int, default=2_000, help="that come in one moment")
    parser.add_argument("--changes", type=int, default=10_000, help="that one host does not read")
    options = parser.parse_args()
    print(f"{'storm':<16}{'hosts':>6}{'half s':>8}{'all s':>8}{'serving s':>10}{'connections':>12}{'refused':>8}")
    with deployment() as made:
        for course in storms(made, options.hosts):
            print(
                f"{course.name:<16}{course.hosts:>6}{course.half_seconds:>8.2f}{course.all_seconds:>8.2f}"
                f"{course.serving_seconds:>10.2f}{course.connections:>12}{course.refused:>8}",
                flush=True,
            )
    print()
    print(
        f"{'one reader':<16}{'changes':>8}{'missing':>8}{'p50 ms':>8}{'p99 ms':>8}{'grown KiB':>10}"
        f"{'caught up ms':>13}{'equal':>6}{'connections':>12}"
    )
    p99: dict[bool, list[float]] = {False: [], True: []}
    with deployment() as made:
        for one in slow_reader(made, options.changes):
            p99[one["stuck"]].append(one["p99_ms"])
            print(
                f"{'does not read' if one['stuck'] else 'reads':<16}{one['changes']:>8}{one['missing']:>8}"
                f"{one['p50_ms']:>8.2f}{one['p99_ms']:>8.2f}{one['grown_kib']:>10}"
                f"{one['caught_up_ms']:>13.1f}{one['equal']!s:>6}{one['connections']:>12}",
                flush=True,
            )
    ratio = median(p99[True]) / median(p99[False])
    noise = max(p99[False]) / min(p99[False])
    print(f"p99 of the others, medians: {ratio:.2f} times as when all read; between rounds when all read: {noise:.2f}")


if __name__ == "__main__":
    main()
