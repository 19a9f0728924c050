"""Hosts that register without watching are lost like any other: "Evidence is [...] the loss of the session of the host
that registered the listener" (P9)."""

from __future__ import annotations

import pytest

from compass.model.requests import Fetch, Register
from compass.model.rows import Listener, Policy
from tests.server.conftest import Uss
from tests.support.virtual_world import Client

CHINA = "chinaserver.openuss"
ADDRESS, PORT = "10.9.0.1", 2028


@pytest.fixture
def uss(world: Uss) -> Uss:
    """A world with one server and a host that watches: a server without any would distrust its own probes."""
    world.wait(world.server().started)
    assert not isinstance(world.wait(world.host("web1").daemon.dependencies("portal.web")), Exception)
    return world


def registrant(world: Uss, server: str = "gns1") -> Client:
    """Return the session of a program that registers as `tool1`, and watches nothing."""
    client = world.client(("host", "tool1"), server)
    reply = client.ask(Register(CHINA, world.tokens[CHINA], ADDRESS, PORT, 1))
    assert reply.state == "up"
    return client


def row_of(world: Uss, server: str = "gns1") -> Listener:
    catalogue = world.servers[server].nameserver.catalogue
    return catalogue.listener(CHINA, ADDRESS, PORT) or Listener(CHINA, ADDRESS, PORT, "offline", 0.0, 0)


def test_a_dead_listener_of_a_host_that_never_watched_is_found(uss: Uss) -> None:
    """After the grace time the listener is probed, and found dead."""
    client = registrant(uss)
    uss.dead.add((ADDRESS, PORT))
    uss.run(10.0)
    assert row_of(uss).state == "up" and not uss.servers["gns1"].probed
    client.transport.abortConnection()
    uss.run(Policy().grace_seconds - 0.1)
    assert not uss.servers["gns1"].probed
    uss.until(lambda: row_of(uss).state == "down", 5.0)


def test_a_living_listener_of_a_host_that_left_stays_up(uss: Uss) -> None:
    """A program may register, and leave: the probe is answered, and no host is notified."""
    client = registrant(uss)
    before = uss.servers["gns1"].nameserver.catalogue.revision
    client.transport.loseConnection()
    uss.run(600.0)
    assert uss.servers["gns1"].probed
    assert row_of(uss).state == "up" and uss.servers["gns1"].nameserver.catalogue.revision == before


def test_a_host_with_another_session_is_not_lost(uss: Uss) -> None:
    """The last session of the host counts, whether it has registered or only asks."""
    client, other = registrant(uss), uss.client(("host", "tool1"))
    other.ask(Fetch("service"))
    uss.dead.add((ADDRESS, PORT))
    client.transport.abortConnection()
    uss.run(2 * Policy().grace_seconds)
    assert row_of(uss).state == "up" and not uss.servers["gns1"].probed


def test_the_server_that_had_the_session_checks_the_listener(uss: Uss) -> None:
    """The loss is found whichever of the servers the host had registered with."""
    for server in ("gns2", "gns3"):
        uss.wait(uss.server(server).started)
    uss.run(10.0)
    client = registrant(uss, "gns3")
    uss.dead.add((ADDRESS, PORT))
    uss.until(lambda: row_of(uss).state == "up", 5.0)
    client.transport.abortConnection()
    uss.until(lambda: row_of(uss).state == "down", 15.0)
