"""Certificates that a daemon needs for its own connections, and their dates: for log, status, metrics and incidents.

Pure: the time is an argument, in seconds of the UNIX clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from compass.model.host_api import CertificateRole, Condition

NOTICE_DAYS = (30, 7, 1)
"""Days before the end of a certificate at which a daemon warns and a server opens an incident, in descending order:
time to order a new one, time to install it, and the last moment."""
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
"""Seconds of a minute, an hour and a day."""

_WHAT: Mapping[CertificateRole, str] = {
    "leaf": "certificate",
    "intermediate": "intermediate certificate",
    "authority": "authority",
}


class OwnCertificate(msgspec.Struct, frozen=True):
    """Certificate of a daemon's own files that its connections need."""

    role: CertificateRole
    subject: str
    file: str
    """Path of the file that contains it."""
    not_before: float
    """Begin of its validity, UNIX time."""
    not_after: float
    """End of its validity, UNIX time."""
    renewal: str
    """Advice on how to replace it."""

    def problem(self, now: float) -> str:
        """Return why the certificate is not valid at this time; empty: it is valid."""
        if now >= self.not_after:
            return f"{self} expired on {format_time(self.not_after)}; {self.renewal}"
        if now < self.not_before:
            return (
                f"{self} is not valid before {format_time(self.not_before)}, and the clock of this machine says "
                f"{format_time(now)}; set the clock, or issue the certificate again if the clock is right"
            )
        return ""

    def notice_days(self, now: float) -> int:
        """Return the smallest of NOTICE_DAYS that the rest of its life is below; 0: none, or it has expired."""
        left = self.not_after - now
        return min((days for days in NOTICE_DAYS if 0 < left < days * DAY), default=0)

    def notice(self, now: float) -> str:
        """Return the warning about an end within NOTICE_DAYS; empty: there is none to give."""
        if not self.notice_days(now):
            return ""
        left = self.not_after - now
        return f"{self} expires in {_rest(left)}, on {format_time(self.not_after)}; {self.renewal}"

    def __str__(self) -> str:
        return f"the {_WHAT[self.role]} {self.subject!r} in {self.file}"


def _rest(seconds: float) -> str:
    """Return a time in the unit in which a person counts it: days, hours below two days, minutes below two hours."""
    if seconds >= 2 * DAY:
        return f"{seconds / DAY:.0f} days"
    if seconds >= 2 * HOUR:
        return f"{seconds / HOUR:.0f} hours"
    if seconds >= 2 * MINUTE:
        return f"{seconds / MINUTE:.0f} minutes"
    return f"{seconds:.0f} seconds"


def format_time(time: float) -> str:
    """Format a UNIX time for people, in UTC."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S} UTC"


def condition_of(certificates: Iterable[OwnCertificate], now: float) -> Condition:
    """Return the worst condition of several certificates; `valid` if there is none."""
    soon = False
    for one in certificates:
        if one.problem(now):
            return "invalid"
        soon = soon or bool(one.notice_days(now))
    return "ends-soon" if soon else "valid"


def problems_of(certificates: Iterable[OwnCertificate], now: float) -> tuple[str, ...]:
    """Return a sentence for each certificate that is not valid at this time."""
    return tuple(text for one in certificates if (text := one.problem(now)))


def notices_of(certificates: Iterable[OwnCertificate], now: float) -> tuple[str, ...]:
    """Return a sentence for each certificate that ends within NOTICE_DAYS."""
    return tuple(text for one in certificates if (text := one.notice(now)))


def seconds_left(certificates: Iterable[OwnCertificate], now: float) -> dict[str, float]:
    """Return for each role that has a certificate the seconds until the first of them ends; negative: since its end."""
    left: dict[str, float] = {}
    for one in certificates:
        left[one.role] = min(left.get(one.role, one.not_after - now), one.not_after - now)
    return left
