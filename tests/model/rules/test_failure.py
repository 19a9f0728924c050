"""Weight of evidence and rules of a verdict: rules as a table (opengnsp.md, "Failure detection"; P8)."""

from __future__ import annotations

import itertools

import pytest

from compass.model.limits import HOLD_SECONDS_MAX
from compass.model.replies import Evidence
from compass.model.rows import Listener, ListenerKey, Policy
from compass.model.rules import failure
from compass.model.rules.failure import (
    DOUBT_PROBES_MIN,
    DOUBT_WINDOW_SECONDS,
    EVIDENCE_MAX,
    REFUTED_FREE,
    REPUTATION_SECONDS,
    EvidenceLog,
    Finding,
    FlapDamping,
    Judgement,
    LocalHealth,
    Reputation,
    finding_of,
    judge,
    may_condemn,
)

KEY: ListenerKey = ("a.store", "10.0.0.1", 2028)


@pytest.mark.parametrize(
    ("own", "others", "reported", "finding"),
    [
        (True, (), False, "alive"),
        (True, (False, False), True, "alive"),
        (True, (True, False), True, "alive"),
        (False, (True,), False, "contradicted"),
        (False, (False, True), True, "contradicted"),
        (False, (False,), False, "agreed"),
        (False, (False, False), True, "agreed"),
        (False, (), True, "agreed"),
        (False, (), False, "alone"),
    ],
)
def test_probes_and_reports_come_to_a_finding(
    own: bool, others: tuple[bool, ...], reported: bool, finding: Finding
) -> None:
    """A probe that finds a listener alive outweighs all that do not; a missing reply has no weight."""
    assert finding_of(own, others, reported) == finding


@pytest.mark.parametrize(
    ("finding", "confirmed", "doubting", "connected", "judgement"),
    [
        *[("alive", *rest, "alive") for rest in itertools.product((False, True), repeat=3)],
        *[("contradicted", *rest, "alive") for rest in itertools.product((False, True), repeat=3)],
        *[("agreed", True, *rest, "dead") for rest in itertools.product((False, True), repeat=2)],
        ("agreed", False, False, False, "dead"),
        ("agreed", False, False, True, "dead"),
        ("agreed", False, True, False, "open"),
        ("agreed", False, True, True, "open"),
        ("alone", False, False, True, "dead"),
        ("alone", False, False, False, "open"),
        ("alone", False, True, True, "open"),
        ("alone", False, True, False, "open"),
    ],
)
def test_a_finding_comes_to_a_judgement(
    finding: Finding, confirmed: bool, doubting: bool, connected: bool, judgement: Judgement
) -> None:
    """P8: a server that is itself cut off does not condemn the world; a host that was asked may all the same."""
    assert judge(finding, confirmed=confirmed, doubting=doubting, connected=connected) == judgement


def peers(up: int, down: int, offline: int = 0, suspect: int = 0) -> list[Listener]:
    states = ["up"] * up + ["down"] * down + ["offline"] * offline + ["suspect"] * suspect
    return [Listener("a.store", "10.0.0.1", port, state, 0.0, 1) for port, state in enumerate(states, 1)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("up", "down", "cap", "may"),
    [
        (1, 0, 0.8, True),  # The only one: always one.
        (1, 1, 0.8, False),
        (2, 0, 0.1, True),
        (2, 1, 0.8, True),  # Two of three.
        (1, 2, 0.8, False),  # Not all three.
        (1, 2, 1.0, True),
        (6, 3, 0.8, True),
        (7, 3, 0.3, False),
        (8, 2, 0.3, True),  # At n, not at n + 1; 0.3 * 10 is a little less than 3.
        (71, 29, 0.8, True),
    ],
)
def test_so_many_listeners_may_be_down(up: int, down: int, cap: float, may: bool) -> None:
    """P8: no report or outage can empty a category beyond its cap. What is offline does not count, suspects do."""
    assert may_condemn(peers(up, down), cap) is may
    assert may_condemn(peers(up, down, offline=50), cap) is may
    if up > 1:
        assert may_condemn(peers(up - 1, down, suspect=1), cap) is may


def test_a_reporter_that_is_refuted_again_and_again_counts_less() -> None:
    """Free errors, then each halves; time forgives; being right forgives faster; another's word is whole."""
    reputation, policy = Reputation(), Policy()
    for _ in range(REFUTED_FREE):
        reputation.refuted("web1", 0.0)
        assert reputation.suffice(["web1"], policy, 0.0)
    reputation.refuted("web1", 0.0)
    assert reputation.weight("web1", 0.0) == 0.5
    assert not reputation.suffice(["web1"], policy, 0.0)
    reputation.refuted("web1", 0.0)
    assert reputation.weight("web1", 0.0) == 0.25
    assert reputation.weight("web2", 0.0) == 1.0 and reputation.suffice(["web1", "web2"], policy, 0.0)
    assert reputation.weight("web1", REPUTATION_SECONDS - 1) < 1.0 == reputation.weight("web1", REPUTATION_SECONDS)
    reputation.confirmed("web1", 0.0)
    assert reputation.suffice(["web1"], policy, 0.0)
    reputation.confirmed("web9", 0.0)
    assert reputation.weight("web9", 0.0) == 1.0


def test_several_reporters_may_be_needed() -> None:
    """Independent ones: the same host twice is one."""
    reputation, policy = Reputation(), Policy(reporters=2)
    assert not reputation.suffice(["web1", "web1"], policy, 0.0)
    assert reputation.suffice(["web1", "web2"], policy, 0.0)


def test_reputations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: of too many reporters the one refuted least recently is forgiven."""
    monkeypatch.setattr(failure, "REPORTERS_MAX", 2)
    reputation = Reputation()
    for reporter in ("a", "b", "c"):
        for _ in range(REFUTED_FREE + 1):
            reputation.refuted(reporter, 0.0)
    assert [reputation.weight(reporter, 0.0) for reporter in "abc"] == [1.0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("findings", "doubting"),
    [
        (["alone"] * (DOUBT_PROBES_MIN - 1), False),
        (["alone"] * DOUBT_PROBES_MIN, True),
        (["contradicted"] * DOUBT_PROBES_MIN, True),
        (["agreed"] * 50, False),
        (["alive"] * 50, False),
        (["alone"] * 5 + ["alive"] * 5, False),
        (["alone"] * 6 + ["alive"] * 5, True),
        (["contradicted", "alone", "contradicted", "agreed", "agreed"], True),
        (["contradicted", "alone", "agreed", "agreed", "agreed"], False),
    ],
)
def test_when_a_server_doubts_itself(findings: list[Finding], doubting: bool) -> None:
    """A server distrusts itself if more than half of at least five listeners fail without confirmation."""
    doubt = LocalHealth()
    for key, finding in enumerate(findings):
        doubt.note(key, finding, 0.0)
    assert doubt.doubting(0.0) is doubting
    assert doubt.doubting(DOUBT_WINDOW_SECONDS) is doubting
    assert not doubt.doubting(DOUBT_WINDOW_SECONDS + 0.001)


def test_doubt_ends_later_than_it_begins() -> None:
    """The distrust ends when the share is below a quarter, so that it does not oscillate. Only the last finding of a
    listener counts."""
    doubt = LocalHealth()
    for key in range(8):
        doubt.note(key, "alone", 0.0)
    for key in range(5):
        assert doubt.doubting(1.0)
        doubt.note(key, "alive", 1.0)
    assert doubt.doubting(1.0)
    doubt.note(5, "alive", 1.0)
    assert not doubt.doubting(1.0)
    for _ in range(10):
        doubt.note(7, "alone", 2.0)
    assert not doubt.doubting(2.0)


def test_a_listener_that_flaps_stays_out_longer() -> None:
    """Up to `flaps` failures cost nothing; then out, twice as long each time, up to an hour; the window forgets."""
    damping, policy = FlapDamping(), Policy(flaps=2, flap_seconds=1000.0, hold_seconds=10.0)
    held = []
    for now in (0.0, 10.0, 20.0, 30.0, 40.0):
        damping.failed(KEY, now)
        held.append(max(damping.held_until(KEY, policy, now) - now, 0.0))
    assert held == [0.0, 0.0, 10.0, 20.0, 40.0]
    assert damping.failures(KEY, policy, 40.0) == 5
    assert damping.held_until(KEY, policy, 79.9) == 80.0 and damping.held_until(KEY, policy, 80.0) == 0.0
    damping.failed(KEY, 5000.0)
    assert damping.held_until(KEY, policy, 5000.0) == 0.0 and damping.failures(KEY, policy, 5000.0) == 1
    for _ in range(40):
        damping.failed(KEY, 6000.0)
    assert damping.held_until(KEY, policy, 6000.0) == 6000.0 + HOLD_SECONDS_MAX


def test_failures_are_remembered_of_so_many_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: of too many the one that failed least recently is forgotten."""
    monkeypatch.setattr(failure, "CASES_MAX", 2)
    damping, docket = FlapDamping(), EvidenceLog()
    for port in (1, 2, 3):
        damping.failed(("a.store", "10.0.0.1", port), 0.0)
        docket.report(("a.store", "10.0.0.1", port), "web1", "", 0.0)
    assert [damping.failures(("a.store", "10.0.0.1", port), Policy(), 1.0) for port in (1, 2, 3)] == [0, 1, 1]
    assert [len(docket.get(("a.store", "10.0.0.1", port)).evidence) for port in (1, 2, 3)] == [0, 1, 1]


def test_evidence_is_kept_in_order_and_bounded() -> None:
    """The newest; a series of the same is one entry; a reporter that repeats itself is one reporter."""
    docket = EvidenceLog()
    for at in (1.0, 2.0):
        docket.report(KEY, "web1", f"at {at:g}", at)
    assert list(docket.get(KEY).evidence) == [Evidence("report", "web1", 2.0, detail="at 2")]
    assert list(docket.get(KEY).reporters) == ["web1"]
    for number in range(EVIDENCE_MAX + 1):
        docket.report(KEY, f"host{number}", "", 3.0)
    case = docket.get(KEY)
    assert len(case.evidence) == len(case.reporters) == EVIDENCE_MAX
    assert case.evidence[-1].by == f"host{EVIDENCE_MAX}"
    docket.close(KEY)
    assert not docket.get(KEY).evidence
