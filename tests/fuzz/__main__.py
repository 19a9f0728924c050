"""Much fuzzing at once: `python -m tests.fuzz --frames 10000000 --http 1000000`, as `make fuzz-long` does.

Every process has its own seed and its own share. The first broken invariant ends the run with status 1 and says what
it was; the seed makes it come again. Memory is looked at from outside: what a process holds when a tenth is done must
not have grown by the end.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.fuzz import dns, frames, http
from tests.fuzz.http_server import ServerApi

GROWTH_MAX = 48
"""MiB that a process may grow after its first tenth: what the allocator leaves lying about, not what a leak takes."""
FIRST_PART = 0.1

Report = Callable[[Counter[str]], None]


def resident() -> int:
    """This process's resident memory in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


class Memory:
    """Resident memory as the run goes on."""

    def __init__(self, what: str, goal: int) -> None:
        self._what = what
        self._goal = goal
        self._began = time.monotonic()
        self.first = 0
        self.last = 0

    def look(self, seen: Counter[str]) -> None:
        """Called now and then with what has been seen so far."""
        done = seen[self._what]
        self.last = resident()
        if not self.first and done >= self._goal * FIRST_PART:
            self.first = self.last
        rate = done / (time.monotonic() - self._began)
        print(f"{os.getpid()}: {done:,} {self._what}, {rate:,.0f} a second, {self.last} MiB", flush=True)
        if self.first and self.last > self.first + GROWTH_MAX:
            raise AssertionError(f"memory grew from {self.first} to {self.last} MiB within {done:,} {self._what}")


def fuzz_frames(seed: int, goal: int) -> Counter[str]:
    """Fuzz one process's share of the frames."""
    memory = Memory("frames", goal)
    return _with_memory(frames.run(seed, goal, memory.look), memory)


def fuzz_dns(seed: int, goal: int) -> Counter[str]:
    """Fuzz one process's share of the DNS packets."""
    memory = Memory("packets", goal)
    return _with_memory(dns.run(seed, goal, memory.look), memory)


def fuzz_http(seed: int, goal: int) -> Counter[str]:
    """Fuzz one process's share of the requests at a host's API."""
    return _fuzz_http(seed, goal, http.Api)


def fuzz_https(seed: int, goal: int) -> Counter[str]:
    """Fuzz one process's share of the requests at a server's API."""
    return _fuzz_http(seed, goal, ServerApi)


def _fuzz_http(seed: int, goal: int, kind: Callable[[int, Path], http.Api]) -> Counter[str]:
    """The daemon's files are in memory, if there is such a place."""
    memory = Memory("requests", goal)
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as directory:
        return _with_memory(http.run(seed, goal, Path(directory), memory.look, kind), memory)


def _with_memory(seen: Counter[str], memory: Memory) -> Counter[str]:
    memory.look(seen)
    return seen + Counter(
        {"MiB of all after a tenth": memory.first or memory.last, "MiB of all at the end": memory.last}
    )


def play(share: Callable[[int, int], Counter[str]], goal: int, processes: int, seed: int) -> Counter[str]:
    """All shares, added up."""
    with ProcessPoolExecutor(processes) as pool:
        shares = [pool.submit(share, seed + number, -(-goal // processes)) for number in range(processes)]
        return sum((part.result() for part in shares), Counter())


def main() -> int:
    """Read the arguments, fuzz, print the result."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=0, help="OpenGNSP frames, through both ends")
    parser.add_argument("--http", type=int, default=0, help="HTTP requests at a host's API")
    parser.add_argument("--https", type=int, default=0, help="HTTP requests at a server's API")
    parser.add_argument("--dns", type=int, default=0, help="DNS packets at a zone")
    parser.add_argument("--processes", type=int, default=2, help="how many at once")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="to have it once more")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    shares = (
        (fuzz_frames, given.frames),
        (fuzz_http, given.http),
        (fuzz_https, given.https),
        (fuzz_dns, given.dns),
    )
    for share, goal in shares:
        if not goal:
            continue
        began = time.monotonic()
        try:
            seen = play(share, goal, given.processes, given.seed)
        except AssertionError as broken:
            print(f"{share.__name__} --seed {given.seed}: {type(broken).__name__}: {broken}", file=sys.stderr)
            return 1
        print(f"{share.__name__}: nothing broken in {time.monotonic() - began:.0f} s, {given.processes} processes")
        for name, count in sorted(seen.items()):
            print(f"  {name:24} {count:12,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
