"""Suspicions: hosts get evidence although the store does not accept it (opengnsp.md, "Store outages")."""

from __future__ import annotations

from typing import Any

import pytest

from compass.model.host_api import LocalDeregister, LocalRegister, LocalReport
from compass.model.interfaces import StoreUnavailable
from compass.model.replies import Deregistered, Refusal, Registered, Reported
from compass.model.requests import Deregister, Register, Report, Watch
from compass.server.commit import committer
from compass.server.failure import pending_suspicions
from compass.wire.messages import Suspicion
from tests.server.commit.test_committer import committed
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, watcher
from tests.support.virtual_world import Client, SimulatedServer

WHERE = ("192.168.2.1", 2028)
SECOND = ("192.168.2.1", 2029)


def dependant(world: Uss, name: str, server: str = "gns1") -> Client:
    """A host of portal.web that takes suspicions."""
    client = world.client(("host", name), server)
    client.watching = client.ask(Watch(("portal.web",), suspicions=True))
    return client


def suspicions(client: Client) -> list[Suspicion]:
    return [message for message in client.pushed if isinstance(message, Suspicion)]


def states(client: Client) -> list[str]:
    return [message.change.row.state for message in client.pushed if hasattr(message, "change")]


@pytest.fixture
def server(world: Uss) -> SimulatedServer:
    """A server with two registered listeners of chinaserver."""
    started = world.server()
    world.wait(started.started)
    store = world.client(("host", "store1"))
    for where in (WHERE, SECOND):
        assert isinstance(store.ask(Register(CHINA, world.tokens[CHINA], *where, 1)), Registered)
    return started


def report(where: tuple[str, int] = WHERE) -> Report:
    return Report(CHINA, *where, "unreachable", "portal.web", "timeout")


@pytest.mark.parametrize("how", ["failing", "hanging"])
def test_a_report_reaches_the_dependants_within_a_second_during_a_store_outage(
    world: Uss, server: SimulatedServer, how: str
) -> None:
    """ "Failure notices still go out as suspect", also in the first moment of a store that just hangs; "settled in the
    log when it returns": then a notice says the same."""
    user, other = dependant(world, "web1"), dependant(world, "web2")
    world.dead.add(WHERE)
    before = committed(world).revision
    if how == "failing":
        server.thread.failing = StoreUnavailable("connection refused")
    else:
        server.thread.hanging = True
    number = user.send(report())
    assert world.until(lambda: bool(suspicions(other))) < 1.0
    (told,) = suspicions(other)
    assert (told.service, told.address, told.port, told.epoch) == (CHINA, *WHERE, 1)
    assert told.seconds == pending_suspicions.SUSPICION_SECONDS
    assert told.cause == "reported unreachable by portal.web on web1: timeout"
    world.until(lambda: number in user.replies)
    refusal = user.replies[number]
    assert isinstance(refusal, Refusal) and refusal.code == "store-unavailable" and refusal.retry_after_seconds > 0
    world.run(60.0)
    assert committed(world).revision == before == server.nameserver.catalogue.revision
    assert not states(other)
    server.thread.failing = None
    server.thread.go_on()
    world.until(lambda: states(other)[:2] == ["suspect", "down"], 10.0)
    assert all(message.seconds for message in suspicions(other)), "it was settled, not withdrawn"
    assert len(server.nameserver.components.pending_suspicions) == 0


def test_no_other_host_gets_a_suspicion(world: Uss, server: SimulatedServer) -> None:
    """A host that has not said that it takes suspicions, and one that does not depend on the listener."""
    old, stranger = watcher(world, "web2", "portal.web"), watcher(world, "store9", CHINA)
    user = dependant(world, "web1")
    world.dead.add(WHERE)
    server.thread.failing = StoreUnavailable("connection refused")
    user.send(report())
    world.until(lambda: bool(suspicions(user)))
    world.run(30.0)
    assert not suspicions(old) and not suspicions(stranger)
    assert old.ended is None and stranger.ended is None


def test_a_false_report_is_withdrawn_by_a_probe(world: Uss, server: SimulatedServer) -> None:
    """P8: "a false report removes nothing healthy", not even while the store is unavailable."""
    user, other = dependant(world, "web1"), dependant(world, "web2")
    server.thread.hanging = True
    user.send(report())
    world.until(lambda: len(suspicions(other)) == 2)
    assert suspicions(other)[1].seconds == 0.0
    server.thread.go_on()
    world.run(10.0)
    row = committed(world).listener(CHINA, *WHERE)
    assert row is not None and row.state == "up"


def test_a_process_that_ends_during_a_store_outage_is_suspected(world: Uss, server: SimulatedServer) -> None:
    """P9: its deregistration has to wait, but no user is sent there meanwhile; no probe can refute it."""
    other, store = dependant(world, "web2"), world.client(("host", "store1"))
    server.thread.failing = StoreUnavailable("disk full")
    store.send(Deregister(CHINA, world.tokens[CHINA], *WHERE, 1, died=True))
    assert world.until(lambda: bool(suspicions(other))) < 1.0
    world.run(20.0)
    assert all(message.seconds for message in suspicions(other))
    server.thread.failing = None
    world.until(lambda: states(other) == ["offline"], 10.0)
    again = store.ask(Deregister(CHINA, world.tokens[CHINA], *WHERE, 1, died=True))
    assert isinstance(again, Deregistered) and not again.changed


def test_a_suspicion_is_repeated_as_long_as_it_stands(world: Uss, server: SimulatedServer) -> None:
    """Hosts believe it for 30 s only, so it is repeated every 10 s; a later host gets it after its watch."""
    user = dependant(world, "web1")
    world.dead.add(WHERE)
    server.thread.hanging = True
    user.send(report())
    world.run(committer.OVERDUE_SECONDS + 3 * pending_suspicions.REPEAT_SECONDS + 0.5)
    assert len(suspicions(user)) == 4
    later = dependant(world, "web3")
    world.run(0.5)
    assert len(suspicions(later)) == 1


def test_a_wrong_report_or_credential_suspects_nothing(world: Uss, server: SimulatedServer) -> None:
    """P11: rights are checked before any host is notified: a host that does not use it, a token that is not the
    service's."""
    other, stranger = dependant(world, "web2"), world.client(("host", "store9"))
    stranger.ask(Watch((CHINA,)))
    world.run(1.0)
    server.thread.hanging = True
    asked = [stranger.send(report()), stranger.send(Deregister(CHINA, "wrong", *SECOND, 1))]
    world.until(lambda: all(number in stranger.replies for number in asked))
    world.run(5.0)
    assert not suspicions(other)


def test_the_number_of_suspicions_is_limited(
    world: Uss, server: SimulatedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: one listener beyond `SUSPICIONS_MAX` is only refused, after the time that any write waits."""
    monkeypatch.setattr(pending_suspicions, "SUSPICIONS_MAX", 1)
    user = dependant(world, "web1")
    world.dead |= {WHERE, SECOND}
    server.thread.hanging = True
    asked = [user.send(report()), user.send(report(SECOND))]
    world.until(lambda: all(number in user.replies for number in asked), 5.0)
    assert {getattr(user.replies[number], "code", "") for number in asked} == {"store-unavailable"}
    assert {message.port for message in suspicions(user)} == {WHERE[1]}


def test_a_store_that_answers_in_time_is_no_reason_for_a_suspicion(world: Uss, server: SimulatedServer) -> None:
    """A commit of 0.4 s is a slow one; hosts get it once, as a notice."""
    user = dependant(world, "web1")
    world.dead.add(WHERE)
    world.run(1.0)
    server.thread._latency_seconds = (0.2, 0.2)
    reply = user.ask(report())
    assert isinstance(reply, Reported)
    world.until(lambda: states(user)[:1] == ["suspect"])
    assert not suspicions(user)


def test_reporters_are_kept_during_a_store_outage(world: Uss, server: SimulatedServer) -> None:
    """P8: who reports what is healthy loses its weight, also then."""
    user = dependant(world, "web1")
    world.run(2.0)
    server.thread.hanging = True
    for _ in range(4):
        user.send(report())
        world.run(6.0)
    server.thread.go_on()
    world.run(2.0)
    reply = user.ask(report())
    assert isinstance(reply, Reported) and reply.state == "up", "its word alone does not suffice any more"


# The hosts' side, with real daemons.


def in_use(world: Uss, host: str, name: str = CHINA) -> tuple[str, list[int]]:
    """Return the result of a lookup on a host."""
    resolved: Any = world.hosts[host].daemon.resolve(name)
    if isinstance(resolved, Refusal):
        return resolved.code, []
    return resolved.source, sorted(row.port for row in resolved.listeners)


@pytest.fixture
def hosts(world: Uss, server: SimulatedServer) -> None:
    """Daemons of two hosts that depend on chinaserver."""
    for name in ("web1", "web2"):
        world.host(name).daemon.dependencies("portal.web")
    world.until(lambda: all(in_use(world, name) == ("service", [2028, 2029]) for name in ("web1", "web2")))


def test_a_host_gives_a_suspected_listener_out_only_when_nothing_better_is_left(
    world: Uss, server: SimulatedServer, hosts: None
) -> None:
    """ "A suspicion never makes a list empty": with one of two suspected a lookup returns the other; with both,
    both as suspect. Programs that watch get the same, at the revision that they have."""
    events: list[Any] = []
    world.hosts["web2"].daemon.watch("portal.web", None, events.append)
    held = events[-1].revision
    world.dead |= {WHERE, SECOND}
    server.thread.failing = StoreUnavailable("connection refused")
    world.hosts["web1"].daemon.report(LocalReport(CHINA, *WHERE))
    assert world.until(lambda: in_use(world, "web2") == ("service", [2029])) < 1.0
    shown = [peer for view in events[-1].data.categories for one in view.services for peer in one.listeners]
    assert events[-1].kind == "snapshot" and events[-1].revision == held
    assert [(peer.port, peer.state) for peer in shown if peer.port in (2028, 2029)] == [(2028, "suspect"), (2029, "up")]
    world.hosts["web1"].daemon.report(LocalReport(CHINA, *SECOND))
    world.until(lambda: in_use(world, "web2") == ("suspect", [2028, 2029]))
    assert world.hosts["web2"].replica.catalogue.listener(CHINA, *WHERE).state == "up"  # type: ignore[union-attr]
    server.thread.failing = None
    # The cap lets one of two be down; the log says so now.
    world.until(lambda: [len(in_use(world, "web2")[1]), in_use(world, "web2")[0]] == [1, "suspect"], 15.0)
    assert sorted(row.state for row in committed(world).listeners[CHINA].values()) == ["down", "suspect"]


def test_a_suspicion_ends_by_itself_when_it_is_not_repeated(world: Uss, server: SimulatedServer, hosts: None) -> None:
    """The server is killed: after 30 s the host trusts the log again, and notifies its programs."""
    events: list[Any] = []
    world.hosts["web2"].daemon.watch("portal.web", None, events.append)
    world.dead.add(WHERE)
    server.thread.hanging = True
    world.hosts["web1"].daemon.report(LocalReport(CHINA, *WHERE))
    world.until(lambda: in_use(world, "web2") == ("service", [2029]))
    server.crash()
    count = len(events)
    taken = world.until(lambda: in_use(world, "web2") == ("service", [2028, 2029]), 60.0)
    assert taken <= pending_suspicions.SUSPICION_SECONDS
    world.run(1.0)
    assert len(events) == count + 1


def test_a_report_is_sent_to_the_other_servers(world: Uss, server: SimulatedServer) -> None:
    """ "The reporter's host repeats its report to its other servers": hosts in session there learn it from no other.
    Neither server has a store; both notify their hosts, and in the end the log has it once."""
    second = world.server("gns2")
    world.wait(second.started)
    reporter = world.host("web1", servers=("gns1", "gns2"))
    reporter.daemon.dependencies("portal.web")
    far = dependant(world, "web2", "gns2")
    world.until(lambda: in_use(world, "web1") == ("service", [2028, 2029]))
    # The second server reads what web1 watches: it accepts reports of its dependants only.
    world.until(lambda: second.nameserver.catalogue.hosts["web1"].services == ("portal.web",))
    world.dead.add(WHERE)
    for one in (server, second):
        one.thread.hanging = True
    reporter.daemon.report(LocalReport(CHINA, *WHERE))
    assert world.until(lambda: bool(suspicions(far))) < 1.5
    for one in (server, second):
        one.thread.go_on()
    world.until(lambda: states(far)[:2] == ["suspect", "down"], 20.0)
    world.run(20.0)
    operations = [change.operation for change in world.store.changes_after(0, 1000)]
    assert operations.count("report") + operations.count("suspect") == 1
    assert not reporter.agent.components.reports._relay.sessions, "the session there was a short one"


def test_a_host_repeats_what_it_owes_until_the_store_has_it(world: Uss, server: SimulatedServer, hosts: None) -> None:
    """ "So that nothing a service asked for is lost": a registration, a deregistration and a report of two minutes ago
    are all in the log soon after the store's return; meanwhile the host asks more and more rarely."""
    token = world.tokens["northeast.openuss"]
    storage = world.host("store2").daemon
    outcomes: list[Any] = []
    storage.register(LocalRegister("northeast.openuss", 1, token)).addCallback(outcomes.append)
    world.until(lambda: bool(outcomes))
    world.dead.add(WHERE)
    server.thread.failing = StoreUnavailable("connection refused")
    storage.register(LocalRegister("northeast.openuss", 2, token)).addCallback(outcomes.append)
    storage.deregister(LocalDeregister("northeast.openuss", 1, token)).addCallback(outcomes.append)
    world.hosts["web1"].daemon.report(LocalReport(CHINA, *WHERE)).addCallback(outcomes.append)
    world.until(lambda: len(outcomes) == 4)
    assert [outcome.state for outcome in outcomes] == ["up", "pending", "pending", "pending"]
    world.run(120.0)
    server.thread.failing = None

    def all_there() -> bool:
        rows = {row.port: row.state for row in committed(world).listeners["northeast.openuss"].values()}
        dead = committed(world).listener(CHINA, *WHERE)
        return rows == {1: "offline", 2: "up"} and dead is not None and dead.state == "down"

    assert world.until(all_there, 30.0) < 20.0
