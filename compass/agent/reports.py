"""Failure reports of local programs (function 2.5): the life of each until a server has it.

This host stops using a reported listener at once, unless it is the last usable one of its service, and probes it. If it
serves, the report was false: it goes to no server, and the user who made it is not believed before a probe for a while.
A report that no server could commit is kept and repeated, on each new session and after a pause, until a server has it
or it is too old to mean anything; if the store is unavailable, the other servers are informed directly, because their
hosts are concerned, too.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from compass.agent.changes import Changes
from compass.agent.dependencies import AgentDependencies
from compass.agent.registration.journal import parse_key
from compass.agent.replica.view import View
from compass.agent.report_checks import ReportChecks
from compass.agent.upstream.answer_soon import answer_soon
from compass.agent.upstream.refusals import TRANSIENT
from compass.agent.upstream.report_relay import ReportRelay
from compass.agent.upstream.upstream import Upstream
from compass.model.backoff import Backoff
from compass.model.host_api import LocalReport, Outcome
from compass.model.limits import PENDING_SECONDS
from compass.model.names import InvalidName
from compass.model.replies import Refusal, Reply, Reported
from compass.model.requests import Report
from compass.model.rows import USABLE, Listener, ListenerKey
from compass.model.rules.validation import detail_problem
from compass.system.timers import Timers

CHECK_PATIENCE_SECONDS = 0.04
"""Time in which a listener has to answer this host's own probe before the report of a user who is believed counts: a
round trip through any network of a site. A service that hangs is then known everywhere within a tenth of a second."""


class Reports:
    """All reports of this host."""

    _log = Logger()

    def __init__(
        self,
        parts: AgentDependencies,
        server: Upstream,
        relay: ReportRelay,
        view: View,
        changes: Changes,
        checks: ReportChecks,
    ) -> None:
        self._clock = parts.clock
        self._server = server
        self._relay = relay
        self._view = view
        self._changes = changes
        self._checks = checks
        self._users = checks.users
        self._timers = Timers(parts.clock)
        self._backoff = Backoff(parts.random)
        self.counts = Counter[str]()
        """Reports by result: `delivered`, `pending`, `refused`, or `refuted` by this host's own probe."""

    def stop(self) -> None:
        """Stop repeating."""
        self._timers.cancel_all()
        self._relay.stop()

    def report(self, request: LocalReport, user: int) -> Deferred[Outcome | Refusal]:
        """Suspect the listener here and report it to a server; a user who is not believed waits for a probe."""
        try:
            key = parse_key(request.service, request.address, request.port)
        except InvalidName as invalid:
            return succeed(Refusal(invalid.code, str(invalid)))
        excess = self._users.count_report(user)
        if excess is not None:
            return succeed(excess)
        if problem := detail_problem(_report_of(request, key)):
            # A reporter that ignores its answer goes on using a dead listener: the log says why.
            self._log.warn("a report of {service} is refused: {problem}", service=key[0], problem=problem)
            self.counts["refused"] += 1
            return succeed(Refusal("bad-value", problem))
        row = self._view.replica.catalogue.listener(*key)
        if request.state != "unreachable" or row is None or row.state not in USABLE:
            return self._deliver(request, key, repeatable=False)
        if not self._checks.can_probe:
            self._suspect(request, row)
            return self._deliver(request, key)
        return self._check(request, row, user)

    def _check(self, request: LocalReport, row: Listener, user: int) -> Deferred[Outcome | Refusal]:
        """Probe a reported listener; deliver the report if the probe fails, or if it lasts and the user is believed."""
        key, answer, patience = _key_of(row), Deferred[Outcome | Refusal](), object()
        is_believed = self._users.is_believed(user)
        is_hidden = is_believed and not self._is_last_usable(row)

        def deliver() -> None:
            self._suspect(request, row)
            self._deliver(request, key).chainDeferred(answer)

        def probed(problem: str | None) -> None:
            is_delivered = is_believed and patience not in self._timers
            self._timers.cancel(patience)
            if problem == "":
                self._refuted(request, row, user)
            if is_delivered:
                return
            if problem or (problem is None and is_hidden):
                deliver()
            elif problem is None:
                answer.callback(
                    Refusal("busy", "other reports of this user are being checked", retry_after_seconds=1.0)
                )
            else:
                answer.callback(Outcome(row.state, *key, revision=self._view.replica.catalogue.revision))

        if is_hidden:
            self._suspect(request, row)
        if is_believed:
            self._timers.start(patience, CHECK_PATIENCE_SECONDS, deliver)
        self._checks.check(row, user).addCallback(probed)
        return answer

    def _suspect(self, request: LocalReport, row: Listener) -> None:
        self._view.suspicions.add(request, row, self._clock.seconds())
        self._changes.view_changed()

    def _refuted(self, request: LocalReport, row: Listener, user: int) -> None:
        """Withdraw the suspicion, if there is one, and do not believe the user for a while."""
        self.counts["refuted"] += 1
        self._users.refuted(user)
        self._view.suspicions.dismiss(_key_of(row), request)
        self._changes.view_changed()

    def _is_last_usable(self, row: Listener) -> bool:
        peers = self._view.catalogue.listeners.get(row.service, {}).values()
        return not any(peer.state in USABLE and _key_of(peer) != _key_of(row) for peer in peers)

    def session_settled(self) -> None:
        """Repeat on a new session what no server has."""
        self._backoff.reset()
        self._repeat()

    def session_ended(self) -> None:
        """Do nothing: reports without an answer were refused `unreachable` and are repeated."""

    def relayed(self, report: Report, reply: Reply) -> None:
        """Handle the reply of a server that this host has no session with."""
        if isinstance(reply, Reported):
            key = report.service, report.address, report.port
            self._view.suspicions.delivered(key, reply.state, self._clock.seconds())

    def _deliver(
        self, request: LocalReport, key: ListenerKey, *, repeatable: bool = True, again: bool = False
    ) -> Deferred[Outcome | Refusal]:
        """Send a report. `again`: not for the first time."""
        report = _report_of(request, key)

        def answered(reply: Reply) -> Outcome | Refusal:
            if isinstance(reply, Reported):
                self._backoff.reset()
                self.counts["delivered"] += 1
                self._view.suspicions.delivered(key, reply.state, self._clock.seconds())
                return Outcome(reply.state, *key, revision=reply.revision)
            refusal = reply if isinstance(reply, Refusal) else Refusal("out-of-turn", f"the server answered {reply}")
            if refusal.code not in TRANSIENT:
                self._view.suspicions.dismiss(key, request)
            elif repeatable:
                self.counts["pending"] += not again
                if refusal.code == "store-unavailable" and not again:
                    self._relay.send(report, self)
                self._repeat_later(refusal)
                return Outcome("pending", *key)
            self.counts["refused"] += 1
            return refusal

        asked: Deferred[Outcome | Refusal] = self._server.ask(report).addCallback(answered)
        return asked if again else answer_soon(self._clock, asked, lambda: self._late(key, repeatable=repeatable))

    def _late(self, key: ListenerKey, *, repeatable: bool) -> Outcome | Refusal:
        """Return the answer for a program while a server has not answered; a report of a failure is repeated."""
        if repeatable:
            return Outcome("pending", *key)
        text = f"no server has answered within {PENDING_SECONDS:g} s; whether the report was carried out is unknown"
        return Refusal("unreachable", text, retry_after_seconds=1.0)

    def _repeat(self) -> None:
        for report in self._view.suspicions.undelivered(self._view.replica.catalogue, self._clock.seconds()):
            self._deliver(report, (report.service, report.address, report.port), again=True)

    def _repeat_later(self, refusal: Refusal) -> None:
        if "repeat" not in self._timers:
            self._timers.start("repeat", self._backoff.next(refusal.retry_after_seconds), self._repeat)


def _key_of(row: Listener) -> ListenerKey:
    return row.service, row.address, row.port


def _report_of(request: LocalReport, key: ListenerKey) -> Report:
    return Report(*key, request.state, request.reporter, request.detail)
