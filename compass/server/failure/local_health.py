"""Local health: whether this server can believe its own probes, and the incident that is open while it cannot."""

from __future__ import annotations

from compass.model.catalogue.catalogue import Catalogue
from compass.model.interfaces import Clock
from compass.model.requests import Incident
from compass.model.rows import ListenerKey
from compass.model.rules.draft import Principal
from compass.model.rules.failure import Finding, LocalHealth
from compass.server.commit.committer import Committer
from compass.system.timers import Timers

DOUBT_LOOK_SECONDS = 5.0
"""Between two checks of a server in doubt whether it still has reason to."""


class LocalHealthMonitor:
    """The findings of this server's checks, and the incident about them."""

    def __init__(self, principal: Principal, clock: Clock, committer: Committer) -> None:
        self._principal = principal
        self._clock = clock
        self._committer = committer
        self._health = LocalHealth()
        self._is_incident_open = False
        self._timers = Timers(clock)

    @property
    def is_in_doubt(self) -> bool:
        """True if this server does not believe its own probes."""
        return self._health.doubting(self._clock.seconds())

    def start(self, catalogue: Catalogue) -> None:
        """Close the incident of an earlier run."""
        if self._id in catalogue.alerts:
            self._committer.submit(Incident(self._id), self._principal)

    def stop(self) -> None:
        """Stop the timer."""
        self._timers.cancel_all()

    def record(self, key: ListenerKey, finding: Finding) -> None:
        """Count what a check found, which may begin or end the doubt."""
        self._health.note(key, finding, self._clock.seconds())
        self._update()

    @property
    def _id(self) -> str:
        return f"failure doubt of {self._principal.name}"

    def _update(self) -> None:
        is_in_doubt = self.is_in_doubt
        if is_in_doubt != self._is_incident_open:
            self._is_incident_open = is_in_doubt
            text = f"server {self._principal.name} doubts itself: most of its probes fail, and no host finds the same; "
            text += "it condemns nothing by itself. Check its network"
            self._committer.submit(Incident(self._id, text if is_in_doubt else ""), self._principal)
        if is_in_doubt:
            self._timers.start_if_idle("doubt", DOUBT_LOOK_SECONDS, self._update)
