"""Hosts that keep no session are dialled when they miss a notice, and only then (G10, G11, P12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from compass.model.host_api import Resolved
from compass.model.replies import HostLag, Watching
from compass.model.requests import Fetch, Lag, Put, ReadLog, Register, Remove, Watch
from compass.model.rows import Host
from compass.server.push import dialer
from compass.server.push.dialer import DIAL_PAUSE_SECONDS_MAX, START_GRACE_SECONDS
from tests.server.alerts.test_notifier import logged
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA
from tests.support.virtual_world import Client, SimulatedHost


class Dials:
    """Connections that the server dialled, with their times; `under_way`: those not answered yet."""

    def __init__(self, world: Uss) -> None:
        self._world = world
        self._connect = world.network.connect
        self.made: list[tuple[float, str]] = []
        world.network.connect = self  # type: ignore[method-assign]

    def __call__(
        self, machine: str, identity: tuple[str, str], make: Any, killed: Callable[[], bool] = lambda: False
    ) -> Deferred[Any]:
        if machine.endswith(":update"):
            self.made.append((self._world.clock.seconds(), machine.removesuffix(":update")))
        return self._connect(machine, identity, make, killed)

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.made]


@pytest.fixture
def dials(world: Uss) -> Dials:
    """The dials of a server that has been running for a while."""
    made = Dials(world)
    world.wait(world.server().started)
    world.run(START_GRACE_SECONDS + 1)
    return made


def leave_one(world: Uss, name: str = "web1") -> SimulatedHost:
    """A host that has asked for what `portal.web` depends on, and has left."""
    host = world.host(name, mode="short")
    world.wait(host.daemon.dependencies("portal.web"))
    world.until(lambda: not world.network.between(name, "gns1") and host.daemon.status().session != "open")
    return host


def held(host: SimulatedHost) -> list[int]:
    """The ports of chinaserver that the host knows."""
    resolved = host.daemon.resolve(CHINA)
    return sorted(row.port for row in resolved.listeners) if isinstance(resolved, Resolved) else []


def register(world: Uss, port: int) -> None:
    world.client(("host", "store1")).ask(Register(CHINA, world.tokens[CHINA], "192.168.2.1", port, 1))


def lag_of(world: Uss, name: str) -> HostLag:
    lag: HostLag = next(host for host in world.admin().ask(Lag()).hosts if host.host == name)
    return lag


def absent(world: Uss, name: str, services: tuple[str, ...] = ("portal.web",), **more: Any) -> None:
    """A host that only the catalogue knows; who listens there is up to the test."""
    world.admin().ask(Put(Host(name, "10.0.0.9", 4865, services, **more), True))


class Mute(Protocol):
    """A listener that accepts connections and sends nothing."""


class Listening:
    """Something that takes dialled connections; the protocols are in `taken`."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self.taken: list[Any] = []

    def buildProtocol(self, address: object) -> Any:
        self.taken.append(self._make())
        return self.taken[-1]


def test_a_host_that_left_is_dialled_and_gets_the_notice(world: Uss, dials: Dials) -> None:
    """A group of changes needs one dial; afterwards both sides close the connection."""
    host = leave_one(world)
    assert not dials.made
    register(world, 1)
    register(world, 2)
    assert world.until(lambda: held(host) == [1, 2]) < 0.5
    assert dials.names == ["web1"]
    world.until(lambda: lag_of(world, "web1").pending == 0)
    world.run(10.0)
    assert not world.network.between("gns1", "web1") and dials.names == ["web1"]
    register(world, 3)
    world.until(lambda: held(host) == [1, 2, 3])
    assert dials.names == ["web1", "web1"]


def test_hosts_that_are_not_concerned_are_not_dialled(world: Uss, dials: Dials) -> None:
    """A host that does not depend on the change, has no Update listener or has a session is not dialled."""
    absent(world, "uso", ("account.openuso",))
    world.admin().ask(Put(Host("web2", services=("portal.web",)), True))
    kept = world.host("web3", update_port=4865)
    world.wait(kept.daemon.dependencies("portal.web"))
    register(world, 1)
    world.until(lambda: held(kept) == [1])
    world.run(30.0)
    assert not dials.made


def test_a_host_that_cannot_be_reached_gets_the_notice_later(world: Uss, dials: Dials) -> None:
    """The server dials again after 1, 2, 4 s and so on, at most a minute; only the first failure is logged as info."""
    host = leave_one(world)
    world.network.stop_listening("web1:update")
    with logged() as log:
        register(world, 1)
        world.run(400.0)
        pauses = [round(later - sooner) for (sooner, _), (later, _) in zip(dials.made, dials.made[1:], strict=False)]
        assert pauses[:8] == [1, 2, 4, 8, 16, 32, DIAL_PAUSE_SECONDS_MAX, DIAL_PAUSE_SECONDS_MAX]
        missed = [line for line in log if "cannot be reached at 10.0.0.1:4865" in line]
        assert [line.partition(":")[0] for line in missed] == ["info"] + ["debug"] * (len(dials.made) - 1)
    world.network.listen("web1:update", ("host", "web1"), host.upstream.update_factory())
    assert world.until(lambda: held(host) == [1], 100.0) <= DIAL_PAUSE_SECONDS_MAX + 1
    world.run(10.0)
    dials.made.clear()
    world.network.stop_listening("web1:update")
    register(world, 2)
    world.run(2.0)
    assert len(dials.made) == 2  # The pauses restart.


def test_a_host_that_came_by_itself_is_not_dialled_again(world: Uss, dials: Dials) -> None:
    """The retry finds the host up to date."""
    host = leave_one(world)
    world.network.stop_listening("web1:update")
    register(world, 1)
    world.until(lambda: len(dials.made) == 3)
    host.crash()
    again = world.host("web1", mode="short")
    world.wait(again.daemon.dependencies("portal.web"))
    world.until(lambda: held(again) == [1])
    world.run(200.0)
    assert len(dials.made) == 3


@pytest.mark.parametrize("gone", ["removed", "barred"])
def test_a_host_that_is_removed_or_barred_is_not_dialled_again(world: Uss, dials: Dials, gone: str) -> None:
    """An administrator's change takes effect at the next retry."""
    absent(world, "web1")
    register(world, 1)
    world.until(lambda: bool(dials.made))
    world.admin().ask(
        Remove("host", "web1")
        if gone == "removed"
        else Put(Host("web1", "10.0.0.9", 4865, ("portal.web",), barred=True))
    )
    world.run(200.0)
    assert len(dials.made) <= 2


def test_a_barred_host_is_not_dialled(world: Uss, dials: Dials) -> None:
    """A barred host gets no push either."""
    absent(world, "web1", barred=True)
    register(world, 1)
    world.run(10.0)
    assert not dials.made


def test_another_host_in_its_place_is_refused_and_logged(world: Uss, dials: Dials) -> None:
    """P11: no other host gets what is for web1; the security log names both."""
    impostors = Listening(lambda: Client(world, ("host", "mallory")))
    absent(world, "web1")
    world.network.listen("web1:update", ("host", "mallory"), impostors)
    register(world, 1)
    world.until(lambda: bool(impostors.taken) and impostors.taken[0].lost)
    assert impostors.taken[0].opened is None
    world.run(0.1)
    (entry,) = world.admin().ask(ReadLog("security")).entries
    assert (entry.operation, entry.principal) == ("connect", "mallory")
    assert entry.reason == "dialled host 'web1', reached host 'mallory'"
    world.run(20.0)
    assert 2 <= len(dials.made) <= 5


def test_hosts_are_dialled_a_few_at_a_time(world: Uss, dials: Dials, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: with n dialled connections the next host waits until one of them ends."""
    monkeypatch.setattr(dialer, "DIALS_MAX", 3)
    mute = Listening(Mute)
    for number in range(7):
        absent(world, f"web{number}")
        world.network.listen(f"web{number}:update", ("host", f"web{number}"), mute)
    register(world, 1)
    world.run(2.0)
    assert (len(dials.made), len(mute.taken)) == (3, 3)
    # A peer that never greets is let go.
    world.until(lambda: len(set(dials.names)) == 7, 120.0)
    assert len([one for one in mute.taken if not one.transport.closed]) <= 3


def test_a_host_that_vanishes_keeps_its_place_for_a_while_only(world: Uss, dials: Dials) -> None:
    """A machine that accepts the connection and vanishes costs one place until the session's deadline."""
    host = leave_one(world)
    world.network.silence("gns1", "web1")
    register(world, 1)
    world.run(120.0)
    world.network.heal()
    world.until(lambda: held(host) == [1], 120.0)


def test_after_a_restart_hosts_without_a_session_are_dialled(world: Uss, dials: Dials) -> None:
    """A restarted server does not know what each host holds; it does not dial hosts that reconnect by themselves."""
    left, kept = leave_one(world), world.host("web2", update_port=4865)
    world.wait(kept.daemon.dependencies("portal.web"))
    world.network.stop_listening("web1:update")
    register(world, 1)
    world.servers["gns1"].crash()
    world.network.listen("web1:update", ("host", "web1"), left.upstream.update_factory())
    world.run(1.0)
    dials.made.clear()
    began = world.clock.seconds()
    world.wait(world.server().started)
    world.until(lambda: held(left) == [1])
    assert dials.names == ["web1"]
    assert START_GRACE_SECONDS <= dials.made[0][0] - began < START_GRACE_SECONDS + 1
    assert held(kept) == [1]


def test_a_server_that_stops_does_not_dial(world: Uss, dials: Dials) -> None:
    """A stopped server does not dial when a session ends, a dial fails or a change is committed, and has no timer."""
    waiting, gone, client = "web1", "web2", leave_one(world, "web3")
    for name in (waiting, gone):
        absent(world, name)
    world.network.listen("web1:update", ("host", "web1"), Listening(Mute))
    world.network.stop_listening("web3:update")
    register(world, 1)
    world.until(lambda: {"web1", "web2", "web3"} <= set(dials.names))
    world.network.latency_seconds = (0.5, 0.5)
    register(world, 2)
    world.until(lambda: dials.made[-1][0] > world.clock.seconds() - 0.1, 60.0)
    server = world.servers["gns1"]
    server.stop()
    made = len(dials.made)
    change = world.store.changes_after(0, 1_000)[-1]
    server.nameserver.components.dialer.committed(change, server.nameserver.catalogue, own=True)
    server.nameserver.components.dialer.ended("web1")
    world.wait(client.agent.stop())
    world.run(300.0)
    assert len(dials.made) == made
    assert not world.clock.getDelayedCalls()


def test_a_host_is_not_dialled_where_it_does_not_live(world: Uss, dials: Dials) -> None:
    """W7: an update address of another machine is not stored, and the watch says why."""
    client = world.client(("host", "web1"))
    watching = client.ask(Watch(("portal.web",), update_address="127.0.0.77", update_port=5432))
    assert isinstance(watching, Watching) and watching.snapshot is not None
    assert "'web1' is not dialled at 127.0.0.77" in watching.undialled and "--also" in watching.undialled
    [row] = world.admin().ask(Fetch("host", name="web1")).rows
    assert (row.update_address, row.update_port) == ("", 0)
    resumed = Watch(("portal.web",), watching.store, watching.revision, "127.0.0.77", 5432)
    assert client.ask(resumed).undialled
    client.transport.loseConnection()
    register(world, 1)
    world.run(10.0)
    assert not dials.made


def test_a_short_host_that_is_not_dialled_keeps_its_session(world: Uss, dials: Dials) -> None:
    """A host whose configured address is not that of its machine gets notices as fast as before."""
    host = world.host("web1", mode="short")
    host.address = "10.9.9.9"
    world.wait(host.daemon.dependencies("portal.web"))
    world.run(10.0)
    assert host.daemon.status().session == "open"
    register(world, 1)
    assert world.until(lambda: held(host) == [1]) < 0.5
    assert not dials.made
