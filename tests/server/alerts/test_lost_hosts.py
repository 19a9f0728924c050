"""A host that has lost its session is an incident after the grace time, whatever server had it, until it is back."""

from __future__ import annotations

import pytest

from compass.model.cluster import SILENT_BEATS
from compass.model.replies import Lags
from compass.model.requests import Lag, Put, Remove, Watch
from compass.model.rows import Host
from compass.server.alerts import lost_hosts
from compass.server.alerts.lost_hosts import CHECK_SECONDS, GRACE_SECONDS
from tests.server.conftest import Uss
from tests.server.push.test_publisher import watcher

ID = "failure session of host web1"
LATE = GRACE_SECONDS + 2 * CHECK_SECONDS + 1.0


def incidents(world: Uss, server: str = "gns1") -> list[str]:
    """The open incidents about hosts without a session."""
    alerts = world.servers[server].nameserver.catalogue.alerts
    return sorted(id for id in alerts if id.startswith("failure session"))


def status(world: Uss, host: str = "web1") -> str:
    reply = world.admin("gns1").ask(Lag())
    assert isinstance(reply, Lags)
    return next(one.status for one in reply.hosts if one.host == host)


def test_a_lost_host_is_an_incident_until_it_is_back(world: Uss) -> None:
    """The lag says at once that it is lost; the incident waits for the grace time and ends with the next session."""
    server = world.server()
    host = watcher(world, "web1", "portal.web")
    world.run(LATE)
    assert incidents(world) == [] and status(world) != "lost"
    host.transport.loseConnection()
    world.run(1.0)
    assert status(world) == "lost" and server.nameserver.https.metrics().hosts_lost == 1
    world.run(GRACE_SECONDS - 2 * CHECK_SECONDS)
    assert incidents(world) == []
    world.run(3 * CHECK_SECONDS)
    assert incidents(world) == [ID]
    text = server.nameserver.catalogue.alerts[ID].text
    assert "host web1 has no session" in text and "opengnsadmin host remove web1" in text
    watcher(world, "web1", "portal.web")
    world.run(2 * CHECK_SECONDS)
    assert incidents(world) == [] and status(world) != "lost"
    assert server.nameserver.https.metrics().hosts_lost == 0


@pytest.mark.parametrize(
    "request_", [Remove("host", "web1"), Put(Host("web1", barred=True))], ids=["removed", "barred"]
)
def test_an_administrator_ends_it(world: Uss, request_: Remove | Put) -> None:
    """A host that is out of service for good is no incident."""
    world.server()
    watcher(world, "web1", "portal.web").transport.loseConnection()
    world.run(LATE)
    assert incidents(world) == [ID]
    world.admin().ask(request_)
    world.run(2 * CHECK_SECONDS)
    assert incidents(world) == []


def test_a_host_whose_server_died_is_found_by_another_one(world: Uss) -> None:
    """Both servers know; one opens the incident. The host that reconnects there is none."""
    for name in ("gns1", "gns2"):
        world.wait(world.server(name).started)
    for name in ("web1", "web2"):
        client = world.client(("host", name), "gns2")
        client.ask(Watch(("portal.web",)))
    world.run(3.0)
    world.servers["gns2"].crash()
    world.run(1.0)
    watcher(world, "web2", "portal.web")
    world.run(LATE + 10.0)
    assert incidents(world) == [ID]


@pytest.mark.parametrize(("hosts", "shared"), [(2, 0), (3, 1)])
def test_many_lost_hosts_share_an_incident(
    world: Uss, monkeypatch: pytest.MonkeyPatch, hosts: int, shared: int
) -> None:
    """A switch that fails is one message beyond the limit, and it ends when the hosts are back."""
    monkeypatch.setattr(lost_hosts, "NAMED_MAX", 2)
    world.server()
    watcher(world, "other", "portal.web")
    for number in range(hosts):
        watcher(world, f"web{number}", "portal.web").transport.loseConnection()
    world.run(LATE)
    assert len(incidents(world)) == 2 + shared
    for number in range(hosts):
        watcher(world, f"web{number}", "portal.web")
    world.run(3 * CHECK_SECONDS)
    assert incidents(world) == []


def test_a_silent_server_is_an_incident_until_it_is_back(world: Uss) -> None:
    """The incident opens within seconds; a server that stops in order, or is alone, has none."""
    for name in ("gns1", "gns2", "gns3"):
        world.wait(world.server(name).started)
    world.run(2.0)

    def silent() -> list[str]:
        alerts = world.servers["gns1"].nameserver.catalogue.alerts
        return [id for id in alerts if id.startswith("failure silence of server")]

    world.servers["gns3"].nameserver.stop()
    world.run(20.0)
    assert silent() == []
    world.servers["gns2"].crash()
    world.run(SILENT_BEATS + 2 * CHECK_SECONDS)
    assert silent() == ["failure silence of server gns2"]
    world.wait(world.server("gns2").started)
    world.run(3 * CHECK_SECONDS)
    assert silent() == []


def test_a_server_that_has_lost_all_hosts_reports_one_thing(world: Uss) -> None:
    """The servers are cut off, or all hosts are: a message for each would hide that."""
    world.server()
    for number in range(3):
        watcher(world, f"web{number}", "portal.web").transport.loseConnection()
    world.run(LATE)
    assert incidents(world) == ["failure sessions of other hosts"]
    for number in range(3):
        watcher(world, f"web{number}", "portal.web")
    world.run(3 * CHECK_SECONDS)
    assert incidents(world) == []
