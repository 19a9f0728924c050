"""The failure desk: weighs reports, misses hosts, probes, asks witnesses, and submits verdicts (function 2.5).

Evidence and verdict are apart. Evidence comes here: reports, lost sessions, probes, what asked hosts found. What it is
worth is said by `compass.model.rules.failure`; what is being found out is an inquiry of
`compass.server.failure.checks`; what
becomes of the listener is decided and committed like everything else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue
from compass.model.interfaces import Clock, Timer
from compass.model.names import InvalidName, category_of, parse_address, parse_endpoint, parse_port, parse_service_id
from compass.model.replies import CaseFile, Evidence, Refusal, Reply, Reported
from compass.model.requests import Examine, Findings, Incident, Report, Undecided, WeighedReport
from compass.model.rows import FAILING, Alert, Change, Listener, ListenerKey, Policy
from compass.model.rules.draft import Principal
from compass.model.rules.failure import EvidenceLog, Finding, FlapDamping, LocalHealth, Reputation
from compass.server.failure.checks import HealthCheck, RecoveryCheck, SlowTimer, SuspectCheck, UnconfirmedCheck
from compass.server.failure.indirect_probes import Asked, IndirectProbes, ProbeResult
from compass.server.failure.pending_suspicions import PendingSuspicions

PROBES_MAX = 64
"""Probes under way at once: each is a connection; a rack that dies makes thousands."""
ABSENCE_GRACE_SECONDS = 60.0
"""After a server's start, until hosts that have not come back are missed: twice their longest pause."""
FRESH_SECONDS = 1.0
"""A probe that was answered so lately refutes a report that does not suffice by itself, without another probe."""
DOUBT_LOOK_SECONDS = 5.0
"""How often a server that doubts itself looks whether it still has reason to."""

Probe = Callable[[Policy, str, int], Deferred[str]]
"""Asks an address and port whether it serves: an empty string, or why not."""


class SessionInfo(msgspec.Struct, frozen=True):
    """What the desk knows of the sessions."""

    able: Callable[[Listener], Iterable[Asked]]
    """Sessions of hosts that depend on a listener and answer inquiries."""
    present: Callable[[str], bool]
    """Whether a host has a session, at whichever server."""
    watching: Callable[[], int]
    """How many have one here."""
    keeps: Callable[[Listener], bool]
    """Whether this server looks after a listener, among those over the same store."""


class FailureDetector:
    """At most one inquiry per listener that is suspect, down or slow, and one check per listener in use."""

    log = Logger()

    def __init__(
        self,
        clock: Clock,
        now: Callable[[], float],
        probe: Probe,
        unwritten: PendingSuspicions,
        server: str,
        catalogue: Callable[[], Catalogue],
        surroundings: SessionInfo,
    ) -> None:
        self.clock = clock
        self._now = now
        self._probe = probe
        self._unwritten = unwritten
        self._submit = unwritten.submit
        self._server = server
        self._asker = Principal("server", server, "")
        self._catalogue = catalogue
        self._around = surroundings
        self.witnesses = IndirectProbes(clock, surroundings.able)
        self._free = DeferredSemaphore(PROBES_MAX)
        self._inquiries: dict[ListenerKey, HealthCheck] = {}
        self._checks: dict[ListenerKey, UnconfirmedCheck] = {}
        self._of_host: dict[str, dict[ListenerKey, None]] = {}
        self._host_of: dict[ListenerKey, str] = {}
        self._docket = EvidenceLog()
        self._reputation = Reputation()
        self._doubt = LocalHealth()
        self._doubt_told = False
        self._damping = FlapDamping()
        self._answered_at: dict[ListenerKey, float] = {}
        self._timers: dict[str, Timer] = {}
        self.probes = Counter[str]()
        """Of this server that were `answered` or `failed`."""
        self.found = Counter[str]()
        """What hosts said that were asked to probe: `alive` or `dead`."""

    def start(self, catalogue: Catalogue) -> None:
        """Take up what was open when the server stopped, and miss who does not come back."""
        for row in _listeners(catalogue):
            self._consider(row, catalogue)
        self.schedule_absence_check()
        if _doubt_id(self._server) in catalogue.alerts:
            self.submit(Incident(_doubt_id(self._server)))

    def stop(self) -> None:
        """No more probes."""
        for inquiry in (*self._inquiries.values(), *self._checks.values()):
            inquiry.stop()
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self.witnesses.stop()
        for held in (self._inquiries, self._checks, self._timers, self._of_host, self._host_of):
            held.clear()

    # What comes in ----------------------------------------------------------------------------------------

    def report(self, request: Report, asker: Principal) -> Deferred[Reply]:
        """2.5: have a report decided, for what its reporter's word is worth, and keep it as evidence."""
        try:
            key = (parse_service_id(request.service), parse_address(request.address), parse_port(request.port))
        except InvalidName:
            return self._submit(request, asker)
        if request.state != "unreachable":
            return self._submit(request, asker)
        reporters = [*self._docket.look(key).reporters, asker.name]
        enough = asker.role == "admin" or self._reputation.suffice(reporters, self._policy(key), self.clock.seconds())
        weighed = WeighedReport(**msgspec.structs.asdict(request), enough=enough)

        def note(reply: Reply) -> None:
            if isinstance(reply, Reported):
                self._reported(key, asker, request.detail, reply)

        def noted(reply: Reply) -> Reply:
            note(reply)
            return reply

        # What the store does not take in time is noted, told and probed all the same.
        return self._submit(weighed, asker, note).addCallback(noted)

    def _reported(self, key: ListenerKey, asker: Principal, detail: str, reply: Reported) -> None:
        row = self._catalogue().listener(*key)
        if row is None or row.state in ("down", "offline"):
            return
        self._docket.report(key, asker.name, detail, self._now())
        if row.state not in FAILING:
            if self.clock.seconds() - self._answered_at.get(key, -FRESH_SECONDS) < FRESH_SECONDS:
                self.refuted(key)
            else:
                self._check(row, absent=False)

    def findings(self, host: str, findings: Findings) -> Reply:
        """A host that was asked to probe says what it found."""
        if not self.witnesses.heard(host, findings):
            return Refusal("bad-value", f"inquiry {findings.id} was not asked of {host}, or it is over")
        self.found["alive" if findings.alive else "dead"] += 1
        return Reported(self._catalogue().revision, "up" if findings.alive else "suspect")

    def lost(self, host: str) -> None:
        """A host's session is lost: its listeners are checked when it is not back in time, by the server that keeps
        them."""
        catalogue = self._catalogue()
        if host not in catalogue.hosts:
            return
        for key in self._of_host.get(host, {}):
            row = catalogue.listener(*key)
            if row is not None and row.state not in FAILING | {"offline"} and self._around.keeps(row):
                self._docket.note(key, Evidence("session", host, self._now(), detail="its session was lost"))
                self._check(row, absent=True)

    def returned(self, host: str) -> None:
        """A host is back: nothing is held against it, and what failed meanwhile is probed at once."""
        self.moved(host)
        for key in list(self._of_host.get(host, {})):
            if key in self._inquiries:
                self._inquiries[key].run_now()

    def moved(self, host: str) -> None:
        """A host has come to a server: nobody misses it any more, and its listeners go with it."""
        catalogue = self._catalogue()
        for key in list(self._of_host.get(host, {})):
            check = self._checks.get(key)
            if check is not None and check.absent:
                self.checked(key)
            row = catalogue.listener(*key)
            if row is not None:
                self._update_ownership(row, catalogue)

    def ownership_changed(self) -> None:
        """Which servers look after listeners has changed: take up what is ours now, leave what is not."""
        catalogue = self._catalogue()
        for row in _listeners(catalogue):
            self._update_ownership(row, catalogue)

    def schedule_absence_check(self) -> None:
        """Hosts may be without a server; miss those that do not come back."""
        pending = self._timers.get("absent")
        if pending is not None and pending.active():
            pending.cancel()
        self._timers["absent"] = self.clock.callLater(ABSENCE_GRACE_SECONDS, self._miss)

    def committed(self, change: Change, catalogue: Catalogue) -> None:
        """Look at each change of a listener, and at complaints of slowness."""
        row = change.row
        if isinstance(row, Listener):
            if change.operation == "report":
                # Whichever server was told: what it was told sufficed.
                self._docket.case((row.service, row.address, row.port)).sufficed = True
            if change.operation == "confirm":
                self._confirmed(row)
            elif change.operation in ("retract", "recover"):
                self.refuted((row.service, row.address, row.port))
            if change.operation == "register" and row.state == "up":
                # A new instance: what was said of the old one is not held against it.
                self._docket.look((row.service, row.address, row.port)).settle()
                self.checked((row.service, row.address, row.port))
            if change.removed:
                self._forget(row)
            else:
                self._consider(row, catalogue)
        elif isinstance(row, Alert) and row.kind == "slow" and not change.removed:
            service, _, endpoint = row.id.removeprefix("slow ").partition(" ")
            listener = catalogue.listener(service, *parse_endpoint(endpoint))
            if listener is not None and listener.state == "up" and self._around.keeps(listener):
                self._begin(listener, SlowTimer(self, listener, Policy()))

    @property
    def open_inquiries(self) -> int:
        """Listeners that are being found out about, because they are suspect, down or slow."""
        return len(self._inquiries)

    @property
    def open_checks(self) -> int:
        """Listeners in use that are probed because something was said against them."""
        return len(self._checks)

    def examine(self, request: Examine) -> Reply:
        """What is known here of a listener's health."""
        try:
            key = (parse_service_id(request.service), parse_address(request.address), parse_port(request.port))
        except InvalidName as problem:
            return Refusal(problem.code, str(problem))
        catalogue = self._catalogue()
        row = catalogue.listener(*key)
        if row is None:
            return Refusal("unknown-listener", f"{key[0]} has no listener at {request.address} port {request.port}")
        case, policy, seconds = self._docket.look(key), self._policy(key), self.clock.seconds()
        inquiry = self._inquiries.get(key) or self._checks.get(key)
        held = self.held(key, policy)
        return CaseFile(
            revision=catalogue.revision,
            listener=row,
            evidence=tuple(case.evidence),
            judgement=case.judgement,
            judged_at=case.judged_at,
            inquiry=inquiry.label if inquiry else "",
            failures=self._damping.failures(key, policy, seconds),
            held_until=self._now() + held if held else 0.0,
            doubting=self.doubting,
        )

    # What inquiries ask for -------------------------------------------------------------------------------

    def probe(self, policy: Policy, row: Listener) -> Deferred[str]:
        """Ask a listener, not too many at once; an empty string, or why it does not serve."""
        asked: Deferred[str] = self._free.run(self._probe, policy, row.address, row.port)
        return asked.addErrback(lambda failure: f"the probe failed: {failure.getErrorMessage()}")

    def submit(self, request: Undecided) -> Deferred[Reply]:
        """Have a request of the desk's own decided."""
        return self._submit(request, self._asker)

    def probed(self, key: ListenerKey, problem: str) -> None:
        """A probe of this server has come to something."""
        self.probes["failed" if problem else "answered"] += 1
        self._docket.note(key, Evidence("probe", self._server, self._now(), not problem, problem))
        if not problem and key in self._host_of:
            self._answered_at[key] = self.clock.seconds()

    def heard(self, key: ListenerKey, testimonies: Iterable[ProbeResult]) -> None:
        """So have those of hosts."""
        for one in testimonies:
            self._docket.note(key, Evidence("findings", one.host, self._now(), one.alive, one.detail))

    def judged(self, key: ListenerKey, words: str) -> None:
        """A judgement has been found."""
        case = self._docket.case(key)
        case.judgement, case.judged_at = words, self._now()

    def doubt(self, key: ListenerKey, finding: Finding) -> None:
        """An inquiry has come to something; perhaps the server must doubt itself, or need not any more."""
        self._doubt.note(key, finding, self.clock.seconds())
        self._look_at_doubt()

    @property
    def doubting(self) -> bool:
        """Whether this server does not believe its own probes."""
        return self._doubt.doubting(self.clock.seconds())

    @property
    def connected(self) -> bool:
        """Whether any host has a session here."""
        return self._around.watching() > 0

    def is_absent(self, host: str) -> bool:
        """Whether a host has no session."""
        return not self._around.present(host)

    def partial(self, row: Listener) -> set[str]:
        """Who is no witness: the host that it runs on, and those that reported it."""
        return {row.host, *self._docket.look((row.service, row.address, row.port)).reporters}

    def reported(self, row: Listener) -> bool:
        """Whether reports that suffice stand against it, here or at another server."""
        key = (row.service, row.address, row.port)
        case = self._docket.look(key)
        if case.sufficed or not case.reporters:
            return case.sufficed
        return self._reputation.suffice(case.reporters, self._policy(key), self.clock.seconds())

    def held(self, key: ListenerKey, policy: Policy) -> float:
        """Seconds that it must stay out because it went down too often."""
        now = self.clock.seconds()
        return max(self._damping.held_until(key, policy, now) - now, 0.0)

    def refuted(self, key: ListenerKey) -> None:
        """It is alive: whoever reported it was wrong."""
        self._unwritten.refuted(key)
        case = self._docket.look(key)
        for reporter in case.reporters:
            self._reputation.refuted(reporter, self.clock.seconds())
        case.settle()

    def checked(self, key: ListenerKey) -> None:
        """A check is over."""
        check = self._checks.pop(key, None)
        if check is not None:
            check.stop()

    # In here ----------------------------------------------------------------------------------------------

    def _confirmed(self, row: Listener) -> None:
        key, seconds = (row.service, row.address, row.port), self.clock.seconds()
        self._damping.failed(key, seconds)
        case = self._docket.look(key)
        for reporter in case.reporters:
            self._reputation.confirmed(reporter, seconds)
        case.settle()

    def _policy(self, key: ListenerKey) -> Policy:
        category = self._catalogue().categories.get(category_of(key[0]))
        return category.policy if category is not None else Policy()

    def _consider(self, row: Listener, catalogue: Catalogue) -> None:
        key = (row.service, row.address, row.port)
        if row.state == "offline":
            self._forget(row)
            return
        self._index(key, row.host)
        category = catalogue.categories.get(category_of(row.service))
        policy = category.policy if category is not None else Policy()
        if not self._around.keeps(row):
            self._drop(key)
            if row.state in FAILING:
                self.checked(key)
        elif row.state == "suspect":
            self._begin(row, SuspectCheck(self, row, policy))
        elif row.state == "down":
            self._begin(row, RecoveryCheck(self, row, policy))
        elif row.state == "slow":
            self._begin(row, SlowTimer(self, row, policy))
        else:
            self._drop(key)

    def _update_ownership(self, row: Listener, catalogue: Catalogue) -> None:
        """Have an inquiry about a listener that needs one and is ours, and none about one that is not."""
        key = (row.service, row.address, row.port)
        if not self._around.keeps(row):
            self._drop(key)
            check = self._checks.get(key)
            if check is not None and check.absent:
                self.checked(key)
        elif key not in self._inquiries and row.state in FAILING | {"slow"}:
            self._consider(row, catalogue)

    def _begin(self, row: Listener, inquiry: HealthCheck) -> None:
        self._drop(inquiry.key)
        if row.state in FAILING:
            self.checked(inquiry.key)
        self._inquiries[inquiry.key] = inquiry
        inquiry.begin()

    def _check(self, row: Listener, *, absent: bool) -> None:
        key = (row.service, row.address, row.port)
        if key in self._checks and absent and not self._checks[key].absent:
            self.checked(key)
        if key not in self._checks:
            self._checks[key] = check = UnconfirmedCheck(self, row, self._policy(key), absent=absent)
            check.begin()

    def _drop(self, key: ListenerKey) -> None:
        inquiry = self._inquiries.pop(key, None)
        if inquiry is not None:
            inquiry.stop()

    def _forget(self, row: Listener) -> None:
        """It is not in use any more; another instance begins with a clean record, but for its failures."""
        key = (row.service, row.address, row.port)
        self._drop(key)
        self.checked(key)
        self._docket.close(key)
        self._answered_at.pop(key, None)
        self._index(key, "")

    def _index(self, key: ListenerKey, host: str) -> None:
        old = self._host_of.pop(key, "")
        if old and old != host:
            del self._of_host[old][key]
            if not self._of_host[old]:
                del self._of_host[old]
        if host:
            self._host_of[key] = host
            self._of_host.setdefault(host, {})[key] = None

    def _miss(self) -> None:
        for host in [host for host in self._of_host if self.is_absent(host)]:
            self.lost(host)

    def _look_at_doubt(self) -> None:
        doubting = self.doubting
        if doubting != self._doubt_told:
            self._doubt_told = doubting
            text = f"server {self._server} doubts itself: most of its probes fail, and no host finds the same" + (
                "; it condemns nothing by itself. Look at its network"
            )
            self.submit(Incident(_doubt_id(self._server), text if doubting else ""))
        if doubting and not self._timers_pending("doubt"):
            self._timers["doubt"] = self.clock.callLater(DOUBT_LOOK_SECONDS, self._look_at_doubt)

    def _timers_pending(self, name: str) -> bool:
        timer = self._timers.get(name)
        return timer is not None and timer.active()


def _listeners(catalogue: Catalogue) -> list[Listener]:
    """All of them, in an order of their own, so that the same history gives the same order of probes."""
    rows = (row for peers in catalogue.listeners.values() for row in peers.values())
    return sorted(rows, key=lambda row: (row.service, row.address, row.port))


def _doubt_id(server: str) -> str:
    return f"failure doubt of {server}"
