"""Checks of a host's own listeners end to end: a hung service without a caller is out of use, and comes back."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from compass.client import Client, OwnCheck
from compass.client.asyncio import Client as AsyncClient
from compass.model.host_api import CheckStatus
from compass.model.rows import Listener
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import eventually

SERVICE = "account.openuso"
"""Service whose category has the default probe, which sees a port and nothing else."""
QUIET_SECONDS = 1.5
OFTEN = ("--check-interval", "0.3", "--check-failures", "3", "--check-timeout", "0.3")
CONFIGURED = """
[[host.check]]
service = "{service}"
port = {port}
http = "/health"
interval_seconds = 0.2
failures = 2
"""


@pytest.fixture
def world(deploy: Deploy) -> Deployment:
    """A user, and two hosts with one listener each; all that `storage` says to the server is counted."""
    world = deploy()
    world.start()
    world.relayed = world.relay()  # type: ignore[attr-defined]
    for host in (world.add_host("web"), world.add_host("other"), world.add_host("storage", port=world.relayed.port)):  # type: ignore[attr-defined]
        host.in_session()
    return world


class Health:
    """HTTP service whose answer a test chooses."""

    def __init__(self, address: str, port: int) -> None:
        self.status = 200
        health = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(health.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((address, port), Answer)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@contextmanager
def healthy(address: str, port: int) -> Iterator[Health]:
    health = Health(address, port)
    try:
        yield health
    finally:
        health.server.shutdown()
        health.server.server_close()


def row_of(world: Deployment, port: int) -> Listener:
    return next(row for (_, at), row in world.listeners(SERVICE).items() if at == port)


def check_of(host: Host, port: int) -> CheckStatus | None:
    status = host.status()
    return next((own.own_check for own in status.registrations if own.port == port), None) if status else None


def hung(world: Deployment, seconds: float) -> None:
    """Seen when 2 of the issue: stopped, out of use after three checks, back; nothing was said on the wire before."""
    web, other, storage = (world.hosts[name] for name in ("web", "other", "storage"))
    spare = world.run(other, SERVICE)
    service = world.run(storage, SERVICE, given=OFTEN)
    dependant = world.watch(web)
    eventually(lambda: service.port in web.resolved(SERVICE)[1], "the user knows it")
    world.quiet(storage)
    relay = world.relayed  # type: ignore[attr-defined]
    eventually(lambda: (check := check_of(storage, service.port)) and check.ago_seconds >= 0, "it is checked")
    before = relay.octets
    time.sleep(seconds)
    assert relay.octets == before
    assert row_of(world, service.port).state == "up"
    service.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    dependant.told(SERVICE, "suspect", service.port)
    print(f"\nstopped to suspect {time.monotonic() - stopped:.2f} s")
    row = row_of(world, service.port)
    assert row.cause.startswith("its own check failed: does not accept the connections that wait at ")
    assert row.check == "accepts connections, every 0.3 s, fails after 3"
    assert web.resolved(SERVICE) == ("service", [spare.port])
    # The server's probe is answered by the kernel until the queue of the port is full; it brings no listener back.
    time.sleep(QUIET_SECONDS)
    assert row_of(world, service.port).state in ("suspect", "down")
    shown = world.opengnsadmin("listener", "show", SERVICE, f"{storage.address}:{service.port}")
    assert "fails: does not accept the connections" in shown and "check-failed, suspect" in shown
    said = world.opengnsc(storage, "status").stdout
    assert (
        "check accepts connections, every 0.3 s, fails after 3: " in said
        and " in a row, " in said
        and "FAILING" in said
    )
    mark = dependant.mark()
    service.signal(signal.SIGCONT)
    dependant.told(SERVICE, "up", service.port, mark)
    assert row_of(world, service.port).cause in ("its own check passes again", "answers the probe again")
    assert not row_of(world, service.port).failing


def test_a_stopped_service_that_nobody_calls_is_out_of_use(world: Deployment) -> None:
    hung(world, QUIET_SECONDS)


@pytest.mark.long
def test_a_minute_without_an_octet(world: Deployment) -> None:
    hung(world, 60.0)


def test_a_hung_service_is_restarted(world: Deployment) -> None:
    """--restart: the hung process is ended, and the next instance is up at once."""
    web, storage = world.hosts["web"], world.hosts["storage"]
    service = world.run(storage, SERVICE, given=(*OFTEN, "--restart", "on-failure"))
    dependant = world.watch(web)
    first = row_of(world, service.port).epoch
    service.signal(signal.SIGSTOP)
    dependant.told(SERVICE, "suspect", service.port)
    eventually(lambda: (row := row_of(world, service.port)).state == "up" and row.epoch > first, "the next one is up")


def test_what_runs_otherwise_is_checked_by_the_configuration(world: Deployment) -> None:
    """[[host.check]], for a listener that is registered by hand; the check goes on after a restart of the daemon."""
    other = world.hosts["other"]
    port = free_port(other.address)
    section = CONFIGURED.format(service=SERVICE, port=port)
    own = world.add_host("checked", sections=section)
    own.in_session()
    with healthy(own.address, port) as health:
        world.register(own, SERVICE, port)
        assert row_of(world, port).check == "GET /health, every 0.2 s, fails after 2"
        health.status = 503
        eventually(lambda: row_of(world, port).state == "suspect", "it is suspect")
        assert row_of(world, port).cause == "its own check failed: HTTP status 503"
        own.restart()
        own.in_session()
        assert row_of(world, port).state == "suspect"
        health.status = 200
        eventually(lambda: row_of(world, port).state == "up", "it is up again")


def test_a_program_names_its_check(world: Deployment) -> None:
    """The three faces of the library have `check`; the daemon makes it, or the program reports each result."""
    storage = world.hosts["storage"]
    port, token = free_port(storage.address), world.token(SERVICE)
    often = OwnCheck("http", "/health", interval_seconds=0.2, failures=2)
    with healthy(storage.address, port) as health:
        client = Client("portal.web", storage.url)
        with client.register(SERVICE, port, credential=token, address=storage.address, check=often):
            health.status = 404
            eventually(lambda: row_of(world, port).state == "suspect", "it is suspect")
            health.status = 399
            eventually(lambda: row_of(world, port).state == "up", "it is up again")

    async def reported() -> None:
        client = AsyncClient("portal.web", storage.url)
        mine = OwnCheck("reported", what="disk is there", interval_seconds=60, failures=1)
        options = {"credential": token, "address": storage.address, "check": mine}
        async with client.register(SERVICE, port, **options) as registration:  # type: ignore[arg-type]
            await registration.report_check("no disk\nat all")
            row = await asyncio.to_thread(eventually, lambda: suspect(world, port), "it is suspect")
            assert row.cause == "its own check failed: no disk\\u000aat all"
            assert row.check == "disk is there, every 60 s, fails after 1"
            await registration.report_check()
            await asyncio.to_thread(eventually, lambda: row_of(world, port).state == "up", "it is up again")
        await client.close()

    asyncio.run(reported())


def suspect(world: Deployment, port: int) -> Listener | None:
    row = row_of(world, port)
    return row if row.state == "suspect" else None


def test_a_silent_program_fails_its_own_check(world: Deployment) -> None:
    """A program that promised to report does not; and a check of another machine's address is refused."""
    storage = world.hosts["storage"]
    port, token = free_port(storage.address), world.token(SERVICE)
    client = Client("portal.web", storage.url)
    silent = OwnCheck("reported", interval_seconds=0.2, failures=2, timeout_seconds=0.1)
    with client.register(SERVICE, port, credential=token, address=storage.address, check=silent):
        row = eventually(lambda: suspect(world, port), "it is suspect")
        assert row.cause == "its own check failed: its program reported no result within 0.3 s"
    with pytest.raises(Exception, match=r"192\.0\.2\.9 is not an address of this host"):
        client.register(SERVICE, port, credential=token, address="192.0.2.9", check="/health")
