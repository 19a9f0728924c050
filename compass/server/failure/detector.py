"""Failure detector: weighs reports, notices hosts without a session, probes, and submits verdicts (function 2.5).

Evidence and verdict are apart. Evidence comes in here: reports, lost sessions, the results of probes. What it is worth
is said by `compass.model.rules.failure`; what is being found out is a check of `compass.server.failure.checks`; the
listener's new state is decided and committed like every other change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore

from compass.model.catalogue.catalogue import Catalogue
from compass.model.cluster import ClusterView
from compass.model.interfaces import Environment
from compass.model.names import InvalidName, category_of, parse_address, parse_endpoint, parse_port, parse_service_id
from compass.model.replies import CaseFile, Refusal, Reply, Reported
from compass.model.requests import Examine, Findings, Report, Undecided, WeighedReport
from compass.model.rows import FAILING, Alert, Change, Listener, ListenerKey, Policy
from compass.model.rules.decide import decide
from compass.model.rules.draft import Principal
from compass.model.rules.instances import CHECK_PASSED
from compass.server.commit.committer import Committer
from compass.server.failure.checks import HealthCheck, RecoveryCheck, SlowTimer, SuspectCheck, UnconfirmedCheck
from compass.server.failure.indirect_probes import IndirectProbes, ProbeResult, ProbingHosts
from compass.server.failure.listener_index import ListenerIndex
from compass.server.failure.local_health import LocalHealthMonitor
from compass.server.failure.pending_suspicions import PendingSuspicions
from compass.server.failure.records import HealthRecords
from compass.system.timers import Timers

PROBES_MAX = 64
"""Probes under way at once: each is a connection; a rack that dies makes thousands."""
ABSENCE_GRACE_SECONDS = 60.0
"""Time after a server's start at which hosts without a session count as lost: twice their longest pause."""
Probe = Callable[[Policy, str, int], Deferred[str]]
"""Asks an address and port whether it serves. Returns an empty string, or why not."""


class HostSessions(ProbingHosts, Protocol):
    """The hosts' sessions as the detector uses them."""

    def is_present(self, host: str) -> bool:
        """Return whether a host has a session, at any server."""

    def watching(self) -> int:
        """Return the number of hosts with a session here."""


class DetectorDependencies(msgspec.Struct, frozen=True):
    """Time, network and sessions of a detector."""

    environment: Environment
    probe: Probe
    sessions: HostSessions
    cluster: ClusterView


class FailureDetector:
    """At most one check for each listener that is suspect, down or slow, and at most one for each listener in use.

    The context of its checks (`CheckContext`).
    """

    def __init__(
        self,
        server: str,
        committer: Committer,
        suspicions: PendingSuspicions,
        dependencies: DetectorDependencies,
        index: ListenerIndex,
    ) -> None:
        environment = dependencies.environment
        self.clock = environment.clock
        self.records = HealthRecords(server, environment)
        self._now = environment.now
        self._probe = dependencies.probe
        self._sessions = dependencies.sessions
        self._cluster = dependencies.cluster
        self._principal = Principal("server", server, "")
        self.local_health = LocalHealthMonitor(self._principal, self.clock, committer)
        self._committer = committer
        self._replica = committer.replica
        self._suspicions = suspicions
        self._peers = IndirectProbes(self.clock, self._sessions)
        self._probe_limit = DeferredSemaphore(PROBES_MAX)
        self._inquiries: dict[ListenerKey, HealthCheck] = {}
        """Checks of listeners that are suspect, down or slow."""
        self._checks: dict[ListenerKey, UnconfirmedCheck] = {}
        """Checks of listeners in use."""
        self._index = index
        self._timers = Timers(self.clock)

    def start(self, catalogue: Catalogue) -> None:
        """Begin the checks that listeners need, and wait for the hosts to come back."""
        for row in _listeners(catalogue):
            self._consider(row, catalogue)
        self.schedule_absence_check()
        self.local_health.start(catalogue)

    def reloaded(self, catalogue: Catalogue) -> None:
        """Restart with the listeners of the catalogue."""
        self.stop()
        self.start(catalogue)

    def stop(self) -> None:
        """Stop every check."""
        for check in (*self._inquiries.values(), *self._checks.values()):
            check.stop()
        self._timers.cancel_all()
        self.local_health.stop()
        self._peers.stop()
        self._inquiries.clear()
        self._checks.clear()
        self._index.clear()

    # Evidence ---------------------------------------------------------------------------------------------

    def report(self, request: Report, principal: Principal) -> Deferred[Reply]:
        """Keep a report as evidence, then have it decided for what its reporter's reports are worth (2.5)."""
        key = _key_of(request)
        if isinstance(key, InvalidName) or request.state != "unreachable":
            return self._committer.submit(request, principal)
        enough = self.records.suffice(key, principal, self._policy(key))
        weighed = WeighedReport(**msgspec.structs.asdict(request), enough=enough)
        row = self._replica.catalogue.listener(*key)
        refused = isinstance(decide(self._replica.catalogue, weighed, principal, self._now(), "").reply, Refusal)
        if refused or row is None or row.state == "down":
            return self._committer.submit(weighed, principal)
        self.records.record_report(key, principal.name, request.detail)

        def check_reported(reply: Reply) -> Reply:
            # Also when the store does not commit the report in time: then a suspicion was sent, and a probe decides.
            if isinstance(reply, Reported) or reply.code == "store-unavailable":  # type: ignore[union-attr]
                self._check_reported(key)
            return reply

        if enough:
            return self._committer.submit(weighed, principal).addCallback(check_reported)
        # Nothing will be committed that a check would have to wait for.
        self._check_reported(key)
        return self._committer.submit(weighed, principal)

    def findings(self, host: str, findings: Findings) -> Reply:
        """Process the result of a host that was asked to probe."""
        if not self._peers.add_result(host, findings):
            return Refusal("bad-value", f"inquiry {findings.id} was not asked of {host}, or it is over")
        self.records.found["alive" if findings.alive else "dead"] += 1
        return Reported(self._replica.catalogue.revision, "up" if findings.alive else "suspect")

    def lost(self, host: str) -> None:
        """Begin a check of each listener that this server owns on a host whose session is lost."""
        for key in self._index.of(host):
            row = self._replica.catalogue.listener(*key)
            if row is not None and row.state not in FAILING | {"offline"} and self._cluster.owns(row):
                self.records.record_lost_session(key, host)
                self._check(row, absent=True)

    def returned(self, host: str) -> None:
        """End the absence of a host with a session here, and probe at once what failed meanwhile."""
        self.moved(host)
        for key in self._index.of(host):
            if key in self._inquiries:
                self._inquiries[key].run_now()

    def moved(self, host: str) -> None:
        """End the absence of a host with a session at any server; that server may own its listeners now."""
        catalogue = self._replica.catalogue
        for key in self._index.of(host):
            check = self._checks.get(key)
            if check is not None and check.absent:
                self.end_check(key)
            row = catalogue.listener(*key)
            if row is not None:
                self._update_ownership(row, catalogue)

    def ownership_changed(self) -> None:
        """Begin the checks of listeners that this server owns now, and end those of others."""
        catalogue = self._replica.catalogue
        for row in _listeners(catalogue):
            self._update_ownership(row, catalogue)

    def schedule_absence_check(self) -> None:
        """Treat hosts as lost that have no session after ABSENCE_GRACE_SECONDS: they may be without a server now."""
        self._timers.start("absent", ABSENCE_GRACE_SECONDS, self._check_absent)

    def committed(self, change: Change, catalogue: Catalogue, *, own: bool) -> None:
        """Process a change of a listener, or a complaint of slowness."""
        row = change.row
        if isinstance(row, Listener):
            self._listener_changed(change, row, catalogue)
        elif isinstance(row, Alert) and row.kind == "slow" and not change.removed:
            service, _, endpoint = row.id.removeprefix("slow ").partition(" ")
            listener = catalogue.listener(service, *parse_endpoint(endpoint))
            if listener is not None and listener.state == "up" and self._cluster.owns(listener):
                self._begin(listener, SlowTimer(self, listener, Policy()))

    def _listener_changed(self, change: Change, row: Listener, catalogue: Catalogue) -> None:
        key = _key(row)
        if change.operation == "report":
            # At whichever server: the reports there sufficed.
            self.records.sufficed(key)
        elif change.operation == "confirm":
            self.records.confirmed(key)
        elif change.operation in ("retract", "recover"):
            self.refuted(key)
        elif change.operation in ("register", CHECK_PASSED) and row.state in ("up", "draining"):
            # Reports of the old instance, or of what the host's own check has confirmed, do not count any longer.
            self.records.replaced(key)
            self.end_check(key)
        if change.removed:
            self._forget(key)
        else:
            self._consider(row, catalogue)
        if change.operation == CHECK_PASSED and key in self._inquiries:
            self._inquiries[key].run_now()

    # Figures ----------------------------------------------------------------------------------------------

    @property
    def open_inquiries(self) -> int:
        """Listeners that are checked because they are suspect, down or slow."""
        return len(self._inquiries)

    @property
    def open_checks(self) -> int:
        """Listeners in use that are checked because there is evidence against them."""
        return len(self._checks)

    def examine(self, request: Examine) -> Reply:
        """Return what this server knows of a listener's health."""
        key = _key_of(request)
        if isinstance(key, InvalidName):
            return Refusal(key.code, str(key))
        catalogue = self._replica.catalogue
        row = catalogue.listener(*key)
        if row is None:
            return Refusal("unknown-listener", f"{key[0]} has no listener at {request.address} port {request.port}")
        case, policy = self.records.of(key), self._policy(key)
        check = self._inquiries.get(key) or self._checks.get(key)
        held = self.records.seconds_held(key, policy)
        return CaseFile(
            revision=catalogue.revision,
            listener=row,
            evidence=tuple(case.evidence),
            judgement=case.judgement,
            judged_at=case.judged_at,
            inquiry=check.label if check else "",
            failures=self.records.failures(key, policy),
            held_until=self._now() + held if held else 0.0,
            doubting=self.local_health.is_in_doubt,
        )

    # CheckContext -----------------------------------------------------------------------------------------

    @property
    def has_sessions(self) -> bool:
        """Return whether any host has a session here."""
        return self._sessions.watching() > 0

    def probe(self, policy: Policy, row: Listener) -> Deferred[str]:
        """Probe a listener, at most PROBES_MAX at once. Returns an empty string, or why it does not serve."""
        probed: Deferred[str] = self._probe_limit.run(self._probe, policy, row.address, row.port)
        return probed.addErrback(lambda failure: f"the probe failed: {failure.getErrorMessage()}")

    def ask_peers(self, row: Listener, count: int, seconds: float) -> Deferred[list[ProbeResult]]:
        """Have hosts probe a listener: not the host that it runs on, and none that reported it."""
        partial = {row.host, *self.records.of(_key(row)).reporters}
        return self._peers.ask(row, count, partial, seconds)

    def submit(self, request: Undecided) -> Deferred[Reply]:
        """Have a request of this server itself decided."""
        return self._committer.submit(request, self._principal)

    def is_absent(self, host: str) -> bool:
        """Return whether a host has no session at any server."""
        return not self._sessions.is_present(host)

    def refuted(self, key: ListenerKey) -> None:
        """Drop what was reported against a listener, and withdraw a suspicion: it is alive."""
        self._suspicions.refuted(key)
        self.records.refuted(key)

    def end_check(self, key: ListenerKey) -> None:
        """Stop and forget the check of a listener in use."""
        check = self._checks.pop(key, None)
        if check is not None:
            check.stop()

    # Checks -----------------------------------------------------------------------------------------------

    def _consider(self, row: Listener, catalogue: Catalogue) -> None:
        """Begin the check that a listener's state needs, and end any other."""
        key = _key(row)
        if row.state == "offline":
            self._forget(key)
            return
        self._index.add(key, row.host, row.epoch)
        category = catalogue.categories.get(category_of(row.service))
        policy = category.policy if category is not None else Policy()
        if not self._cluster.owns(row):
            self._end_inquiry(key)
            if row.state in FAILING:
                self.end_check(key)
        elif row.state == "suspect":
            self._begin(row, SuspectCheck(self, row, policy))
        elif row.state == "down":
            self._begin(row, RecoveryCheck(self, row, policy))
        elif row.state == "slow":
            self._begin(row, SlowTimer(self, row, policy))
        else:
            self._end_inquiry(key)

    def _update_ownership(self, row: Listener, catalogue: Catalogue) -> None:
        """Have a check of a listener that needs one if this server owns it, and none if it does not."""
        key = _key(row)
        if not self._cluster.owns(row):
            self._end_inquiry(key)
            check = self._checks.get(key)
            if check is not None and check.absent:
                self.end_check(key)
        elif key not in self._inquiries and row.state in FAILING | {"slow"}:
            self._consider(row, catalogue)

    def _begin(self, row: Listener, inquiry: HealthCheck) -> None:
        self._end_inquiry(inquiry.key)
        if row.state in FAILING:
            self.end_check(inquiry.key)
        self._inquiries[inquiry.key] = inquiry
        inquiry.begin()

    def _end_inquiry(self, key: ListenerKey) -> None:
        inquiry = self._inquiries.pop(key, None)
        if inquiry is not None:
            inquiry.stop()

    def _check_reported(self, key: ListenerKey) -> None:
        """Check a reported listener unless it is checked already because of its state."""
        row = self._replica.catalogue.listener(*key)
        if row is None or row.state in FAILING or row.state == "offline":
            return
        if self.records.answered_lately(key):
            self.refuted(key)
        else:
            self._check(row, absent=False)

    def _check(self, row: Listener, *, absent: bool) -> None:
        key = _key(row)
        if key in self._checks and absent and not self._checks[key].absent:
            self.end_check(key)
        if key not in self._checks:
            self._checks[key] = check = UnconfirmedCheck(self, row, self._policy(key), absent=absent)
            check.begin()

    def _forget(self, key: ListenerKey) -> None:
        """Drop what is known of a listener that is out of use, except how often it failed."""
        self._end_inquiry(key)
        self.end_check(key)
        self.records.forget(key)
        self._index.remove(key)

    def _check_absent(self) -> None:
        # Administrators register listeners, too, and keep no session.
        known = self._replica.catalogue.hosts
        for host in [host for host in self._index.hosts if host in known and self.is_absent(host)]:
            self.lost(host)

    def _policy(self, key: ListenerKey) -> Policy:
        category = self._replica.catalogue.categories.get(category_of(key[0]))
        return category.policy if category is not None else Policy()


def _key(row: Listener) -> ListenerKey:
    return row.service, row.address, row.port


def _key_of(request: Report | Examine) -> ListenerKey | InvalidName:
    try:
        return parse_service_id(request.service), parse_address(request.address), parse_port(request.port)
    except InvalidName as problem:
        return problem


def _listeners(catalogue: Catalogue) -> list[Listener]:
    """Return all listeners, sorted, so that the same history leads to the same order of probes."""
    rows = (row for peers in catalogue.listeners.values() for row in peers.values())
    return sorted(rows, key=_key)
