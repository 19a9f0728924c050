"""Failure policy: the weight of evidence, and the rule for a verdict (opengnsp.md, "Failure detection").

Evidence and verdict are separate. Evidence is an observation: a user's report, the loss of a session, a probe by a
server or by a host at the server's request. Evidence makes a listener `suspect`; it is then used only if no better one
is left. The verdict, `down` or in use again, comes from `judge` alone. Everything here has `now` as an argument and no
side effect; `compass.server.failure.detector` holds the objects and acts on their results.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Literal

import msgspec

from compass.model.limits import HOLD_SECONDS_MAX
from compass.model.replies import Evidence
from compass.model.rows import Listener, ListenerKey, Policy

REFUTED_FREE = 2
"""Refuted reports after which a reporter's weight falls: a host that observed a restart has reported in good faith."""
REPUTATION_SECONDS = 600.0
"""Half-life of a refuted report: three in a row have no effect after six minutes."""
REPORTERS_MAX = 10_000
"""Most reporters whose refuted reports are stored: every host of a large installation."""
DOUBT_WINDOW_SECONDS = 30.0
"""Seconds over which a server checks whether its own probes can be trusted."""
DOUBT_PROBES_MIN = 5
"""Listeners probed within the window before a server can distrust itself: a share of fewer is not significant."""
DOUBT_SHARE = 0.5
"""Share of failed probes without confirmation, above which a server distrusts itself; at half of this it stops."""
EVIDENCE_MAX = 20
"""Pieces of evidence stored per listener. Older ones are dropped."""
CASES_MAX = 10_000
"""Most listeners whose evidence is stored; beyond that, the least recently used is dropped."""
FLAPS_KEPT_MAX = 32
"""Failures of one listener that are stored: the pause reaches its maximum before."""

Finding = Literal["alive", "contradicted", "agreed", "alone"]
"""Result of a check. alive: the server's own probe succeeded. contradicted: it failed, but a host that probed found
the listener alive. agreed: it failed, and a host's probe or a trusted report confirms this. alone: it failed, and there
is no other evidence."""
Judgement = Literal["alive", "dead", "open"]


def finding_of(own: bool, others: Iterable[bool], reported: bool) -> Finding:
    """Combine the server's own probe, those of the hosts that answered, and the users' reports into one finding."""
    others = tuple(others)
    if own:
        return "alive"
    if any(others):
        return "contradicted"
    return "agreed" if others or reported else "alone"


def judge(finding: Finding, *, confirmed: bool, doubting: bool, connected: bool) -> Judgement:
    """Return the verdict. A server that is itself disconnected must not condemn every listener.

    `confirmed`: a host's probe found the listener dead. `doubting`: the server distrusts its own probes, so only a
    host's probe can condemn. `connected`: at least one host has a session with this server; without any, a failed probe
    indicates a failure of the server's own network.
    """
    if finding in ("alive", "contradicted"):
        return "alive"
    if confirmed:
        return "dead"
    if doubting:
        return "open"
    return "dead" if finding == "agreed" or connected else "open"


def may_condemn(peers: Iterable[Listener], cap: float) -> bool:
    """Return whether one more of a category's listeners may be `down`: the cap (P8). One always may."""
    states = [peer.state for peer in peers if peer.state != "offline"]
    return states.count("down") < max(1, int(cap * len(states) + 1e-9))


class Reputation:
    """Weight of each reporter's reports: lower after refuted reports, rising with time."""

    def __init__(self) -> None:
        self._refuted: dict[str, tuple[float, float]] = {}
        """Weight of refuted reports, and the time of this weight, by reporter."""

    def weight(self, reporter: str, now: float) -> float:
        """Return the weight of a report: 1, halved for each refuted report beyond `REFUTED_FREE`."""
        return float(min(1.0, 2.0 ** (REFUTED_FREE - self._count(reporter, now))))

    def suffice(self, reporters: Iterable[str], policy: Policy, now: float) -> bool:
        """Return whether the reports of these reporters make a listener suspect, before any probe."""
        return sum(self.weight(reporter, now) for reporter in set(reporters)) >= policy.reporters

    def refuted(self, reporter: str, now: float) -> None:
        """Record that a listener which the reporter reported is alive."""
        count = self._count(reporter, now) + 1.0
        self._refuted.pop(reporter, None)
        self._refuted[reporter] = (count, now)
        if len(self._refuted) > REPORTERS_MAX:
            del self._refuted[next(iter(self._refuted))]

    def confirmed(self, reporter: str, now: float) -> None:
        """Record that a listener which the reporter reported is dead."""
        if reporter in self._refuted:
            self._refuted[reporter] = (self._count(reporter, now) / 2, now)

    def _count(self, reporter: str, now: float) -> float:
        count, at = self._refuted.get(reporter, (0.0, now))
        return float(count * 0.5 ** (max(now - at, 0.0) / REPUTATION_SECONDS))


class LocalHealth:
    """Trust of a server in its own probes: the result of the last probe of each listener."""

    def __init__(self) -> None:
        self._findings: dict[Hashable, tuple[float, Finding]] = {}
        self._doubting = False

    def note(self, key: Hashable, finding: Finding, now: float) -> None:
        """Record the result of a check."""
        self._findings.pop(key, None)
        self._findings[key] = (now, finding)

    def doubting(self, now: float) -> bool:
        """Return whether the server distrusts itself: above DOUBT_SHARE, until the share is below half of this."""
        while self._findings:
            key = next(iter(self._findings))
            if now - self._findings[key][0] <= DOUBT_WINDOW_SECONDS:
                break
            del self._findings[key]
        total = len(self._findings)
        unbelieved = sum(finding in ("alone", "contradicted") for _, finding in self._findings.values())
        limit = DOUBT_SHARE / 2 if self._doubting else DOUBT_SHARE
        self._doubting = total >= DOUBT_PROBES_MIN and unbelieved > limit * total
        return self._doubting


class FlapDamping:
    """Flap damping: listeners that go down repeatedly are kept out longer."""

    def __init__(self) -> None:
        self._failures: dict[ListenerKey, deque[float]] = {}

    def failed(self, key: ListenerKey, now: float) -> None:
        """Record that the listener went down."""
        times = self._failures.pop(key, deque(maxlen=FLAPS_KEPT_MAX))
        times.append(now)
        self._failures[key] = times
        if len(self._failures) > CASES_MAX:
            del self._failures[next(iter(self._failures))]

    def failures(self, key: ListenerKey, policy: Policy, now: float) -> int:
        """Return the number of times that the listener went down within the policy's window."""
        return sum(now - at < policy.flap_seconds for at in self._failures.get(key, ()))

    def held_until(self, key: ListenerKey, policy: Policy, now: float) -> float:
        """Return the time until which the listener is kept out even if it answers; 0: it may return at once.

        The first failure beyond `flaps` keeps it out for `hold_seconds`, each further one twice as long.
        """
        times = self._failures.get(key)
        if not times:
            return 0.0
        beyond = sum(times[-1] - at < policy.flap_seconds for at in times) - policy.flaps
        if beyond <= 0:
            return 0.0
        until = times[-1] + min(policy.hold_seconds * 2.0 ** (beyond - 1), HOLD_SECONDS_MAX)
        return until if until > now else 0.0


class ListenerEvidence(msgspec.Struct):
    """Evidence about one listener's health, which is not part of its row."""

    evidence: deque[Evidence]
    reporters: dict[str, None]
    """Hosts and administrators with reports that no probe has confirmed or refuted yet, in order."""
    sufficed: bool = False
    """True if reports have made the listener suspect, at this or another server."""
    judgement: str = ""
    """Text of the last judgement; empty: there was none."""
    judged_at: float = 0.0

    def settle(self) -> None:
        """Drop the reports after they were confirmed or refuted, or because they concern an older instance."""
        self.reporters.clear()
        self.sufficed = False


class EvidenceLog:
    """Evidence by listener, bounded."""

    def __init__(self) -> None:
        self._cases: dict[ListenerKey, ListenerEvidence] = {}

    def case(self, key: ListenerKey) -> ListenerEvidence:
        """Return the evidence about a listener; create it if there is none."""
        case = self._cases.pop(key, None) or ListenerEvidence(deque(maxlen=EVIDENCE_MAX), {})
        self._cases[key] = case
        if len(self._cases) > CASES_MAX:
            del self._cases[next(iter(self._cases))]
        return case

    def get(self, key: ListenerKey) -> ListenerEvidence:
        """Return the evidence about a listener; empty if there is none."""
        return self._cases.get(key) or ListenerEvidence(deque(), {})

    def note(self, key: ListenerKey, evidence: Evidence) -> None:
        """Add evidence. A repetition of the last entry replaces it, so that a long series is one entry."""
        kept = self.case(key).evidence
        if kept and (kept[-1].kind, kept[-1].by, kept[-1].alive) == (evidence.kind, evidence.by, evidence.alive):
            kept.pop()
        kept.append(evidence)

    def report(self, key: ListenerKey, reporter: str, detail: str, now: float) -> None:
        """Add a report. Several reports of one reporter count once, and at most EVIDENCE_MAX reporters are stored."""
        self.note(key, Evidence("report", reporter, now, alive=False, detail=detail))
        case = self.case(key)
        if len(case.reporters) < EVIDENCE_MAX:
            case.reporters[reporter] = None

    def close(self, key: ListenerKey) -> None:
        """Drop everything about a listener that is removed."""
        self._cases.pop(key, None)
