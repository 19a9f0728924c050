"""Health checks: what is being found out about one instance of a listener, each a small piece of time and probes.

A check ends by submitting its outcome, or because something else decided (`stop`). It never decides: what the evidence
is worth is said by `compass.model.rules.failure`, and the listener's new state by the decision on its verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from compass.model.backoff import Backoff
from compass.model.interfaces import Clock
from compass.model.limits import RECOVERY_SECONDS_MAX
from compass.model.replies import Refusal, Reply, Reported
from compass.model.requests import Suspect, Undecided, Verdict
from compass.model.rows import Listener, ListenerKey, Policy
from compass.model.rules.failure import finding_of, judge
from compass.model.rules.instances import FAILED
from compass.model.rules.networks import NoProbe, ProbeDenied
from compass.server.failure.indirect_probes import ProbeResult
from compass.server.failure.local_health import LocalHealthMonitor
from compass.server.failure.records import HealthRecords
from compass.system.timers import Timers

PROBE_PAUSE_SECONDS = 0.1
"""Between two attempts: long enough for a process that is just restarting its listener."""
WITNESS_SECONDS = 0.5
"""Time beyond the probe's own timeout for a host that was asked; then the verdict is found without its result."""
DELIBERATION_SECONDS = 1.0
"""Before a failure that nothing else confirms comes to a verdict: when the server is cut off, others will fail too."""
CAUSE_MAX = 255
"""Characters of a probe's error that are kept: it stands in tables and mails."""
UNPROBED_SECONDS = 60.0
"""Time after which a suspect listener that cannot be probed is tried again by its users."""
SLOW_SECONDS = 60.0
"""Time without another complaint after which a listener is no longer slow."""
ABSENT_SECONDS_MAX = 300.0
"""Longest pause between probes of a listener that works while its host's agent has no session."""


class CheckContext(Protocol):
    """The failure detector as its checks use it."""

    clock: Clock
    records: HealthRecords
    local_health: LocalHealthMonitor

    @property
    def has_sessions(self) -> bool:
        """Return whether any host has a session here."""

    def probe(self, policy: Policy, row: Listener) -> Deferred[str]:
        """Probe a listener. Returns an empty string, or why it does not serve."""

    def ask_peers(self, row: Listener, count: int, seconds: float) -> Deferred[list[ProbeResult]]:
        """Have up to `count` other hosts probe a listener. Returns the results that came within `seconds`."""

    def submit(self, request: Undecided) -> Deferred[Reply]:
        """Have a request of the server itself decided."""

    def is_absent(self, host: str) -> bool:
        """Return whether a host has no session at any server."""

    def refuted(self, key: ListenerKey) -> None:
        """Drop what was reported against a listener, and withdraw a suspicion: it is alive."""

    def end_check(self, key: ListenerKey) -> None:
        """Stop and forget the check of a listener in use."""


class HealthCheck:
    """A check of one instance; administrators see its `label`."""

    label = ""

    def __init__(self, context: CheckContext, row: Listener, policy: Policy) -> None:
        self.context = context
        self.row = row
        self.policy = policy
        self.key: ListenerKey = (row.service, row.address, row.port)
        self.stopped = False
        self._timers = Timers(context.clock)

    def begin(self) -> None:
        """Start the check, or start it over."""
        raise NotImplementedError

    def run_now(self) -> None:
        """End a pause: the host has a session again."""

    def denied(self, why: ProbeDenied) -> None:
        """Continue without a probe of this server, which may not connect to the listener."""
        raise NotImplementedError

    def ask_peers(self, count: int) -> Deferred[list[ProbeResult]]:
        """Have up to `count` hosts probe the listener."""
        return self.context.ask_peers(self.row, count, self.policy.probe_timeout_seconds + WITNESS_SECONDS)

    def stop(self) -> None:
        """End the check without an outcome."""
        self.stopped = True
        self._timers.cancel_all()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Continue after a pause, unless stopped."""
        self._timers.start("pause", seconds, call)

    def end_pause(self) -> bool:
        """Cancel the pause. Returns whether there was one."""
        was_pausing = "pause" in self._timers
        self._timers.cancel("pause")
        return was_pausing

    def probe(self, then: Callable[[str], None]) -> None:
        """Probe the listener and call `then` with an empty string or why it does not serve, unless stopped."""

        def probed(problem: str) -> None:
            if self.stopped:
                return
            if isinstance(problem, ProbeDenied):
                self.context.records.record_judgement(self.key, f"undecided: {problem}")
                self.denied(problem)
                return
            self.context.records.record_probe(self.row, problem)
            then(problem)

        self.context.probe(self.policy, self.row).addCallback(probed)

    def submit(self, request: Undecided, settled: Callable[[Reported], None] | None = None) -> None:
        """Have a request decided. A store that cannot be written leaves the state unchanged; the check starts over."""

        def decided(reply: Reply) -> None:
            if self.stopped:
                return
            if isinstance(reply, Refusal):
                self.later(reply.retry_after_seconds or 1.0, self.begin)
            elif settled is not None and isinstance(reply, Reported):
                settled(reply)

        self.context.submit(request).addCallback(decided)

    def verdict(self, *, alive: bool, cause: str, settled: Callable[[Reported], None] | None = None) -> None:
        """Submit the outcome for this instance."""
        row = self.row
        verdict = Verdict(row.service, row.address, row.port, row.epoch, alive, cause[:CAUSE_MAX])
        self.context.records.record_judgement(self.key, f"{'alive' if alive else 'dead'}: {cause[:CAUSE_MAX]}")
        self.submit(verdict, settled)


class SuspectCheck(HealthCheck):
    """Check of a suspect listener: as many probes as the category's policy says, hosts' probes if the first fails, then
    a judgement."""

    label = "suspicion"

    def __init__(self, context: CheckContext, row: Listener, policy: Policy) -> None:
        super().__init__(context, row, policy)
        self._backoff = Backoff(first=policy.recovery_seconds, longest=RECOVERY_SECONDS_MAX)
        self._is_unprobed = False

    def begin(self) -> None:
        self._attempts = 0
        self._peers: Deferred[list[ProbeResult]] | None = None
        self.probe(self._probed)

    def run_now(self) -> None:
        if not self.end_pause():
            return
        if self._is_unprobed and not self.row.failing:
            self._alive("its host has a session again; it cannot be probed")
        else:
            self.begin()

    def _probed(self, problem: str) -> None:
        self._attempts += 1
        if not problem:
            self._conclude([], "")
            return
        if self._peers is None:
            self._peers = self.ask_peers(self.policy.witnesses)
        if self._attempts < self.policy.probe_attempts:
            self.later(PROBE_PAUSE_SECONDS, lambda: self.probe(self._probed))
        else:
            self._peers.addCallback(self._conclude, f"{self._attempts} probes failed: {problem}")

    def denied(self, why: ProbeDenied) -> None:
        self._is_unprobed = isinstance(why, NoProbe)
        if self._is_unprobed:
            self.later(UNPROBED_SECONDS, self._unprobed)
        else:
            self.ask_peers(max(self.policy.witnesses, 1)).addCallback(self._conclude_without, why)

    def _unprobed(self) -> None:
        """Have users try the listener again, unless its host is lost."""
        if self.context.is_absent(self.row.host):
            self.later(UNPROBED_SECONDS, self._unprobed)
        else:
            self._alive(f"not reported again within {UNPROBED_SECONDS:g} s; it cannot be probed")

    def _conclude_without(self, results: list[ProbeResult], why: ProbeDenied) -> None:
        """Judge by the probes of hosts alone; a report is no proof."""
        if self.stopped:
            return
        self.context.records.record_peers(self.key, results)
        hosts = ", ".join(sorted(one.host for one in results if one.alive) or sorted(one.host for one in results))
        if any(one.alive for one in results):
            self._alive(f"answered {hosts}; {why}")
        elif results:
            self.verdict(alive=False, cause=f"{hosts} found it dead; {why}", settled=self._settled)
        else:
            self._try_again()

    def _conclude(self, results: list[ProbeResult], problem: str) -> None:
        """Judge: all evidence is in. `problem` is empty when this server's probe was answered."""
        if self.stopped:
            return
        self.context.records.record_peers(self.key, results)
        is_reported = self.context.records.is_reported(self.key, self.policy)
        finding = finding_of(not problem, (one.alive for one in results), is_reported)
        self.context.local_health.record(self.key, finding)

        def decide() -> None:
            judgement = judge(
                finding,
                confirmed=any(not one.alive for one in results),
                doubting=self.context.local_health.is_in_doubt,
                connected=self.context.has_sessions,
            )
            if judgement == "open":
                self.context.records.record_judgement(self.key, _undecided(problem))
                self._try_again()
            elif judgement == "alive":
                others = ", ".join(sorted(one.host for one in results if one.alive))
                self._alive("answered the probe" if not problem else f"answered {others}, though not this server")
            else:
                hosts = ", ".join(sorted(one.host for one in results))
                cause = f"{problem}; {hosts} found the same" if hosts else problem
                self.verdict(alive=False, cause=cause, settled=self._settled)

        if finding == "alone":
            self.later(DELIBERATION_SECONDS, decide)
        else:
            decide()

    def _alive(self, cause: str) -> None:
        """Submit the verdict, unless the host's own check sees what no probe can see."""
        if self.row.failing:
            self.context.records.record_judgement(self.key, f"{cause}, but {FAILED}{self.row.failing}"[:CAUSE_MAX])
            self._try_again()
        else:
            self.verdict(alive=True, cause=cause, settled=self._still_suspect)

    def _still_suspect(self, reply: Reported) -> None:
        """Probe on: what answers may be another program, or a service whose check fails only now."""
        if reply.state == "suspect":
            text = "it answers, but its host does not hold it, or has just found that its own check fails"
            self.context.records.record_judgement(self.key, text)
            self._try_again()

    def _settled(self, reply: Reported) -> None:
        if reply.state == "suspect":
            self.context.records.record_judgement(self.key, "dead, but stays suspect: the category's cap is reached")
            self._try_again()

    def _try_again(self) -> None:
        self.later(self._backoff.next(), self.begin)


class RecoveryCheck(HealthCheck):
    """Check of a listener that is down: probes with growing pauses until it serves again and is no longer held."""

    label = "recovery"

    def __init__(self, context: CheckContext, row: Listener, policy: Policy) -> None:
        super().__init__(context, row, policy)
        self._backoff = Backoff(first=policy.recovery_seconds, longest=RECOVERY_SECONDS_MAX)

    def begin(self) -> None:
        self._backoff.reset()
        self._wait()

    def run_now(self) -> None:
        if self.end_pause():
            self._backoff.reset()
            self.probe(self._probed)

    def denied(self, why: ProbeDenied) -> None:
        if isinstance(why, NoProbe):
            self.verdict(alive=True, cause="its category has no probe any more")
            return

        def found(results: list[ProbeResult]) -> None:
            if not self.stopped:
                self._probed("" if any(one.alive for one in results) else why)

        self.ask_peers(max(self.policy.witnesses, 1)).addCallback(found)

    def _wait(self) -> None:
        self.later(self._backoff.next(), lambda: self.probe(self._probed))

    def _probed(self, problem: str) -> None:
        held = self.context.records.seconds_held(self.key, self.policy)
        if problem:
            self._wait()
        elif held > 0:
            words = f"answers the probe, but stays out for {held:.0f} s: it goes down too often"
            self.context.records.record_judgement(self.key, words)
            self.later(held, lambda: self.probe(self._probed))
        else:
            self.verdict(alive=True, cause="answers the probe again")


class SlowTimer(HealthCheck):
    """Wait of a slow listener: it is in use again after SLOW_SECONDS without another complaint."""

    label = "complaint"

    def denied(self, why: ProbeDenied) -> None:
        """Do nothing: a complaint of slowness needs no probe."""

    def begin(self) -> None:
        self.later(SLOW_SECONDS, lambda: self.verdict(alive=True, cause="no further complaints"))


class UnconfirmedCheck(HealthCheck):
    """Check of a listener in use with evidence that does not suffice: it becomes suspect if a probe fails.

    `absent`: its host's session is lost; until the host has one again, the listener is probed with growing pauses.
    """

    label = "check"

    def __init__(self, context: CheckContext, row: Listener, policy: Policy, *, absent: bool) -> None:
        super().__init__(context, row, policy)
        self.absent = absent
        self._backoff = Backoff(first=max(policy.grace_seconds, 1.0), longest=ABSENT_SECONDS_MAX)

    def begin(self) -> None:
        if self.absent:
            self.later(self.policy.grace_seconds, lambda: self.probe(self._probed))
        else:
            self.probe(self._probed)

    def denied(self, why: ProbeDenied) -> None:
        if self.absent and self.context.has_sessions and not self.context.local_health.is_in_doubt:
            row = self.row
            # Hosts are asked about a suspect listener; this server knows only that the host's session is lost.
            cause = f"the session of host {row.host} is lost; {why}"[:CAUSE_MAX]
            self.submit(Suspect(row.service, row.address, row.port, row.epoch, cause))
        else:
            self.context.end_check(self.key)

    def _probed(self, problem: str) -> None:
        row = self.row
        if not problem:
            self.context.refuted(self.key)
            self.context.local_health.record(self.key, "alive")
        elif self.context.has_sessions and not self.context.local_health.is_in_doubt:
            why = f"the session of host {row.host} is lost" if self.absent else "reported unreachable"
            cause = f"{why}, and a probe failed: {problem}"[:CAUSE_MAX]
            self.submit(Suspect(row.service, row.address, row.port, row.epoch, cause))
            return
        else:
            self.context.records.record_judgement(self.key, _undecided(problem))
        if self.absent and self.context.is_absent(row.host):
            self.later(self._backoff.next(), lambda: self.probe(self._probed))
        else:
            self.context.end_check(self.key)


def _undecided(problem: str) -> str:
    return f"undecided: {problem}, and this server may be cut off itself"
