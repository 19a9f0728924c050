"""Two machines with the certificate of one host, each at another server (W11)."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.requests import Fetch, Watch
from compass.server.cluster import double_sessions
from compass.server.cluster.double_sessions import DOUBLE_SECONDS
from compass.server.cluster.membership import BEAT_SECONDS
from tests.server.conftest import Uss
from tests.support.virtual_world import Client

SOON = 3 * BEAT_SECONDS


@pytest.fixture
def two(world: Uss) -> Uss:
    for name in ("gns1", "gns2"):
        world.wait(world.server(name).started)
    return world


def come(world: Uss, server: str, host: str = "web2") -> Client:
    client = world.client(("host", host), server)
    client.ask(Watch(("portal.web",), instance=server))
    world.run(SOON)
    return client


def alerts(world: Uss) -> list[Any]:
    return [alert.text for alert in world.admin().ask(Fetch("alert")).rows]


def test_two_machines_at_two_servers_are_an_incident_as_long_as_both_are_there(two: Uss) -> None:
    """Each keeps its session; the incident names the host, both servers and what to do."""
    first, second = come(two, "gns1"), come(two, "gns2")
    two.run(DOUBLE_SECONDS - 2 * SOON)
    assert not alerts(two)
    two.run(2 * SOON)
    (text,) = alerts(two)
    assert text.startswith("two machines are web2: ") and "gns1" in text and "gns2" in text and "bar web2" in text
    two.run(3 * DOUBLE_SECONDS)
    assert alerts(two) == [text] and first.ended is None and second.ended is None
    second.transport.loseConnection()
    two.run(DOUBLE_SECONDS + SOON)
    assert not alerts(two)


def test_a_daemon_that_goes_to_another_server_is_one_machine(two: Uss) -> None:
    """The old connection is lost within DOUBLE_SECONDS."""
    first = come(two, "gns1")
    come(two, "gns2")
    two.run(DOUBLE_SECONDS - 3 * SOON)
    first.transport.loseConnection()
    two.run(2 * DOUBLE_SECONDS)
    assert not alerts(two)


def test_an_incident_of_an_earlier_run_ends(two: Uss) -> None:
    """The server that opened it was restarted, and the host's sessions are over."""
    come(two, "gns1")
    come(two, "gns2")
    two.run(DOUBLE_SECONDS)
    assert alerts(two)
    for name in ("gns1", "gns2"):
        two.servers[name].crash()
    two.wait(two.server("gns1").started)
    two.run(DOUBLE_SECONDS + SOON)
    assert [text.partition(":")[0] for text in alerts(two)] == ["server gns2 has sent no heartbeat for some seconds"]


def test_the_hosts_that_are_checked_are_bounded(two: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(double_sessions, "HOSTS_CHECKED_MAX", 1)
    for host in ("web1", "web2"):
        come(two, "gns1", host)
        come(two, "gns2", host)
    two.run(DOUBLE_SECONDS)
    (text,) = alerts(two)
    assert text.startswith("two machines are web1: ")
