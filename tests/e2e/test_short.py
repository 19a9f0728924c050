"""Hosts that keep no session: they connect, ask and leave, and the server dials them when there is something new."""

from __future__ import annotations

import time

import msgspec
import pytest

from compass.model.replies import Done, Rows
from compass.model.requests import Fetch, Put
from compass.model.rows import Host as HostRow
from tests.e2e.deployment import Deployment, Host, free_port
from tests.e2e.processes import eventually
from tests.e2e.relay import Relay

REST_SECONDS = 1.0
REFRESH_SECONDS = 2.0
"""More than a short session lasts, so that there are moments without one."""


class World:
    """A host with short sessions behind a counting relay, and storage with a session that stays."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.relay: Relay = deployment.relay()
        self.storage: Host = deployment.add_host("storage")
        self.visitor: Host = deployment.add_host("visitor", port=self.relay.port, short=True)
        self.storage.in_session()
        self.visitor.answers()
        self.visitor.api.dependencies("portal.web")

    def alone(self, host: Host | None = None) -> None:
        """Wait until the visitor, or another host, keeps no session."""
        name = (host or self.visitor).name
        status = (host or self.visitor).status
        eventually(lambda: (found := status()) is not None and found.session != "open", "the host has left")
        eventually(lambda: not self.deployment.lags()[name].session, "the server has seen it")


@pytest.fixture(scope="module")
def world(deployment: Deployment) -> World:
    """Shared by the module's tests."""
    return World(deployment)


def test_a_host_without_a_session_is_dialled_and_told(world: World) -> None:
    """G17: "both sides listen: push and pull"; the server dials the host's Update listener, over TLS, and the host
    resumes from where it was. The host itself opens no connection for it.
    """
    deployment, visitor = world.deployment, world.visitor
    dependant = deployment.watch(visitor)
    world.alone()
    connections, mark = world.relay.connections, dependant.mark()
    begun = time.monotonic()
    outcome = deployment.register(world.storage, "northeast.openuss")
    taken = dependant.told("northeast.openuss", "up", outcome.port, mark) - begun
    print(f"\nregistration to a host that has to be dialled: {1000 * taken:.0f} ms")
    assert taken < 1
    assert visitor.resolved("northeast.openuss") == ("service", [outcome.port])
    assert world.relay.connections == connections
    lag = deployment.holds(visitor, outcome.revision)
    assert (lag.pending, lag.status) == (0, "ok")


def test_the_dialled_session_ends_and_the_next_notice_dials_again(world: World) -> None:
    """G18: "a host may keep no session at rest": neither its own nor the server's; and the next change still comes."""
    deployment, visitor = world.deployment, world.visitor
    dependant = deployment.watch(visitor)
    for _ in range(2):
        world.alone()
        mark = dependant.mark()
        outcome = deployment.register(world.storage, "northwest.openuss")
        dependant.told("northwest.openuss", "up", outcome.port, mark)
        assert len(dependant.since(mark)) == 1


def test_a_host_whose_push_is_blocked_converges_by_pulling(world: World) -> None:
    """G17: "push blocked: pull still converges". The server dials a place without a process; the host asks now and
    then by itself, and with that it also says again where it can be reached.
    """
    deployment, relay = world.deployment, world.deployment.relay()
    blocked = deployment.add_host("blocked", port=relay.port, short=True, refresh_seconds=REFRESH_SECONDS)
    blocked.answers()
    blocked.api.dependencies("portal.web")
    deployment.token("chinaserver.openuss")
    world.alone(blocked)
    row = deployment.ask(Fetch("host", name=blocked.name), Rows).rows[0]
    assert isinstance(row, HostRow)
    deployment.ask(Put(msgspec.structs.replace(row, update_port=free_port(blocked.address))), Done)
    connections = relay.connections
    outcome = deployment.register(world.storage, "chinaserver.openuss")
    begun = time.monotonic()
    blocked.resolves("chinaserver.openuss", "service", [outcome.port])
    taken = time.monotonic() - begun
    print(f"\nregistration to a host that cannot be dialled and asks every {REFRESH_SECONDS:g} s: {taken:.2f} s")
    assert relay.connections == connections + 1
    assert deployment.ask(Fetch("host", name=blocked.name), Rows).rows == (row,)


def test_a_host_that_registers_in_short_sessions_is_told_of_its_answer(world: World) -> None:
    """Connect, ask, leave: a registration of a host without a session is committed before it is answered."""
    deployment, visitor = world.deployment, world.visitor
    world.alone()
    outcome = deployment.register(visitor, "account.openuso")
    assert outcome.state == "up"
    assert deployment.listeners()["account.openuso", outcome.port].host == visitor.name
    world.alone()
    eventually(lambda: world.relay.flowing == 0, "the last connection is closed")
    connections, before = world.relay.connections, world.relay.octets
    time.sleep(REST_SECONDS)  # Nothing happens, so there is nothing to wait for.
    assert (world.relay.connections, world.relay.octets) == (connections, before)
