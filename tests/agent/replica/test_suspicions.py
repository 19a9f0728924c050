"""Suspicions at a host, and the repetition of reports that no server could accept."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from compass.agent.replica.suspicions import EVIDENCE_MAX, EVIDENCE_SECONDS, OWED_SECONDS, RENEWAL_SECONDS, Suspicions
from compass.agent.upstream import report_relay
from compass.agent.upstream.connector import CONNECT_SECONDS, UpstreamDependencies
from compass.agent.upstream.report_relay import ReportRelay
from compass.agent.upstream.server_selector import ServerAddress, ServerSelector, in_order
from compass.agent.upstream.session import Session
from compass.model.backoff import PATIENCE_SECONDS_MAX, RETRY_SECONDS_MAX, RETRY_SECONDS_MIN, Backoff
from compass.model.catalogue.catalogue import Catalogue
from compass.model.host_api import LocalReport
from compass.model.replies import Reply
from compass.model.requests import Report
from compass.model.rows import Listener, State
from compass.model.selection.selector import Selector
from compass.wire.limits import SUSPICION_SECONDS_MAX
from compass.wire.messages import Suspicion

KEY = ("s0.a", "10.0.0.1", 1)


def row(port: int = 1, state: State = "up") -> Listener:
    return Listener("s0.a", "10.0.0.1", port, state, 1.0, 1)


def suspicion(seconds: float = 30.0, port: int = 1) -> Suspicion:
    return Suspicion("s0.a", "10.0.0.1", port, 1, seconds, "a probe failed")


def state(evidence: Suspicions, now: float, catalogue: Catalogue | None = None) -> str:
    """Return the state of the listener that programs get."""
    catalogue = Catalogue().with_row(row()) if catalogue is None else catalogue
    found = evidence.apply_to(catalogue, now).listener(*KEY)
    return found.state if found else "none"


@pytest.mark.parametrize(
    ("seconds", "believed"),
    [(30.0, 30.0), (SUSPICION_SECONDS_MAX, SUSPICION_SECONDS_MAX), (SUSPICION_SECONDS_MAX + 1, SUSPICION_SECONDS_MAX)],
)
def test_a_suspicion_holds_as_long_as_it_says_and_a_minute_at_most(seconds: float, believed: float) -> None:
    """ "After `seconds` (`SUSPICION_SECONDS_MAX` at most)": its server may be gone by then."""
    evidence = Suspicions()
    assert evidence.add_notified(suspicion(seconds), row(), 0.0) == believed
    assert state(evidence, believed - 0.1) == "suspect"
    assert state(evidence, believed) == "up"


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_withdrawn_suspicion_ends_what_a_program_here_had_found_too(seconds: float) -> None:
    """An answered probe is newer than the report, so the report is not repeated."""
    evidence, catalogue = Suspicions(), Catalogue().with_row(row())
    evidence.add(LocalReport(*KEY), row(), 0.0)
    evidence.add_notified(suspicion(), row(), 1.0)
    assert state(evidence, 2.0) == "suspect"
    evidence.add_notified(suspicion(seconds), row(), 2.0)
    assert state(evidence, 2.0) == "up"
    assert evidence.undelivered(catalogue, 2.0) == []


@pytest.mark.parametrize("after", ["slow", "suspect", "down", "draining"])
def test_a_suspicion_ends_with_another_row_of_the_log(after: State) -> None:
    """ "It ends when a notice or a snapshot brings another row of that listener": the log has the last word."""
    evidence = Suspicions()
    evidence.add_notified(suspicion(), row(), 0.0)
    assert state(evidence, 1.0, Catalogue().with_row(row(state=after))) == after
    assert state(evidence, 1.0) == "up"


def test_a_suspicion_outlasts_the_answer_to_a_watch_by_a_second() -> None:
    """ "A second after the answer to a `watch` unless it is told again by then"."""
    evidence = Suspicions()
    evidence.add_notified(suspicion(), row(), 0.0)
    evidence.renew_notified(5.0)
    assert state(evidence, 5.0 + RENEWAL_SECONDS - 0.1) == "suspect"
    evidence.add_notified(suspicion(), row(), 5.5)
    assert state(evidence, 30.0) == "suspect"
    evidence.renew_notified(30.0)
    assert state(evidence, 30.0 + RENEWAL_SECONDS) == "up"


def test_a_draining_listener_is_suspected_too_and_one_that_is_down_stays_down() -> None:
    """A listener is in use if lookups may return it."""
    for before, shown in (("draining", "suspect"), ("down", "down")):
        evidence = Suspicions()
        old = row(state=before)  # type: ignore[arg-type]
        evidence.add_notified(suspicion(), old, 0.0)
        assert state(evidence, 1.0, Catalogue().with_row(old)) == shown


def test_no_number_of_suspicions_leaves_a_list_empty() -> None:
    """P5: lookups return suspected listeners if there are no others, and memory stays bounded."""
    evidence, catalogue = Suspicions(), Catalogue()
    for port in range(1, EVIDENCE_MAX + 2):
        catalogue = catalogue.with_row(row(port))
        evidence.add_notified(suspicion(port=port), row(port), 0.0)
    seen = evidence.apply_to(catalogue, 1.0).listeners["s0.a"].values()
    assert [peer.port for peer in seen if peer.state == "up"] == [1], "of one too many the oldest is forgotten"
    evidence.add_notified(suspicion(port=1), row(1), 1.0)
    evidence.add_notified(suspicion(port=2), row(2), 1.0)
    one = Catalogue().with_row(row(1)).with_row(row(2))
    chosen = Selector(lambda: 0.5).choose(evidence.apply_to(one, 1.0), "s0.a")
    assert (chosen.source, len(chosen.listeners)) == ("suspect", 2)


def test_a_report_is_owed_for_longer_than_it_is_acted_on() -> None:
    """A store that is unavailable for two minutes still gets the report; the host uses the listener again after one."""
    evidence, catalogue = Suspicions(), Catalogue().with_row(row())
    report = LocalReport(*KEY)
    evidence.add(report, row(), 0.0)
    assert state(evidence, EVIDENCE_SECONDS) == "up"
    assert evidence.undelivered(catalogue, OWED_SECONDS - 0.1) == [report]
    assert evidence.undelivered(catalogue, OWED_SECONDS) == []
    evidence.add(report, row(), 0.0)
    assert evidence.undelivered(Catalogue().with_row(msgspec.structs.replace(row(), epoch=2)), 1.0) == []


def test_pauses_grow_with_some_randomness_and_end() -> None:
    """Never sooner than a server has asked for, never longer than it may be believed, and from the start again once
    it works."""
    pauses = Backoff(Random(1).random)
    found = [pauses.next() for _ in range(8)]
    assert RETRY_SECONDS_MIN <= found[0] <= RETRY_SECONDS_MIN * 1.5
    assert all(RETRY_SECONDS_MAX <= pause <= RETRY_SECONDS_MAX * 1.5 for pause in found[5:])
    assert len(set(found[5:])) == 3, "10,000 hosts do not come back in one moment"
    assert 20.0 <= pauses.next(20.0) <= 30.0
    assert pauses.next(3600.0) <= PATIENCE_SECONDS_MAX * 1.5
    pauses.reset()
    assert pauses.next() <= RETRY_SECONDS_MIN * 1.5


class Endpoint:
    """A server that may not be there."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Any]] = []

    def connect(self, factory: Any) -> Deferred[Any]:
        self.asked.append(Deferred())
        return self.asked[-1]


class Others:
    """Two servers without a session, and the receiver of their replies."""

    def __init__(self) -> None:
        self.endpoints = {ServerAddress(name, "192.0.2.1", 4863): Endpoint() for name in ("gns2", "gns3")}
        self.replies: list[tuple[Report, Reply]] = []

    def others(self) -> list[ServerAddress]:
        return list(self.endpoints)

    def problem_with(self, session: Session) -> str:
        return ""

    def relayed(self, report: Report, reply: Reply) -> None:
        self.replies.append((report, reply))


def test_servers_that_cannot_be_reached_are_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host has one attempt at a time to connect to each server, for `CONNECT_SECONDS`, and tries again with the
    next report; at most `REPORTS_MAX` reports wait for it."""
    monkeypatch.setattr(report_relay, "REPORTS_MAX", 2)
    clock, others = Clock(), Others()
    endpoints = list(others.endpoints.values())
    relay = ReportRelay(
        UpstreamDependencies(
            clock=cast(Any, clock),
            selector=ServerSelector(lambda: 0.5),
            dial=lambda address: cast(Any, others.endpoints[address]),
            peer_of=lambda stream: ("server", "s", ""),
            software="test",
        ),
        others,
    )
    for port in (1, 2, 3):
        relay.send(Report("s0.a", "10.0.0.1", port), others)
    assert [len(one.asked) for one in endpoints] == [1, 1]
    assert [len(session._due) for session in relay.sessions.values()] == [2, 2]
    endpoints[0].asked[0].errback(ConnectionRefusedError())
    clock.advance(CONNECT_SECONDS)
    assert not relay.sessions and not others.replies
    relay.send(Report("s0.a", "10.0.0.1", 4), others)
    assert [len(one.asked) for one in endpoints] == [2, 2]
    relay.stop()
    assert not relay.sessions


def test_each_other_server_is_told_by_one_way() -> None:
    """The host's own server is left out, and servers that failed lately come last."""
    selector = ServerSelector(lambda: 0.5, in_order(["gns1", "gns2", "gns3"]))
    gns1, gns2, gns3 = selector.servers
    assert selector.others(gns1) == [gns2, gns3]
    assert selector.others(None) == [gns1, gns2, gns3]
    selector.failed(gns2, 0.0, "connection refused")
    assert selector.others(gns1) == [gns3, gns2]
