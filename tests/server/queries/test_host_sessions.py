"""Sessions of hosts, where and since when: in `lag`, in `host list`, and as a stream of views (A1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compass.model.cluster import HostSessions
from compass.model.replies import HostLag, Lags, Refusal
from compass.model.requests import Lag, Register, Watch
from compass.server.queries.host_sessions import FOLLOWERS_MAX
from tests.support.agent_world import Hosts
from tests.support.virtual_world import ADMIN


@pytest.fixture
def world(disk: Path) -> Iterator[Hosts]:
    world = Hosts(1, disk)
    world.serve()
    world.serve("gns2")
    world.run(2.0)
    yield world
    for host in world.hosts.values():
        host.stop()
    for server in list(world.servers.values()):
        server.stop()
    world.store.close()


def followed(world: Hosts, server: str) -> list[HostSessions]:
    told: list[HostSessions] = []
    stop = world.servers[server].nameserver.https.follow_hosts(ADMIN, told.append)
    assert not isinstance(stop, Refusal)
    return told


def lag_at(world: Hosts, server: str, host: str) -> HostLag:
    reply = world.wait(world.servers[server].nameserver.https.ask_as(ADMIN, Lag()))
    assert isinstance(reply, Lags)
    (found,) = [lag for lag in reply.hosts if lag.host == host]
    return found


def test_sessions_begin_and_end_at_every_server(world: Hosts) -> None:
    """The views are numbered; the other server knows within a second or two, and without the origin."""
    world.uss()
    here, there = followed(world, "gns1"), followed(world, "gns2")
    assert [(one.view, one.hosts, one.complete) for one in (*here, *there)] == [(0, (), True)] * 2
    began = world.now()
    world.wait(world.daemon("web1").dependencies("www.web"))
    world.run(3.0)
    for told, origin, late in ((here, "web1", 1.0), (there, "", 3.0)):
        (session,) = told[1].hosts
        assert (session.host, session.state, session.server, session.origin) == ("web1", "open", "gns1", origin)
        assert began <= session.since <= began + late
    lag = lag_at(world, "gns1", "web1")
    assert lag.session and lag.server == "gns1" and lag.since == here[1].hosts[0].since and lag.origin == "web1"
    assert lag.software == here[1].hosts[0].software == "opengnscd" and there[1].hosts[0].software == ""
    world.hosts["web1"].crash()
    world.run(3.0)
    assert [one.hosts[0].state for one in (here[-1], there[-1])] == ["lost", "lost"]
    assert [one.view for one in here] == list(range(len(here)))
    assert not lag_at(world, "gns2", "web1").session


def test_a_watch_again_is_no_new_session(world: Hosts) -> None:
    world.uss()
    told = followed(world, "gns1")
    client = world.client(("host", "web1"))
    for _ in range(3):
        client.ask(Watch(("www.web",)))
    world.run(1.0)
    assert len(told) == 2
    late = followed(world, "gns1")
    assert late[0].complete and [one.host for one in late[0].hosts] == ["web1"]
    assert isinstance(client.ask(Register("www.web", "x", "10.0.0.1", 1, 1)), Refusal)


def test_so_many_may_follow(world: Hosts) -> None:
    """P10: one more is refused as busy, and a place is free when one ends."""
    api = world.servers["gns1"].nameserver.https
    stops = [api.follow_hosts(ADMIN, lambda told: None) for _ in range(FOLLOWERS_MAX)]
    refusal = api.follow_hosts(ADMIN, lambda told: None)
    assert isinstance(refusal, Refusal) and refusal.code == "busy"
    assert not isinstance(stops[0], Refusal)
    stops[0]()
    assert not isinstance(api.follow_hosts(ADMIN, lambda told: None), Refusal)
