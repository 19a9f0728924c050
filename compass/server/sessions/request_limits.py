"""Request limits: how many reports and wrong credentials of one peer are accepted in a minute (P10)."""

from __future__ import annotations

from typing import Any, Protocol

from compass.model.interfaces import Clock
from compass.model.limits import SUBJECT_MAX
from compass.model.replies import Refusal, Reply
from compass.model.requests import Deregister, Drain, Register, Report
from compass.model.rules.draft import Principal
from compass.server.sessions.rate_limit import FAILURES_PER_MINUTE_MAX, REPORTS_PER_MINUTE_MAX, RateLimiter


class RequestLimit(Protocol):
    """A limit on requests of one or several types."""

    def exceeded(self, request: Any, asker: Principal) -> Refusal | None:
        """Return the refusal of a request beyond the limit."""

    def answered(self, reply: Any, request: Any, asker: Principal) -> Reply:
        """Note the reply to a request within the limit, and return that reply."""


class ReportLimit:
    """A number of reports of one host in a minute."""

    def __init__(self, clock: Clock) -> None:
        self._reports = RateLimiter(clock, REPORTS_PER_MINUTE_MAX)

    def exceeded(self, request: Report, asker: Principal) -> Refusal | None:
        """Count a report of a host. Returns its refusal beyond the limit."""
        if asker.role != "host" or self._reports.count(asker.name):
            return None
        text = f"{REPORTS_PER_MINUTE_MAX} reports of host {asker.name!r} within a minute are too many"
        return Refusal("busy", text, self._reports.wait(asker.name))

    def answered(self, reply: Reply, request: Report, asker: Principal) -> Reply:
        """Return the reply: every report was counted before."""
        return reply


class CredentialLimit:
    """A number of wrong credentials of one peer for one service in a minute; after it none is checked."""

    def __init__(self, clock: Clock) -> None:
        self._wrong = RateLimiter(clock, FAILURES_PER_MINUTE_MAX)

    def exceeded(self, request: Register | Deregister | Drain, asker: Principal) -> Refusal | None:
        """Return the refusal of a request with a credential, if too many wrong ones came before it."""
        wait = self._wrong.wait(_guess(request, asker))
        if not wait:
            return None
        text = (
            f"{FAILURES_PER_MINUTE_MAX} wrong credentials for {request.service} within a minute came from "
            f"{asker.role} {asker.name!r}: none is checked until the minute ends"
        )
        return Refusal("busy", text, retry_after_seconds=wait)

    def answered(self, reply: Reply, request: Register | Deregister | Drain, asker: Principal) -> Reply:
        """Count a credential that was wrong, and return the reply."""
        if isinstance(reply, Refusal) and reply.code == "bad-credential":
            self._wrong.count(_guess(request, asker))
        return reply


def _guess(request: Register | Deregister | Drain, asker: Principal) -> str:
    return f"{asker.role} {asker.name} {request.service[:SUBJECT_MAX].lower()}"
