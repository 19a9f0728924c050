"""Several servers over one store: they know each other, and what must be done once is done by one of them."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.cluster import REPLACED_BEATS, SILENT_BEATS
from compass.model.interfaces import StoreUnavailable
from compass.model.replies import HostLag, Lags, Registered, ServerStatus
from compass.model.requests import Examine, Lag, Register, Report, Status, Watch
from compass.server.cluster.membership import BEAT_SECONDS
from compass.server.failure import detector
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA
from tests.support.virtual_world import Client, SimulatedServer

WHERE = ("192.168.2.1", 2028)
NAMES = ("gns1", "gns2", "gns3")


@pytest.fixture
def three(world: Uss) -> dict[str, SimulatedServer]:
    """Three servers over one store, each with a host that depends on openuss: web1 at gns1, and so on."""
    for name in NAMES:
        world.wait(world.server(name).started)
    for number, name in enumerate(NAMES, start=1):
        watcher(world, f"web{number}", "portal.web", server=name)
    world.run(2 * BEAT_SECONDS)
    return world.servers


def watcher(world: Uss, host: str, service: str, *, server: str, since: int = -1, **fields: Any) -> Client:
    """A host's session that watches at that server."""
    client = world.client(("host", host), server)
    client.watching = client.ask(Watch((service,), **fields))
    return client


def store_host(world: Uss, server: str, name: str = "store1", port: int = WHERE[1]) -> Client:
    """A host of openuss in session with that server, and its one listener."""
    client = watcher(world, name, CHINA, server=server)
    reply = client.ask(Register(CHINA, world.tokens[CHINA], WHERE[0], port, 1))
    assert isinstance(reply, Registered), reply
    world.run(2 * BEAT_SECONDS)
    return client


def state(world: Uss, server: str, port: int = WHERE[1]) -> str:
    """Return the listener as that server has it."""
    row = world.servers[server].nameserver.catalogue.listener(CHINA, WHERE[0], port)
    return row.state if row is not None else "unknown"


def probing(world: Uss) -> list[str]:
    """The servers that have probed the listener."""
    return sorted(name for name, server in world.servers.items() if WHERE in server.probed)


def status(world: Uss, server: str) -> ServerStatus:
    reply = world.admin(server).ask(Status())
    assert isinstance(reply, ServerStatus)
    return reply


def roles(world: Uss, server: str) -> dict[str, str]:
    return {one.server: one.role for one in status(world, server).servers}


def lag_of(world: Uss, server: str, host: str) -> HostLag:
    reply = world.admin(server).ask(Lag())
    assert isinstance(reply, Lags)
    return next(one for one in reply.hosts if one.host == host)


def test_an_incident_is_looked_into_by_one_server(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """The server with the session of the listener's host judges, wherever the report came in; all have the verdict."""
    store_host(world, "gns2")
    world.dead.add(WHERE)
    reporter = world.client(("host", "web1"), "gns1")
    reporter.ask(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    world.until(lambda: all(state(world, name) == "down" for name in three), 10.0)
    assert probing(world) == ["gns2"]
    world.run(120.0)
    assert probing(world) == ["gns2"]
    world.dead.clear()
    world.until(lambda: all(state(world, name) == "up" for name in three), 120.0)
    assert probing(world) == ["gns2"]


def test_a_report_that_sufficed_elsewhere_counts_for_the_server_that_judges(
    world: Uss, three: dict[str, SimulatedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says that reports made it suspect, so no server deliberates as if only a probe spoke against it."""
    store_host(world, "gns2")
    world.dead.add(WHERE)
    world.client(("host", "web1"), "gns1").ask(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    assert world.until(lambda: state(world, "gns2") == "down", 10.0) < 1.0


def test_administrators_are_notified_once_by_any_number_of_servers(
    world: Uss, three: dict[str, SimulatedServer]
) -> None:
    """G14: one command for the beginning of an incident and one for its end, at the server that committed it."""
    store_host(world, "gns2")
    world.dead.add(WHERE)
    for number, name in enumerate(NAMES, start=1):
        world.client(("host", f"web{number}"), name).ask(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    world.until(lambda: all(state(world, name) == "down" for name in three), 10.0)
    world.run(5.0)
    assert sum(len(server.news) for server in three.values()) == 1
    world.dead.clear()
    world.until(lambda: all(state(world, name) == "up" for name in three), 120.0)
    world.run(5.0)
    assert sum(len(server.news) for server in three.values()) == 2


def test_another_server_takes_over_when_the_one_that_looked_into_it_dies(
    world: Uss, three: dict[str, SimulatedServer]
) -> None:
    """An incident is not left open because a server was: one of the others, and only one, goes on with it."""
    store_host(world, "gns2")
    world.dead.add(WHERE)
    world.client(("host", "web1"), "gns1").ask(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    world.until(lambda: state(world, "gns1") == "down", 10.0)
    world.servers["gns2"].crash()
    world.run((SILENT_BEATS + 3) * BEAT_SECONDS + 10.0)
    (taken,) = probing(world)
    world.dead.clear()
    world.until(lambda: all(state(world, name) == "up" for name in world.servers), 120.0)
    assert probing(world) == [taken]


def test_a_server_that_stops_hands_over_at_once(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """The server announces that it leaves, so no server waits for its silence."""
    store_host(world, "gns2")
    world.dead.add(WHERE)
    world.client(("host", "web1"), "gns1").ask(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    world.until(lambda: state(world, "gns1") == "down", 10.0)
    world.servers["gns2"].stop()
    world.run(2 * BEAT_SECONDS + 2.5)
    assert len(probing(world)) == 1


def test_a_host_that_moves_to_another_server_is_not_missed(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """A host is lost only when no live server has its session: the one that it left does not probe what runs there."""
    store = store_host(world, "gns2")
    store.transport.abortConnection()
    watcher(world, "store1", CHINA, server="gns3")
    world.run(detector.ABSENCE_GRACE_SECONDS + 30.0)
    assert probing(world) == []
    assert three["gns3"].nameserver.components.cluster.owns_host("store1")


def test_a_lost_host_is_missed_by_one_server(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """The one that had its session finds out, after the category's grace; the others hear the verdict."""
    store = store_host(world, "gns2")
    world.dead.add(WHERE)
    store.transport.abortConnection()
    world.until(lambda: all(state(world, name) == "down" for name in three), 20.0)
    assert probing(world) == ["gns2"]


def test_hosts_of_a_dead_server_are_missed_by_one_of_the_others(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """Hosts get their time to connect elsewhere; one that does not is probed, by one server, and is not forgotten."""
    for number in range(8):
        store_host(world, "gns2", f"store{number}", 3000 + number)
    world.servers["gns2"].crash()
    for number in range(0, 8, 2):
        watcher(world, f"store{number}", CHINA, server="gns1")
    gone = {(WHERE[0], 3000 + number) for number in range(1, 8, 2)}
    world.dead |= gone
    world.run((SILENT_BEATS + 2) * BEAT_SECONDS + detector.ABSENCE_GRACE_SECONDS + 20.0)
    probed = {name: {where for where in server.probed if where[1] >= 3000} for name, server in world.servers.items()}
    assert probed["gns1"] | probed["gns3"] == gone
    assert not probed["gns1"] & probed["gns3"]
    assert {state(world, "gns1", port) for _, port in gone} == {"down"}
    assert {state(world, "gns3", 3000 + number) for number in range(0, 8, 2)} == {"up"}


def test_a_server_without_hosts_leaves_the_judging_to_those_that_have_some(
    world: Uss, three: dict[str, SimulatedServer]
) -> None:
    """A server in doubt cannot distinguish a dead listener from its own cut line; another server owns its listeners."""
    world.wait(world.server("gns4").started)
    store = store_host(world, "gns4")
    world.dead.add(WHERE)
    store.transport.abortConnection()
    world.until(lambda: all(state(world, name) == "down" for name in three), 30.0)
    assert "gns4" not in probing(world) and len(probing(world)) == 1


def test_a_host_without_a_session_is_dialled_by_one_server(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """G11: each server has the same notice for it, and one brings it: the one that it was with last."""
    host = world.host("web9", servers=("gns3",), mode="short")
    world.wait(host.daemon.dependencies("portal.web"))
    world.until(lambda: not world.network.between("web9", "gns3"))
    world.run(2 * BEAT_SECONDS)
    world.network.dialled.clear()
    world.client(("host", "store1"), "gns1").ask(Register(CHINA, world.tokens[CHINA], *WHERE, 1))
    world.until(lambda: any(to == "web9:update" for _, _, to in world.network.dialled), 10.0)
    world.run(10.0)
    assert {server for _, server, to in world.network.dialled if to == "web9:update"} == {"gns3"}
    world.servers["gns3"].crash()
    world.network.dialled.clear()
    world.run((SILENT_BEATS + 3) * BEAT_SECONDS + 10.0)
    world.client(("host", "store1"), "gns1").ask(Register(CHINA, world.tokens[CHINA], WHERE[0], 2029, 1))
    world.run(10.0)
    assert len({server for _, server, to in world.network.dialled if to == "web9:update"}) == 1


def test_status_shows_every_server(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """Revision, lag, sessions, role, version: the same picture from whichever server is asked."""
    store_host(world, "gns1")
    told = status(world, "gns3").servers
    assert [one.server for one in told] == list(NAMES)
    assert {one.software for one in told} == {"simulation"}
    assert [one.watching for one in told] == [2, 1, 1]
    assert {one.revision for one in told} == {status(world, "gns3").revision}
    assert {one.lag for one in told} == {0}
    assert roles(world, "gns1") == dict.fromkeys(NAMES, "keeper")


def test_a_dead_server_is_shown_as_silent_and_one_that_stopped_is_not(
    world: Uss, three: dict[str, SimulatedServer]
) -> None:
    """People see who is missing, and are not bothered with who was ended on purpose."""
    world.servers["gns2"].crash()
    world.servers["gns3"].stop()
    world.run((SILENT_BEATS + 2) * BEAT_SECONDS)
    assert roles(world, "gns1") == {"gns1": "keeper", "gns2": "silent"}


@pytest.mark.parametrize("beats", [SILENT_BEATS - 2, SILENT_BEATS + 2], ids=["a little", "too long"])
def test_a_server_is_silent_only_after_some_beats(world: Uss, three: dict[str, SimulatedServer], beats: int) -> None:
    """A pause is not a crash; a server that continues after one takes over its part again."""
    three["gns2"].beside.failing = StoreUnavailable("no route to the database")
    world.run(beats * BEAT_SECONDS)
    assert roles(world, "gns1")["gns2"] == ("keeper" if beats < SILENT_BEATS else "silent")
    three["gns2"].beside.failing = None
    world.run(2 * BEAT_SECONDS)
    assert roles(world, "gns1")["gns2"] == "keeper"


def test_a_store_outage_makes_no_server_look_dead(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """Silence is counted in one's own beats, and there were none: nothing changes hands when the store is back."""
    for server in three.values():
        server.beside.failing = StoreUnavailable("the database is unavailable")
    world.run(60.0)
    seen: list[str] = []
    for server in three.values():
        server.beside.failing = None
    for _ in range(20):
        world.run(BEAT_SECONDS / 4)
        seen += roles(world, "gns1").values()
    assert set(seen) == {"keeper"}


def test_lag_knows_the_hosts_of_every_server(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """P12: for any revision any server can say which hosts hold it, wherever their sessions are."""
    slow = watcher(world, "web7", "portal.web", server="gns2")
    store_host(world, "gns1")
    slow.acknowledging = False
    store_host(world, "gns1", port=2029)
    revision = status(world, "gns1").revision
    world.run(3 * BEAT_SECONDS)
    for name in NAMES:
        held = lag_of(world, name, "web3")
        assert (held.server, held.session, held.acknowledged, held.pending) == ("gns3", True, revision, 0)
        behind = lag_of(world, name, "web7")
        assert behind.server == "gns2" and behind.session
        assert 0 < behind.acknowledged < revision and behind.pending == 1


def test_what_a_host_held_when_it_left_is_known_everywhere(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """P12: its session is over at one server; any other says what the host has missed since."""
    store_host(world, "gns1")
    world.run(2 * BEAT_SECONDS)
    held = lag_of(world, "gns3", "web2").acknowledged
    assert held == lag_of(world, "gns2", "web2").acknowledged
    for end in world.network.between("gns2", "web2"):
        end.loseConnection()
    world.run(2 * BEAT_SECONDS)
    store_host(world, "gns1", port=2029)
    told = lag_of(world, "gns3", "web2")
    assert (told.session, told.acknowledged, told.pending, told.server) == (False, held, 1, "gns2")


def test_examine_answers_at_the_server_that_owns_the_listener(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """The inquiry is where the case is; the others say that they have none."""
    store_host(world, "gns2")
    world.dead.add(WHERE)
    world.client(("host", "web1"), "gns1").ask(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    world.until(lambda: all(state(world, name) == "down" for name in three), 10.0)
    words = {name: world.admin(name).ask(Examine(CHINA, *WHERE)).inquiry for name in NAMES}
    assert words == {"gns1": "", "gns2": "recovery", "gns3": ""}


def test_a_server_that_is_killed_and_started_again_is_one_server(world: Uss, three: dict[str, SimulatedServer]) -> None:
    """The heartbeat of its predecessor stays in the store for minutes; status and metrics show the new run only."""
    first = {one.server: one.id for one in status(world, "gns1").servers}
    three["gns3"].crash()
    world.run(3.0)
    assert {one.server: one.id for one in status(world, "gns1").servers} == first, "without a successor it is shown"
    world.wait(world.server("gns3").started)
    world.run((REPLACED_BEATS + 1) * BEAT_SECONDS)
    for name in NAMES:
        shown = status(world, name).servers
        assert [one.server for one in shown] == list(NAMES)
        assert all(one.role != "silent" for one in shown)
        assert not world.servers[name].nameserver.https.metrics().known_servers.get("silent")
    assert {one.server: one.id for one in status(world, "gns1").servers}["gns3"] != first["gns3"]
