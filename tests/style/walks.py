"""Walks through the sources, as traces of real calls: `make walks` prints how far each way is.

A call is a frame of a function defined in compass/ that is entered or, if it is a coroutine or a generator, resumed;
comprehensions are frames, too. A move is a call in another file than the call before it; a return is a move into a file
that was entered before. Time and network are simulated; only the command line is traced over a real connection.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import dns.message
import msgspec
from click.testing import CliRunner

import compass
from compass.cli.main import cli
from compass.gateway.dns.server import DnsServer
from compass.gateway.dns.zone import Zone
from compass.model.host_api import LocalRegister, LocalReport, Outcome
from tests.support.agent_world import ADDRESS, Hosts
from tests.support.fake_host_api import Api
from tests.support.reactor_thread import ReactorThread

FOLDER = str(Path(compass.__file__).parent) + "/"
DELAY_SECONDS, PROBE_SECONDS = 0.001, 0.01
"""On a steady network: of a message, and until a connection is open or a probe has failed."""
SERVICE, USER = "chinaserver.openuss", "www.web"
FIRST_PORT = 8001
BEFORE = {
    "register by the command line": ((110, 11, 40, 29), (110, 11, 40, 29)),
    "first registration on a host": ((816, 56, 498, 442), (834, 56, 510, 454)),
    "DNS SRV, first": ((68, 11, 28, 17), (68, 11, 28, 17)),
    "DNS SRV, again": ((28, 8, 15, 7), (28, 8, 15, 7)),
    "resolve in the daemon": ((34, 8, 17, 9), (34, 8, 17, 9)),
    "registration": ((373, 48, 231, 183), (393, 48, 246, 198)),
    "report until suspect elsewhere": ((376, 48, 236, 188), (313, 47, 190, 143)),
    "suspect until down elsewhere": ((564, 48, 340, 292), (650, 51, 402, 351)),
}
"""Calls, files, moves and returns of commit 5213447: on a steady network, and on one that is not."""
CALLS_MAX, FILES_MAX, MOVES_MAX = 414, 70, 280
"""Ceilings of a registration, which may only fall; the goal is 300 calls, 35 files and 150 moves."""
FIRST_TRANSACTIONS_MAX = 1
"""Ceiling of a first registration on a host; the goal is 1."""


@dataclass
class Walk:
    """One way, call by call: the file below compass/ and the function."""

    calls: list[tuple[str, str]] = field(default_factory=list)
    transactions: int = 0

    @property
    def files(self) -> int:
        """Different files."""
        return len({file for file, _ in self.calls})

    @property
    def moves(self) -> int:
        """Calls in another file than the one before."""
        files = [file for file, _ in self.calls]
        return sum(one != other for one, other in zip(files, ["", *files], strict=False))

    @property
    def returns(self) -> int:
        """Moves into a file that was entered before."""
        return self.moves - self.files

    @property
    def shares(self) -> str:
        """The packages with the most calls."""
        found = Counter(file.partition("/")[0] for file, _ in self.calls)
        return " ".join(f"{name} {count}" for name, count in found.most_common(5))


class Tracer:
    """Records the calls of every thread started after it, while a walk is under way."""

    def __init__(self) -> None:
        self._walk: Walk | None = None
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def stop(self) -> None:
        """Trace nothing more."""
        threading.setprofile(None)
        sys.setprofile(None)

    @contextmanager
    def walk(self) -> Iterator[Walk]:
        """Record what is called in the block."""
        self._walk = walk = Walk()
        try:
            yield walk
        finally:
            self._walk = None

    def aside(self, look: Callable[[], bool]) -> bool:
        """Whether something holds, found out without recording the calls that it takes."""
        walk, self._walk = self._walk, None
        try:
            return look()
        finally:
            self._walk = walk

    def committed(self) -> None:
        """Count a transaction."""
        if self._walk is not None:
            self._walk.transactions += 1

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and self._walk is not None and frame.f_code.co_filename.startswith(FOLDER):
            self._walk.calls.append((frame.f_code.co_filename[len(FOLDER) :], frame.f_code.co_name))


class Scene:
    """A server, a host on which services register, and two hosts that depend on them."""

    def __init__(self, tracer: Tracer, directory: Path, *, steady: bool) -> None:
        self._tracer = tracer
        self.world = Hosts(1, directory)
        if steady:
            network: Any = self.world.network
            network.split = 0.0
            network.latency_seconds = (DELAY_SECONDS, DELAY_SECONDS)
            network.delay = lambda: PROBE_SECONDS
        self._count_transactions()
        self.world.serve()
        self.tokens = self.world.uss()
        self.dependants = [self.world.daemon(name) for name in ("h2", "h3")]
        for daemon in self.dependants:
            self.world.wait(daemon.dependencies(USER))
        self.daemon = self.world.daemon("h1")

    def register(self, port: int) -> None:
        """Register, until the answer has come and both dependants know the listener."""
        answers: list[Any] = []
        asked = LocalRegister(SERVICE, port, self.tokens[SERVICE], pid=1)
        self.daemon.register(asked).addCallback(answers.append)
        self._until(lambda: bool(answers) and all(self._seen(daemon, port, "up") for daemon in self.dependants))

    def report_dead(self) -> None:
        """Report a dead listener at one dependant, until it is suspect at the other."""
        self.world.dead.add((ADDRESS, FIRST_PORT))
        self.dependants[0].report(LocalReport(SERVICE, ADDRESS, FIRST_PORT, "unreachable", USER))
        self.until_it_is("suspect")

    def until_it_is(self, state: str) -> None:
        """Wait until the listener is in a state at the second dependant."""
        self._until(lambda: self._seen(self.dependants[1], FIRST_PORT, state))

    def _until(self, condition: Callable[[], bool]) -> None:
        self.world.until(lambda: self._tracer.aside(condition))

    def _seen(self, daemon: Any, port: int, state: str) -> bool:
        found: list[Any] = []
        daemon.dependencies(USER).addCallback(found.append)
        services = [service for category in found[0].categories for service in category.services]
        return any((one.port, one.state) == (port, state) for service in services for one in service.listeners)

    def _count_transactions(self) -> None:
        store: Any = self.world.store
        commit = store.commit

        def counted(*arguments: Any) -> Any:
            self._tracer.committed()
            return commit(*arguments)

        store.commit = counted


def walks(*, steady: bool = True) -> dict[str, Walk]:
    """Every walk of BEFORE. On a steady network every message takes the same time and none comes in pieces."""
    tracer = Tracer()
    try:
        with tempfile.TemporaryDirectory() as directory:
            return _by_command_line(tracer, Path(directory)) | _simulated(tracer, Path(directory), steady=steady)
    finally:
        tracer.stop()


def _by_command_line(tracer: Tracer, directory: Path) -> dict[str, Walk]:
    thread = ReactorThread()
    api = Api(thread, directory / "socket")
    api.daemon.answer = Outcome("up", SERVICE, "10.0.0.1", 80, 5, 7)
    environment = {"OPENGNS_API": f"http://127.0.0.1:{api.port}", "OPENGNS_CREDENTIAL": "secret"}
    command = ["register", SERVICE, "80"]
    try:
        # The first one imports, and compiles what is kept.
        for _ in range(2):
            with tracer.walk() as walk:
                result = CliRunner().invoke(cli, command, env=environment)
            assert result.exit_code == 0, result.output
    finally:
        for listening in api.listening:
            thread.call(listening.stopListening)
        thread.stop()
    return {"register by the command line": walk}


def _simulated(tracer: Tracer, directory: Path, *, steady: bool) -> dict[str, Walk]:
    scene = Scene(tracer, directory, steady=steady)
    ways: dict[str, Callable[[], object]] = {
        "first registration on a host": lambda: scene.register(FIRST_PORT),
        **_lookups(scene),
        "registration": lambda: scene.register(FIRST_PORT + 1),
        "report until suspect elsewhere": scene.report_dead,
        "suspect until down elsewhere": lambda: scene.until_it_is("down"),
    }
    found = {}
    for name, way in ways.items():
        if not name.startswith("suspect"):
            scene.world.run(1.0)
        with tracer.walk() as found[name]:
            way()
    scene.world.store.close()
    return found


def _lookups(scene: Scene) -> dict[str, Callable[[], object]]:
    daemon, view = scene.dependants[0], scene.world.hosts["h2"].agent.components.view
    server = DnsServer(Zone(view, "gns", "h2.example"), scene.world.clock)
    service, _, category = SERVICE.partition(".")
    query = dns.message.make_query(f"{service}.{category}.gns", "SRV").to_wire()

    def ask() -> None:
        answer = server.answered(query, False)
        assert answer is not None and dns.message.from_wire(answer).answer

    def resolve() -> None:
        assert msgspec.to_builtins(daemon.resolve(SERVICE))["listeners"]

    return {"DNS SRV, first": ask, "DNS SRV, again": ask, "resolve in the daemon": resolve}


def main() -> None:
    """Print each walk beside that of before."""
    parser = argparse.ArgumentParser(prog="python -m tests.style.walks", description="Trace the ways of requests.")
    parser.add_argument("--unsteady", action="store_true", help="with delays by chance, and some messages in pieces")
    parser.add_argument("--calls", metavar="WALK", help="print each call of one walk")
    given = parser.parse_args()
    found = walks(steady=not given.unsteady)
    if given.calls:
        print(*(f"{file:44} {function}" for file, function in found[given.calls].calls), sep="\n")
        return
    print(f"{'before, today':32}{'calls':>12}{'files':>10}{'moves':>12}{'returns':>12}{'commits':>9}")
    for name, walk in found.items():
        today = len(walk.calls), walk.files, walk.moves, walk.returns
        figures = [f"{was}, {now}" for was, now in zip(BEFORE[name][given.unsteady], today, strict=True)]
        row = "".join(f"{figure:>{width}}" for figure, width in zip(figures, (12, 10, 12, 12), strict=True))
        print(f"{name:32}{row}{walk.transactions:>9}  {walk.shares}")


if __name__ == "__main__":
    main()
