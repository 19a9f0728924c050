"""`make balancers`: HAProxy and nginx serve under load while their listeners are added, drained, killed, brought back.

The balancers are the real programs with nothing but what compass writes for them; the listeners are real processes,
killed with SIGKILL; a client with several threads counts every request that was not answered with 200.
"""

from __future__ import annotations

import argparse
import http.client
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from compass.model.host_api import LocalRegister
from compass.pki.authority import create_authority
from tests.e2e.deployment import Deployment, Host, free_port, new_address
from tests.e2e.processes import ROOT, Program, eventually

SERVICE = "chinaserver.openuss"
THREADS = 4
PAUSE_SECONDS = 0.005
"""Between the requests of a thread: the load is steady, and the machine has time for what is measured."""
WORK_SECONDS = 0.02
"""Time that a listener takes for an answer, so that there are always requests in flight."""
UNUSED_SECONDS = 0.7
"""A listener that no request has reached for this time is out of use."""
KINDS = {"haproxy": "haproxy", "haproxy-dns": "haproxy", "nginx": "nginx"}
"""The ready templates that are tried, each with its program."""

LISTENER = f"""
import http.server, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/health":
            time.sleep({WORK_SECONDS})
        body = sys.argv[2].encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server((sys.argv[1], int(sys.argv[2])), Answer).serve_forever()
"""


class Failure(NamedTuple):
    """A request that was not answered with 200: from when to when, and what came instead."""

    began: float
    ended: float
    what: str


class Load:
    """Clients of a balancer, one connection to a request, until they are stopped."""

    def __init__(self, address: str, port: int) -> None:
        self._place = address, port
        self._stopped = threading.Event()
        self.answered = 0
        self.failures: list[Failure] = []
        self.seen: dict[int, float] = {}
        """Port of a listener -> when it last answered."""
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the requests."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def reaches(self, port: int) -> None:
        """Wait until a listener answers from now on."""
        since = time.monotonic()
        eventually(lambda: self.seen.get(port, 0.0) > since, f"requests reach {port}")

    def leaves(self, port: int) -> None:
        """Wait until no request has reached a listener for a while."""
        since = time.monotonic()
        eventually(
            lambda: time.monotonic() > max(since, self.seen.get(port, 0.0)) + UNUSED_SECONDS,
            f"no request reaches {port}",
        )

    def _ask(self) -> None:
        while not self._stopped.wait(PAUSE_SECONDS):
            began = time.monotonic()
            problem, port = asked(*self._place)
            if problem:
                self.failures.append(Failure(began, time.monotonic(), problem))
            else:
                self.answered += 1
                self.seen[port] = time.monotonic()


def asked(address: str, port: int) -> tuple[str, int]:
    """Return what is wrong with the answer to one request; if nothing, the listener that gave the answer."""
    connection = http.client.HTTPConnection(address, port, timeout=20)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read()
        return ("", int(body)) if answer.status == 200 else (f"status {answer.status}", 0)
    except (OSError, http.client.HTTPException) as error:
        return repr(error), 0
    finally:
        connection.close()


class Balancer:
    """A host whose daemon writes a balancer's configuration, the balancer, and the listeners behind it."""

    def __init__(self, world: Deployment, kind: str, slots: int = 8, dns: str = "") -> None:
        """`slots`: most listeners of haproxy-dns. `dns`: how it asks, such as `udp@`."""
        self.world = world
        self._slots = slots
        self._dns = dns
        self.kind = kind
        self.directory = world.directory / f"run-{kind}{dns.rstrip('@')}-{slots}"
        self.directory.mkdir()
        self.target = self.directory / "balancer.conf"
        self.kills: list[float] = []
        self._listeners: dict[int, Program] = {}
        self._pid = self.directory / "pid"
        self.host = self._host()

    def _host(self) -> Host:
        host_address = new_address()
        self._port = free_port(host_address)
        check = {
            "nginx": ["nginx", "-t", "-q", "-c", "{file}"],
        }.get(self.kind, ["haproxy", "-c", "-q", "-f", "{file}"])
        reload = {
            "nginx": ["sh", "-c", f"test ! -s {self._pid} || kill -HUP $(cat {self._pid})"],
        }.get(self.kind, [str(ROOT / "examples" / "reload-haproxy"), str(self._pid)])
        bind = f"{host_address}:{self._port}"
        dns = free_port(host_address)
        values = f'{{ stats = "{self.directory}/stats", bind = "{bind}", listen = "{bind}", pid = "{self._pid}", '
        values += f'temp = "{self.directory}", workers = "1", dns = "{self._dns}{host_address}:{dns}", '
        values += f'slots = "{self._slots}" }}'
        sections = (
            f'[host.dns]\nlisten = "{host_address}:{dns}"\n[[host.template]]\non = ["{SERVICE}"]\n'
            f'source = "ready:{self.kind}"\ntarget = "{self.target}"\ncheck = {check}\nreload = {reload}\n'
            f"values = {values}\n"
        )
        self._address = host_address
        return self.world.add_host(f"balancer-{self.directory.name}", services=("portal.web",), sections=sections)

    def start(self, *ports: int) -> None:
        """Start the balancer with these listeners behind it, and wait until it serves."""
        self.host.in_session()
        for port in ports:
            self.add(port)
        eventually(self.up_to_date, "the daemon has written the configuration of the balancer")
        command = {
            "nginx": ["nginx", "-c", str(self.target), "-g", "daemon off;"],
        }.get(self.kind, ["haproxy", "-W", "-db", "-f", str(self.target)])
        self.program = Program(self.kind, command, self.directory / "log")
        self.world.programs.append(self.program)
        self.program.start()
        if self.kind != "nginx":
            self._pid.write_text(str(self.program.pid))

        def serves() -> bool:
            assert self.program.runs, f"{self.kind} has ended:\n{self.program.shown_log()}"
            return not asked(self._address, self._port)[0]

        eventually(serves, f"{self.kind} serves")

    def up_to_date(self) -> bool:
        """Return whether the daemon has nothing to do for the balancer."""
        status = self.host.status()
        assert status is not None
        (reaction,) = status.reactions
        assert reaction.state != "failed", reaction.problem
        return reaction.state == "idle" and self.target.exists()

    def evidence(self) -> str:
        """Return the logs that explain why the balancer does not do what it should."""
        status = self.host.status()
        rows = [f"{port}: {row.state} {row.cause}" for (_, port), row in self.world.listeners().items()]
        logs = self.host.daemon.shown_log()[-2000:], self.program.shown_log()[-4000:]
        return "\n".join([str(status and status.reactions), *rows, self.target.read_text()[-1500:], *logs])

    def new_port(self) -> int:
        """Return an address and a port for a listener."""
        return free_port(self._address)

    def add(self, port: int) -> None:
        """Start a listener there and register it."""
        command = [sys.executable, "-c", LISTENER, self._address, str(port)]
        program = Program(f"listener {port}", command, self.directory / f"{port}.log")
        self.world.programs.append(program)
        program.start()
        eventually(lambda: not asked(self._address, port)[0], f"{port} listens")
        wish = LocalRegister(SERVICE, port, self.world.token(SERVICE), address=self._address, pid=program.pid)
        self.host.api.register(wish)
        self._listeners[port] = program

    def add_many(self, count: int) -> None:
        """Register listeners that one process serves, each at an address of its own."""
        port = free_port("0.0.0.0")
        program = Program("many", [sys.executable, "-c", LISTENER, "0.0.0.0", str(port)], self.directory / "many.log")
        self.world.programs.append(program)
        program.start()
        eventually(lambda: not asked(self._address, port)[0], f"{port} listens")
        self.host.in_session()
        token = self.world.token(SERVICE)
        for number in range(count):
            address = f"127.99.{number // 250}.{number % 250 + 1}"
            self.host.api.register(LocalRegister(SERVICE, port, token, address=address, pid=program.pid))
        self._listeners[port] = program

    def removals(self) -> int:
        """Servers that the balancer has taken out so far, by its own log."""
        text = self.program.log.read_text(errors="replace")
        return sum(
            "removed from SRV" in line or "is going DOWN" in line or "is DOWN" in line for line in text.splitlines()
        )

    def serving(self) -> int:
        """Servers in use, by HAProxy's own statistics."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.directory / "stats"))
            connection.sendall(b"show stat\n")
            text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        rows = [line.split(",") for line in text.splitlines()]
        return sum(row[1].startswith(SERVICE) and row[17].startswith("UP") for row in rows if len(row) > 17)

    def drain(self, port: int, *, undrain: bool = False) -> None:
        """`opengnsadmin drain` or `undrain`."""
        self.world.opengnsadmin("undrain" if undrain else "drain", SERVICE, f"{self._address}:{port}")

    def end(self, port: int, number: signal.Signals) -> None:
        """Kill or stop the process of a listener."""
        if number == signal.SIGKILL:
            self.kills.append(time.monotonic())
            self._listeners[port].kill()
        else:
            self._listeners[port].stop()

    def clear_away(self) -> None:
        """End the balancer and what is behind it."""
        for program in (self.program, *self._listeners.values()):
            program.clear_away()

    @contextmanager
    def load(self) -> Iterator[Load]:
        """Clients, meanwhile."""
        load = Load(self._address, self._port)
        try:
            yield load
        finally:
            load.stop()


def come_and_go(balancer: Balancer, rounds: int) -> Load:
    """Listeners are added, drained, killed and brought back, under load; what the clients saw."""
    first, second = balancer.new_port(), balancer.new_port()
    balancer.start(first, second)
    with balancer.load() as load:
        load.reaches(first)
        for _ in range(rounds):
            third = balancer.new_port()
            balancer.add(third)
            load.reaches(third)
            balancer.drain(first)
            load.leaves(first)
            balancer.end(first, signal.SIGTERM)
            balancer.end(second, signal.SIGKILL)
            load.leaves(second)
            balancer.add(second)
            load.reaches(second)
            balancer.add(first)
            balancer.drain(first, undrain=True)
            load.reaches(first)
            balancer.drain(third)
            load.leaves(third)
            balancer.end(third, signal.SIGTERM)
    return load


def stand_still(balancer: Balancer, count: int, expected: int, seconds: float) -> int:
    """Servers that HAProxy takes out while many healthy listeners do not change, once it uses at least those expected:
    all of them, or those of an answer over UDP."""
    balancer.add_many(count)
    balancer.start()
    eventually(lambda: balancer.serving() >= expected, f"HAProxy uses {expected} of {count} listeners")
    used, before, until = balancer.serving(), balancer.removals(), time.monotonic() + seconds
    while time.monotonic() < until:
        assert balancer.serving() == used
        time.sleep(0.2)
    return balancer.removals() - before


def judged(balancer: Balancer, load: Load) -> tuple[list[Failure], list[Failure]]:
    """The failures that a kill explains, for they were in flight at that moment, and the others."""
    lost = [one for one in load.failures if any(one.began <= killed <= one.ended for killed in balancer.kills)]
    return lost, [one for one in load.failures if one not in lost]


def told(balancer: Balancer, load: Load) -> str:
    """The figures in a line."""
    lost, failed = judged(balancer, load)
    kills = len(balancer.kills)
    return (
        f"{balancer.kind:<12} {load.answered:>7} requests answered, {len(failed)} failed, "
        f"{len(lost)} lost in flight at {kills} kill{'s'[: kills != 1]}"
    )


def still(count: int, seconds: float) -> int:
    """HAProxy from the haproxy-dns template with healthy listeners that do not change; the servers it takes out."""
    authority = create_authority("balancers", datetime.now(UTC))
    with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory), authority) as world:
        world.start()
        balancer = Balancer(world, "haproxy-dns", slots=count)
        try:
            removed = stand_still(balancer, count, count, seconds)
        except AssertionError as problem:
            sys.exit(f"haproxy-dns: {problem}\n{balancer.evidence()}")
    print(f"haproxy-dns  {count} healthy listeners for {seconds:g} s: {removed} servers taken out", flush=True)
    return removed


def main() -> None:
    """Each balancer for some rounds; status 1 when a request has failed that no kill explains."""
    parser = argparse.ArgumentParser(prog="make balancers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often listeners come and go (default 5)")
    parser.add_argument("--only", choices=sorted(KINDS), help="one of them")
    parser.add_argument("--listeners", type=int, default=100, help="healthy listeners that stand still (default 100)")
    parser.add_argument("--seconds", type=float, default=60.0, help="the time that they do (default 60)")
    arguments = parser.parse_args()
    broken = 0
    for kind, program in KINDS.items():
        if arguments.only not in (None, kind):
            continue
        if not shutil.which(program):
            print(f"{kind:<12} left out: {program} is not installed")
            continue
        authority = create_authority("balancers", datetime.now(UTC))
        with tempfile.TemporaryDirectory() as directory, Deployment(Path(directory), authority) as world:
            world.start()
            balancer = Balancer(world, kind)
            try:
                load = come_and_go(balancer, arguments.rounds)
            except AssertionError as problem:
                sys.exit(f"{kind}: {problem}\n{balancer.evidence()}")
            print(told(balancer, load), flush=True)
            failed = judged(balancer, load)[1]
            broken += len(failed)
            for one in failed[:20]:
                print(f"    {one.what}")
    if arguments.only in (None, "haproxy-dns") and shutil.which("haproxy"):
        broken += still(arguments.listeners, arguments.seconds)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
