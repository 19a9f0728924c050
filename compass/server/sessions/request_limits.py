"""Request limits: how many reports of one peer are accepted in a minute (P10).

Wrong credentials have no such limit. A token has 256 random bits, so nothing is won by not checking one, and a limit
would refuse the right one, too; what is bounded is the rows that refusals cost (`ConnectionLimits.should_log`).
"""

from __future__ import annotations

from typing import Any, Protocol

from compass.model.interfaces import Clock
from compass.model.replies import Refusal, Reply
from compass.model.requests import Report
from compass.model.rules.draft import Principal
from compass.server.sessions.rate_limit import REPORTS_PER_MINUTE_MAX, RateLimiter


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
