"""Health records: what this server knows of each listener's health, apart from its row in the catalogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from compass.model.interfaces import Environment
from compass.model.replies import Evidence
from compass.model.rows import Listener, ListenerKey, Policy
from compass.model.rules.draft import Principal
from compass.model.rules.failure import EvidenceLog, FlapDamping, ListenerEvidence, Reputation
from compass.server.failure.indirect_probes import ProbeResult

FRESH_SECONDS = 1.0
"""Age of an answered probe up to which it refutes a report that does not suffice by itself, without another probe."""


class HealthRecords:
    """Evidence, failures and reporters' reputation. The weights are those of `compass.model.rules.failure`."""

    def __init__(self, server: str, environment: Environment) -> None:
        self._server = server
        self._clock = environment.clock
        self._now = environment.now
        self._evidence = EvidenceLog()
        self._reputation = Reputation()
        self._damping = FlapDamping()
        self._answered_at: dict[ListenerKey, float] = {}
        """Times at which listeners last answered a probe of this server."""
        self.probes = Counter[str]()
        """Probes of this server: `answered`, `failed`."""
        self.found = Counter[str]()
        """Results of hosts that were asked to probe: `alive`, `dead`."""

    def of(self, key: ListenerKey) -> ListenerEvidence:
        """Return what is known of a listener."""
        return self._evidence.get(key)

    # Evidence.

    def record_report(self, key: ListenerKey, reporter: str, detail: str) -> None:
        """Keep a report."""
        self._evidence.report(key, reporter, detail, self._now())

    def record_lost_session(self, key: ListenerKey, host: str) -> None:
        """Keep that the listener's host has lost its session."""
        self._evidence.note(key, Evidence("session", host, self._now(), detail="its session was lost"))

    def record_probe(self, row: Listener, problem: str) -> None:
        """Keep the result of this server's probe; `problem` is empty if it was answered."""
        key = (row.service, row.address, row.port)
        self.probes["failed" if problem else "answered"] += 1
        self._evidence.note(key, Evidence("probe", self._server, self._now(), not problem, problem))
        if not problem and row.host:
            self._answered_at[key] = self._clock.seconds()

    def record_peers(self, key: ListenerKey, results: Iterable[ProbeResult]) -> None:
        """Keep the results of hosts' probes."""
        for one in results:
            self._evidence.note(key, Evidence("findings", one.host, self._now(), one.alive, one.detail))

    def record_judgement(self, key: ListenerKey, words: str) -> None:
        """Keep the judgement on a listener, for administrators."""
        case = self._evidence.case(key)
        case.judgement, case.judged_at = words, self._now()

    # What follows from a commit or a probe.

    def sufficed(self, key: ListenerKey) -> None:
        """Keep that reports, to whichever server, have made a listener suspect."""
        self._evidence.case(key).sufficed = True

    def confirmed(self, key: ListenerKey) -> None:
        """Count a failure, and its reporters as right."""
        now = self._clock.seconds()
        self._damping.failed(key, now)
        case = self._evidence.get(key)
        for reporter in case.reporters:
            self._reputation.confirmed(reporter, now)
        case.settle()

    def refuted(self, key: ListenerKey) -> None:
        """Drop the reports against a listener that is alive, and count its reporters as wrong."""
        case = self._evidence.get(key)
        for reporter in case.reporters:
            self._reputation.refuted(reporter, self._clock.seconds())
        case.settle()

    def replaced(self, key: ListenerKey) -> None:
        """Drop the reports against an instance that a newer one has replaced."""
        self._evidence.get(key).settle()

    def forget(self, key: ListenerKey) -> None:
        """Drop what is known of a listener that is out of use, except how often it failed."""
        self._evidence.close(key)
        self._answered_at.pop(key, None)

    # Questions.

    def suffice(self, key: ListenerKey, reporter: Principal, policy: Policy) -> bool:
        """Return whether one more report makes a listener suspect before any probe. An administrator's always does."""
        if reporter.role == "admin":
            return True
        reporters = [*self._evidence.get(key).reporters, reporter.name]
        return self._reputation.suffice(reporters, policy, self._clock.seconds())

    def is_reported(self, key: ListenerKey, policy: Policy) -> bool:
        """Return whether reports that suffice stand against a listener, here or at another server."""
        case = self._evidence.get(key)
        if case.sufficed or not case.reporters:
            return case.sufficed
        return self._reputation.suffice(case.reporters, policy, self._clock.seconds())

    def answered_lately(self, key: ListenerKey) -> bool:
        """Return whether a listener has answered a probe within FRESH_SECONDS."""
        return self._clock.seconds() - self._answered_at.get(key, -FRESH_SECONDS) < FRESH_SECONDS

    def failures(self, key: ListenerKey, policy: Policy) -> int:
        """Return how often a listener went down within the policy's window."""
        return self._damping.failures(key, policy, self._clock.seconds())

    def seconds_held(self, key: ListenerKey, policy: Policy) -> float:
        """Return the seconds that a listener must stay out because it went down too often."""
        now = self._clock.seconds()
        return max(self._damping.held_until(key, policy, now) - now, 0.0)
