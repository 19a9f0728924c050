"""Passer-by: with the server stopped, hosts go on, through their own restarts; and no restart shows as a flap."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from compass.model.host_api import LocalReport
from compass.model.rows import Listener
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import eventually

ENDINGS = (signal.SIGKILL, signal.SIGTERM)


class World:
    """Two hosts that depend on storage, and the hosts of storage and of the backup service."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.web, self.other, self.storage, self.rescue = deployment.add_hosts("web", "other", "storage", "rescue")
        self.backup = deployment.register(self.rescue, "emergency.rescue")
        # Both hosts ask once, as their programs do at their start; from then on they are notified.
        for host in (self.web, self.other):
            host.api.dependencies("portal.web")

    def register(self, service: str) -> int:
        """A listener of storage that is up, and that both dependants know; its port."""
        port = self.deployment.register(self.storage, service).port
        self.known(service, port)
        return port

    def known(self, service: str, port: int) -> None:
        """Wait until both dependants resolve to this port alone."""
        for host in (self.web, self.other):
            host.resolves(service, "service", [port])

    def saved(self) -> None:
        """Wait until a kill -9 takes nothing from either dependant."""
        for host in (self.web, self.other):
            host.saved()


@pytest.fixture(scope="module")
def shared(deployment: Deployment) -> World:
    """The module's hosts."""
    return World(deployment)


@pytest.fixture
def world(shared: World) -> World:
    """Return the deployment with its server up and every host in session, also after a test that left it otherwise."""
    for program in (shared.deployment.server, *(host.daemon for host in shared.deployment.hosts.values())):
        if not program.runs:
            program.start()
    shared.deployment.serves()
    for host in shared.deployment.hosts.values():
        host.in_session()
    return shared


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that serves nothing, and that can be registered and die."""
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield started
    started.kill()
    started.wait()


def test_every_host_resolves_with_the_server_stopped_and_after_its_own_restart(world: World) -> None:
    """Issue 2, line 5: "With the server stopped: resolve answers from every host, also after opengnscd was
    restarted"; P7, G17, G18. The listeners themselves, not a backup; by kill -9 and by SIGTERM.
    """
    port = world.register("northeast.openuss")
    world.saved()
    world.deployment.server.stop()
    for host in (world.web, world.other):
        assert host.resolved("northeast.openuss") == ("service", [port])
        for ending in ENDINGS:
            host.restart(ending)
            asked = world.deployment.opengnsc(host, "resolve", "northeast.openuss")
            assert (asked.returncode, asked.stdout) == (0, f"{world.storage.address}:{port}\n"), asked.stderr
            pulled = host.api.dependencies("portal.web")
            assert [category.category for category in pulled.categories] == ["openuso", "openuss"]
            status = host.status()
            assert status is not None
            assert (status.loaded, status.session == "open") == (True, False)


def test_the_backup_answers_for_a_service_that_was_lost_before_the_server_stopped(world: World) -> None:
    """Issue 2, line 5: "with all listeners of a service reported dead before that, it answers with the backup"; G10.
    Also after the host's own restart.
    """
    deployment = world.deployment
    outcome = deployment.register(world.storage, "northwest.openuss")
    world.known("northwest.openuss", outcome.port)
    assert deployment.report(world.web, outcome).state == "suspect"
    dead = ("northwest.openuss", outcome.port)
    eventually(lambda: deployment.listeners()[dead].state == "down", "the probe confirms the report")
    for host in (world.web, world.other):
        host.resolves("northwest.openuss", "backup", [world.backup.port])
    world.saved()
    deployment.server.stop()
    for host in (world.web, world.other):
        assert host.resolved("northwest.openuss") == ("backup", [world.backup.port])
        for ending in ENDINGS:
            host.restart(ending)
            asked = deployment.opengnsc(host, "resolve", "northwest.openuss")
            assert (asked.returncode, asked.stdout) == (0, f"{world.rescue.address}:{world.backup.port}\n")


def test_a_report_with_the_server_stopped_sends_this_host_to_the_backup_and_is_delivered_later(world: World) -> None:
    """P7 and P8: a host stops using what its programs found dead also with every server down; the server hears of it
    when it is back, and then every host does.
    """
    deployment = world.deployment
    port = world.register("chinaserver.openuss")
    deployment.server.stop()
    eventually(lambda: (world.web.status() or world.web.api.status()).session != "open", "the session is over")
    said = world.web.api.report(LocalReport("chinaserver.openuss", world.storage.address, port))
    assert said.state == "pending"
    assert world.web.resolved("chinaserver.openuss") == ("backup", [world.backup.port])
    assert world.other.resolved("chinaserver.openuss") == ("service", [port])
    deployment.server.start()
    deployment.serves()
    for host in (world.web, world.other):
        host.resolves("chinaserver.openuss", "backup", [world.backup.port])
    eventually(lambda: deployment.listeners()["chinaserver.openuss", port].state == "down", "it is down")


def test_a_service_registered_while_the_server_is_stopped_is_in_the_log_afterwards(world: World) -> None:
    """G1 and P7: the host keeps what it cannot deliver ("pending"), through a kill -9 of its own, and delivers it."""
    deployment = world.deployment
    deployment.token("account.openuso")
    before = deployment.revision
    deployment.server.stop()
    outcome = deployment.register(world.storage, "account.openuso")
    assert outcome.state == "pending"
    world.storage.restart(signal.SIGKILL)
    deployment.server.start()
    deployment.serves()
    place = ("account.openuso", outcome.port)
    eventually(lambda: place in deployment.listeners(), "it is delivered")
    entries = [(e.operation, e.subject, e.address, e.port, e.state) for e in deployment.updates(before)]
    # With it the host begins to watch on the service's behalf: one commit.
    assert entries[0] == ("register", "account.openuso", world.storage.address, outcome.port, "up")
    assert [operation for operation, *_ in entries[1:]] == ["host-watch"]
    assert deployment.listeners()[place].epoch == outcome.epoch


def test_the_server_restarts_and_nobody_notices(world: World) -> None:
    """A restart of the server is no flap: hosts resume from where they were, with no notice and no new snapshot, and
    re-establish what is registered without a change in the log.
    """
    deployment = world.deployment
    dependants = [deployment.watch(world.web), deployment.watch(world.other)]
    marks = [dependant.mark() for dependant in dependants]
    rows, revision = deployment.listeners(), deployment.revision
    for ending in ENDINGS:
        deployment.server.kill() if ending == signal.SIGKILL else deployment.server.stop()
        deployment.server.start()
        deployment.serves()
        begun = time.monotonic()
        for host in deployment.hosts.values():
            host.in_session()
        print(f"\nall hosts are back {1000 * (time.monotonic() - begun):.0f} ms after the server")
        eventually(lambda: _all_registered(world.storage), "it is re-established")
    # A change that is sent at the end, so that what did not come before it did not come.
    last = deployment.register(world.storage, "account.openuso")
    for dependant, mark in zip(dependants, marks, strict=True):
        dependant.told("account.openuso", "up", last.port)
        assert len(dependant.since(mark)) == 1, dependant.since(mark)
    assert [entry.number for entry in deployment.updates(revision)] == [last.revision]
    assert {place: row for place, row in deployment.listeners().items() if place != (last.service, last.port)} == rows


def test_a_host_daemon_that_is_killed_leaves_its_services_registered(
    world: World, process: subprocess.Popen[bytes]
) -> None:
    """G21: "its restart loses nothing"; and dependants see no flap: not a notice from the kill to the end."""
    deployment = world.deployment
    port = free_port(world.storage.address)
    outcome = deployment.register(world.storage, "account.openuso", port, pid=process.pid)
    dependant = deployment.watch(world.web)
    mark, rows, revision = dependant.mark(), deployment.listeners(), deployment.revision
    world.storage.daemon.kill()
    eventually(lambda: not deployment.lags()[world.storage.name].session, "the server sees the session end")
    assert deployment.listeners() == rows
    world.storage.daemon.start()
    world.storage.in_session()
    eventually(lambda: _all_registered(world.storage), "it is re-established")
    last = deployment.register(world.storage, "account.openuso")
    dependant.told("account.openuso", "up", last.port)
    assert len(dependant.since(mark)) == 1
    assert [entry.number for entry in deployment.updates(revision)] == [last.revision]
    # And it watches the process again.
    mark = dependant.mark()
    process.kill()
    dependant.told("account.openuso", "offline", outcome.port, mark)


def test_a_process_that_died_while_the_host_daemon_was_down_is_reported_at_its_restart(
    world: World, process: subprocess.Popen[bytes]
) -> None:
    """P9: "no dead entries". Its end is recorded as a death, which alerts administrators."""
    deployment = world.deployment
    outcome = deployment.register(world.storage, "northwest.openuss", pid=process.pid)
    dependant = deployment.watch(world.web)
    mark = dependant.mark()
    world.storage.daemon.kill()
    process.kill()
    process.wait()
    world.storage.daemon.start()
    dependant.told("northwest.openuss", "offline", outcome.port, mark)
    row = deployment.listeners()["northwest.openuss", outcome.port]
    assert isinstance(row, Listener)
    assert (row.state, row.cause) == ("offline", "its process ended")
    operations = [e.operation for e in deployment.updates(outcome.revision) if e.port == outcome.port]
    assert operations == ["died"]


def _all_registered(host: Host) -> bool:
    status = host.status()
    return status is not None and all(own.state == "registered" for own in status.registrations)
