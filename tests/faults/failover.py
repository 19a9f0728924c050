"""`make failover`: the primary database is killed, a server is killed, both under load; a checker reads what was seen.

    python -m tests.faults.failover [--hosts 50] [--writers 20] [--rounds 3] [--only database|server]

Three real `opengnssd` share a primary and its synchronous standby (PostgreSQL); the hosts are real client daemons over
real TLS, and know all three. `database`: SIGKILL to the primary, promotion of the standby, repair of the old one as the
next standby, several times. `server`: SIGKILL to one of the three, and its restart, several times.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, gatherResults

from compass.pki.authority import create_authority
from tests.faults.cluster import Cluster, LoadedHost, in_thread, judge, pause, settle
from tests.faults.replicated import Pair
from tests.histories.events import Started, Stopped
from tests.simulation.recording import Recorder

SERVERS = 3
WRITE_PAUSE_SECONDS = 0.5
"""Between two wishes of one writer: 20 of them make some 40 a second, and 2,000 notices at 50 hosts, which share one
process and one core."""
RESUME_SECONDS = 10.0
"""Limit from the promotion to the first answered write."""
MOVE_SECONDS = 2.0
"""Limit from a server's death until another server serves the last of its hosts."""
BUSY_SECONDS = (1.0, 3.0)
PATIENCE_SECONDS = 60.0

Campaign: TypeAlias = Callable[["Stage", int], Awaitable[list[str]]]


class Stage:
    """Subject of a campaign. Its bounds hold on an idle machine; `slack` extends them for others."""

    def __init__(
        self, reactor: Any, pair: Pair, cluster: Cluster, hosts: int, writers: int, slack: float = 1.0
    ) -> None:
        self.reactor, self.pair, self.cluster = reactor, pair, cluster
        self.resume_seconds, self.move_seconds = slack * RESUME_SECONDS, slack * MOVE_SECONDS
        self.recorder = Recorder(time.monotonic)
        self.hosts = [
            LoadedHost(reactor, cluster, number, self.recorder, WRITE_PAUSE_SECONDS) for number in range(hosts)
        ]
        self.writers = self.hosts[:writers]

    async def begin(self) -> None:
        """Start all hosts, and the load of those that write."""
        for member in self.cluster.members:
            self.recorder(Started(self.recorder.clock(), member.name))
        await gatherResults([host.start() for host in self.hosts])
        print(f"{len(self.hosts)} hosts in session, {len(self.writers)} of them write", flush=True)
        for host in self.writers:
            host.load()

    async def busy(self) -> None:
        """Let them work undisturbed for a moment."""
        await self.until(lambda: all(host.server for host in self.hosts), "all hosts are in session")
        await pause(self.reactor, random.uniform(*BUSY_SECONDS))

    async def until(self, condition: Callable[[], bool], what: str) -> float:
        """Wait; the seconds it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < PATIENCE_SECONDS, f"not within {PATIENCE_SECONDS:g} s: {what}"
            await pause(self.reactor, 0.02)
        return time.monotonic() - began

    def written_since(self, at: float) -> bool:
        """Return whether a request was answered as committed after that time."""
        return any(host.answers and host.answers[-1][0] > at and _done(host, at) for host in self.writers)


def _done(host: LoadedHost, at: float) -> bool:
    return any(how in ("up", "offline") for when, how in reversed(host.answers) if when > at)


async def lose_database(stage: Stage, rounds: int) -> list[str]:
    """SIGKILL to the primary, promotion, repair; again and again."""
    late: list[str] = []
    for number in range(rounds):
        await stage.busy()
        await in_thread(stage.reactor, stage.pair.primary.kill)
        # The manager of the failover needs some time to notice the failure.
        await pause(stage.reactor, random.uniform(0.2, 1.5))
        at = stage.recorder.clock()
        await in_thread(stage.reactor, stage.pair.promote)
        await stage.until(lambda at=at: stage.written_since(at), "writes resume")  # type: ignore[misc]
        took = stage.recorder.clock() - at
        print(f"round {number + 1}: writes resumed {took:.2f} s after the promotion", flush=True)
        if took > stage.resume_seconds:
            late.append(f"writes resumed only after {took:.2f} s")
        await in_thread(stage.reactor, stage.pair.repair)
    await stage.busy()
    return late


async def lose_server(stage: Stage, rounds: int) -> list[str]:
    """SIGKILL to one of the servers, and its restart; each time another one."""
    late: list[str] = []
    for number in range(rounds):
        await stage.busy()
        victim = stage.cluster.members[number % SERVERS]
        own = [host for host in stage.hosts if host.server == victim.name]
        victim.program.kill()
        stage.recorder(Stopped(stage.recorder.clock(), victim.name, "kill"))
        took = await stage.until(lambda: all(h.server not in ("", victim.name) for h in own), "its hosts are served")  # noqa: B023
        print(f"round {number + 1}: {len(own)} hosts of {victim.name} moved within {took:.2f} s", flush=True)
        if took > stage.move_seconds:
            late.append(f"the hosts of {victim.name} were without a server for {took:.2f} s")
        await stage.busy()
        victim.program.start()
        stage.recorder(Started(stage.recorder.clock(), victim.name))
        await in_thread(stage.reactor, stage.cluster.serving, victim)
    await stage.busy()
    return late


CAMPAIGNS: dict[str, Campaign] = {"database": lose_database, "server": lose_server}


async def play(stage: Stage, campaign: Campaign, rounds: int) -> list[str]:
    """The whole of one campaign; what was not as promised."""
    await stage.begin()
    problems = await campaign(stage, rounds)
    began = time.monotonic()
    if not await settle(stage.reactor, stage.cluster, stage.hosts, stage.recorder):
        problems.append("not every host held everything in the end")
    print(f"all settled after {time.monotonic() - began:.1f} s", flush=True)
    return problems + await in_thread(stage.reactor, judge, stage.cluster, stage.recorder, stage.hosts)


def run(
    reactor: Any, pair: Pair, name: str, hosts: int, writers: int, rounds: int, slack: float = 1.0
) -> Deferred[list[str]]:
    """Three servers over a new database of the pair, and hosts; one campaign; what was not as promised."""
    print(f"--- {name}", flush=True)

    async def staged() -> list[str]:
        _, url = await in_thread(reactor, pair.new_database)
        with tempfile.TemporaryDirectory(prefix="compass-failover-") as directory:
            authority = create_authority("failover", datetime.now(UTC))
            with Cluster(Path(directory), authority, url, SERVERS) as cluster:
                await in_thread(reactor, cluster.start)
                stage = await in_thread(reactor, Stage, reactor, pair, cluster, hosts, writers, slack)
                return await play(stage, CAMPAIGNS[name], rounds)

    return Deferred.fromCoroutine(staged())


def main() -> None:
    """Parse, play, and exit with 0 only if all was as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--writers", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=sorted(CAMPAIGNS))
    options = parser.parse_args()
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    problems: list[str] = []

    async def both() -> None:
        pair = await in_thread(reactor, Pair)
        try:
            for name in [options.only] if options.only else CAMPAIGNS:
                problems.extend(await run(reactor, pair, name, options.hosts, options.writers, options.rounds))
        finally:
            await in_thread(reactor, pair.remove)

    def begin() -> None:
        played = Deferred.fromCoroutine(both())
        played.addErrback(lambda failure: problems.append(failure.getTraceback()))
        played.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    for problem in problems[:20]:
        print(f"  {problem}")
    print("as promised" if not problems else f"{len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
