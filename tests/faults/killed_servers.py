"""20 rounds of `kill -9` of a real `opengnssd` under load from 50 hosts; a checker reads everything that they saw.

The server is a process of its own. The hosts are 50 real client daemons in this process, over real TLS, each with its
own certificate, disk and book; all of what they are sent, apply and answer is recorded, and so is every answer to what
they ask for. At the end the checker compares the record with the update log: nothing lost, repeated, out of order,
missing or empty.

    python -m tests.faults.killed_servers [--hosts 50] [--rounds 20]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from compass.pki.authority import create_authority
from tests.faults.cluster import Cluster, LoadedHost, in_thread, judge, pause, settle
from tests.histories.events import Started, Stopped
from tests.simulation.recording import Recorder

PAUSE_SECONDS = 0.5
"""Between two wishes of one host: some 100 a second from 50, and 5,000 notices."""
BUSY_SECONDS = (0.1, 1.5)
"""Pause from the return of nine tenths of the hosts to the next kill."""
RETURN_SECONDS = 30.0


async def play(reactor: Any, cluster: Cluster, hosts: int, rounds: int) -> bool:
    """The whole of it; whether the checker found nothing."""
    recorder = Recorder(time.monotonic)
    await in_thread(reactor, cluster.start)
    loaded = [LoadedHost(reactor, cluster, number, recorder, PAUSE_SECONDS) for number in range(hosts)]
    recorder(Started(recorder.clock(), "gns1"))
    await gatherResults([host.start() for host in loaded])
    print(f"{hosts} hosts in session; {rounds} rounds of kill -9", flush=True)
    for host in loaded:
        host.load()
    back: list[int] = []
    for _ in range(rounds):
        until = time.monotonic() + RETURN_SECONDS
        while _in_session(loaded) < hosts * 0.9 and time.monotonic() < until:
            await pause(reactor, 0.05)
        await pause(reactor, random.uniform(*BUSY_SECONDS))
        back.append(_in_session(loaded))
        cluster.server.kill()
        recorder(Stopped(recorder.clock(), "gns1", "kill"))
        cluster.server.start()
        recorder(Started(recorder.clock(), "gns1"))
        await in_thread(reactor, cluster.serves)
    print(f"hosts in session at each kill: {back}", flush=True)
    calm = await settle(reactor, cluster, loaded, recorder)
    await in_thread(reactor, cluster.server.stop)
    broken = judge(cluster, recorder, loaded)
    for problem in broken[:20]:
        print(f"  {problem}")
    return calm and not broken


def _in_session(loaded: list[LoadedHost]) -> int:
    return sum(host.daemon.status().session == "open" for host in loaded)


def main() -> None:
    """Parse, play, and exit with 0 only if no promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    from twisted.internet import reactor as global_reactor

    reactor: Any = global_reactor
    held: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="compass-faults-") as directory:
        authority = create_authority("faults", datetime.now(UTC))
        with Cluster(Path(directory), authority, "", servers=1) as cluster:

            def begin() -> None:
                played = Deferred.fromCoroutine(play(reactor, cluster, options.hosts, options.rounds))
                played.addCallbacks(held.append, lambda failure: failure.printTraceback())
                played.addBoth(lambda _: reactor.stop())

            reactor.callWhenRunning(begin)
            reactor.run()
    sys.exit(0 if held == [True] else 1)


if __name__ == "__main__":
    main()
