"""Failure reports of local programs (function 2.5): the life of each until a server has it.

This host stops using a reported listener at once, whatever a server will find. A report that no server could commit is
kept and repeated, on each new session and after a pause, until a server has it or it is too old to mean anything; if
the store is unavailable, the other servers are informed directly, because their hosts are concerned, too.
"""

from __future__ import annotations

from collections import Counter

from twisted.internet.defer import Deferred, succeed

from compass.agent.changes import Changes
from compass.agent.dependencies import AgentDependencies
from compass.agent.registration.journal import parse_key
from compass.agent.registration.states import TRANSIENT
from compass.agent.replica.view import View
from compass.agent.upstream.report_relay import ReportRelay
from compass.agent.upstream.upstream import Upstream
from compass.model.backoff import Backoff
from compass.model.host_api import LocalReport, Outcome
from compass.model.names import InvalidName
from compass.model.replies import Refusal, Reply, Reported
from compass.model.requests import Report
from compass.model.rows import USABLE, ListenerKey
from compass.system.timers import Timers


class Reports:
    """All reports of this host."""

    def __init__(
        self, parts: AgentDependencies, server: Upstream, relay: ReportRelay, view: View, changes: Changes
    ) -> None:
        self._clock = parts.clock
        self._server = server
        self._relay = relay
        self._view = view
        self._changes = changes
        self._timers = Timers(parts.clock)
        self._backoff = Backoff(parts.random)
        self.counts = Counter[str]()
        """Reports by result: `delivered`, `pending` or `refused`."""

    def stop(self) -> None:
        """Stop repeating."""
        self._timers.cancel_all()
        self._relay.stop()

    def report(self, request: LocalReport) -> Deferred[Outcome | Refusal]:
        """Suspect the listener here and report it to a server."""
        try:
            key = parse_key(request.service, request.address, request.port)
        except InvalidName as problem:
            return succeed(Refusal(problem.code, str(problem)))
        row = self._view.replica.catalogue.listener(*key)
        if request.state != "unreachable" or row is None or row.state not in USABLE:
            return self._deliver(request, key, repeatable=False)
        self._view.suspicions.add(request, row, self._clock.seconds())
        self._changes.view_changed()
        return self._deliver(request, key)

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
        service, address, port = key
        report = Report(service, address, port, request.state, request.reporter, request.detail)

        def answered(reply: Reply) -> Outcome | Refusal:
            if isinstance(reply, Reported):
                self._backoff.reset()
                self.counts["delivered"] += 1
                self._view.suspicions.delivered(key, reply.state, self._clock.seconds())
                return Outcome(reply.state, *key, revision=reply.revision)
            refusal = reply if isinstance(reply, Refusal) else Refusal("out-of-turn", f"the server answered {reply}")
            if refusal.code not in TRANSIENT:
                self._view.suspicions.dismiss(key)
            elif repeatable:
                self.counts["pending"] += not again
                if refusal.code == "store-unavailable" and not again:
                    self._relay.send(report, self)
                self._repeat_later(refusal)
                return Outcome("pending", *key)
            self.counts["refused"] += 1
            return refusal

        return self._server.ask(report).addCallback(answered)

    def _repeat(self) -> None:
        for report in self._view.suspicions.undelivered(self._view.replica.catalogue, self._clock.seconds()):
            self._deliver(report, (report.service, report.address, report.port), again=True)

    def _repeat_later(self, refusal: Refusal) -> None:
        if "repeat" not in self._timers:
            self._timers.start("repeat", self._backoff.next(refusal.retry_after_seconds), self._repeat)
