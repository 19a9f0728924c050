"""Failure reports end to end: evidence, verdict, recovery, and who is notified (functions 2.4 and 2.5)."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compass.model.host_api import LocalReport
from compass.model.replies import Reported, Rows
from compass.model.requests import Fetch, Report
from compass.model.rows import Alert
from tests.e2e.conftest import Deploy
from tests.e2e.deployment import WORLD, Deployment, Host, free_port
from tests.e2e.processes import eventually
from tests.e2e.watching import listener_of

CALLERS = 10
CONNECTIONS = 20


@pytest.fixture(scope="module")
def world(deployment: Deployment) -> Deployment:
    """Start two hosts that depend on storage, storage itself and the backup."""
    deployment.add_hosts("web", "other", "storage", "rescue")
    deployment.register(deployment.hosts["rescue"], "emergency.rescue")
    deployment.hosts["web"].api.dependencies("portal.web")
    return deployment


def test_a_hung_listener_is_suspect_then_down_and_up_again_when_it_answers(world: Deployment) -> None:
    """2.5 and P8: a hung service (SIGSTOP) still accepts connections, so only a probe of what it serves shows it.
    `suspect` goes out at once, then the verdict `down`; when it goes on (SIGCONT), the probe finds it `up`.
    """
    web, other, storage = (world.hosts[name] for name in ("web", "other", "storage"))
    service = world.run(storage, "northeast.openuss")
    dependant = world.watch(other)
    eventually(lambda: service.port in web.resolved(service.name)[1], "the reporter knows it")
    service.signal(signal.SIGSTOP)
    begun = time.monotonic()
    web.api.report(LocalReport(service.name, storage.address, service.port, reporter="portal.web", detail="no answer"))
    suspect = dependant.told(service.name, "suspect", service.port) - begun
    down = dependant.told(service.name, "down", service.port) - begun
    mark = dependant.mark()
    service.signal(signal.SIGCONT)
    goes_on = time.monotonic()
    up = dependant.told(service.name, "up", service.port, mark) - goes_on
    print(f"\nreport to suspect {1000 * suspect:.1f} ms, to down {down:.2f} s (2 probes of 0.3 s); back up {up:.2f} s")
    assert suspect < 0.1
    assert down < 2
    operations = [e.operation for e in world.updates() if (e.subject, e.port) == (service.name, service.port)]
    assert operations == ["register", "report", "confirm", "recover"]
    shown = world.opengnsadmin("listener", "show", service.name, f"{storage.address}:{service.port}")
    for word in ("reported by web.example.net", "no answer within 0.3 s", "found the same", "recover, up"):
        assert word in " ".join(shown.split()), shown


def test_a_false_report_removes_nothing_healthy(world: Deployment) -> None:
    """P8: "a false report removes nothing healthy". The probe retracts it, and no alert is raised."""
    web, other, storage = (world.hosts[name] for name in ("web", "other", "storage"))
    service = world.run(storage, "northwest.openuss")
    dependant = world.watch(other)
    eventually(lambda: service.port in web.resolved(service.name)[1], "the reporter knows it")
    mark = dependant.mark()
    revision = world.revision
    assert web.api.report(LocalReport(service.name, storage.address, service.port)).state == "up"
    assert world.updates(revision) == [], "the host's own probe refutes it"
    # As a host reports that cannot reach what others can.
    report = Report(service.name, storage.address, service.port)
    assert world.ask(report, Reported, world.identity_of(web)).state == "suspect"
    dependant.told(service.name, "suspect", service.port, mark)
    dependant.told(service.name, "up", service.port, mark)
    assert [name for name in _alerts(world) if f":{service.port}" in name] == []
    eventually(lambda: service.port in web.resolved(service.name)[1], "the reporter uses it again")


def test_of_three_listeners_two_may_die_and_of_a_lost_service_the_backup_answers(world: Deployment) -> None:
    """G9: "3 listeners, kill 2: the third is still offered, the service is still up"; G10: "kill all three: lookups
    give the backup's listeners, and back after recovery".
    """
    web, storage = world.hosts["web"], world.hosts["storage"]
    name = "chinaserver.openuss"
    backups = [place[1] for place in world.listeners("emergency.rescue")]
    services = [world.run(storage, name) for _ in range(3)]
    ports = sorted(service.port for service in services)
    web.resolves(name, "service", ports)
    for service in services[:2]:
        service.signal(signal.SIGKILL)
    web.resolves(name, "service", [services[2].port])
    services[2].signal(signal.SIGKILL)
    web.resolves(name, "backup", backups)
    again = world.run(storage, name)
    web.resolves(name, "service", [again.port])


def test_slow_is_for_administrators_only_until_the_policy_says_otherwise(world: Deployment) -> None:
    """G13: ""slow" goes to administrators only; the policy is the server's": 0 notices, 1 alert for two reports; with
    another policy of the category, a notice.
    """
    web, other, storage = (world.hosts[name] for name in ("web", "other", "storage"))
    first = world.register(storage, "account.openuso")
    dependant = world.watch(other)
    eventually(lambda: first.port in web.resolved("account.openuso")[1], "the reporter knows it")
    mark = dependant.mark()

    def complain(port: int) -> str:
        return web.api.report(LocalReport("account.openuso", storage.address, port, "slow")).state

    assert [complain(first.port), complain(first.port)] == ["up", "up"]
    assert [alert for alert in _alerts(world) if "account" in alert] == [
        f"slow account.openuso {storage.address}:{first.port}"
    ]
    world.apply(WORLD.replace("[category.openuso]", '[category.openuso]\nslow = "notify"'))
    second = world.register(storage, "account.openuso")
    dependant.told("account.openuso", "up", second.port, mark)
    assert complain(second.port) == "slow"
    dependant.told("account.openuso", "slow", second.port, mark)
    # The first complaints were about another listener; of this one there was no notice.
    rows = [listener_of(event) for event in dependant.since(mark)]
    assert [row.port for row in rows if row is not None] == [second.port, second.port]


def test_administrators_are_alerted_once_per_incident_by_a_command(deploy: Deploy, tmp_path: Path) -> None:
    """G14: "once per incident, not per report". Two hosts report the same listener; the configured command runs
    once when the incident begins and once when it is over.
    """
    told = tmp_path / "alerts"
    deployment = deploy(alert_command=["/bin/sh", "-c", f"cat >> {told}; echo >> {told}"])
    deployment.start()
    web, other, storage = deployment.add_hosts("web", "other", "storage")
    outcome = deployment.register(storage, "account.openuso")
    for host in (web, other):
        host.api.dependencies("portal.web")
        deployment.report(host, outcome)
    eventually(lambda: deployment.listeners()["account.openuso", outcome.port].state == "down", "it is down")
    for host in (web, other):
        deployment.report(host, outcome)
    with socket.create_server((storage.address, outcome.port)):
        deployment.register(storage, "account.openuso", outcome.port)

    def news() -> list[tuple[str, str]]:
        lines = told.read_text().splitlines() if told.exists() else []
        return [(entry["event"], entry["kind"]) for entry in map(json.loads, filter(None, lines))]

    eventually(lambda: len(news()) >= 2, "the command has run for the end of the incident")
    assert news() == [("opened", "failure"), ("resolved", "failure")]


class Counted:
    """A listener in this process that counts who connects, and that can die."""

    def __init__(self, address: str) -> None:
        self.connections = 0
        self._listening = socket.create_server((address, 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No one listens any more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            accepted.close()


@pytest.fixture
def listeners() -> Iterator[list[Counted]]:
    """Return the sockets that a test has opened."""
    opened: list[Counted] = []
    yield opened
    for listener in opened:
        listener.close()


def _call(host: Host, name: str) -> int | None:
    """Do what a caller does: resolve, connect to the best. Returns the port that it found dead, if any."""
    best = host.api.resolve(name).listeners[0]
    try:
        socket.create_connection((best.address, best.port), 1.0).close()
    except OSError:
        return best.port
    return None


def test_one_caller_meets_the_dead_listener_and_the_others_never_do(deploy: Deploy, listeners: list[Counted]) -> None:
    """G12: "1 of N callers meets a dead server; the other N-1 never connect to it afterwards" (N = 10). Each caller
    is a host of its own; after the first has met the dead listener and reported it, no caller is sent there again.
    """
    deployment = deploy()
    deployment.start()
    callers = [deployment.add_host(f"caller{number}") for number in range(CALLERS)]
    storage = deployment.add_host("storage")
    for host in (*callers, storage):
        host.in_session()
    listeners += [Counted(storage.address) for _ in range(2)]
    living, dead = listeners
    for listener in listeners:
        deployment.register(storage, "account.openuso", listener.port)
    for host in callers:
        host.api.dependencies("portal.web")
        host.resolves("account.openuso", "service", [living.port, dead.port])
    dead.close()
    listeners.remove(dead)
    met = eventually(lambda: _call(callers[0], "account.openuso"), "one caller meets the dead one")
    assert met == dead.port
    begun = time.monotonic()
    callers[0].api.report(LocalReport("account.openuso", storage.address, dead.port, reporter="portal.web"))
    for host in callers:
        host.resolves("account.openuso", "service", [living.port])
    taken = time.monotonic() - begun
    before = living.connections
    met_again = [_call(host, "account.openuso") for host in callers for _ in range(CONNECTIONS)]
    print(f"\n{CALLERS} callers know of the dead listener {1000 * taken:.1f} ms after the report of one")
    assert met_again == [None] * (CALLERS * CONNECTIONS)
    # The host of the listener tries a registration at its address, too.
    eventually(lambda: living.connections - before >= CALLERS * CONNECTIONS, "all went to the living one")
    assert taken < 1


def test_a_refused_connection_needs_no_patience(deploy: Deploy) -> None:
    """2.5: with the default policy of a category that is probed over HTTP, a port without a process is `down` after
    two refused connections with a pause of 0.1 s between them; there is nothing to wait for.
    """
    deployment = deploy()
    deployment.start(WORLD.replace("probe_timeout_seconds = 0.3\n", ""))
    web, storage = deployment.add_hosts("web", "storage")
    outcome = deployment.register(storage, "northeast.openuss", free_port(storage.address))
    dependant = deployment.watch(web)
    begun = time.monotonic()
    deployment.report(web, outcome)
    taken = dependant.told("northeast.openuss", "down", outcome.port) - begun
    print(f"\nreport of a refused connection to `down`: {1000 * taken:.0f} ms")
    assert taken < 0.4


def _alerts(deployment: Deployment) -> list[str]:
    return [row.id for row in deployment.ask(Fetch("alert"), Rows).rows if isinstance(row, Alert)]
