"""Campaigns from the command line: many seeds, one seed with its trace, or a scenario file.

python -m tests.simulation --seeds 2000 --jobs 2
python -m tests.simulation --seed 1234
python -m tests.simulation --scenario tests/simulation/scenarios/NAME.txt
python -m tests.simulation --seeds 300 --jobs 2 --digest
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeAlias

from tests.histories.events import Violation
from tests.simulation import digest
from tests.simulation.deployment import Deployment, judged
from tests.simulation.plan import Plan, plan, read_plan
from tests.simulation.planted import BUGS
from tests.simulation.shrink import shortest

STEPS, HOSTS, SERVERS = 150, 20, 2
"""2,000 campaigns of this size are played in a quarter of an hour on two slow cores."""
SHOWN_MAX = 5
"""Violations of one seed that are printed; the others follow from them as a rule."""

Played: TypeAlias = tuple[int, list[Violation], digest.Digests | None]
"""Seed, violations, and the digests of the history if they are asked for."""


def main() -> int:
    """0: every promise held. 1: one was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--steps", type=int, default=STEPS, help="actions of each campaign")
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--servers", type=int, default=SERVERS)
    parser.add_argument("--seed", type=int, help="only this one, with its trace")
    parser.add_argument("--scenario", type=Path, help="replay a file")
    parser.add_argument(
        "--planted", choices=sorted(BUGS), help="with this bug in it; ends at the first seed that finds it"
    )
    parser.add_argument("--write", type=Path, default=Path(), help="directory for the scripts of failing seeds")
    parser.add_argument("--no-shrink", action="store_true", help="do not look for the shortest script")
    parser.add_argument("--digest", action="store_true", help="print one SHA-256 over all histories")
    parser.add_argument("--digest-file", type=Path, help="write the digests of each seed into this file as well")
    parser.add_argument(
        "--any-wording", action="store_true", help="on a network where the length of messages changes no moment"
    )
    given = parser.parse_args()
    if (given.digest or given.digest_file) and os.environ.get("PYTHONHASHSEED") != digest.HASH_SEED:
        environment = {**os.environ, "PYTHONHASHSEED": digest.HASH_SEED}
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environment)
    if given.scenario or given.seed is not None:
        told = read_plan(given.scenario.read_text()) if given.scenario else _plan(given, given.seed)
        return replay(told, given.planted)
    return many(given)


def _plan(given: argparse.Namespace, seed: int) -> Plan:
    return plan(seed, given.steps, given.hosts, given.servers)


def replay(told: Plan, planted: str | None) -> int:
    """Play it and print what happened."""
    deployment, violations = _played(told, planted)
    print(*deployment.trace, sep="\n")
    print(*violations[:SHOWN_MAX], sep="\n")
    print(f"{len(deployment.recorder.history)} events, {len(violations)} violations")
    return bool(violations)


def violations_of(told: Plan, planted: str | None = None) -> list[Violation]:
    """Play a plan, with a bug planted perhaps."""
    return _played(told, planted)[1]


def _played(told: Plan, planted: str | None) -> tuple[Deployment, list[Violation]]:
    with ExitStack() as stack:
        if planted:
            stack.enter_context(BUGS[planted]())
        return judged(told)


def _judge(given: argparse.Namespace, seed: int) -> Played:
    gc.collect()
    try:
        with digest.lengths_ignored() if given.any_wording else nullcontext():
            deployment, violations = _played(_plan(given, seed), given.planted)
        asked = given.digest or given.digest_file
        return seed, violations, digest.digests_of(deployment.recorder.history) if asked else None
    except Exception as error:
        raise RuntimeError(f"seed {seed} could not be played to its end") from error


def _at_leisure() -> None:
    """Collect garbage between campaigns only: one leaves some 10 MB, and a sixth of its time went into looking."""
    gc.collect()
    gc.freeze()
    gc.disable()


def _results(given: argparse.Namespace) -> Iterator[Played]:
    seeds = range(given.start, given.start + given.seeds)
    if given.jobs == 1:
        yield from map(partial(_judge, given), seeds)
        return
    # Without max_tasks_per_child: with it the pool of Python 3.11 can wait for ever for workers that have left.
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn"), initializer=_at_leisure) as pool:
        yield from pool.map(partial(_judge, given), seeds, chunksize=4)


def many(given: argparse.Namespace) -> int:
    """Play many seeds and print those that break a promise."""
    began, failing = time.monotonic(), []
    digests: dict[int, digest.Digests] = {}
    for count, (seed, violations, found) in enumerate(_results(given), 1):
        if found:
            digests[seed] = found
        if violations:
            failing.append(seed)
            print(f"\rseed {seed} breaks {len(violations)} promises:", *violations[:SHOWN_MAX], sep="\n  ", flush=True)
            if not given.no_shrink:
                _tell_shortest(given, seed, violations[0].promise)
            if given.planted:
                print(f"the planted bug {given.planted} was found by seed {seed}, number {count}")
                return 1
        if sys.stderr.isatty() or count % 100 == 0:
            rate = count / (time.monotonic() - began)
            print(f"\r{count} of {given.seeds} seeds, {rate:.1f}/s, {len(failing)} failing", end="", file=sys.stderr)
    took = time.monotonic() - began
    print(f"\n{given.seeds} seeds in {took:.0f} s: {len(failing)} break a promise {failing or ''}")
    if digests:
        print(digest.summary(digests))
    if given.digest_file:
        digest.write(digests, given.digest_file)
    return bool(failing)


def _tell_shortest(given: argparse.Namespace, seed: int, promise: str) -> None:
    def fails(tried: Plan) -> bool:
        return any(violation.promise == promise for violation in violations_of(tried, given.planted))

    short = shortest(_plan(given, seed), fails)
    path = given.write / f"seed-{seed}-{promise}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(short))
    print(f"the shortest script that breaks {promise} has {len(short.actions)} actions; it is in {path}:")
    print(short, flush=True)
