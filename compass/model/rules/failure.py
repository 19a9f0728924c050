"""The failure policy: what evidence is worth, and when it comes to a verdict (opengnsp.md, "Failure reports").

Evidence and verdict are apart. Evidence is an observation: a user's report, the loss of a session, a probe by a server
or by a host that was asked. It makes a listener `suspect`, which is used only when nothing better is left. The verdict,
`down` or back in use, comes from `judge` alone. Everything here takes `now` and does nothing by itself; the desk in
`compass.server.failure.detector` keeps the objects and carries out what they say.
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
"""Reports of one reporter that may be wrong before it counts less: one who meets a restart means no harm."""
REPUTATION_SECONDS = 600.0
"""Seconds after which a refuted report weighs half; so three in a row are forgiven within six minutes."""
REPORTERS_MAX = 10_000
"""Reporters whose refuted reports are remembered: every host of a large installation."""
DOUBT_WINDOW_SECONDS = 30.0
"""Seconds over which a server checks whether its own probes can be trusted."""
DOUBT_PROBES_MIN = 5
"""Listeners probed within the window before a server can doubt itself: of fewer, no share means anything."""
DOUBT_SHARE = 0.5
"""Share of failed probes without confirmation, above which a server distrusts itself; at half of this it stops."""
EVIDENCE_MAX = 20
"""Pieces of evidence kept per listener. Older ones are dropped."""
CASES_MAX = 10_000
"""Listeners about which evidence is kept; beyond that the one touched least recently is forgotten."""
FLAPS_KEPT_MAX = 32
"""Failures of one listener that are counted: the pause has reached its longest before."""

Finding = Literal["alive", "contradicted", "agreed", "alone"]
"""Result of a check. alive: the server's own probe was answered. contradicted: it was not, but a host that was asked
found the listener alive. agreed: it was not, and an asked host or a trusted report confirms this. alone: it was not,
and there is no other evidence."""
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
    """The verdict. A server that is itself cut off must not condemn the world.

    `confirmed`: a host that was asked found it dead. `doubting`: the server does not believe its own probes; then only
    such a host can condemn. `connected`: some host has a session with this server; without any, a server that finds
    something dead has learnt more about itself than about the listener.
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
    """Weight of each reporter's reports: lower if they are refuted again and again, rising with time."""

    def __init__(self) -> None:
        self._refuted: dict[str, tuple[float, float]] = {}
        """Weight of refuted reports at a time, by reporter."""

    def weight(self, reporter: str, now: float) -> float:
        """1 for one reporter; half for each refuted report beyond `REFUTED_FREE`."""
        return float(min(1.0, 2.0 ** (REFUTED_FREE - self._count(reporter, now))))

    def suffice(self, reporters: Iterable[str], policy: Policy, now: float) -> bool:
        """Return whether the reports of these reporters make a listener suspect, before any probe."""
        return sum(self.weight(reporter, now) for reporter in set(reporters)) >= policy.reporters

    def refuted(self, reporter: str, now: float) -> None:
        """A listener that it reported is alive."""
        count = self._count(reporter, now) + 1.0
        self._refuted.pop(reporter, None)
        self._refuted[reporter] = (count, now)
        if len(self._refuted) > REPORTERS_MAX:
            del self._refuted[next(iter(self._refuted))]

    def confirmed(self, reporter: str, now: float) -> None:
        """A listener that it reported is dead: it was right this time."""
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
        """An inquiry has come to something."""
        self._findings.pop(key, None)
        self._findings[key] = (now, finding)

    def doubting(self, now: float) -> bool:
        """Return whether the server distrusts itself; this ends when the share is down to half of what began it."""
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
    """Listeners that go down again and again stay out longer."""

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
        """Return the number of times that it went down within the policy's window."""
        return sum(now - at < policy.flap_seconds for at in self._failures.get(key, ()))

    def held_until(self, key: ListenerKey, policy: Policy, now: float) -> float:
        """Return the time until which it stays out even if it answers; 0: it may return at once.

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
    """Evidence about one listener's health, apart from its row."""

    evidence: deque[Evidence]
    reporters: dict[str, None]
    """Hosts and administrators with reports that no probe has confirmed or refuted yet, in order."""
    sufficed: bool = False
    """True if reports have made it suspect, whichever server received them."""
    judgement: str = ""
    """The last judgement, in words; empty: there was none."""
    judged_at: float = 0.0

    def settle(self) -> None:
        """Drop the reports: they are confirmed or refuted, or about an older instance."""
        self.reporters.clear()
        self.sufficed = False


class EvidenceLog:
    """The cases by listener, bounded."""

    def __init__(self) -> None:
        self._cases: dict[ListenerKey, ListenerEvidence] = {}

    def case(self, key: ListenerKey) -> ListenerEvidence:
        """The case of a listener, opened when there is none."""
        case = self._cases.pop(key, None) or ListenerEvidence(deque(maxlen=EVIDENCE_MAX), {})
        self._cases[key] = case
        if len(self._cases) > CASES_MAX:
            del self._cases[next(iter(self._cases))]
        return case

    def look(self, key: ListenerKey) -> ListenerEvidence:
        """The case of a listener, empty when there is none."""
        return self._cases.get(key) or ListenerEvidence(deque(), {})

    def note(self, key: ListenerKey, evidence: Evidence) -> None:
        """Keep evidence; what repeats the last entry takes its place, so that a long series is one."""
        kept = self.case(key).evidence
        if kept and (kept[-1].kind, kept[-1].by, kept[-1].alive) == (evidence.kind, evidence.by, evidence.alive):
            kept.pop()
        kept.append(evidence)

    def report(self, key: ListenerKey, reporter: str, detail: str, now: float) -> None:
        """Add a complaint; several complaints of one reporter count once, and REPORTERS_MAX reporters are kept."""
        self.note(key, Evidence("report", reporter, now, alive=False, detail=detail))
        case = self.case(key)
        if len(case.reporters) < EVIDENCE_MAX:
            case.reporters[reporter] = None

    def close(self, key: ListenerKey) -> None:
        """Drop everything about a listener that is removed."""
        self._cases.pop(key, None)
