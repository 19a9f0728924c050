"""Times until hosts are notified, and hosts that are not notified: on real processes, over TLS, with real signals."""

from __future__ import annotations

import signal
import socket
import statistics
import time
from contextlib import ExitStack

import pytest

from compass.model.host_api import LocalDeregister
from compass.model.replies import ServerStatus
from compass.model.requests import Status
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.relay import Relay
from tests.e2e.watching import Dependant

DEPENDANTS = 4
ROUNDS = 20
REST_SECONDS = 3.0
"""Long enough that a heartbeat of a second, or of two, would be seen."""


class World:
    """A host with storage services, hosts that depend on them, and one that does not, behind a counting relay."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.relay: Relay = deployment.relay()
        deployment.add_host("storage")
        deployment.add_host("stranger", port=self.relay.port)
        names = [f"web{number}" for number in range(DEPENDANTS)]
        for name in names:
            deployment.add_host(name)
        for host in deployment.hosts.values():
            host.in_session()
        self.storage: Host = deployment.hosts["storage"]
        self.stranger: Host = deployment.hosts["stranger"]
        # It has a service and watches; what it depends on is nothing.
        deployment.register(self.stranger, "account.openuso")
        self.bystander: Dependant = deployment.watch(self.stranger, "account.openuso")
        self.dependants = [deployment.watch(deployment.hosts[name]) for name in names]


@pytest.fixture(scope="module")
def world(deployment: Deployment) -> World:
    """Shared by the tests of this module; each uses ports of its own."""
    return World(deployment)


def last_told(dependants: list[Dependant], service: str, state: str, port: int) -> float:
    """Return the moment at which the last of them was notified."""
    return max(dependant.told(service, state, port) for dependant in dependants)


def test_a_registration_reaches_every_dependant_within_100_ms_and_nobody_else(world: World) -> None:
    """Issue 2, line 3: "a registration reaches every dependant in under 100 ms on this machine; hosts that do not
    depend on it receive no byte about it (counted in a test)"; G5. Measured from the program's call to the last notice,
    the commit to disk included.
    """
    deployment = world.deployment
    deployment.token("chinaserver.openuss")
    deployment.quiet(world.stranger)
    before, mark = world.relay.octets, world.bystander.mark()
    assert before > 0
    taken = []
    for _ in range(ROUNDS):
        port = free_port(world.storage.address)
        begun = time.monotonic()
        outcome = deployment.register(world.storage, "chinaserver.openuss", port)
        assert outcome.state == "up"
        taken.append(1000 * (last_told(world.dependants, "chinaserver.openuss", "up", port) - begun))
    print(
        f"\nregistration to the last of {DEPENDANTS} dependants: median {statistics.median(taken):.1f} ms, "
        f"worst of {ROUNDS} {max(taken):.1f} ms; octets to and from a host that does not depend: "
        f"{world.relay.octets - before}"
    )
    # The promise is of a machine that is not busy with something else; the median of several is that.
    assert statistics.median(taken) < 100
    assert world.relay.octets == before
    assert world.bystander.since(mark) == []


def test_a_killed_listener_is_out_of_use_everywhere_within_a_second(world: World) -> None:
    """Issue 2, line 3: "a listener killed with kill -9 under opengnsc run is down or offline for every dependant in
    under 1 s"; P9: "a killed process on a living host is gone within a second"; G16.
    """
    service = world.deployment.run(world.storage, "northeast.openuss")
    last_told(world.dependants, "northeast.openuss", "up", service.port)
    world.deployment.quiet(world.stranger)
    before = world.relay.octets
    begun = time.monotonic()
    service.signal(signal.SIGKILL)
    taken = last_told(world.dependants, "northeast.openuss", "offline", service.port) - begun
    print(f"\nkill -9 of a listener to the last of {DEPENDANTS} dependants: {1000 * taken:.1f} ms")
    assert taken < 1
    assert all(world.deployment.hosts[f"web{n}"].resolved("northeast.openuss")[1] == [] for n in range(DEPENDANTS))
    assert world.relay.octets == before
    assert service.program.ended() == 128 + signal.SIGKILL


def test_a_clean_stop_is_told_before_the_service_is_gone(world: World) -> None:
    """G6: "a clean stop: notice before the process is gone, pull no longer lists it". SIGTERM to `opengnsc run`."""
    service = world.deployment.run(world.storage, "northwest.openuss")
    last_told(world.dependants, "northwest.openuss", "up", service.port)
    service.program.stop()
    ended = time.monotonic()
    told = last_told(world.dependants, "northwest.openuss", "offline", service.port)
    # The program ends after the service; the service after the answer to its deregistration.
    print(f"\nnotified {1000 * (ended - told):.0f} ms before `opengnsc run` was over")
    assert told < ended
    pulled = world.deployment.hosts["web0"].api.dependencies("portal.web")
    assert service.port not in {
        peer.port for category in pulled.categories for own in category.services for peer in own.listeners
    }
    row = world.deployment.listeners("northwest.openuss")["northwest.openuss", service.port]
    assert (row.state, row.cause) == ("offline", "deregistered")


def test_a_listener_that_moves_keeps_its_name(world: World) -> None:
    """G25: "a listener moves: the id stays, dependants follow"."""
    deployment, web = world.deployment, world.deployment.hosts["web0"]
    old = deployment.register(world.storage, "account.openuso")
    last_told(world.dependants, "account.openuso", "up", old.port)
    new = deployment.register(world.stranger, "account.openuso")
    token = deployment.token("account.openuso")
    world.storage.api.deregister(LocalDeregister(old.service, old.port, token, epoch=old.epoch))
    last_told(world.dependants, "account.openuso", "offline", old.port)
    addresses = {(peer.address, peer.port) for peer in web.api.resolve("account.openuso").listeners}
    assert (new.address, new.port) in addresses
    assert (old.address, old.port) not in addresses


def test_at_rest_there_is_not_a_byte(world: World) -> None:
    """G15: "at rest: 0 application messages per service and minute"; there is nothing on the wire at all."""
    world.deployment.quiet(world.stranger)
    connections, before = world.relay.connections, world.relay.octets
    time.sleep(REST_SECONDS)  # Nothing happens, so there is nothing to wait for.
    print(f"\noctets of a session in {REST_SECONDS:g} s at rest: {world.relay.octets - before}")
    assert world.relay.octets == before
    assert world.relay.connections == connections == 1


def test_lag_proves_that_every_host_holds_the_change(world: World) -> None:
    """P12, first form: "for any revision the server can say which hosts hold it"."""
    deployment = world.deployment
    outcome = deployment.register(world.storage, "northwest.openuss")

    begun = time.monotonic()
    for number in range(DEPENDANTS):
        deployment.holds(deployment.hosts[f"web{number}"], outcome.revision)
    print(f"\nall acknowledgements seen {1000 * (time.monotonic() - begun):.1f} ms after the answer")
    for lag in deployment.lags().values():
        assert (lag.session, lag.pending, lag.status) == (True, 0, "ok"), lag


def test_fifty_services_share_one_session(world: World) -> None:
    """G21: "50 services share one; its restart loses nothing"."""
    deployment = world.deployment
    services = ", ".join(f'"s{number}"' for number in range(50))
    deployment.apply(f"[category.many]\nservices = [{services}]\n")
    host = deployment.add_host("many")
    host.in_session()
    # Each one listens: a restart that takes longer than the server waits for a lost session is followed by probes.
    with ExitStack() as open_ports:
        for number in range(50):
            port = free_port(host.address)
            open_ports.enter_context(socket.create_server((host.address, port)))
            assert deployment.register(host, f"s{number}.many", port).state == "up"
        assert_a_restart_loses_nothing(deployment, host)


def assert_a_restart_loses_nothing(deployment: Deployment, host: Host) -> None:
    """Kill a host daemon with 50 registrations and start it again: one session, and every listener as before."""
    with deployment.link() as link:
        status = link.ask(Status())
    assert isinstance(status, ServerStatus)
    # One session for each host, and the one that asks.
    assert status.sessions == len(deployment.hosts) + 1
    before = deployment.listeners("many")
    host.restart(signal.SIGKILL)
    host.in_session()
    again = host.status()
    assert again is not None
    assert {own.state for own in again.registrations} == {"registered"}
    assert len(again.registrations) == 50
    assert deployment.listeners("many") == before
