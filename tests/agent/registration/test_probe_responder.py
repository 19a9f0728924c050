"""A host probes on the server's behalf: only what it knows, a few at once (P8, P10)."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from compass.agent.registration.probe_responder import INQUIRIES_MAX, ProbeResponder
from compass.agent.replica.replica import Replica
from compass.model.limits import DETAIL_MAX
from compass.model.replies import Reply, Reported
from compass.model.requests import Findings, Request
from compass.model.rows import Category, Listener, Policy, Row, Service, Snapshot
from compass.wire.messages import Inquiry

CATEGORY = Category("store", policy=Policy("http:/health"))
PEERS = [Listener("a.store", "10.0.0.1", port, "up", 0.0, 1) for port in range(1, INQUIRIES_MAX + 2)]


class Asked:
    """A witness whose probes are answered by the test."""

    def __init__(self) -> None:
        replica = Replica()
        rows: list[Row] = [CATEGORY, Service("a.store"), *PEERS, Listener("b.other", "10.0.0.1", 1, "up", 0.0, 1)]
        replica.restore("s", ["www.web"], Snapshot(1, {"store": 1, "a.store": 1}, rows))
        self.probes: list[tuple[str, str, int, Deferred[str]]] = []
        self.findings: list[Request] = []
        self.witness = ProbeResponder(replica, self._probe, self)

    def _probe(self, policy: Policy, address: str, port: int) -> Deferred[str]:
        answer: Deferred[str] = Deferred()
        self.probes.append((policy.probe, address, port, answer))
        return answer

    def ask(self, request: Request) -> Deferred[Reply]:
        self.findings.append(request)
        return succeed(Reported(1, "up"))

    def inquire(self, id: int, service: str = "a.store", address: str = "10.0.0.1", port: int = 1) -> None:
        self.witness.inquired(Inquiry(id, service, address, port))


def test_a_known_listener_is_probed_as_its_category_says() -> None:
    """The host sends the result to the server under the number of its inquiry."""
    asked = Asked()
    asked.inquire(7)
    asked.inquire(8, port=2)
    assert [probe[:3] for probe in asked.probes] == [("http:/health", "10.0.0.1", 1), ("http:/health", "10.0.0.1", 2)]
    asked.probes[0][3].callback("")
    asked.probes[1][3].callback("x" * (DETAIL_MAX + 1))
    (alive, dead) = asked.findings
    assert alive == Findings(7, True)
    assert isinstance(dead, Findings) and not dead.alive and len(dead.detail) == DETAIL_MAX


def test_nothing_else_is_probed() -> None:
    """A server cannot make a host knock where it likes: not at unknown addresses, not in categories unknown here."""
    asked = Asked()
    asked.inquire(1, address="10.0.0.9")
    asked.inquire(2, port=9999)
    asked.inquire(3, service="b.other")
    assert not asked.probes and not asked.findings


def test_probes_under_way_are_bounded() -> None:
    """At n it probes, at n + 1 it is silent; one that has ended makes room, however it ended."""
    asked = Asked()
    for number in range(INQUIRIES_MAX + 1):
        asked.inquire(number, port=number + 1)
    assert len(asked.probes) == INQUIRIES_MAX
    asked.probes[0][3].errback(RuntimeError("no sockets left"))
    asked.inquire(99)
    assert len(asked.probes) == INQUIRIES_MAX + 1
    assert asked.findings == [Findings(0, False, "the probe failed: no sockets left")]
