"""Checks of this host's own listeners, repeated while they are registered. All local: a server hears of changes only.

A check comes from the program, which names it when it registers, or from the configuration (`[[host.check]]`) for what
registers without one. The agent makes it, or the program makes it and reports each result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from compass.agent.registration.host_address import HostAddress
from compass.agent.registration.journal import Registration, RegistrationJournal, format_key, outcome_of, parse_key
from compass.model.host_api import (
    FAILURES,
    INTERVAL_SECONDS,
    TIMEOUT_SECONDS,
    CheckStatus,
    Failures,
    Interval,
    LocalCheckResult,
    Outcome,
    OwnCheck,
    TimeLimit,
    check_text,
)
from compass.model.interfaces import Clock
from compass.model.limits import DETAIL_MAX, PORT_MAX
from compass.model.names import InvalidName
from compass.model.replies import Refusal
from compass.model.rows import ListenerKey, Policy, State
from compass.model.rules.instances import CheckResults
from compass.model.text import escape_line
from compass.system.timers import Timers

CONFIGURED_CHECKS_MAX = 256
"""Most sections [[host.check]]: more services than one machine runs by hand."""
CHECKS_AT_ONCE = 32
"""Checks under way at once: each is a connection or a process, and a host may have thousands of registrations."""

Probe = Callable[[Policy, str, int], Deferred[str]]
"""Function that probes an address and port; fires with an empty string, or with why it does not serve."""
RunCommand = Callable[[Sequence[str], float, dict[str, str]], Deferred[str]]
"""Function that runs a command within a time, with variables; fires with an empty string or with why it failed."""


class CheckSettings(msgspec.Struct, frozen=True):
    """Keys of [[host.check]]."""

    service: Annotated[
        str,
        Meta(
            description="Service whose listener on this host is checked while it is registered.",
            examples=["chinaserver.openuss"],
        ),
    ]
    port: Annotated[int, Meta(ge=1, le=PORT_MAX, description="Port of the listener.", examples=[2028])]
    address: Annotated[str, Meta(description="Address of the listener; empty: every one of this service and port.")] = (
        ""
    )
    http: Annotated[
        str, Meta(description="Path whose GET must return a status below 400; empty: the port must accept connections.")
    ] = ""
    command: Annotated[
        tuple[str, ...],
        Meta(
            description="Program and arguments in place of the connection; status 0 is success. OPENGNS_SERVICE, "
            "OPENGNS_ADDRESS and OPENGNS_PORT name the listener."
        ),
    ] = ()
    interval_seconds: Annotated[Interval, Meta(description="Seconds between two checks.")] = INTERVAL_SECONDS
    failures: Annotated[
        Failures, Meta(description="Failures in a row after which the listener is suspect; one success ends that.")
    ] = FAILURES
    timeout_seconds: Annotated[TimeLimit, Meta(description="Time limit of one check.")] = TIMEOUT_SECONDS

    @property
    def text(self) -> str:
        """Description for people."""
        what = " ".join(self.command) or (f"GET {self.http}" if self.http else "accepts connections")
        return check_text(what, self.interval_seconds, self.failures)


class CheckMeans(msgspec.Struct, frozen=True, kw_only=True):
    """Means by which checks are made, and those of the configuration."""

    probe: Probe | None = None
    """Probe of an address of this host; without it, only reported checks are possible."""
    run: RunCommand | None = None
    is_own: Callable[[str], bool] = lambda address: True
    """Function that says whether an address is one of this host: no other is checked."""
    configured: tuple[CheckSettings, ...] = ()


class OwnChecks:
    """All checks of this host, one for each registration that has one."""

    _log = Logger()

    def __init__(self, clock: Clock, journal: RegistrationJournal, means: CheckMeans, address: HostAddress) -> None:
        self.journal = journal
        self._clock = clock
        self._address = address
        self._means = means
        self._limit = DeferredSemaphore(CHECKS_AT_ONCE)
        self._running: dict[ListenerKey, _RunningCheck] = {}
        self._changed: Callable[[Registration, str, str], None] = lambda entry, check, failing: None

    def on_change(self, changed: Callable[[Registration, str, str], None]) -> None:
        """Call `changed(entry, check, failing)` when the result of an entry's check changes."""
        self._changed = changed

    def start(self) -> None:
        """Check what the journal holds."""
        for entry in self.journal.all():
            self.follow(entry.key, entry)

    def refusal(self, check: OwnCheck, address: str) -> str:
        """Return why a check cannot be made; empty: it can."""
        if problem := check.problem():
            return problem
        if check.kind == "reported":
            return ""
        if self._means.probe is None:
            return "this daemon makes no checks; report the results of yours"
        if not self._means.is_own(address):
            return f"{address} is not an address of this host, which checks its own listeners only"
        return ""

    def text_for(self, key: ListenerKey, check: OwnCheck | None) -> str:
        """Return the description of the check that a registration has; empty: none."""
        spec = check or self._configured(key)
        return spec.text if spec is not None else ""

    def follow(self, key: ListenerKey, entry: Registration | None) -> None:
        """Check a registration as long as it lives, from now on; None: there is none."""
        spec = (entry.own_check or self._configured(key)) if entry is not None and entry.lives else None
        running = self._running.get(key)
        if running is not None and (spec is None or entry is None or not running.is_of(entry, spec)):
            self._running.pop(key).stop()
            running = None
        if entry is None or not entry.lives:
            return
        text = spec.text if spec is not None else ""
        if entry.check != text:
            # The configuration has changed since the registration; the journal is being written just now.
            self._clock.callLater(0, self._changed, entry, text, entry.failing if text else "")
        if spec is not None and running is None:
            self._running[key] = running = _RunningCheck(self, entry, spec)
            running.wait()

    def reported(self, request: LocalCheckResult) -> Outcome | Refusal:
        """Record the result of a check that the program of a listener makes itself."""
        try:
            key = parse_key(request.service, request.address or self._address.current, request.port)
        except InvalidName as problem:
            return Refusal(problem.code, str(problem))
        entry, name = self.journal.get(key), format_key(key)
        if entry is None or not entry.lives:
            text = f"{name} is not registered on this host; register it with a check of the kind reported"
            return Refusal("unknown-listener", text)
        if not entry.has_credential(request.credential):
            text = f"report a check of {name}: this is not the credential that it was registered with"
            return Refusal("bad-credential", text)
        running = self._running.get(key)
        if running is None or not running.is_reported:
            text = f"{name} has no check that is reported; register it with the kind reported"
            return Refusal("unknown-listener", text)
        running.note(escape_line(request.problem, DETAIL_MAX))
        running.wait()
        state: State = "suspect" if running.results.failing else "up"
        return outcome_of(entry, state if entry.state == "registered" else "pending")

    def status(self, key: ListenerKey) -> CheckStatus | None:
        """Return the check of a registration with its last result; None: it has none."""
        running = self._running.get(key)
        if running is None:
            return None
        results = running.results
        ago = self._clock.seconds() - running.checked_at if running.checked_at is not None else -1.0
        return CheckStatus(running.spec.text, results.failing, results.last, results.in_a_row, ago)

    @property
    def failing(self) -> int:
        """Registrations whose check fails now."""
        return sum(bool(running.results.failing) for running in self._running.values())

    def stop(self) -> None:
        """Stop all checks; their results stay in the journal."""
        for running in self._running.values():
            running.stop()
        self._running.clear()

    def make(self, spec: OwnCheck | CheckSettings, key: ListenerKey) -> Deferred[str]:
        """Make one check. Returns an empty string, or its problem."""
        service, address, port = key
        if isinstance(spec, CheckSettings) and spec.command and self._means.run is not None:
            names = {"OPENGNS_SERVICE": service, "OPENGNS_ADDRESS": address, "OPENGNS_PORT": str(port)}
            asked: Deferred[str] = self._limit.run(self._means.run, spec.command, spec.timeout_seconds, names)
        elif self._means.probe is not None:
            policy = Policy(f"http:{spec.http}" if spec.http else "tcp", spec.timeout_seconds)
            asked = self._limit.run(self._means.probe, policy, address, port)
        else:
            asked = Deferred()
        return asked.addErrback(lambda failure: f"the check failed: {failure.getErrorMessage()}")

    def changed(self, entry: Registration, results: CheckResults) -> None:
        """Report a change of a check's result."""
        name = format_key(entry.key)
        if results.failing:
            self._log.warn("{name}: its own check failed: {why}", name=name, why=results.failing)
        else:
            self._log.info("{name}: its own check passes again", name=name)
        self._changed(entry, self._running[entry.key].spec.text, results.failing)

    @property
    def clock(self) -> Clock:
        """Clock of the checks."""
        return self._clock

    def _configured(self, key: ListenerKey) -> CheckSettings | None:
        service, address, port = key
        for one in self._means.configured:
            if (one.service, one.port) == (service, port) and one.address in ("", address):
                return one if self._means.is_own(address) else None
        return None


class _RunningCheck:
    """Check of one instance, repeated until it is stopped."""

    def __init__(self, checks: OwnChecks, entry: Registration, spec: OwnCheck | CheckSettings) -> None:
        self.spec = spec
        self.results = CheckResults(spec.failures, entry.failing)
        self.checked_at: float | None = None
        self._checks = checks
        self._entry = entry
        self._timers = Timers(checks.clock)
        self._stopped = False

    @property
    def is_reported(self) -> bool:
        """True if the program makes the check and reports its results."""
        return isinstance(self.spec, OwnCheck) and self.spec.kind == "reported"

    def is_of(self, entry: Registration, spec: OwnCheck | CheckSettings) -> bool:
        """Return whether this is the check of the entry's instance."""
        return self._entry.epoch == entry.epoch and self.spec == spec

    def wait(self) -> None:
        """Wait for the next check, or for the next report."""
        if self.is_reported:
            self._timers.start("next", self.spec.interval_seconds + self.spec.timeout_seconds, self._missed)
        else:
            self._timers.start("next", self.spec.interval_seconds, self._make)

    def note(self, problem: str) -> None:
        """Record a result."""
        self.checked_at = self._checks.clock.seconds()
        if self.results.note(problem):
            self._checks.changed(self._entry, self.results)

    def stop(self) -> None:
        """Stop; a check under way has no result any more."""
        self._stopped = True
        self._timers.cancel_all()

    def _make(self) -> None:
        self._checks.make(self.spec, self._entry.key).addCallback(self._made)

    def _made(self, problem: str) -> None:
        if not self._stopped:
            self.note(escape_line(problem, DETAIL_MAX))
            self.wait()

    def _missed(self) -> None:
        seconds = self.spec.interval_seconds + self.spec.timeout_seconds
        self.note(f"its program reported no result within {seconds:g} s")
        self.wait()
