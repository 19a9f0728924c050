"""Suspicions: knowledge about listeners outside the log, from this host's programs and from a server.

Such a listener is treated as suspect here at once, also with every server down. The evidence is bounded in time, and
ends as soon as the log says anything about the listener: its row is then another one than the evidence is about.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from compass.model.catalogue.catalogue import Catalogue
from compass.model.host_api import LocalReport
from compass.model.rows import FAILING, USABLE, Listener, ListenerKey, State
from compass.wire.limits import SUSPICION_SECONDS_MAX
from compass.wire.messages import Suspicion

EVIDENCE_SECONDS = 60.0
"""Seconds after which an unconfirmed report is dropped: the listener may have recovered."""
OWED_SECONDS = 600.0
"""Seconds during which a report is repeated until a server accepts it: an older finding says nothing."""
UNSHARED_SECONDS = 5.0
"""Seconds of a suspicion that the server does not share from the start: its own probe decides within this time."""
RENEWAL_SECONDS = 1.0
"""Seconds that suspicions outlast the reply to a watch: the server repeats the current ones right after the reply."""
EVIDENCE_MAX = 1024
"""Listeners under local suspicion, and under suspicion by a server, each; beyond that the oldest is dropped. A host
rarely uses that number."""


class _Finding(msgspec.Struct, frozen=True):
    report: LocalReport
    row: Listener
    until: float
    owed_until: float
    delivered: bool = False


class _NotifiedSuspicion(msgspec.Struct, frozen=True):
    row: Listener
    until: float
    cause: str


class Suspicions:
    """Suspicions by listener; `now` is any clock's seconds."""

    def __init__(self) -> None:
        self._findings: dict[ListenerKey, _Finding] = {}
        self._notified: dict[ListenerKey, _NotifiedSuspicion] = {}

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of suspicions by programs (`here`) and by a `server`; some may have expired."""
        return {"here": len(self._findings), "server": len(self._notified)}

    def add(self, report: LocalReport, row: Listener, now: float) -> None:
        """Add the report of a program that found this listener dead. An earlier one that still holds stays as it is."""
        key = (row.service, row.address, row.port)
        before = self._findings.pop(key, None)
        if before is not None and before.row == row and now < before.until:
            self._findings[key] = before
            return
        self._findings[key] = _Finding(report, row, now + EVIDENCE_SECONDS, now + OWED_SECONDS)
        if len(self._findings) > EVIDENCE_MAX:
            del self._findings[next(iter(self._findings))]

    def add_notified(self, suspicion: Suspicion, row: Listener, now: float) -> float:
        """Add or withdraw a server's suspicion of this instance. Returns the time until which it holds."""
        key = (row.service, row.address, row.port)
        self._notified.pop(key, None)
        seconds = min(suspicion.seconds, SUSPICION_SECONDS_MAX)
        if not seconds > 0:
            # The listener answered a probe, whatever a program here has found.
            self.dismiss(key)
            return 0.0
        self._notified[key] = _NotifiedSuspicion(row, now + seconds, suspicion.cause)
        if len(self._notified) > EVIDENCE_MAX:
            del self._notified[next(iter(self._notified))]
        return seconds

    def renew_notified(self, now: float) -> None:
        """Let the server's suspicions expire soon: after its reply to a watch it repeats the current ones."""
        for key, notified in self._notified.items():
            self._notified[key] = msgspec.structs.replace(notified, until=min(notified.until, now + RENEWAL_SECONDS))

    def delivered(self, key: ListenerKey, state: State, now: float) -> None:
        """Record that a server has the report, and the listener's state there; what it decides comes as a notice.

        When the report alone was not enough for it, a probe of the server that finds the listener alive is no change:
        then no notice comes, and the local suspicion ends by itself.
        """
        finding = self._findings.get(key)
        if finding is not None:
            until = min(finding.until, now + UNSHARED_SECONDS) if state in USABLE else finding.until
            self._findings[key] = msgspec.structs.replace(finding, delivered=True, until=until)

    def dismiss(self, key: ListenerKey, report: LocalReport | None = None) -> None:
        """Drop the report of a listener that is alive; with `report` only this one, which was refused or refuted."""
        finding = self._findings.get(key)
        if finding is not None and (report is None or finding.report is report):
            del self._findings[key]

    def undelivered(self, catalogue: Catalogue, now: float) -> list[LocalReport]:
        """Return the reports that are still valid and that no server has."""
        return [finding.report for finding in self._valid(catalogue, now) if not finding.delivered]

    def apply_to(self, catalogue: Catalogue, now: float) -> Catalogue:
        """Return the catalogue with the listeners under suspicion as suspect; the same object if there are none."""
        after = catalogue
        for finding in self._valid(catalogue, now):
            if now < finding.until and finding.row.state in USABLE:
                suspect = msgspec.structs.replace(finding.row, state="suspect", cause="reported on this host")
                after = after.with_row(suspect)
        for key, notified in list(self._notified.items()):
            if now >= notified.until or catalogue.listener(*key) != notified.row:
                del self._notified[key]
            elif notified.row.state not in FAILING:
                after = after.with_row(msgspec.structs.replace(notified.row, state="suspect", cause=notified.cause))
        return after

    def _valid(self, catalogue: Catalogue, now: float) -> Iterator[_Finding]:
        for key, finding in list(self._findings.items()):
            until = finding.until if finding.delivered else finding.owed_until
            if now >= until or catalogue.listener(*key) != finding.row:
                del self._findings[key]
            else:
                yield finding
