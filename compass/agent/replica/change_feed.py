"""Change feed for programs on the host that watch a service's dependencies: changes from a bounded memory.

The last changes are kept, so that a program which lost its connection resumes where it was; a program that returns too
late, or after a change of shape, gets a whole snapshot instead.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from compass.agent.replica.view import View
from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.catalogue.interest import dependencies_of, interest
from compass.model.catalogue.octets import change_octets
from compass.model.host_api import LocalEvent
from compass.model.replay_buffer import ReplayBuffer
from compass.model.replies import Dependencies, Refusal
from compass.model.rows import Change, Listener

RECENT_MAX = 1024
"""Changes that a program can resume from: some minutes of a busy catalogue."""
RECENT_OCTETS_MAX = 4 * 1024 * 1024
"""Octets of these changes: those of listeners with much metadata have 10 kB each."""
SUBSCRIBERS_MAX = 256
"""Programs that watch at the same time: one for each service a host may have."""

Deliver = Callable[[LocalEvent], None]


class ChangeFeed:
    """Recent changes of the view's replica, and the programs that watch for the next ones."""

    _log = Logger()

    def __init__(self, view: View) -> None:
        self._view = view
        self._recent: ReplayBuffer[Change] = ReplayBuffer(RECENT_MAX, 0, RECENT_OCTETS_MAX, change_octets)
        self._catalogue = Catalogue()
        self._subscribers: dict[int, tuple[str, Deliver]] = {}
        self._last = 0

    def __len__(self) -> int:
        """Return the number of programs that watch."""
        return len(self._subscribers)

    def subscribe(self, service: str, since: int | None, deliver: Deliver) -> Callable[[], None] | Refusal:
        """Deliver what `service` depends on from now on; `since`: a revision that the program holds already.

        The first events are delivered before this returns. The result ends the subscription.
        """
        if len(self._subscribers) >= SUBSCRIBERS_MAX:
            text = f"{SUBSCRIBERS_MAX} programs watch already; let one watch for several"
            return Refusal("busy", text, retry_after_seconds=1.0)
        view = self._view.dependencies(service)
        if isinstance(view, Refusal):
            return view
        missed = self._since(service, since)
        if missed is None:
            deliver(LocalEvent("snapshot", view.revision, view))
        else:
            for change in missed:
                deliver(LocalEvent("change", change.revision, change))
        self._last += 1
        number = self._last
        self._subscribers[number] = (service, deliver)

        def stop() -> None:
            self._subscribers.pop(number, None)

        return stop

    def changed(self, change: Change) -> None:
        """Deliver a change that was applied to the replica."""
        self._catalogue = catalogue = self._view.replica.catalogue
        self._recent.append(change)
        for service, deliver in list(self._subscribers.values()):
            if topic_of(change.row) in interest(catalogue, [service]):
                self._tell(deliver, LocalEvent("change", change.revision, change))
                if not isinstance(change.row, Listener):
                    self._tell_all_of(service, deliver)

    def replaced(self) -> None:
        """Deliver a snapshot to each program whose view is another one since the whole replica was loaded.

        No program can resume from before that.
        """
        catalogue = self._view.replica.catalogue
        before, self._catalogue = self._catalogue, catalogue
        self._recent.restart(catalogue.revision)
        for service, deliver in list(self._subscribers.values()):
            if dependencies_of(before, service).categories != dependencies_of(catalogue, service).categories:
                self._tell_all_of(service, deliver)

    def suspected(self, topic: str) -> None:
        """Record that evidence about listeners of a service appeared or ended, outside the log: programs get
        everything, at the same revision."""
        for service, deliver in list(self._subscribers.values()):
            if topic in interest(self._catalogue, [service]):
                self._tell_all_of(service, deliver)

    def _since(self, service: str, since: int | None) -> list[Change] | None:
        """Return the changes after `since` that concern the service; None: a snapshot is needed instead."""
        catalogue = self._view.replica.catalogue
        # No revision shows what a program has missed outside the log.
        if since is None or self._view.catalogue is not catalogue:
            return None
        self._recent.advance(catalogue.revision)
        recent = self._recent.after(since)
        if recent is None:
            return None
        topics = interest(catalogue, [service])
        missed = [change for change in recent if topic_of(change.row) in topics]
        return missed if all(isinstance(change.row, Listener) for change in missed) else None

    def _tell_all_of(self, service: str, deliver: Deliver) -> None:
        view = self._view.dependencies(service)
        if isinstance(view, Dependencies):
            self._tell(deliver, LocalEvent("snapshot", view.revision, view))

    def _tell(self, deliver: Deliver, event: LocalEvent) -> None:
        """Deliver to one program; its failure does not affect others."""
        try:
            deliver(event)
        except Exception:
            self._log.failure("an event could not be delivered to a program that watches")
