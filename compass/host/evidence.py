"""What this host's programs found out about listeners before the server could say anything about it.

A reported listener is treated as suspect here at once, also with every server down. The evidence is bounded in time,
and ends as soon as the server says anything about the listener: its row is then another one than the one reported.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from compass.model.catalogue import Catalogue
from compass.model.local import LocalReport
from compass.model.rows import USABLE, Listener, ListenerKey, State

EVIDENCE_SECONDS = 60.0
"""A report that nobody could confirm for so long is forgotten: the listener may long be well again."""
UNSHARED_SECONDS = 5.0
"""A suspicion that the server does not share from the start: its probe says within so long whether it should."""
EVIDENCE_MAX = 1024
"""Listeners under local suspicion; beyond that the oldest is forgotten. A host rarely uses so many at all."""


class _Finding(msgspec.Struct, frozen=True):
    report: LocalReport
    row: Listener
    until: float
    delivered: bool = False


class Evidence:
    """Local findings by listener; `now` is any clock's seconds."""

    def __init__(self) -> None:
        self._findings: dict[ListenerKey, _Finding] = {}

    def add(self, report: LocalReport, row: Listener, now: float) -> None:
        """A program found this listener dead."""
        key = (row.service, row.address, row.port)
        self._findings.pop(key, None)
        self._findings[key] = _Finding(report, row, now + EVIDENCE_SECONDS)
        if len(self._findings) > EVIDENCE_MAX:
            del self._findings[next(iter(self._findings))]

    def delivered(self, key: ListenerKey, state: State, now: float) -> None:
        """The server has the report, and the listener is in that state there; what it decides comes as a notice.

        When the report alone was not enough for it, a probe of the server that finds the listener alive is no change:
        then no notice comes, and the local suspicion ends by itself.
        """
        finding = self._findings.get(key)
        if finding is not None:
            until = min(finding.until, now + UNSHARED_SECONDS) if state in USABLE else finding.until
            self._findings[key] = msgspec.structs.replace(finding, delivered=True, until=until)

    def dismiss(self, key: ListenerKey) -> None:
        """The server refused the report."""
        self._findings.pop(key, None)

    def undelivered(self, catalogue: Catalogue, now: float) -> list[LocalReport]:
        """The reports that still hold and that no server has seen."""
        return [finding.report for finding in self._standing(catalogue, now) if not finding.delivered]

    def over(self, catalogue: Catalogue, now: float) -> Catalogue:
        """The catalogue with the listeners under local suspicion as suspect."""
        for finding in list(self._standing(catalogue, now)):
            suspect = msgspec.structs.replace(finding.row, state="suspect", cause="reported on this host")
            catalogue = catalogue.with_row(suspect)
        return catalogue

    def _standing(self, catalogue: Catalogue, now: float) -> Iterator[_Finding]:
        for key, finding in list(self._findings.items()):
            if now >= finding.until or catalogue.listener(*key) != finding.row:
                del self._findings[key]
            elif finding.row.state in USABLE:
                yield finding
