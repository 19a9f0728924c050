"""Health checks, from a report to a verdict, and back after recovery (G12, G13, G14, P8)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.internet.defer import succeed

from compass.model.interfaces import StoreUnavailable
from compass.model.replies import Registered, Reported
from compass.model.requests import Deregister, Examine, Fetch, Put, Register, Report
from compass.model.rows import Category, Policy
from compass.model.rules.networks import ProbeDenied
from compass.server.failure import checks, detector
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, watcher
from tests.support.virtual_world import Client

WHERE = ("192.168.2.1", 2028)


@pytest.fixture
def user(world: Uss) -> Client:
    """A host with a service that depends on openuss, while one listener of chinaserver is up."""
    world.wait(world.server().started)
    store = world.client(("host", "store1"))
    assert isinstance(store.ask(Register(CHINA, world.tokens[CHINA], *WHERE, 1)), Registered)
    return watcher(world, "web1", "portal.web")


def states(client: Client) -> list[str]:
    return [notice.change.row.state for notice in client.pushed]


def report(client: Client, state: Any = "unreachable") -> Any:
    return client.ask(Report(CHINA, *WHERE, state, "portal.web", "timeout"))


def alerts(world: Uss) -> list[Any]:
    return list(world.admin().ask(Fetch("alert")).rows)


def test_a_dead_listener_is_suspect_at_once_and_down_after_the_probe(world: Uss, user: Client) -> None:
    """G12: one meets a dead listener, the others learn: first the evidence, then the verdict."""
    world.dead.add(WHERE)
    other = watcher(world, "web2", "portal.web")
    reply = report(user)
    assert isinstance(reply, Reported) and reply.state == "suspect"
    assert world.until(lambda: states(other) == ["suspect", "down"]) < 1.0
    assert other.pushed[0].change.row.cause == "reported unreachable by portal.web on web1: timeout"
    assert other.pushed[1].change.row.cause == "2 probes failed: connection refused"
    (alert,) = alerts(world)
    assert alert.kind == "failure" and CHINA in alert.text


def test_a_false_report_is_retracted(world: Uss, user: Client) -> None:
    """P8: a false report removes nothing healthy: the probe finds it serving, and every dependant is notified."""
    report(user)
    world.until(lambda: states(user) == ["suspect", "up"])
    assert not alerts(world)
    assert not world.servers["gns1"].news


def test_many_reports_are_one_incident(world: Uss, user: Client) -> None:
    """G14: administrators are notified once per incident, not once per report, and once when it is over."""
    world.dead.add(WHERE)
    others = [watcher(world, f"web{n}", "portal.web") for n in range(2, 12)]
    for other in others:
        other.send(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    world.until(lambda: states(user) == ["suspect", "down"])
    for other in others:
        assert report(other).state == "down"
    world.run(10.0)
    news = [msgspec.json.decode(item) for item in world.servers["gns1"].news]
    assert [item["event"] for item in news] == ["opened"]
    world.dead.clear()
    world.until(lambda: states(user) == ["suspect", "down", "up"], 60.0)
    world.run(0.1)
    news = [msgspec.json.decode(item) for item in world.servers["gns1"].news]
    assert [item["event"] for item in news] == ["opened", "resolved"]
    assert not alerts(world)


def test_recovery_is_looked_for_less_and_less_often(world: Uss, user: Client) -> None:
    """Return after recovery: the pause doubles, up to a minute, so a dead rack costs few probes."""
    world.dead.add(WHERE)
    report(user)
    world.until(lambda: states(user) == ["suspect", "down"])
    server = world.servers["gns1"]
    server.probed.clear()
    world.run(3600.0)
    # 1 + 2 + 4 + 8 + 16 + 32 seconds, then one a minute.
    assert 60 <= len(server.probed) <= 68


def test_slow_is_for_the_administrators_alone(world: Uss, user: Client) -> None:
    """G13: there is no notice but one alert, which is over when no host has complained for a while."""
    for _ in range(3):
        assert report(user, "slow").state == "up"
    world.run(1.0)
    assert not user.pushed
    assert [alert.kind for alert in alerts(world)] == ["slow"]
    assert len(world.servers["gns1"].news) == 1
    world.run(checks.SLOW_SECONDS)
    assert not alerts(world)


def test_the_policy_is_the_category_s(world: Uss, user: Client) -> None:
    """G13: with `slow = notify` dependants are notified as well, and again when it is over."""
    policy = Policy(slow="notify")
    world.admin().ask(Put(Category("openuss", "emergency.rescue", policy)))
    report(user, "slow")
    world.until(lambda: states_of_listener(user) == ["slow"])
    world.run(checks.SLOW_SECONDS + 1)
    assert states_of_listener(user) == ["slow", "up"]
    assert not alerts(world)


def states_of_listener(client: Client) -> list[str]:
    return [notice.change.row.state for notice in client.pushed if hasattr(notice.change.row, "state")]


def test_a_verdict_counts_only_for_the_instance_that_was_probed(world: Uss, user: Client) -> None:
    """P6: while the old instance is being probed a new one registers; it stays."""
    world.dead.add(WHERE)
    store = world.client(("host", "store1"))
    world.network.latency_seconds = (0.05, 0.06)
    user.send(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    world.until(lambda: bool(world.servers["gns1"].probed))
    assert isinstance(store.ask(Register(CHINA, world.tokens[CHINA], *WHERE, 2)), Registered)
    world.run(10.0)
    assert states(user) == ["suspect", "up"]


def test_a_listener_that_leaves_while_it_is_probed_is_left_alone(world: Uss, user: Client) -> None:
    """A deregistration ends the inquiry."""
    world.dead.add(WHERE)
    user.send(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    world.until(lambda: states(user) == ["suspect"])
    world.client(("host", "store1")).ask(Deregister(CHINA, world.tokens[CHINA], *WHERE, 1))
    world.run(120.0)
    assert states(user) == ["suspect", "offline"]


def test_who_does_not_depend_on_a_service_may_not_report_it(world: Uss, user: Client) -> None:
    """P8: a host without dependants of the category has no say in its health."""
    outsider = watcher(world, "uso", "account.openuso")
    assert report(outsider).code == "forbidden"
    assert report(world.client(("host", "nobody"))).code == "forbidden"
    assert report(world.admin()).state == "suspect"


def test_inquiries_are_taken_up_after_a_restart(world: Uss, user: Client) -> None:
    """A server that dies between suspicion and verdict leaves no listener suspect for ever."""
    world.dead.add(WHERE)
    user.send(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    world.until(lambda: states(user) == ["suspect"])
    world.servers["gns1"].crash()
    world.wait(world.server().started)
    again = watcher(world, "web1", "portal.web")
    world.until(lambda: states(again) == ["down"])
    world.dead.clear()
    world.until(lambda: states(again) == ["down", "up"], 60.0)


def test_a_verdict_waits_for_an_unavailable_store(world: Uss, user: Client) -> None:
    """The desk asks again until the verdict is committed."""
    world.dead.add(WHERE)
    server = world.servers["gns1"]
    user.send(Report(CHINA, *WHERE, "unreachable", "portal.web"))
    world.until(lambda: states(user) == ["suspect"])
    server.thread.failing = StoreUnavailable("disk full")
    world.run(5.0)
    assert states(user) == ["suspect"]
    server.thread.failing = None
    world.until(lambda: states(user) == ["suspect", "down"])


def test_probes_under_way_are_bounded(world: Uss, user: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: a rack that dies makes thousands of checks, and a limited number of connections at once."""
    monkeypatch.setattr(detector, "PROBES_MAX", 4)
    world.servers["gns1"].crash()
    server = world.server()
    world.wait(server.started)
    store = world.client(("host", "store1"))
    for port in range(1, 31):
        store.send(Register(CHINA, world.tokens[CHINA], "192.168.2.1", port, 1))
    world.until(lambda: len(store.replies) == 30)
    world.network.latency_seconds = (1.0, 1.0)
    reporter = watcher(world, "web1", "portal.web")
    for port in range(1, 31):
        reporter.send(Report(CHINA, "192.168.2.1", port, "unreachable", "portal.web"))
    world.run(3.0)
    assert 0 < len(server.probed) <= 8
    world.until(lambda: len(server.probed) >= 30, 60.0)


def deny(world: Uss, *machines: str) -> None:
    """Let these machines probe nothing, as their configuration says."""
    probe = world.probe

    def denied(machine: str, *more: Any) -> Any:
        return succeed(ProbeDenied("not probed: 192.168.2.1")) if machine in machines else probe(machine, *more)

    world.probe = denied  # type: ignore[assignment, method-assign]


def test_a_server_that_may_not_probe_has_hosts_decide(world: Uss, user: Client) -> None:
    """W8: hosts that depend on the listener find it alive, dead, and alive again; the server sends no packet."""
    deny(world, "gns1")
    for name in ("web7", "web8"):
        world.wait(world.host(name).daemon.dependencies("portal.web"))
    report(user)
    world.until(lambda: states(user) == ["suspect", "up"])
    assert user.pushed[1].change.row.cause == "answered web7, web8; not probed: 192.168.2.1"
    world.dead.add(WHERE)
    report(user)
    world.until(lambda: states(user)[2:] == ["suspect", "down"])
    assert user.pushed[3].change.row.cause == "web7, web8 found it dead; not probed: 192.168.2.1"
    world.dead.clear()
    world.until(lambda: states(user)[4:] == ["up"], 60.0)


def test_a_listener_that_no_machine_may_probe_is_not_condemned(world: Uss, user: Client) -> None:
    """W8: a denied probe is no evidence, neither of a server nor of a host; a suspect listener stays suspect."""
    deny(world, "gns1", "web7")
    world.wait(world.host("web7").daemon.dependencies("portal.web"))
    world.dead.add(WHERE)
    report(user)
    world.run(30.0)
    assert states(user) == ["suspect"] and not alerts(world)
    case = world.admin().ask(Examine(CHINA, *WHERE))
    assert {evidence.kind for evidence in case.evidence} == {"report"}
    assert case.judgement == "undecided: not probed: 192.168.2.1"


def test_the_listener_of_a_lost_host_is_suspect_if_it_may_not_be_probed(world: Uss) -> None:
    """W8: the loss of the session is evidence, which hosts are asked about."""
    deny(world, "gns1")
    world.wait(world.server().started)
    user = watcher(world, "web1", "portal.web")
    store = watcher(world, "store1", CHINA)
    store.ask(Register(CHINA, world.tokens[CHINA], *WHERE, 1))
    world.until(lambda: states(user) == ["up"])
    store.transport.abortConnection()
    world.until(lambda: states(user) == ["up", "suspect"])
    assert user.pushed[1].change.row.cause == "the session of host store1 is lost; not probed: 192.168.2.1"
