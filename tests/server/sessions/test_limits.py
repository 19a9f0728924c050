"""Limits: how often a peer may act in a minute, and how a storm of hosts is admitted (P10)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from twisted.internet.task import Clock

from compass.model.replies import LogEntries, Refusal, Registered, Watching
from compass.model.requests import Pull, ReadLog, Register, Report, Status, Watch
from compass.server.push import admission, snapshot_cache
from compass.server.push.admission import Admission
from compass.server.sessions import connection_limits, rate_limit, request_limits
from compass.server.sessions.rate_limit import MINUTE_SECONDS, RateLimiter
from tests.server.alerts.test_notifier import logged
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, register, watcher
from tests.support.virtual_world import Client


def security(world: Uss) -> list[Any]:
    reply = world.admin().ask(ReadLog("security"))
    assert isinstance(reply, LogEntries)
    return list(reply.entries)


def guess(client: Client, port: int = 2028) -> Any:
    return client.ask(Register(CHINA, "wrong", "192.168.2.1", port, 1))


# -- quotas


def test_a_rate_limit_is_a_number_in_a_minute_for_each_peer() -> None:
    """The last action within the limit is accepted, the next is not; other peers are not affected, a minute ends it."""
    clock: Any = Clock()
    quota = RateLimiter(clock, 3)
    assert [quota.count("one") for _ in range(4)] == [True, True, True, False]
    assert quota.wait("other") == 0.0
    clock.advance(10)
    assert quota.wait("one") == MINUTE_SECONDS - 10
    clock.advance(MINUTE_SECONDS - 10)
    assert quota.wait("one") == 0.0
    assert quota.count("one")


def test_the_excess_over_a_limit_is_reported_once_at_the_end_of_the_minute() -> None:
    """The excess is reported by peer; a minute in which every peer kept its limit is not reported."""
    clock: Any = Clock()
    told: list[tuple[str, int]] = []
    quota = RateLimiter(clock, 2, lambda peer, n: told.append((peer, n)))
    for _ in range(2):
        quota.count("good")
    for _ in range(7):
        quota.count("bad")
    clock.advance(MINUTE_SECONDS)
    assert told == [("bad", 5)]
    quota.count("bad")
    clock.advance(MINUTE_SECONDS)
    assert told == [("bad", 5)]


def test_the_peers_counted_are_bounded(monkeypatch: Any) -> None:
    """Beyond the limit new peers share one count; known peers keep theirs."""
    monkeypatch.setattr(rate_limit, "PEERS_COUNTED_MAX", 2)
    clock: Any = Clock()
    quota = RateLimiter(clock, 2)
    assert all(quota.count(peer) for peer in ("a", "b", "c", "d"))
    assert not quota.count("e")
    assert quota.count("a")


def test_refused_credentials_do_not_fill_the_security_log(world: Uss, monkeypatch: Any) -> None:
    """Each refusal up to the limit has a row, and all later ones share one; the right credential is accepted always."""
    monkeypatch.setattr(connection_limits, "FAILURES_PER_MINUTE_MAX", 5)
    world.wait(world.server().started)
    client, other = world.client(("host", "web1")), world.client(("host", "web2"))
    assert [guess(client).code for _ in range(105)] == ["bad-credential"] * 105
    assert isinstance(register(world, client), Registered)
    assert isinstance(register(world, other, port=2), Registered)
    for _ in range(300):
        client.send(Pull("portal.web"))
        client.ask(Status())
    assert len(security(world)) == 5
    world.run(MINUTE_SECONDS + 1)
    entries = security(world)
    assert len(entries) == 6
    assert "400 more were refused" in entries[-1].reason and entries[-1].principal == "web1"
    assert guess(world.client(("host", "web1"))).code == "bad-credential"


def test_a_burst_of_guesses_in_one_batch_is_bounded_too(world: Uss, monkeypatch: Any) -> None:
    """Guesses that were sent before the first refusal do not add rows beyond the limit."""
    monkeypatch.setattr(connection_limits, "FAILURES_PER_MINUTE_MAX", 5)
    world.wait(world.server().started)
    client = world.client(("host", "web1"))
    numbers = [client.send(Register(CHINA, "wrong", "192.168.2.1", 1 + n, 1)) for n in range(100)]
    world.until(lambda: all(number in client.replies for number in numbers))
    world.run(0.5)
    assert len(security(world)) == 5


def test_an_origin_whose_connections_fail_is_not_refused(world: Uss, monkeypatch: Any) -> None:
    """Refusals up to a limit have a line and a row each; a peer of the same address that proves itself is accepted."""
    monkeypatch.setattr(connection_limits, "FAILURES_PER_MINUTE_MAX", 4)
    world.wait(world.server().started)
    for _ in range(10):
        client = world.stranger(("visitor", "web1"))
        world.until(lambda client=client: client.lost)  # type: ignore[misc]
    assert world.client(("host", "web1")).opened is not None
    assert len(security(world)) <= 5


def test_a_host_s_reports_are_bounded(world: Uss, monkeypatch: Any) -> None:
    """The last report within the limit is accepted, the next is `busy`; other hosts are not affected."""
    monkeypatch.setattr(request_limits, "REPORTS_PER_MINUTE_MAX", 3)
    world.wait(world.server().started)
    one, other = watcher(world, "web1", "portal.web"), watcher(world, "web2", "portal.web")
    register(world, world.client(("host", "store1")))

    def report(client: Client) -> Any:
        return client.ask(Report(CHINA, "192.168.2.1", 2028, "slow"))

    assert not any(isinstance(report(one), Refusal) for _ in range(3))
    refused = report(one)
    assert refused.code == "busy" and refused.retry_after_seconds > 0
    assert not isinstance(report(other), Refusal)


def test_the_sessions_of_one_host_are_bounded(world: Uss, monkeypatch: Any) -> None:
    """A session beyond the limit gets a goodbye with the reason; it is accepted when another one has ended."""
    monkeypatch.setattr(connection_limits, "SESSIONS_PER_PEER_MAX", 2)
    world.wait(world.server().started)
    first, _second = world.client(("host", "web1")), world.client(("host", "web1"))
    third = world.stranger(("host", "web1"))
    world.until(lambda: third.ended is not None)
    assert third.ended is not None and "has 2 sessions" in third.ended.reason
    assert third.ended.retry_after_seconds > 0
    assert world.client(("host", "web2")).opened is not None
    first.transport.loseConnection()
    world.run(0.1)
    assert world.client(("host", "web1")).opened is not None


# -- turns


def turns(clock: Any, line: Admission, count: int) -> list[float]:
    """Return the time of each turn of `count` hosts that come now; negative: seconds after which to come back."""
    found: list[float] = []
    for _ in range(count):

        def now(later: float) -> None:
            found.append(-later if later else clock.seconds())

        line.turn().addCallback(now)
    for _ in range(1000):
        clock.advance(0.01)
    return found


def test_turns_come_at_the_set_rate_and_no_host_is_sent_away_without_need(monkeypatch: Any) -> None:
    """Turns are granted at once, then one by one; hosts beyond the longest wait come back at times of their own."""
    monkeypatch.setattr(admission, "SNAPSHOTS_PER_SECOND_MAX", 10)
    clock: Any = Clock()
    line = Admission(clock)
    found = turns(clock, line, 60)
    waited = [at for at in found if at >= 0]
    # Half a second's at once, then ten a second for five seconds; the turn after exactly five seconds is given still.
    assert len(waited) == 56
    assert sum(at == 0 for at in waited) == 6
    assert 4.9 <= max(waited) <= 5.1
    later = sorted(-at for at in found if at < 0)
    assert len(later) == 4
    assert later[0] > 5.0 and all(b - a > 0.05 for a, b in pairwise(later))


def test_a_large_snapshot_takes_more_than_one_turn(monkeypatch: Any) -> None:
    """A storm of large snapshots is bounded by octets."""
    monkeypatch.setattr(admission, "SNAPSHOTS_PER_SECOND_MAX", 10)
    monkeypatch.setattr(admission, "SNAPSHOT_OCTETS_PER_SECOND_MAX", 1000)
    monkeypatch.setattr(admission, "AT_ONCE_SECONDS", 0.0)
    clock: Any = Clock()
    line = Admission(clock)
    assert line.turn().result == 0.0
    line.sent(2000)
    waiting = line.turn()
    clock.advance(1.95)
    assert not waiting.called
    clock.advance(0.1)
    assert waiting.called


def test_no_host_is_sent_away_for_an_hour(monkeypatch: Any) -> None:
    """The longest time to come back is bounded, however many hosts wait."""
    monkeypatch.setattr(admission, "SNAPSHOTS_PER_SECOND_MAX", 1)
    line = Admission(Clock())
    for _ in range(200):
        last = line.turn()
    assert last.result == admission.RETRY_SECONDS_MAX


def test_a_storm_of_hosts_is_admitted_one_after_the_other(world: Uss, monkeypatch: Any) -> None:
    """All hosts are admitted at the set rate and share one encoding; a host that resumes does not wait."""
    monkeypatch.setattr(admission, "SNAPSHOTS_PER_SECOND_MAX", 10)
    monkeypatch.setattr(admission, "AT_ONCE_SECONDS", 0.0)
    monkeypatch.setattr(admission, "WAIT_SECONDS_MAX", 1.0)
    server = world.server()
    world.wait(server.started)
    early = watcher(world, "early", "portal.web")
    store, since = early.watching.store, early.watching.revision
    early.transport.loseConnection()
    world.run(1.0)
    clients = [world.client(("host", f"web{n}")) for n in range(25)]
    made = server.nameserver.components.subscriptions.snapshots.made
    began = world.clock.seconds()
    for client in clients:
        client.send(Watch(("portal.web",)))
    world.run(0.2)
    assert isinstance(watcher(world, "early", "portal.web", store=store, since=since).watching, Watching)
    assert world.clock.seconds() - began < 0.3
    world.run(1.5)
    let_in = [client for client in clients if client.replies]
    assert 10 <= len(let_in) <= 12
    assert server.nameserver.components.subscriptions.snapshots.made - made <= 1
    away = [client.ended for client in clients if client not in let_in]
    assert all(ended is not None and ended.retry_after_seconds > 0 for ended in away)
    assert len({ended.retry_after_seconds for ended in away if ended is not None}) == len(away)


def test_a_host_that_left_while_it_waited_is_forgotten(world: Uss, monkeypatch: Any) -> None:
    """The turn of a host that has left passes, and the host is not recorded."""
    monkeypatch.setattr(admission, "SNAPSHOTS_PER_SECOND_MAX", 2)
    monkeypatch.setattr(admission, "AT_ONCE_SECONDS", 0.0)
    world.wait(world.server().started)
    watcher(world, "web0", "portal.web")
    client = world.client(("host", "web1"))
    client.send(Watch(("portal.web",)))
    world.run(0.1)
    client.transport.loseConnection()
    world.run(5.0)
    assert world.admin().ask(Status()).counts["host"] == 1


def test_real_hosts_come_through_a_storm(world: Uss, monkeypatch: Any) -> None:
    """Agents that were sent away come back by themselves and are up to date in the end."""
    monkeypatch.setattr(admission, "SNAPSHOTS_PER_SECOND_MAX", 5)
    monkeypatch.setattr(admission, "AT_ONCE_SECONDS", 0.0)
    monkeypatch.setattr(admission, "WAIT_SECONDS_MAX", 0.5)
    world.wait(world.server().started)
    hosts = [world.host(f"web{n}") for n in range(20)]
    for host in hosts:
        host.daemon.dependencies("portal.web")
    world.until(lambda: world.servers["gns1"].nameserver.components.publisher.watching == 20, 60.0)
    world.until(lambda: all(host.daemon.status().loaded for host in hosts), 60.0)


# -- snapshots


def test_a_snapshot_is_encoded_once_until_something_in_it_changes(world: Uss) -> None:
    """Hosts of the same categories share a snapshot; only a change that concerns them makes a new one."""
    server = world.server()
    world.wait(server.started)
    kept = server.nameserver.components.subscriptions.snapshots
    one, two = watcher(world, "web1", "portal.web"), watcher(world, "web2", "forum.web")
    assert one.watching == two.watching and kept.made == 1
    watcher(world, "uso", "account.openuso")
    assert kept.made == 2
    register(world, world.client(("host", "store1")))
    three, four = watcher(world, "web3", "portal.web"), watcher(world, "web4", "portal.web")
    assert kept.made == 3
    assert three.watching == four.watching != one.watching
    watcher(world, "uso2", "account.openuso")
    assert kept.made == 3
    assert watcher(world, "web5", "portal.web", "blog.web").watching.unknown == ("blog.web",)


def test_what_is_kept_of_snapshots_is_bounded(world: Uss, monkeypatch: Any) -> None:
    """The snapshot used longest ago is dropped first."""
    server = world.server()
    world.wait(server.started)
    kept = server.nameserver.components.subscriptions.snapshots
    watcher(world, "web1", "portal.web")
    monkeypatch.setattr(snapshot_cache, "KEPT_OCTETS_MAX", kept._octets)
    watcher(world, "web2", "portal.web")
    assert kept.made == 1
    watcher(world, "uso", "account.openuso")
    assert kept.made == 2 and kept._octets <= snapshot_cache.KEPT_OCTETS_MAX
    watcher(world, "web3", "portal.web")
    assert kept.made == 3


def test_hosts_that_come_back_write_nothing(world: Uss) -> None:
    """A storm of known hosts causes no commits."""
    world.wait(world.server().started)
    clients = [watcher(world, f"web{n}", "portal.web") for n in range(5)]
    revision = world.admin().ask(Status()).revision
    for client in clients:
        client.transport.loseConnection()
    world.run(0.1)
    for n in range(5):
        watcher(world, f"web{n}", "portal.web")
    assert world.admin().ask(Status()).revision == revision


def test_the_last_session_of_a_peer_is_accepted_at_once(world: Uss, monkeypatch: Any) -> None:
    """P10: exactly SESSIONS_PER_PEER_MAX sessions of one host, and not one less."""
    monkeypatch.setattr(connection_limits, "SESSIONS_PER_PEER_MAX", 2)
    world.wait(world.server().started)
    for _ in range(2):
        session = world.stranger(("host", "web1"))
        world.until(lambda session=session: session.opened is not None or session.lost)  # type: ignore[misc]
        assert session.opened is not None and session.ended is None


def test_refused_certificates_are_logged_up_to_a_limit(world: Uss, monkeypatch: Any) -> None:
    """P10: a line for each with its origin, then one for all others of the minute; the log is no way to fill a disk."""
    monkeypatch.setattr(connection_limits, "FAILURES_PER_MINUTE_MAX", 2)
    world.wait(world.server().started)
    with logged() as log:
        for _ in range(5):
            client = world.stranger(("visitor", "stranger"))
            world.until(lambda client=client: client.lost)  # type: ignore[misc]
        lines = [line for line in log if "session refused" in line]
        assert len(lines) == 2
        assert all(line.startswith("warn: ") and "role visitor" in line and "(stranger)" in line for line in lines)
        world.run(MINUTE_SECONDS)
        assert [line for line in log if "within a minute" in line] == [
            "warn: 3 more connections from stranger failed within a minute"
        ]
