"""The subscribers of the replica, in their declared order: what follows when its content or a suspicion changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from compass.agent.registration.probe_responder import ProbeResponder
from compass.agent.replica.change_feed import ChangeFeed
from compass.agent.replica.disk_cache import Cache
from compass.agent.replica.suspicions import RENEWAL_SECONDS
from compass.agent.replica.view import View
from compass.model.interfaces import Clock
from compass.model.rows import Change
from compass.system.timers import Timers
from compass.wire.messages import Inquiry, Suspicion


class ViewReader(Protocol):
    """Reader of the view: the shared view and the hooks."""

    def changed(self) -> None:
        """Read the view again, soon."""


class Changes:
    """Listener of the replica (`sync.ReplicaListener`)."""

    def __init__(
        self,
        clock: Clock,
        view: View,
        readers: Sequence[ViewReader],
        cache: Cache,
        feed: ChangeFeed,
        probe_responder: ProbeResponder | None,
    ) -> None:
        self._clock = clock
        self._view = view
        self._readers = readers
        self._cache = cache
        self._feed = feed
        self._probe_responder = probe_responder
        self._expiries = Timers(clock)
        self._suspected: set[str] = set()
        """Services with a listener that a server has suspected."""

    def stop(self) -> None:
        """Cancel what is to follow later."""
        self._expiries.cancel_all()

    def changed(self, change: Change) -> None:
        """Publish a notice that was applied."""
        self.view_changed()
        self._cache.changed()
        self._feed.changed(change)

    def replaced(self) -> None:
        """Publish a whole view that was loaded."""
        self.view_changed()
        self._cache.changed()
        self._feed.replaced()

    def wanted_changed(self) -> None:
        """Store the services that this host watches for."""
        self._cache.changed()

    def suspected(self, suspicion: Suspicion | None) -> None:
        """Treat a listener as suspect, or no longer. None: the server sends its suspicions again now."""
        now = self._clock.seconds()
        self.view_changed()
        if suspicion is None:
            self._view.suspicions.renew_notified(now)
            for service in sorted(self._suspected):
                self._publish_later(service, RENEWAL_SECONDS)
            return
        row = self._view.replica.catalogue.listener(suspicion.service, suspicion.address, suspicion.port)
        if row is not None and row.epoch == suspicion.epoch:
            seconds = self._view.suspicions.add_notified(suspicion, row, now)
            self._feed.suspected(row.service)
            if seconds:
                self._suspected.add(row.service)
                self._publish_later(row.service, seconds)

    def inquired(self, inquiry: Inquiry) -> None:
        """Probe a listener for a server."""
        if self._probe_responder is not None:
            self._probe_responder.inquired(inquiry)

    def view_changed(self) -> None:
        """Let the readers of the view read it again."""
        for reader in self._readers:
            reader.changed()

    def _publish_later(self, service: str, seconds: float) -> None:
        """Publish a service's listeners when the suspicion has expired."""
        self._expiries.start(service, seconds, self._feed.suspected, service)
