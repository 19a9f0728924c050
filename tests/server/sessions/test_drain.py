"""Drain: how many hosts a server sends away at a time, where to, and what continues meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from compass.agent.upstream import server_selector
from compass.model.limits import STEER_SECONDS_MAX
from compass.model.replies import Refusal, ServerStatus, Steered
from compass.model.requests import Register, Status, Steer, Watch
from compass.server.sessions import drain
from compass.wire import limits
from tests.server.conftest import Uss
from tests.support.virtual_world import Client

HOSTS = 200


def hosts(world: Uss, count: int) -> list[Client]:
    """Return `count` hosts with a watching session."""
    clients = [world.client(("host", f"web{number}")) for number in range(count)]
    for client in clients:
        assert not isinstance(client.ask(Watch(("portal.web",))), Refusal)
    return clients


def away(clients: list[Client]) -> int:
    return sum(client.ended is not None for client in clients)


def started(world: Uss) -> Any:
    server = world.server()
    world.wait(server.started)
    return server


def test_hosts_are_sent_away_evenly(world: Uss) -> None:
    """`steer`: "The hosts that have a session here get `goodbye`, spread evenly over `seconds`"."""
    started(world)
    clients = hosts(world, HOSTS)
    admin = world.admin()
    assert admin.ask(Steer(True, ("gns2.example:4863",), 10.0)) == Steered(HOSTS, ("gns2.example:4863",))
    counts = [away(clients)]
    for _ in range(10):
        world.run(1.0)
        counts.append(away(clients))
    left = [later - sooner for sooner, later in itertools.pairwise(counts)]
    assert counts[-1] == HOSTS and all(HOSTS / 20 <= each <= HOSTS / 5 for each in left)
    for client in clients:
        assert client.ended is not None and client.ended.instead == ("gns2.example:4863",)
        assert client.ended.retry_after_seconds == drain.AWAY_SECONDS
    status = admin.ask(Status())
    assert isinstance(status, ServerStatus) and status.away and status.watching == 0


def test_a_host_that_comes_later_is_redirected(world: Uss) -> None:
    """`steer`: "one that comes later gets it in place of a `welcome`". Administrators are served."""
    started(world)
    admin = world.admin()
    assert admin.ask(Steer(True, ("gns2",), 0.0)) == Steered(0, ("gns2",))
    late = world.stranger(("host", "web1"))
    world.until(lambda: late.ended is not None)
    assert late.opened is None and late.ended is not None and late.ended.instead == ("gns2",)
    assert isinstance(world.admin().ask(Status()), ServerStatus)
    assert admin.ask(Steer(away=False)) == Steered(0)
    assert world.client(("host", "web1")).opened is not None
    status = admin.ask(Status())
    assert isinstance(status, ServerStatus) and not status.away


def test_undraining_stops_a_drain(world: Uss) -> None:
    """Hosts that were not sent away yet stay; the next drain starts with the hosts that are there."""
    started(world)
    clients = hosts(world, 50)
    admin = world.admin()
    admin.ask(Steer(True, (), 100.0, force=True))
    world.run(20.0)
    admin.ask(Steer(away=False))
    gone = away(clients)
    world.run(200.0)
    assert 0 < gone < 50 and away(clients) == gone
    assert world.admin().ask(Steer(True, (), 0.0, force=True)) == Steered(50 - gone)
    world.run(1.0)
    assert away(clients) == 50


def test_a_dialled_host_gets_notices_all_the_same(world: Uss) -> None:
    """`steer`: "Sessions that the server dials are not concerned": these deliver notices."""
    started(world)
    clients = hosts(world, 1)
    admin = world.admin()
    host = world.host("web7", mode="short")
    world.wait(host.daemon.dependencies("portal.web"))
    world.run(3.0)
    assert admin.ask(Steer(True, (), 0.0, force=True)) == Steered(1)
    world.run(1.0)
    assert away(clients) == 1
    admin.ask(Register("chinaserver.openuss", "", "10.9.0.1", 80, 1))
    world.until(lambda: len(host.daemon.status().servers) > 0 and host.daemon.status().listeners == 1)


def test_a_server_that_stops_while_it_is_drained(world: Uss) -> None:
    """The remaining hosts are sent to the same servers, and no timer is left."""
    server = started(world)
    clients = hosts(world, 20)
    world.admin().ask(Steer(True, ("gns2",), 1000.0))
    server.stop()
    world.until(lambda: away(clients) == 20)
    assert {client.ended.instead for client in clients if client.ended} == {("gns2",)}
    world.run(60.0)
    assert not world.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Steer(), "in-use"),
        (Steer(seconds=-0.1), "bad-value"),
        (Steer(seconds=STEER_SECONDS_MAX + 1), "bad-value"),
        (Steer(seconds=float("nan")), "bad-value"),
        (Steer(instead=("gns 2",)), "bad-name"),
        (Steer(instead=("gns2:0",)), "bad-address"),
        (Steer(instead=("gns2",) * (limits.INSTEAD_MAX + 1)), "too-large"),
    ],
)
def test_invalid_drains_are_refused(world: Uss, request_: Steer, code: str) -> None:
    """Values at limit + 1 and invalid names are refused; the server continues unchanged."""
    started(world)
    admin = world.admin()
    refused = admin.ask(request_)
    assert isinstance(refused, Refusal) and refused.code == code
    status = admin.ask(Status())
    assert isinstance(status, ServerStatus) and not status.away


def test_values_at_the_limits_are_accepted(world: Uss) -> None:
    """Values at the limit are accepted."""
    started(world)
    names = tuple(f"gns{number}" for number in range(limits.INSTEAD_MAX))
    assert world.admin().ask(Steer(True, names, STEER_SECONDS_MAX)) == Steered(0, names)


def test_a_simulated_fleet_moves_to_the_second_server_and_back(world: Uss, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty agents move a few at a time, their lookups never fail, and later they return."""
    # A tenth of the real times, so that the test is short.
    monkeypatch.setattr(server_selector, "RETURN_SECONDS_MIN", server_selector.RETURN_SECONDS_MIN / 10)
    monkeypatch.setattr(server_selector, "RETURN_SECONDS_MAX", server_selector.RETURN_SECONDS_MAX / 10)
    monkeypatch.setattr(server_selector, "STEERED_SECONDS", server_selector.STEERED_SECONDS / 10)
    monkeypatch.setattr(drain, "AWAY_SECONDS", drain.AWAY_SECONDS / 10)
    started(world)
    world.wait(world.server("gns2").started)
    fleet = [world.host(f"web{number}", servers=("gns1", "gns2")) for number in range(40)]
    for host in fleet:
        world.wait(host.daemon.dependencies("portal.web"))
    assert {host.daemon.status().server for host in fleet} == {"gns1"}
    began = world.clock.seconds()
    world.admin().ask(Steer(True, ("gns2",), 10.0))
    world.until(lambda: {host.daemon.status().server for host in fleet} == {"gns2"}, 15.0)
    moves = sorted(at - began for at, _, machine in world.network.dialled if machine == "gns2" and at > began)
    assert len(moves) == 40
    assert max(sum(at <= other < at + 1.0 for other in moves) for at in moves) <= 12
    world.admin().ask(Steer(away=False))
    back_from = world.clock.seconds()
    world.until(lambda: {host.daemon.status().server for host in fleet} == {"gns1"}, 300.0)
    back = sorted(at - back_from for at, _, machine in world.network.dialled if machine == "gns1" and at > back_from)
    assert max(sum(at <= other < at + 1.0 for other in back) for at in back) <= 8
    assert not any(isinstance(host.daemon.resolve("openuss"), Refusal) for host in fleet)


@pytest.mark.parametrize("seconds", [5e-324, 1e-300, drain.STEP_SECONDS / 2])
def test_a_time_below_a_step_is_zero(world: Uss, seconds: float) -> None:
    """A shorter time than a step sends all hosts away at once."""
    started(world)
    clients = hosts(world, 3)
    assert world.admin().ask(Steer(True, (), seconds, force=True)) == Steered(3)
    world.run(1.0)
    assert away(clients) == 3


def recorded(goodbye: Callable[..., None], goodbyes: list[Any]) -> Callable[..., None]:
    """Record what a session is ended with, and end it."""

    def end(*said: Any) -> None:
        goodbyes.append(said)
        goodbye(*said)

    return end


def test_a_second_drain_during_the_first_replaces_it(world: Uss) -> None:
    """Each host is sent away once, to the servers of the second drain and within its time, by one timer."""
    server = started(world)
    clients = hosts(world, 20)
    goodbyes: list[Any] = []
    for session in server.nameserver.connections.sessions:
        session.goodbye = recorded(session.goodbye, goodbyes)
    admin = world.admin()
    admin.ask(Steer(True, ("gns2",), 100.0))
    world.run(7.0)
    first = len(goodbyes)
    assert first == 2
    assert admin.ask(Steer(True, ("gns3",), 10.0)) == Steered(20 - first, ("gns3",))
    world.run(10.0)
    assert away(clients) == len(goodbyes) == 20
    assert [instead for *_, instead in goodbyes] == [("gns2",)] * first + [("gns3",)] * (20 - first)
    server.stop()
    world.run(60.0)
    assert not world.clock.getDelayedCalls()


def test_the_only_server_is_not_drained(world: Uss) -> None:
    """The hosts would have nowhere to go; they keep their sessions. Another server that runs is named, and one that
    has fallen silent does not count."""
    started(world)
    (host,) = hosts(world, 1)
    refused = world.admin().ask(Steer(seconds=0.0))
    assert isinstance(refused, Refusal) and "no other server" in refused.message and "--force" in refused.message
    world.wait(world.server("gns2").started)
    world.run(2.0)
    world.servers["gns2"].crash()
    world.run(20.0)
    assert isinstance(world.admin("gns1").ask(Steer(seconds=0.0)), Refusal) and host.ended is None
    world.wait(world.server("gns2").started)
    world.run(2.0)
    assert world.admin("gns1").ask(Steer(seconds=0.0)) == Steered(1, ("gns2",))
    world.run(1.0)
    assert host.ended is not None
