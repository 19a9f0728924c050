"""Servers written to at once: 20 clients each, as fast as they are answered; then everything is compared.

    python -m tests.cluster.writers [--seconds 60] [--clients 20] [--engine postgresql]

First one server is written to by all clients, then two by half of them each. What was answered must be in the log once
and in one gap-free order, and both servers' catalogues must be what the log and the tables come to. The output is the
number of batches that met another server's commit, and the throughput of two against that of one, as ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from compass.admin.shell.connection import AdminSession, IdentityFiles, Server
from compass.model.catalogue.catalogue import Catalogue, catalogue_of
from compass.model.replies import (
    CatalogueDigest,
    CredentialIssued,
    Deregistered,
    Refusal,
    Registered,
    Rows,
    ServerStatus,
)
from compass.model.requests import Deregister, Digest, Fetch, IssueCredential, Register, Status
from compass.model.rows import Listener
from compass.pki.authority import create_authority
from compass.store.store import Store
from tests.cluster.servers import ANSWER_SECONDS, Several
from tests.e2e.processes import eventually
from tests.support.postgresql import PostgreSQL

SERVICE = "chinaserver.openuss"
PORTS = 40
"""Listeners of each client, which come and go in turns."""
_SUMMARY = re.compile(r"committed (\d+) batches, (\d+) of them decided again, (\d+) postponed")


class Answered(msgspec.Struct, frozen=True):
    """Answered change: the revision at which a listener was set, and to what."""

    revision: int
    port: int
    epoch: int
    state: str


class Writing(msgspec.Struct, frozen=True):
    """Task of one generator's clients: their server, their identity, their ports."""

    server: Server
    identity: IdentityFiles
    token: str
    address: str
    clients: int
    seconds: float


def write(orders: Writing) -> tuple[list[Answered], Counter[str]]:
    """All clients of one generator, in a process of their own: their answered changes, and refusals by code."""
    answered: list[Answered] = []
    refused: Counter[str] = Counter()
    begin = threading.Barrier(orders.clients)

    def client(number: int) -> None:
        own: list[Answered] = []
        with AdminSession.connect([orders.server], orders.identity, ANSWER_SECONDS) as link:
            begin.wait()
            until, turn = time.monotonic() + orders.seconds, -1
            while time.monotonic() < until:
                turn += 1
                port, epoch = 1000 + number * PORTS + turn % PORTS, turn + 1
                if turn // PORTS % 2:
                    reply = link.ask(Deregister(SERVICE, orders.token, orders.address, port, epoch))
                else:
                    reply = link.ask(Register(SERVICE, orders.token, orders.address, port, epoch))
                if isinstance(reply, Registered | Deregistered):
                    own.append(Answered(reply.revision, port, epoch, reply.state))
                else:
                    refused[reply.code if isinstance(reply, Refusal) else type(reply).__name__] += 1
        answered.extend(own)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(orders.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answered, refused


class Result(msgspec.Struct, frozen=True):
    """Result of a run."""

    servers: int
    answered: int
    seconds: float
    batches: int
    again: int
    """Batches that met another server's commit and were decided again in their turn."""
    put_off: int
    """Batches that were too far behind for that: rolled back and tried again."""
    problems: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Answered changes a second."""
        return self.answered / self.seconds


def play(several: Several, names: tuple[str, ...], clients: int, seconds: float) -> Result:
    """Start these servers, have `clients` write to all of them together, compare everything, and stop them."""
    for name in names:
        several.add(name)
    several.declare(names[0])
    issued = several.ask(names[0], IssueCredential(SERVICE), CredentialIssued)
    orders = [
        Writing(
            Server(several.address, several.ports[name]),
            several.certify("host", f"h{number}.example.net"),
            issued.token,
            f"192.0.2.{number}",
            clients // 2,
            seconds,
        )
        for number, name in enumerate(names * (2 // len(names)), start=1)
    ]
    for name in names:
        eventually(lambda name=name: _revision(several, name) >= issued.revision, f"{name} follows")  # type: ignore[misc]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as generators:
        told = list(generators.map(write, orders))
    problems = [f"refused: {dict(refused)}" for _, refused in told if refused]
    changes = {order.address: answered for order, (answered, _) in zip(orders, told, strict=True)}
    problems += _compare(several, names, changes)
    counts: Counter[str] = Counter()
    for name in names:
        several.servers[name].stop()
        found = _SUMMARY.search(several.servers[name].log.read_text())
        assert found, several.servers[name].shown_log()
        counts.update(dict(zip(("batches", "again", "put_off"), map(int, found.groups()), strict=True)))
    total = sum(map(len, changes.values()))
    return Result(len(names), total, seconds, counts["batches"], counts["again"], counts["put_off"], tuple(problems))


def _revision(several: Several, name: str) -> int:
    return several.ask(name, Status(), ServerStatus).revision


def _compare(several: Several, names: tuple[str, ...], changes: dict[str, list[Answered]]) -> Iterator[str]:
    """Whatever does not fit together: the answers, the log, the tables, and the servers' catalogues (P1, P2)."""
    store = Store.open(several.store, create=False)
    loaded, log = store.load(), store.changes_after(0, 100_000_000)
    store.close()
    if [change.revision for change in log] != list(range(1, loaded.revision + 1)):
        yield "the log has a gap"
    replayed = Catalogue()
    for change in log:
        replayed = replayed.apply(change)
    if replayed != catalogue_of(loaded.rows, loaded.topics, loaded.revision):
        yield "the tables are not what the log comes to"
    seen: set[int] = set()
    for address, answered in changes.items():
        for one in answered:
            row = log[one.revision - 1].row
            there = isinstance(row, Listener) and (row.address, row.port, row.epoch, row.state)
            if there != (address, one.port, one.epoch, one.state):
                yield f"answered at revision {one.revision}: {one}; in the log: {row}"
            if one.revision in seen:
                yield f"two answers at revision {one.revision}"
            seen.add(one.revision)
    for name in names:
        eventually(lambda name=name: _revision(several, name) >= loaded.revision, f"{name} has everything")  # type: ignore[misc]
        rows = several.ask(name, Fetch("listener"), Rows).rows
        if sorted(rows, key=str) != sorted((row for row in loaded.rows if isinstance(row, Listener)), key=str):
            yield f"{name} has another catalogue than the store"
    digests = {
        (told.revision, told.digest) for told in (several.ask(name, Digest(), CatalogueDigest) for name in names)
    }
    if len(digests) != 1 or next(iter(digests))[0] != loaded.revision:
        yield f"the servers' digests differ: {digests}"


@contextlib.contextmanager
def _store(engine: str, directory: Path) -> Iterator[str]:
    if engine == "sqlite":
        yield f"sqlite:///{directory}/store.sqlite"
        return
    server = PostgreSQL()
    try:
        yield server.new_url()
    finally:
        server.remove()


def main() -> None:
    """Play both, print the ratios, and exit with 0 only if everything fits together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=20, help="of each of the two servers")
    parser.add_argument("--engine", choices=("postgresql", "sqlite"), action="append")
    options = parser.parse_args()
    held = True
    for engine in options.engine or ("postgresql", "sqlite"):
        results = []
        for names in (("gns1",), ("gns1", "gns2")):
            with tempfile.TemporaryDirectory(prefix="compass-servers-") as place, _store(engine, Path(place)) as url:
                authority = create_authority("servers", datetime.now(UTC))
                with Several(Path(place), authority, url) as several:
                    results.append(play(several, names, 2 * options.clients, options.seconds))
        one, two = results
        print(f"{engine}: {2 * options.clients} clients for {options.seconds:g} s")
        for result in results:
            print(
                f"  {result.servers} server{'s' * (result.servers > 1)}: {result.rate:.0f} changes/s answered, "
                f"{result.answered / max(result.batches, 1):.1f} a batch"
            )
        share = two.again / max(two.batches, 1)
        print(
            f"  two against one: {two.rate / one.rate:.2f}; of {two.batches} batches {two.again} ({share:.0%}) "
            f"met the other's commit and were decided again, {two.put_off} put off"
        )
        problems = [*one.problems, *two.problems]
        print(f"  one gap-free order, the same catalogues: {'yes' if not problems else 'NO'}", flush=True)
        for problem in problems[:20]:
            print(f"    {problem}"[:300])
        held = held and not problems
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
