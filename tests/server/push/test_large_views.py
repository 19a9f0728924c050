"""Views that are larger than a frame: they load in parts, and who cannot load them is an alert (P5, P10, P13)."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.catalogue.interest import dependencies_of, interest
from compass.model.replies import Refusal, Watching
from compass.model.requests import Pull, Put, Register, Remove, Status, Watch
from compass.model.rows import Category, Dependency, Listener, Service
from compass.server.alerts import refused_hosts
from compass.server.push import publisher, snapshot_cache, subscriptions
from compass.server.queries import pull_cache
from compass.wire import limits
from compass.wire.messages import Resync
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, watcher
from tests.support.virtual_world import Client

COUNT = 40
METADATA = {f"k{number:02}": "v" * 255 for number in range(16)}
"""4 kB; 40 such listeners are several frames of the length that these tests set."""
REFUSAL = "failure refusal of host web1"


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of 64 KiB and streams from there on, so that 170 kB are a large view."""
    monkeypatch.setattr(limits, "FRAME_MAX_FROM_SERVER", 65_536)
    monkeypatch.setattr(limits, "PART_OCTETS_MAX", 4_096)
    for module in (snapshot_cache, subscriptions, pull_cache):
        monkeypatch.setattr(module, "STREAMED_OCTETS_MIN", 65_536)
    monkeypatch.setattr(publisher, "WIDENING_OCTETS_MAX", 65_536)


def fill(world: Uss, client: Client, count: int = COUNT, service: str = CHINA) -> None:
    """Register listeners with much metadata."""
    numbers = [
        client.send(Register(service, world.tokens[service], "192.168.2.1", 2000 + n, 1, metadata=METADATA))
        for n in range(count)
    ]
    world.until(lambda: all(number in client.replies for number in numbers))


def ports(rows: Any) -> set[int]:
    return {row.port for row in rows if isinstance(row, Listener)}


def alerts(world: Uss) -> dict[str, str]:
    return {alert.id: alert.text for alert in world.admin().ask(Status()).alerts}


def test_a_large_view_is_watched_and_pulled_whole(world: Uss) -> None:
    """B1: what cut every dependant off loads; the changes after it are pushed."""
    server = world.server()
    store = world.client(("host", "store1"))
    fill(world, store)
    client = watcher(world, "web1", "portal.web", resync=True)
    assert ports(client.watching.snapshot.rows) == set(range(2000, 2000 + COUNT))
    catalogue = server.nameserver.catalogue
    assert set(client.watching.snapshot.topics) == interest(catalogue, ["portal.web"])
    assert client.ask(Pull("portal.web")) == dependencies_of(catalogue, "portal.web")
    assert client.ask(Pull("PORTAL.web")).categories == client.ask(Pull("portal.web")).categories
    store.ask(Register(CHINA, world.tokens[CHINA], "192.168.2.1", 1999, 1))
    world.until(lambda: bool(client.pushed))
    assert client.pushed[-1].change.row.port == 1999


def test_a_daemon_loads_a_large_view_and_keeps_it_over_a_restart(world: Uss) -> None:
    """Every host that depends on it has every listener, from a server and from its own disk."""
    world.server()
    fill(world, world.client(("host", "store1")))
    host = world.host("web1", services=("portal.web",))
    world.until(lambda: host.agent.components.replica.loaded)
    assert ports(host.agent.components.replica.catalogue.listeners[CHINA].values()) == set(range(2000, 2000 + COUNT))


def test_an_old_host_is_refused_as_before_and_administrators_are_alerted(world: Uss) -> None:
    """P13: a host without parts gets `too-large`, and is an incident until it is accepted."""
    world.server()
    store = world.client(("host", "store1"))
    fill(world, store)
    old = world.client(("host", "web1"), message_max=0)
    reply = old.ask(Watch(("portal.web",)))
    assert isinstance(reply, Refusal) and reply.code == "too-large"
    world.run(0.1)
    text = alerts(world)[REFUSAL]
    assert "refuses host web1" in text and "more than 65536 octets" in text
    new = watcher(world, "web1", "portal.web")
    new.connection.acknowledge(new.watching.revision)
    new.flush()
    world.run(0.1)
    assert REFUSAL not in alerts(world)


def test_an_old_host_watches_what_fits_into_a_frame(world: Uss) -> None:
    """P13: nothing changes for it."""
    world.server()
    fill(world, world.client(("host", "store1")), 5)
    old = world.client(("host", "web1"), message_max=0)
    reply = old.ask(Watch(("portal.web",)))
    assert isinstance(reply, Watching) and reply.snapshot is not None
    assert ports(reply.snapshot.rows) == set(range(2000, 2005))


def test_a_change_that_adds_much_comes_as_a_resync(world: Uss) -> None:
    """A dependency on a large category is no notice of its size, which the replay buffer would keep."""
    world.server()
    fill(world, world.client(("host", "store1")))
    admin = world.admin()
    admin.ask(Put(Category("shop"), True))
    admin.ask(Put(Service("cart.shop"), True))
    one = watcher(world, "shop1", "cart.shop", resync=True)
    other = watcher(world, "shop2", "cart.shop")
    held = one.watching.revision
    admin.ask(Put(Dependency("shop", "openuss"), True))
    world.until(lambda: bool(one.pushed) and other.lost)
    (resync,) = one.pushed
    assert isinstance(resync, Resync) and resync.snapshot.revision > held
    assert ports(resync.snapshot.rows) == set(range(2000, 2000 + COUNT))
    assert other.ended is not None and "resumes" in other.ended.reason
    # A host that resumes from before the change needs the addition, too.
    store = world.store.load().store
    again = watcher(world, "shop2", "cart.shop", since=held, store=store)
    assert ports(again.watching.snapshot.rows) == set(range(2000, 2000 + COUNT))


@pytest.mark.parametrize(
    ("services", "why"), [(("not a name",), "not a name"), (tuple(f"s{n}.web" for n in range(257)), "257 services")]
)
def test_a_watch_that_cannot_be_is_an_alert(world: Uss, services: tuple[str, ...], why: str) -> None:
    """Whatever the reason, the administrators of the servers learn of it."""
    world.server()
    reply = world.client(("host", "web1")).ask(Watch(services))
    assert isinstance(reply, Refusal)
    world.run(0.1)
    assert why in alerts(world)[REFUSAL]


@pytest.mark.parametrize(
    ("identity", "data", "why"),
    [
        (("server", "web1"), b"", "has the role server"),
        (("host", "web1"), b"\0\0\0\x17\0\0\0\0\x82\xa4type\xa5hello\xa8versions\x91\x09", "speaks OpenGNSP"),
        (("host", "web1"), b"\xff\xff\xff\xff\0\0\0\1", "a frame of"),
    ],
)
def test_a_host_that_is_refused_before_it_watches_is_an_alert(
    world: Uss, identity: tuple[str, str], data: bytes, why: str
) -> None:
    """A wrong role, a version that is not spoken, a violation."""
    server = world.server()
    world.wait(server.started)
    client = Client(world, identity)
    if data:
        client.connection.bytes_to_send()
    world.wait(world.network.connect("gns1", identity, lambda: client))
    if data:
        client.transport.write(data)
    world.until(lambda: client.lost)
    world.run(0.1)
    assert why in alerts(world)[REFUSAL]


def test_incidents_about_refused_hosts_are_bounded_and_end(world: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: NAMED_MAX hosts have one each, the others share one; all end when no host is refused any more."""
    monkeypatch.setattr(refused_hosts, "NAMED_MAX", 2)
    world.server()
    for name in ("a", "b", "c", "d", "a"):
        world.client(("host", name)).ask(Watch(("not a name",)))
    world.run(0.1)
    found = {id: text for id, text in alerts(world).items() if "refusal" in id}
    assert set(found) == {
        "failure refusal of host a",
        "failure refusal of host b",
        "failure refusal of other hosts by gns1",
    }
    assert "host c" in found["failure refusal of other hosts by gns1"]
    world.run(refused_hosts.REFUSAL_QUIET_SECONDS + 1)
    assert not {id for id in alerts(world) if "refusal" in id}


def test_an_incident_of_an_earlier_run_ends_as_well(world: Uss) -> None:
    """A server that starts continues with what is open."""
    server = world.server()
    world.client(("host", "web1")).ask(Watch(("not a name",)))
    world.run(0.1)
    assert REFUSAL in alerts(world)
    server.stop()
    world.server()
    world.run(refused_hosts.REFUSAL_QUIET_SECONDS + 5)
    assert REFUSAL not in alerts(world)


def test_a_removed_dependency_makes_a_large_view_small_again(world: Uss) -> None:
    """The server decides for each snapshot whether it is streamed or kept."""
    world.server()
    fill(world, world.client(("host", "store1")))
    admin = world.admin()
    admin.ask(Remove("dependency", "web openuss"))
    client = watcher(world, "web1", "portal.web")
    assert ports(client.watching.snapshot.rows) == set()
