"""Repeated check of a command that serves: made here, on its own machine, and reported to the daemon of this host.

The daemon sends a change of the result to a server, and nothing else leaves the machine.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import msgspec

from compass.cli.run.readiness import Endpoint, Held, ReadinessCheck, acceptance_problem, readiness_problem
from compass.client.core.blocking_api import ApiProblem, HostApi
from compass.model.host_api import (
    CHECK_TIMEOUT_SECONDS_MAX,
    FAILURES,
    INTERVAL_SECONDS,
    LocalCheckResult,
    LocalRegister,
    OwnCheck,
)
from compass.model.limits import DETAIL_MAX
from compass.model.rules.instances import CheckResults
from compass.model.text import escape_line

REPORT_SECONDS = 2.0
"""Time limit for the daemon to receive a result; the next check must not wait for a daemon that hangs."""
SLACK_SECONDS = 2.0
"""Time by which a result may be late at the daemon beyond the time limits of the check's parts."""


class CheckPlan(msgspec.Struct, frozen=True):
    """Plan by which the check of a command is repeated."""

    interval_seconds: float = INTERVAL_SECONDS
    """Pause between two checks; 0: the check is made only once, before the registration."""
    failures: int = FAILURES
    watchdog_seconds: float = 0.0
    """Seconds within which the command must send a sign of life; 0: it need not."""

    def declared(self, check: ReadinessCheck) -> OwnCheck | None:
        """Return the check as the daemon is informed of it; None: it is not repeated."""
        if not self.interval_seconds:
            return None
        late = min(3 * check.seconds + SLACK_SECONDS, CHECK_TIMEOUT_SECONDS_MAX)
        what = check.text(self.watchdog_seconds, self.interval_seconds, self.failures).partition(", every ")[0]
        return OwnCheck("reported", "", what, self.interval_seconds, self.failures, late)


class CheckedService(msgspec.Struct, frozen=True):
    """Service of the command with its check."""

    registration: LocalRegister
    endpoints: Sequence[Endpoint]
    check: ReadinessCheck
    held: Held

    def problem(self, process: CheckedProcess) -> str:
        """Return the problem of one check; empty: it passes."""
        if problem := process.watchdog_problem() or readiness_problem(self.endpoints, self.check, self.held):
            return problem
        if self.check.accepts and not self.check.http_path:
            return acceptance_problem(self.endpoints[0], self.check.seconds) if len(self.endpoints) == 1 else ""
        return ""


class CheckedProcess(Protocol):
    """Process whose check is repeated."""

    def watchdog_problem(self) -> str:
        """Return why the process seems to hang by its watchdog; empty: it does not, or it has none."""

    def check_changed(self, problem: str) -> None:
        """Handle a check that has failed often enough, or that passes again if `problem` is empty."""


class RepeatedCheck:
    """Thread that repeats the checks of one process of the command until `ended` is set."""

    def __init__(
        self,
        api: HostApi,
        plan: CheckPlan,
        services: Sequence[CheckedService],
        process: CheckedProcess,
        ended: threading.Event,
    ) -> None:
        self._api = HostApi(api.endpoint, REPORT_SECONDS)
        self._plan = plan
        self._services = services
        self._process = process
        self._ended = ended

    def start(self) -> None:
        """Begin after the first pause."""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        results = [CheckResults(self._plan.failures) for _ in self._services]
        failing = ""
        while not self._ended.wait(self._plan.interval_seconds):
            for service, result in zip(self._services, results, strict=True):
                problem = service.problem(self._process)
                if self._ended.is_set():
                    return
                result.note(problem)
                self._report(service.registration, problem)
            now = next((result.failing for result in results if result.failing), "")
            if bool(now) != bool(failing):
                self._process.check_changed(now)
            failing = now

    def _report(self, registration: LocalRegister, problem: str) -> None:
        service, port, token = registration.service, registration.port, registration.credential
        text = escape_line(problem, DETAIL_MAX)
        try:
            self._api.report_check(LocalCheckResult(service, port, token, text, registration.address))
        except ApiProblem:
            # A daemon that is restarted hears the next result; one that does not know the registration gets it soon.
            return
