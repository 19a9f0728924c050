"""Inquiries: what is being found out about one instance of a listener, each a small piece of time and probes.

An inquiry ends by submitting what it came to, or because somebody else decided (`stop`). It never decides: what the
evidence is worth is said by `compass.model.rules.failure`, and what becomes of the listener by the decision on its
verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from compass.model.interfaces import Timer
from compass.model.limits import RECOVERY_SECONDS_MAX
from compass.model.replies import Refusal, Reply, Reported
from compass.model.requests import Suspect, Undecided, Verdict
from compass.model.rows import Listener, ListenerKey, Policy
from compass.model.rules.failure import finding_of, judge
from compass.server.failure.indirect_probes import ProbeResult

if TYPE_CHECKING:
    from compass.server.failure.detector import FailureDetector

PROBE_PAUSE_SECONDS = 0.1
"""Between two attempts: long enough for a process that is just restarting its listener."""
WITNESS_SECONDS = 0.5
"""A host that was asked has so long beyond the probe's own timeout; then the verdict is found without it."""
DELIBERATION_SECONDS = 1.0
"""Before a failure that nobody else confirms comes to a verdict: when the server is cut off, others will fail too."""
CAUSE_MAX = 255
"""Characters of a probe's error that are kept: it stands in tables and mails."""
SLOW_SECONDS = 60.0
"""A complaint of slowness is over when it was not repeated for so long."""
ABSENT_SECONDS_MAX = 300.0
"""Longest pause between probes of a listener that works while its host's daemon stays away."""


class HealthCheck:
    """About one instance; `word` is what administrators are shown."""

    label = ""

    def __init__(self, desk: FailureDetector, row: Listener, policy: Policy) -> None:
        self.desk = desk
        self.row = row
        self.policy = policy
        self.key: ListenerKey = (row.service, row.address, row.port)
        self.stopped = False
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Start finding out."""
        raise NotImplementedError

    def run_now(self) -> None:
        """There is reason to look at once: the host is back."""

    def stop(self) -> None:
        """It has been decided otherwise."""
        self.stopped = True
        self._cancel()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Go on after a pause, unless stopped."""
        self._cancel()
        self._timer = self.desk.clock.callLater(seconds, call)

    @property
    def pausing(self) -> bool:
        """Whether it waits for its time."""
        return self._timer is not None and self._timer.active()

    def probe(self, then: Callable[[str], None]) -> None:
        """Ask the listener; `then` gets an empty string or why it does not serve, unless stopped meanwhile."""

        def answered(problem: str) -> None:
            if not self.stopped:
                self.desk.probed(self.key, problem)
                then(problem)

        self.desk.probe(self.policy, self.row).addCallback(answered)

    def submit(self, request: Undecided, settled: Callable[[Reported], None] | None = None) -> None:
        """Have it decided. A store that cannot be written leaves the state as it is; begin again later."""

        def answered(reply: Reply) -> None:
            if self.stopped:
                return
            if isinstance(reply, Refusal):
                self.later(reply.retry_after_seconds or 1.0, self.begin)
            elif settled is not None and isinstance(reply, Reported):
                settled(reply)

        self.desk.submit(request).addCallback(answered)

    def verdict(self, *, alive: bool, cause: str, settled: Callable[[Reported], None] | None = None) -> None:
        """Submit the outcome for this instance."""
        row = self.row
        verdict = Verdict(row.service, row.address, row.port, row.epoch, alive, cause[:CAUSE_MAX])
        self.desk.judged(self.key, f"{'alive' if alive else 'dead'}: {cause[:CAUSE_MAX]}")
        self.submit(verdict, settled)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


class SuspectCheck(HealthCheck):
    """Suspect: probe as often as the category's policy says, ask hosts when that fails, then judge."""

    label = "suspicion"

    def __init__(self, desk: FailureDetector, row: Listener, policy: Policy) -> None:
        super().__init__(desk, row, policy)
        self._pause = policy.recovery_seconds

    def begin(self) -> None:
        self._attempts = 0
        self._asked: Deferred[list[ProbeResult]] | None = None
        self.probe(self._answered)

    def run_now(self) -> None:
        if self.pausing:
            self._cancel()
            self.begin()

    def _answered(self, problem: str) -> None:
        self._attempts += 1
        if not problem:
            self._conclude([], "")
            return
        if self._asked is None:
            seconds = self.policy.probe_timeout_seconds + WITNESS_SECONDS
            self._asked = self.desk.witnesses.ask(self.row, self.policy.witnesses, self.desk.partial(self.row), seconds)
        if self._attempts < self.policy.probe_attempts:
            self.later(PROBE_PAUSE_SECONDS, lambda: self.probe(self._answered))
        else:
            self._asked.addCallback(self._conclude, f"{self._attempts} probes failed: {problem}")

    def _conclude(self, heard: list[ProbeResult], problem: str) -> None:
        """All evidence is in; `problem` is empty when the own probe was answered."""
        if self.stopped:
            return
        self.desk.heard(self.key, heard)
        finding = finding_of(not problem, (one.alive for one in heard), self.desk.reported(self.row))
        self.desk.doubt(self.key, finding)

        def decide() -> None:
            judgement = judge(
                finding,
                confirmed=any(not one.alive for one in heard),
                doubting=self.desk.doubting,
                connected=self.desk.connected,
            )
            if judgement == "open":
                self.desk.judged(self.key, f"undecided: {problem}, and this server may be cut off itself")
                self._try_again()
            elif judgement == "alive":
                others = ", ".join(sorted(one.host for one in heard if one.alive))
                cause = "answered the probe" if not problem else f"answered {others}, though not this server"
                self.verdict(alive=True, cause=cause)
            else:
                hosts = ", ".join(sorted(one.host for one in heard))
                cause = f"{problem}; {hosts} found the same" if hosts else problem
                self.verdict(alive=False, cause=cause, settled=self._settled)

        if finding == "alone":
            self.later(DELIBERATION_SECONDS, decide)
        else:
            decide()

    def _settled(self, reply: Reported) -> None:
        if reply.state == "suspect":
            self.desk.judged(self.key, "dead, but stays suspect: the category's cap is reached")
            self._try_again()

    def _try_again(self) -> None:
        self.later(self._pause, self.begin)
        self._pause = min(self._pause * 2, RECOVERY_SECONDS_MAX)


class RecoveryCheck(HealthCheck):
    """Down: probe now and then, less and less often, until it serves again, and its time out is over."""

    label = "recovery"

    def begin(self) -> None:
        self._pause = self.policy.recovery_seconds
        self._wait()

    def run_now(self) -> None:
        if self.pausing:
            self._cancel()
            self._pause = self.policy.recovery_seconds
            self.probe(self._answered)

    def _wait(self) -> None:
        self.later(self._pause, lambda: self.probe(self._answered))
        self._pause = min(self._pause * 2, RECOVERY_SECONDS_MAX)

    def _answered(self, problem: str) -> None:
        held = self.desk.held(self.key, self.policy)
        if problem:
            self._wait()
        elif held > 0:
            self.desk.judged(self.key, f"answers the probe, but stays out for {held:.0f} s: it goes down too often")
            self.later(held, lambda: self.probe(self._answered))
        else:
            self.verdict(alive=True, cause="answers the probe again")


class SlowTimer(HealthCheck):
    """Slow: over after a while without another complaint."""

    label = "complaint"

    def begin(self) -> None:
        self.later(SLOW_SECONDS, lambda: self.verdict(alive=True, cause="no more complaints"))


class UnconfirmedCheck(HealthCheck):
    """In use, but there is evidence that does not suffice: probe, and say nothing unless that fails.

    `absent`: its host's session is lost; as long as it is, the listener is probed now and then.
    """

    label = "check"

    def __init__(self, desk: FailureDetector, row: Listener, policy: Policy, *, absent: bool) -> None:
        super().__init__(desk, row, policy)
        self.absent = absent
        self._pause = max(policy.grace_seconds, 1.0)

    def begin(self) -> None:
        if self.absent:
            self.later(self.policy.grace_seconds, lambda: self.probe(self._answered))
        else:
            self.probe(self._answered)

    def _answered(self, problem: str) -> None:
        row = self.row
        if not problem:
            self.desk.refuted(self.key)
            self.desk.doubt(self.key, "alive")
        elif self.desk.connected and not self.desk.doubting:
            why = f"the session of host {row.host} is lost" if self.absent else "reported unreachable"
            cause = f"{why}, and a probe failed: {problem}"[:CAUSE_MAX]
            self.submit(Suspect(row.service, row.address, row.port, row.epoch, cause))
            return
        else:
            self.desk.judged(self.key, f"undecided: {problem}, and this server may be cut off itself")
        if self.absent and self.desk.is_absent(row.host):
            self.later(self._pause, lambda: self.probe(self._answered))
            self._pause = min(self._pause * 2, ABSENT_SECONDS_MAX)
        else:
            self.desk.checked(self.key)
