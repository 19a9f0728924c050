"""Incidents about the certificates of this server: NOTICE_DAYS before the end of any of them, and once one is invalid.

Each number of days has an incident of its own, so administrators get a message at each. An incident ends when no
certificate has less than its days left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from compass.model.interfaces import Clock
from compass.model.requests import Incident
from compass.model.rules.certificates import DAY, NOTICE_DAYS, OwnCertificate
from compass.model.rules.draft import Principal
from compass.model.text import escape_line
from compass.server.commit.committer import Committer
from compass.system.timers import Timers

CHECK_SECONDS = 60.0
"""Interval between checks: a renewed certificate ends its incidents within a minute."""
TEXT_MAX = 400
"""Characters about certificates in an incident: two certificates with their paths."""


class Surroundings(Protocol):
    """Part of the server's dependencies that is used here."""

    @property
    def clock(self) -> Clock:
        """Clock of the timers."""

    @property
    def now(self) -> Callable[[], float]:
        """UNIX time in seconds."""

    @property
    def certificates(self) -> Callable[[], Sequence[OwnCertificate]]:
        """Certificates whose end ends this server's sessions."""


class CertificateAlerts:
    """Opens and closes the incidents."""

    def __init__(self, server: str, given: Surroundings, committer: Committer) -> None:
        self._server = server
        self._now = given.now
        self._certificates = given.certificates
        self._committer = committer
        self._principal = Principal("server", server, "")
        self._timers = Timers(given.clock)

    def start(self) -> None:
        """Check now, and from time to time."""
        self._check()

    def stop(self) -> None:
        """Stop checking."""
        self._timers.cancel_all()

    def _check(self) -> None:
        self._timers.start("check", CHECK_SECONDS, self._check)
        now, certificates = self._now(), self._certificates()
        for days in NOTICE_DAYS:
            due = [one for one in certificates if one.notice_days(now) == days]
            near = [one for one in certificates if one.not_after - now < days * DAY]
            self._set(f"({days} days)", [one.notice(now) for one in due], keep=bool(near))
        invalid = [text for one in certificates if (text := one.problem(now))]
        self._set("(invalid)", invalid, keep=bool(invalid))

    def _set(self, which: str, texts: list[str], *, keep: bool) -> None:
        """Open an incident if there are texts, and close it unless it is to be kept."""
        id = f"failure certificates of {self._server} {which}"
        is_open = id in self._committer.catalogue.alerts
        if texts and not is_open:
            text = escape_line("; ".join(texts), TEXT_MAX)
            self._committer.submit(Incident(id, f"server {self._server}: {text}"), self._principal)
        elif is_open and not keep:
            self._committer.submit(Incident(id), self._principal)
