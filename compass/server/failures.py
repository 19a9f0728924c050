"""The failure desk: probes what is suspect, comes back to what is down (function 2.5).

Evidence and verdict are apart: a report makes a listener `suspect` by decision; this desk asks the listener itself
and submits the outcome as a `Verdict`, which counts only for the instance that was probed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from compass.model.administration import RECOVERY_SECONDS_MAX
from compass.model.catalogue import Catalogue
from compass.model.draft import Asker
from compass.model.names import category_of, parse_endpoint
from compass.model.ports import Clock, Timer
from compass.model.replies import Refusal, Reply
from compass.model.requests import Verdict
from compass.model.rows import Alert, Change, Listener, ListenerKey, Policy

PROBES_MAX = 64
"""Probes under way at once: each is a connection; a rack that dies makes thousands."""
PROBE_PAUSE_SECONDS = 0.1
"""Between two attempts: long enough for a process that is just restarting its listener."""
CAUSE_MAX = 255
"""Characters of a probe's error that are kept: it stands in tables and mails."""
SLOW_SECONDS = 60.0
"""A complaint of slowness is over when it was not repeated for so long."""

Probe = Callable[[Policy, str, int], Deferred[str]]
"""Asks an address and port whether it serves: an empty string, or why not."""


class FailureDesk:
    """One inquiry per listener that is suspect, down or slow."""

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        probe: Probe,
        submit: Callable[[Verdict, Asker], Deferred[Reply]],
        server: str,
    ) -> None:
        self._clock = clock
        self._probe = probe
        self._submit = submit
        self._asker = Asker("server", server, "")
        self._free = DeferredSemaphore(PROBES_MAX)
        self._inquiries: dict[ListenerKey, _Inquiry] = {}

    def start(self, catalogue: Catalogue) -> None:
        """Take up what was open when the server stopped."""
        rows: Iterable[Listener] = (row for peers in catalogue.listeners.values() for row in peers.values())
        # In an order of their own, so that the same history gives the same order of probes.
        for row in sorted(rows, key=lambda row: (row.service, row.address, row.port)):
            self._consider(row, catalogue)

    def stop(self) -> None:
        """No more probes."""
        for inquiry in self._inquiries.values():
            inquiry.stop()
        self._inquiries.clear()

    def committed(self, change: Change, catalogue: Catalogue) -> None:
        """Look at each change of a listener, and at complaints of slowness."""
        row = change.row
        if isinstance(row, Listener):
            if change.removed:
                self._drop(row)
            else:
                self._consider(row, catalogue)
        elif isinstance(row, Alert) and row.kind == "slow" and not change.removed:
            service, _, endpoint = row.id.removeprefix("slow ").partition(" ")
            listener = catalogue.listener(service, *parse_endpoint(endpoint))
            if listener is not None and listener.state == "up":
                self._begin(listener, _Complaint(self, listener, Policy()))

    def _consider(self, row: Listener, catalogue: Catalogue) -> None:
        category = catalogue.categories.get(category_of(row.service))
        policy = category.policy if category is not None else Policy()
        if row.state == "suspect":
            self._begin(row, _Suspicion(self, row, policy))
        elif row.state == "down":
            self._begin(row, _Recovery(self, row, policy))
        elif row.state == "slow":
            self._begin(row, _Complaint(self, row, policy))
        else:
            self._drop(row)

    def _begin(self, row: Listener, inquiry: _Inquiry) -> None:
        self._drop(row)
        self._inquiries[(row.service, row.address, row.port)] = inquiry
        inquiry.begin()

    def _drop(self, row: Listener) -> None:
        inquiry = self._inquiries.pop((row.service, row.address, row.port), None)
        if inquiry is not None:
            inquiry.stop()


class _Inquiry:
    """What is being found out about one instance of a listener; ends by submitting a verdict or by `stop`."""

    def __init__(self, desk: FailureDesk, row: Listener, policy: Policy) -> None:
        self.desk = desk
        self.row = row
        self.policy = policy
        self.stopped = False
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Start finding out."""
        raise NotImplementedError

    def stop(self) -> None:
        """It has been decided otherwise."""
        self.stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Go on after a pause, unless stopped."""
        self._timer = self.desk._clock.callLater(seconds, call)

    def probe(self, then: Callable[[str], None]) -> None:
        """Ask the listener; `then` gets an empty string or why it does not serve, unless stopped meanwhile."""

        def ask() -> Deferred[str]:
            return self.desk._probe(self.policy, self.row.address, self.row.port)

        def answered(problem: str) -> None:
            if not self.stopped:
                then(problem)

        asked: Deferred[str] = self.desk._free.run(ask)
        asked.addErrback(lambda failure: f"the probe failed: {failure.getErrorMessage()}").addCallback(answered)

    def verdict(self, *, alive: bool, cause: str) -> None:
        """Submit the outcome. A store that cannot be written leaves the state as it is; ask again later."""
        verdict = Verdict(self.row.service, self.row.address, self.row.port, self.row.epoch, alive, cause)

        def settled(reply: Reply) -> None:
            if isinstance(reply, Refusal) and not self.stopped:
                self.later(reply.retry_after_seconds or 1.0, self.begin)

        self.desk._submit(verdict, self.desk._asker).addCallback(settled)


class _Suspicion(_Inquiry):
    """Suspect: probe as often as the category's policy says, then decide."""

    def begin(self) -> None:
        self._attempts = 0
        self.probe(self._answered)

    def _answered(self, problem: str) -> None:
        self._attempts += 1
        if not problem:
            self.verdict(alive=True, cause="answered the probe")
        elif self._attempts >= self.policy.probe_attempts:
            self.verdict(alive=False, cause=f"{self._attempts} probes failed: {problem}"[:CAUSE_MAX])
        else:
            self.later(PROBE_PAUSE_SECONDS, lambda: self.probe(self._answered))


class _Recovery(_Inquiry):
    """Down: probe now and then, less and less often, until it serves again."""

    def begin(self) -> None:
        self._pause = self.policy.recovery_seconds
        self._wait()

    def _wait(self) -> None:
        self.later(self._pause, lambda: self.probe(self._answered))
        self._pause = min(self._pause * 2, RECOVERY_SECONDS_MAX)

    def _answered(self, problem: str) -> None:
        if problem:
            self._wait()
        else:
            self.verdict(alive=True, cause="answers the probe again")


class _Complaint(_Inquiry):
    """Slow: over after a while without another complaint."""

    def begin(self) -> None:
        self.later(SLOW_SECONDS, lambda: self.verdict(alive=True, cause="no more complaints"))
