"""Users of one machine: what one without any credential does costs the others nothing that they notice."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from compass.agent.local_users import CONNECTIONS_PER_USER_MAX
from compass.client.core.blocking_api import ApiEndpoint, HostApi
from compass.model.host_api import LocalRegister
from compass.model.replies import Rows
from compass.model.requests import Fetch
from compass.model.rows import Host as HostRow
from compass.pki.authority import Credentials
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host, free_port
from tests.security.test_real_daemons import GROWTH_MAX, resident
from tests.support.another_user import ANOTHER_USER, another_user_does, as_another_user, needs_root, open_directory

SERVICE = "chinaserver.openuss"
LOG_LINES_MAX = 150
"""Lines of a daemon's log in three minutes: a few kinds of lines, each with REPEATED_LINES_MAX and one more."""
pytestmark = needs_root


def asked(host: Host, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Make a request over TCP. Returns status and answer."""
    connection = http.client.HTTPConnection(host.address, host.port, timeout=10)
    try:
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def guess(host: Host, port: int, number: int = 0) -> tuple[int, dict[str, Any]]:
    """A registration with a wrong credential."""
    wrong = {"service": SERVICE, "credential": f"x{number}", "address": host.address, "port": port}
    return asked(host, "/v1/register", wrong)


def web_and_storage(deploy: Deploy) -> tuple[Deployment, Host, Host]:
    """A deployment with two hosts, of which the first one depends on what the second one serves."""
    deployment = deploy()
    deployment.start()
    web, storage = deployment.add_hosts("web", "storage")
    deployment.register(web, "portal.web")
    return deployment, web, storage


def within(seconds: float, condition: Callable[[], Any], what: str) -> None:
    """Fail unless the condition becomes true in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.005)


def test_guesses_keep_no_one_from_registering_deregistering_and_dying(deploy: Deploy) -> None:
    """A right credential is accepted at once, and a death is notified within a second, while a user guesses."""
    deployment, web, storage = web_and_storage(deploy)
    deployment.token(SERVICE)
    port, dying = free_port(storage.address), free_port(storage.address)

    def guesses() -> list[int]:
        return [guess(storage, port, number)[0] for number in range(80)]

    assert as_another_user(guesses) == [403] * 80
    with another_user_does(lambda: guess(storage, port)):
        sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        assert deployment.register(storage, SERVICE, dying, pid=sleeper.pid).state == "up"
        for _ in range(5):
            outcome = deployment.register(storage, SERVICE, port)
            assert outcome.state == "up"
            gone = {"service": SERVICE, "credential": deployment.token(SERVICE), "address": storage.address}
            assert asked(storage, "/v1/deregister", gone | {"port": port, "epoch": outcome.epoch})[0] == 200
        within(1, lambda: web.resolved(SERVICE) == ("service", [dying]), "web knows the listener")
        os.kill(sleeper.pid, signal.SIGKILL)
        sleeper.wait()
        within(1, lambda: web.resolved(SERVICE)[0] != "service", "web knows of the death")


# -- everything at once


def raw(host: Host, over_tcp: bool) -> socket.socket:
    """A connection to the API."""
    client = socket.socket(socket.AF_INET if over_tcp else socket.AF_UNIX)
    client.settimeout(5)
    client.connect((host.address, host.port) if over_tcp else str(host.socket))
    return client


def is_open(client: socket.socket) -> bool:
    """Return whether the other end has not closed the connection."""
    client.setblocking(False)
    try:
        return bool(client.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def half_requests(host: Host, over_tcp: bool) -> int:
    """Open more connections than there may be, each with a request that never ends; how many are left of them."""
    opened = []
    for _ in range(CONNECTIONS_PER_USER_MAX + 50):
        with contextlib.suppress(OSError):
            opened.append(raw(host, over_tcp))
            opened[-1].sendall(b"POST /v1/regis")
    time.sleep(0.3)
    left = sum(map(is_open, opened))
    for client in opened:
        client.close()
    return left


def pipelined(host: Host) -> None:
    """Lookups without end on one connection."""
    with raw(host, True) as client:
        request = f"GET /v1/resolve/openuss HTTP/1.1\r\nHost: {host.address}\r\n\r\n".encode()
        for _ in range(1000):
            client.sendall(request * 50)
            client.recv(65536)


def attacks(host: Host, listeners: list[int]) -> list[Callable[[], Any]]:
    """Return all that a user without a credential can do."""

    def reports() -> None:
        for port in listeners:
            asked(host, "/v1/report", {"service": SERVICE, "address": host.address, "port": port})

    numbers = count()
    return [
        lambda: guess(host, next(numbers) % 60000 + 1),
        reports,
        lambda: half_requests(host, over_tcp=True),
        lambda: half_requests(host, over_tcp=False),
        lambda: asked(host, f"/v1/dependencies/x{next(numbers)}.web"),
        lambda: asked(host, f"/v1/watch?service=x{next(numbers)}.openuss"),
        lambda: pipelined(host),
    ]


def registrations(host: Host, token: str, seconds: float) -> list[float]:
    """Right registrations, one after the other, by a user who is not trusted either; what each took."""
    took, until = [], time.monotonic() + seconds
    api = HostApi(ApiEndpoint(path=str(host.socket)))
    port = 0
    while time.monotonic() < until:
        port = port % 50 + 1
        began = time.monotonic()
        outcome = api.register(LocalRegister(SERVICE, 1000 + port, token, weight=port))
        took.append(time.monotonic() - began)
        assert outcome.state == "up"
        time.sleep(0.01)
    return took


def p99(took: list[float]) -> float:
    return sorted(took)[int(len(took) * 0.99)]


@pytest.fixture
def open_deployment(authority: Credentials) -> Iterator[Deployment]:
    """A deployment whose sockets other users can reach, as they are in /run."""
    with open_directory() as directory, Deployment(directory, authority) as deployment:
        deployment.start()
        yield deployment


LOADED_SECONDS = 0.5
"""Room for a machine on which other tests run; the long form, which has the machine for itself, has less."""


def under_attack(deployment: Deployment, seconds: float, room: float) -> None:
    """Measure in quiet, then again while a user does everything at once."""
    web, storage = deployment.add_hosts("web", "storage")
    deployment.register(web, "portal.web")
    services = [deployment.run(storage, SERVICE) for _ in range(3)]
    ports, token, alice = [one.port for one in services], deployment.token(SERVICE), ANOTHER_USER + 1
    # The first registrations of a service are slower.
    as_another_user(lambda: registrations(storage, token, 0.5), alice)
    quiet = as_another_user(lambda: registrations(storage, token, min(seconds, 5.0)), alice)
    within(10, lambda: set(ports) <= set(storage_ports(web)), "web knows the listeners")
    programs = storage.daemon, deployment.server
    before, revision = [resident(program) for program in programs], deployment.revision
    with another_user_does(*attacks(storage, ports)):
        busy = as_another_user(lambda: registrations(storage, token, seconds), alice)
        assert set(ports) <= set(storage_ports(web)), "what is reported falsely is given out"
        services[0].signal(signal.SIGKILL)
        killed = time.monotonic()
        within(1 + room, lambda: ports[0] not in storage_ports(web), "the death is notified")
        notified = time.monotonic() - killed
        assert set(ports[1:]) <= set(storage_ports(web))
        grown = [resident(program) - at for program, at in zip(programs, before, strict=True)]
    assert p99(busy) <= 2 * p99(quiet) + room, (p99(quiet), p99(busy), len(busy))
    operations = Counter(entry.change.operation for entry in deployment.updates(revision))
    times = p99(busy) / p99(quiet)
    print(f"\np99 of {len(quiet)} registrations in quiet {1000 * p99(quiet):.1f} ms")
    print(f"p99 of {len(busy)} in {seconds:g} s of attacks {1000 * p99(busy):.1f} ms, {times:.2f} times")
    print(f"death notified after {1000 * notified:.0f} ms; RSS of daemon and server grown by {grown} MiB; {operations}")
    # Nothing but the right registrations and the death: no row of the attacker's.
    assert operations["register"] <= len(busy) and operations["died"] == operations["alert"] == 1, operations
    assert set(operations) == {"register", "died", "alert"}, operations
    assert {host.name: len(host.services) for host in host_rows(deployment)}[storage.name] == 1
    assert max(grown) < GROWTH_MAX
    for program in programs:
        assert len(program.log.read_text().splitlines()) < LOG_LINES_MAX


def storage_ports(host: Host) -> list[int]:
    """The ports of the attacked service that a lookup on a host gives."""
    source, ports = host.resolved(SERVICE)
    return ports if source == "service" else []


def host_rows(deployment: Deployment) -> list[HostRow]:
    return [row for row in deployment.ask(Fetch("host"), Rows).rows if isinstance(row, HostRow)]


def test_a_user_who_does_everything_costs_the_others_nothing(open_deployment: Deployment) -> None:
    """Right registrations are answered as in quiet, a death is notified, lookups by others are right, the central log
    and the daemon's memory do not grow."""
    under_attack(open_deployment, 4, LOADED_SECONDS)


@pytest.mark.long
def test_a_user_who_does_everything_for_a_minute_costs_the_others_nothing(open_deployment: Deployment) -> None:
    """The same for 60 s."""
    under_attack(open_deployment, 60, 0.05)


def test_half_requests_leave_room_for_others(open_deployment: Deployment) -> None:
    """W2: a user has a number of connections on the port and the socket together, and the next is closed; another user
    asks at once meanwhile."""
    (host,) = open_deployment.add_hosts("web")
    alice = ANOTHER_USER + 1

    def hold() -> None:
        held = [raw(host, over_tcp) for over_tcp in (True, False) for _ in range(CONNECTIONS_PER_USER_MAX)]
        for client in held:
            with contextlib.suppress(OSError):
                client.sendall(b"POST /v1/regis")
        time.sleep(60)

    with another_user_does(hold):
        within(10, lambda: len(connections_of(host)) >= CONNECTIONS_PER_USER_MAX, "the user's connections are open")
        time.sleep(0.5)
        assert len(connections_of(host)) <= CONNECTIONS_PER_USER_MAX + 4
        status = as_another_user(lambda: HostApi(ApiEndpoint(path=str(host.socket))).status().host, alice)
        assert status == host.name and as_another_user(lambda: asked(host, "/v1/status")[0], alice) == 200


def connections_of(host: Host) -> list[str]:
    """The sockets of a daemon, its own few included."""
    found = []
    for one in Path(f"/proc/{host.daemon.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if one.readlink().name.startswith("socket:"):
                found.append(one.name)
    return found
