"""Detector among real hosts: indirect probes, local health, cap, false reports, lost hosts, damping (P8, P9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compass.agent.replica import disk_cache
from compass.model.host_api import LocalRegister, Outcome
from compass.model.replies import CaseFile, Registered, Reported
from compass.model.requests import Drain, Examine, Fetch, Findings, Put, Register, Report
from compass.model.rows import Category, Listener, Policy
from compass.server.failure import checks, detector, local_health
from compass.wire.messages import Inquiry
from tests.server.conftest import Uss
from tests.server.push.test_publisher import CHINA, watcher
from tests.support.virtual_world import SimulatedHost

BACKUP = "emergency.rescue"
KEEPALIVE_SECONDS = 30.0
"""Time after which the kernel reports a session whose packets are dropped."""


@pytest.fixture
def uss(world: Uss) -> Uss:
    """A world with a server and four hosts: three depend on openuss, and one serves it."""
    world.wait(world.server().started)
    for name in ("web1", "web2", "web3"):
        assert not isinstance(world.wait(world.host(name).daemon.dependencies("portal.web")), Exception)
    world.host("store1")
    world.run(1.0)
    return world


def register(world: Uss, port: int = 2028, host: str = "store1", service: str = CHINA) -> Outcome:
    daemon = world.hosts[host].daemon
    outcome = world.wait(daemon.register(LocalRegister(service, port, world.tokens[service])))
    assert isinstance(outcome, Outcome) and outcome.state == "up", outcome
    world.run(0.1)
    return outcome


def report(world: Uss, outcome: Outcome, by: str = "web1") -> Any:
    """Report as a host that has not probed before: a false report gets no further than the reporter's own daemon."""
    request = Report(outcome.service, outcome.address, outcome.port, reporter="portal.web")
    return world.wait(world.hosts[by].upstream.ask(request))


def row_of(world: Uss, outcome: Outcome) -> Listener:
    row = world.servers["gns1"].nameserver.catalogue.listener(outcome.service, outcome.address, outcome.port)
    assert row is not None
    return row


def operations(world: Uss, after: int) -> list[str]:
    """Return the operations in the log since a revision, without those of hosts."""
    changes = world.store.changes_after(after, 10_000)
    return [change.operation for change in changes if not change.operation.startswith("host")]


def revision(world: Uss) -> int:
    return world.servers["gns1"].nameserver.catalogue.revision


def case(world: Uss, outcome: Outcome) -> CaseFile:
    reply = world.admin().ask(Examine(outcome.service, outcome.address, outcome.port))
    assert isinstance(reply, CaseFile), reply
    return reply


def alerts(world: Uss) -> list[str]:
    return [row.id for row in world.admin().ask(Fetch("alert")).rows]


def alerts_of(world: Uss) -> list[str]:
    """Return the ids of the open incidents, without a session of an administrator."""
    return sorted(world.servers["gns1"].nameserver.catalogue.alerts)


def session_of(host: str) -> str:
    """Return the id of the incident of a host without a session."""
    return f"failure session of host {host}"


def policy(world: Uss, **fields: Any) -> None:
    world.admin().ask(Put(Category("openuss", BACKUP, Policy(recovery_seconds=1.0, **fields))))


def dark(world: Uss, host: SimulatedHost) -> None:
    """Drop every packet from and to a machine; after a while the kernels report it."""
    world.network.silence(host.name, "gns1")
    for other in ("gns1", *(name for name in world.hosts if name != host.name)):
        world.apart.add((other, address_of(world, host.name)))
    world.run(KEEPALIVE_SECONDS)
    world.network.cut(host.name, "gns1")


def address_of(world: Uss, host: str) -> str:
    return f"10.0.0.{1 + list(world.hosts).index(host)}"


def test_hosts_that_depend_on_it_are_asked_before_a_listener_is_down(uss: Uss) -> None:
    """The server asks two hosts, not the reporter and not the one that it runs on; `examine` says which found what."""
    outcome = register(uss)
    uss.dead.add((outcome.address, outcome.port))
    report(uss, outcome)
    took = uss.until(lambda: row_of(uss, outcome).state == "down")
    assert took < 0.5
    assert row_of(uss, outcome).cause == "2 probes failed: connection refused; web2, web3 found the same"
    assert [len(uss.hosts[name].probed) for name in ("web1", "web2", "web3", "store1")] == [0, 1, 1, 0]
    found = case(uss, outcome)
    assert [(one.kind, one.by, one.alive) for one in found.evidence[:2]] == [
        ("report", "web1", False),
        ("probe", "gns1", False),
    ]
    assert {(one.kind, one.by, one.alive) for one in found.evidence[2:4]} == {
        ("findings", "web2", False),
        ("findings", "web3", False),
    }
    assert found.judgement.startswith("dead: 2 probes failed") and found.inquiry == "recovery" and found.failures == 1


def test_a_server_that_cannot_reach_what_others_can_condemns_nothing(uss: Uss) -> None:
    """P8: the server's own probe fails; a host finds it alive; every host continues to use it."""
    outcome = register(uss)
    uss.apart.add(("gns1", outcome.address))
    before = revision(uss)
    report(uss, outcome)
    uss.until(lambda: row_of(uss, outcome).state == "up")
    assert operations(uss, before) == ["report", "retract"]
    assert "though not this server" in row_of(uss, outcome).cause


def test_a_witness_that_is_silent_is_not_waited_for_long(uss: Uss) -> None:
    """A silent host has the probe's time and a little more; the result of the other counts."""
    outcome = register(uss)
    uss.dead.add((outcome.address, outcome.port))
    uss.network.silence("web2", "gns1")
    report(uss, outcome)
    took = uss.until(lambda: row_of(uss, outcome).state == "down")
    assert 1.0 < took < 1.0 + checks.WITNESS_SECONDS + 0.5
    assert row_of(uss, outcome).cause.endswith("web3 found the same")


def test_an_older_host_is_not_asked(world: Uss) -> None:
    """P13: one that does not say that it answers inquiries gets none; one that was not asked has nothing to find."""
    world.wait(world.server().started)
    store = world.client(("host", "store1"))
    assert isinstance(store.ask(Register(CHINA, world.tokens[CHINA], "192.168.2.1", 2028, 1)), Registered)
    one, other = watcher(world, "web1", "portal.web"), watcher(world, "web2", "portal.web")
    able = watcher(world, "web3", "portal.web", probes=True)
    world.dead.add(("192.168.2.1", 2028))
    one.send(Report(CHINA, "192.168.2.1", 2028))
    world.until(lambda: any(isinstance(message, Inquiry) for message in able.pushed))
    (inquiry,) = [message for message in able.pushed if isinstance(message, Inquiry)]
    assert other.ask(Findings(inquiry.id, True)).code == "bad-value"
    assert able.ask(Findings(inquiry.id, False, "connection refused")) == Reported(able_revision(world), "suspect")
    assert able.ask(Findings(inquiry.id, True)).code == "bad-value"
    assert able.ask(Findings(999, True)).code == "bad-value"
    assert not [message for message in other.pushed if isinstance(message, Inquiry)]


def able_revision(world: Uss) -> int:
    return world.store.load().revision


def test_a_server_whose_probes_all_fail_doubts_itself_and_recovers(uss: Uss) -> None:
    """P8: cut off from a rack that has no witness left, it condemns none of it, says so once, and gets over it."""
    outcomes = [register(uss, port) for port in range(8001, 8011)]
    policy(uss, witnesses=0)
    uss.apart.add(("gns1", outcomes[0].address))
    uss.network.cut("store1", "gns1")
    uss.network.silence("store1", "gns1")
    uss.run(60.0)
    assert {row_of(uss, outcome).state for outcome in outcomes} == {"suspect"}
    assert alerts(uss) == ["failure doubt of gns1"]
    assert case(uss, outcomes[0]).doubting and "undecided" in case(uss, outcomes[0]).judgement
    uss.apart.clear()
    uss.network.heal()
    uss.until(lambda: {row_of(uss, outcome).state for outcome in outcomes} == {"up"}, 60.0)
    uss.run(local_health.DOUBT_LOOK_SECONDS * 2)
    assert not alerts(uss)
    news = [item for item in uss.servers["gns1"].news if b"doubt" in item]
    assert len(news) == 2


def test_a_server_without_any_session_condemns_nothing(uss: Uss) -> None:
    """A server whose sessions all end at once is cut off itself; it judges no listener.
    All its hosts share one incident, also while they come back one after the other.
    """
    outcome = register(uss)
    before = revision(uss)
    for name in uss.hosts:
        uss.network.cut(name, "gns1")
        uss.network.silence(name, "gns1")
    uss.apart.add(("gns1", outcome.address))
    uss.run(120.0)
    assert row_of(uss, outcome).state == "up" and operations(uss, before) == ["alert"]
    assert alerts_of(uss) == ["failure sessions of other hosts"]
    uss.apart.clear()
    uss.network.heal()
    uss.run(60.0)
    assert operations(uss, before) == ["alert", "alert-over"]


def test_an_outage_stops_at_the_cap(uss: Uss) -> None:
    """P8: of ten listeners that are all dead eight are down; two stay suspect, as a last resort; there is one alert.
    When they answer again all is as before.
    """
    outcomes = [register(uss, port) for port in range(8001, 8011)]
    uss.dead |= {(outcome.address, outcome.port) for outcome in outcomes}
    for outcome in outcomes:
        report(uss, outcome)
    uss.run(30.0)
    states = sorted(row_of(uss, outcome).state for outcome in outcomes)
    assert states == ["down"] * 8 + ["suspect"] * 2
    assert sum("cap of openuss" in id for id in alerts(uss)) == 1
    resolved = uss.hosts["web1"].daemon.resolve(CHINA)
    assert getattr(resolved, "source", "") == "suspect"
    uss.dead.clear()
    uss.until(lambda: {row_of(uss, outcome).state for outcome in outcomes} == {"up"}, 120.0)
    uss.run(1.0)
    assert not alerts(uss)


def test_a_backup_takes_over_although_the_cap_keeps_the_last_one_suspect(uss: Uss) -> None:
    """G10 with the default cap: all three listeners of a service hang; its users get the backup's."""
    outcomes = [register(uss, port) for port in (8001, 8002, 8003)]
    spare = register(uss, 9001, service=BACKUP)
    uss.dead |= {(outcome.address, outcome.port) for outcome in outcomes}
    for outcome in outcomes:
        report(uss, outcome)
    uss.run(5.0)
    assert sorted(row_of(uss, outcome).state for outcome in outcomes) == ["down", "down", "suspect"]
    resolved = uss.hosts["web2"].daemon.resolve(CHINA)
    assert getattr(resolved, "source", "") == "backup" and row_of(uss, spare).state == "up"


def test_repeated_false_reports_stop_having_any_effect(uss: Uss) -> None:
    """Issue 3, line 5: "A false report on a healthy listener: no dependant ever gets an answer without it beyond the
    suspect window, and repeated false reporters stop having any effect". Another reporter is believed all the same.
    """
    outcome = register(uss)
    other = register(uss, 2029)
    effects, without = [], []
    for _ in range(8):
        before = revision(uss)
        report(uss, outcome)
        without.append(longest_without(uss, outcome.port, 0.3))
        assert row_of(uss, outcome).state == "up"
        effects.append(operations(uss, before))
        uss.run(10.0)
    shown = ", ".join(f"{1000 * seconds:.0f}" for seconds in without)
    print(f"\nlongest time without it in an answer on any other host, for each of 8 false reports: {shown} ms")
    assert effects[:3] == [["report", "retract"]] * 3 and effects[3:] == [[]] * 5
    assert 0 < max(without[:3]) < 0.1 and max(without[3:]) == 0
    probes = len(uss.servers["gns1"].probed)
    report(uss, outcome)
    uss.run(1.0)
    assert len(uss.servers["gns1"].probed) == probes + 1, "it is looked at, all the same"
    report(uss, outcome)
    report(uss, outcome)
    uss.dead.add((other.address, other.port))
    report(uss, other, by="web2")
    uss.until(lambda: row_of(uss, other).state == "down")
    uss.dead.add((outcome.address, outcome.port))
    uss.run(2.0)
    report(uss, outcome)
    uss.until(lambda: row_of(uss, outcome).state == "suspect")


def ports_of(world: Uss, host: str) -> set[int]:
    resolved: Any = world.hosts[host].daemon.resolve(CHINA)
    return {peer.port for peer in resolved.listeners}


def longest_without(world: Uss, port: int, seconds: float) -> float:
    """Let time pass; the longest that a host other than the reporter's answered without this listener."""
    hosts = ("web2", "web3")
    since: dict[str, float] = {}
    longest = 0.0
    until = world.clock.seconds() + seconds
    while world.clock.seconds() < until:
        now = world.clock.seconds()
        for host in hosts:
            if port in ports_of(world, host):
                longest = max(longest, now - since.pop(host, now))
            else:
                since.setdefault(host, now)
        world.run(0.001)
    assert not since
    return longest


def test_a_probe_just_answered_refutes_a_report_that_does_not_suffice(uss: Uss) -> None:
    """P10: a flood of reports is one probe a second."""
    outcome = register(uss)
    policy(uss, reporters=2)
    probed = uss.servers["gns1"].probed
    before = revision(uss)
    for _ in range(20):
        report(uss, outcome)
        uss.run(0.05)
    assert 1 <= len(probed) <= 3 and operations(uss, before) == []


def test_several_independent_reporters_may_be_needed(uss: Uss) -> None:
    """The second host makes it suspect at once with `reporters = 2`, although nothing was probed yet."""
    outcome = register(uss)
    policy(uss, reporters=2)
    uss.apart.add(("gns1", outcome.address))
    assert report(uss, outcome, "web1").state == "up"
    assert report(uss, outcome, "web2").state == "suspect"
    uss.until(lambda: row_of(uss, outcome).state == "up")


def test_the_daemon_alone_killed_is_no_failure_of_its_services(uss: Uss) -> None:
    """Issue 3, 4: "A kill -9 of opengnscd alone leaves its services registered": only the incident of the host, and a
    probe now and then while it stays away, less and less often.
    """
    outcome = register(uss)
    before = revision(uss)
    uss.hosts["store1"].crash()
    uss.run(Policy().grace_seconds - 0.1)
    assert not uss.servers["gns1"].probed
    uss.run(1000.0)
    assert row_of(uss, outcome).state == "up" and operations(uss, before) == ["alert"]
    assert alerts_of(uss) == [session_of("store1")]
    assert 5 < len(uss.servers["gns1"].probed) < 15
    uss.dead.add((outcome.address, outcome.port))
    uss.until(lambda: row_of(uss, outcome).state == "down", checks.ABSENT_SECONDS_MAX + 10)
    assert operations(uss, before)[:3] == ["alert", "suspect", "confirm"]
    assert [one.kind for one in case(uss, outcome).evidence][:2] == ["session", "probe"]


def test_a_host_that_is_back_in_time_costs_nothing(uss: Uss) -> None:
    """Within the grace time: no probe, no notice."""
    outcome = register(uss)
    before = revision(uss)
    uss.network.cut("store1", "gns1")
    uss.run(60.0)
    assert not uss.servers["gns1"].probed
    assert row_of(uss, outcome).state == "up" and operations(uss, before) == []


def test_hosts_that_come_back_after_a_servers_restart_make_no_wave(uss: Uss) -> None:
    """Only who stays away is looked at, once the others have had the time to come back."""
    outcome, gone = register(uss), register(uss, 2030, host="web3")
    before = revision(uss)
    uss.hosts["web3"].crash()
    uss.servers["gns1"].crash()
    uss.run(1.0)
    uss.wait(uss.server().started)
    uss.run(detector.ABSENCE_GRACE_SECONDS + 20.0)
    assert operations(uss, before) == ["alert"] and alerts_of(uss) == [session_of("web3")]
    assert set(uss.servers["gns1"].probed) == {(gone.address, gone.port)}
    assert row_of(uss, outcome).state == "up"


def test_a_lost_host_is_marked_and_comes_back_without_a_flap(uss: Uss) -> None:
    """P9: the machine is gone without a word; its listeners are probed and marked. When it is back they are probed
    at once, and it re-establishes them: one change each, and no new instance.
    """
    outcomes = [register(uss, port) for port in (8001, 8002)]
    keeper = register(uss, 8003, host="web3")
    before = revision(uss)
    dark(uss, uss.hosts["store1"])
    uss.until(lambda: all(row_of(uss, outcome).state == "down" for outcome in outcomes), 10.0)
    assert sorted(operations(uss, before)) == ["alert", "alert", "confirm", "confirm", "suspect", "suspect"]
    assert row_of(uss, keeper).state == "up" and ports_of(uss, "web1") == {keeper.port}
    uss.run(200.0)
    assert session_of("store1") in alerts_of(uss)
    before = revision(uss)
    uss.apart.clear()
    uss.network.heal()
    took = uss.until(lambda: all(row_of(uss, outcome).state == "up" for outcome in outcomes), 40.0)
    uss.run(100.0)
    assert sorted(operations(uss, before)) == ["alert-over"] * 3 + ["recover"] * 2 and alerts_of(uss) == []
    print(f"\nback {took:.1f} s after the line, most of it the host's own pause")


def test_a_draining_listener_fails_and_goes_on_draining(uss: Uss) -> None:
    """P8: it can be reported like any other; when it is back it takes no new users, as before."""
    outcome = register(uss)
    admin = uss.admin()
    admin.ask(Drain(CHINA, outcome.address, outcome.port))
    uss.dead.add((outcome.address, outcome.port))
    uss.run(0.1)
    report(uss, outcome)
    uss.until(lambda: row_of(uss, outcome).state == "down")
    assert row_of(uss, outcome).draining
    uss.dead.clear()
    uss.until(lambda: row_of(uss, outcome).state == "draining", 30.0)
    admin.ask(Drain(CHINA, outcome.address, outcome.port, draining=False))
    assert row_of(uss, outcome).state == "up" and not row_of(uss, outcome).draining


def test_a_listener_that_flaps_is_kept_out(uss: Uss) -> None:
    """Return after recovery, but not again and again: the one failure too many costs it a minute."""
    outcome = register(uss)
    register(uss, 2029)
    policy(uss, flaps=2, hold_seconds=60.0)
    where = (outcome.address, outcome.port)
    outages: list[float] = []
    for _ in range(4):
        uss.dead.add(where)
        report(uss, outcome)
        uss.until(lambda: row_of(uss, outcome).state == "down")
        uss.dead.clear()
        if len(outages) == 3:
            uss.run(10.0)
            kept = case(uss, outcome)
            assert kept.failures == 4 and kept.held_until > uss.now() + 100.0
            assert "goes down too often" in kept.judgement
        outages.append(uss.until(lambda: row_of(uss, outcome).state == "up", 200.0))
        uss.run(1.0)
    assert max(outages[:2]) < 10.0 and 55.0 < outages[2] < 65.0 and 100.0 < outages[3] < 130.0


def test_what_is_not_there_cannot_be_examined(uss: Uss) -> None:
    """P5: a name that is none and a listener that is not there are two answers; nothing known is an empty file."""
    outcome = register(uss)
    admin = uss.admin()
    assert admin.ask(Examine("nothing", "10.0.0.1", 1)).code == "bad-name"
    assert admin.ask(Examine(CHINA, "10.9.9.9", 1)).code == "unknown-listener"
    assert admin.ask(Examine(CHINA, "nowhere", 1)).code == "bad-address"
    assert case(uss, outcome) == CaseFile(revision(uss), row_of(uss, outcome))


HUNDRED = 100


def test_one_of_a_hundred_hosts_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 3, line 4: "100 hosts: one cut off by dropped packets (not reset): its listeners are probed and marked,
    everybody else goes on; when it comes back nothing flaps".
    """
    # Their disks are not what this is about, and a hundred of them are slow.
    monkeypatch.setattr(disk_cache, "WRITE_PAUSE_SECONDS", 60.0)
    world = Uss(7, tmp_path)
    world.wait(world.server().started)
    names = [f"h{number}" for number in range(HUNDRED)]
    for name in names:
        world.host(name)
        world.hosts[name].daemon.dependencies("portal.web")
    world.run(2.0)
    outcomes = {name: register(world, 8001, name) for name in names}
    lost = outcomes["h42"]
    before = revision(world)
    dark(world, world.hosts["h42"])
    marked = world.until(lambda: row_of(world, lost).state == "down", 20.0)
    world.run(60.0)
    assert operations(world, before) == ["suspect", "confirm", "alert", "alert"]
    assert session_of("h42") in alerts_of(world)
    seen = [resolved_addresses(world, name) for name in names if name != "h42"]
    assert all(len(addresses) == HUNDRED - 1 and lost.address not in addresses for addresses in seen)
    before = revision(world)
    world.apart.clear()
    world.network.heal()
    back = world.until(lambda: row_of(world, lost).state == "up", 60.0)
    world.run(120.0)
    assert sorted(operations(world, before)) == ["alert-over", "alert-over", "recover"] and alerts_of(world) == []
    assert all(len(resolved_addresses(world, name)) == HUNDRED for name in names)
    print(f"\none of {HUNDRED} hosts: down {marked:.1f} s after TCP noticed it, up {back:.1f} s after the line is back")


def resolved_addresses(world: Uss, host: str) -> set[str]:
    resolved: Any = world.hosts[host].daemon.resolve(CHINA)
    return {peer.address for peer in resolved.listeners}
