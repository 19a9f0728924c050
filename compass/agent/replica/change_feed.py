"""Change feed for programs on the host that watch a service's dependencies: changes from a bounded memory.

The last changes are kept, so that a program which lost its connection resumes where it was; a program that returns too
late, or after a change of shape, gets a whole snapshot instead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.logger import Logger

from compass.model.catalogue.catalogue import Catalogue, topic_of
from compass.model.catalogue.interest import dependencies_of, interest
from compass.model.host_api import LocalEvent
from compass.model.replies import Dependencies, Refusal
from compass.model.rows import Change, Listener

RECENT_MAX = 1024
"""Changes that a program can resume from: some minutes of a busy catalogue."""
SUBSCRIBERS_MAX = 256
"""Programs that watch at the same time: one for each service a host may have."""

Deliver = Callable[[LocalEvent], None]


class ChangeFeed:
    """Recent changes and those who want to hear of the next. `view` gives a service's dependencies now."""

    _log = Logger()

    def __init__(self, view: Callable[[str], Dependencies | Refusal]) -> None:
        self._view = view
        self._recent: deque[Change] = deque()
        self._catalogue = Catalogue()
        self._floor = 0
        self._held = 0
        self._subscribers: dict[int, tuple[str, Deliver]] = {}
        self._last = 0

    def __len__(self) -> int:
        """Programs that watch."""
        return len(self._subscribers)

    def subscribe(
        self, service: str, since: int | None, catalogue: Catalogue, deliver: Deliver
    ) -> Callable[[], None] | Refusal:
        """Deliver what `service` depends on from now on; `since`: a revision that the program holds already.

        The first events are delivered before this returns. The result ends the subscription.
        """
        if len(self._subscribers) >= SUBSCRIBERS_MAX:
            text = f"{SUBSCRIBERS_MAX} programs watch already; let one watch for several"
            return Refusal("busy", text, retry_after_seconds=1.0)
        view = self._view(service)
        if isinstance(view, Refusal):
            return view
        missed = self._since(service, since, catalogue)
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

    def changed(self, change: Change, catalogue: Catalogue) -> None:
        """A notice was applied; `catalogue` is the one after it."""
        self._catalogue = catalogue
        self._recent.append(change)
        self._held = change.revision
        if len(self._recent) > RECENT_MAX:
            self._floor = self._recent.popleft().revision
        for service, deliver in list(self._subscribers.values()):
            if topic_of(change.row) in interest(catalogue, [service]):
                self._tell(deliver, LocalEvent("change", change.revision, change))
                if not isinstance(change.row, Listener):
                    self._tell_all_of(service, deliver)

    def replaced(self, catalogue: Catalogue) -> None:
        """Record that the whole view was read again: earlier revisions cannot be resumed. Programs that see no
        difference get no event."""
        before, self._catalogue = self._catalogue, catalogue
        self._recent.clear()
        self._floor = self._held = catalogue.revision
        for service, deliver in list(self._subscribers.values()):
            if dependencies_of(before, service).categories != dependencies_of(catalogue, service).categories:
                self._tell_all_of(service, deliver)

    def suspected(self, topic: str) -> None:
        """Record that evidence about listeners of a service appeared or ended, outside the log: programs get
        everything, at the same revision."""
        for service, deliver in list(self._subscribers.values()):
            if topic in interest(self._catalogue, [service]):
                self._tell_all_of(service, deliver)

    def _since(self, service: str, since: int | None, catalogue: Catalogue) -> list[Change] | None:
        """The changes after `since` that concern the service; None when a snapshot has to be given instead."""
        if since is None or not self._floor <= since <= max(self._held, catalogue.revision):
            return None
        topics = interest(catalogue, [service])
        missed = [change for change in self._recent if change.revision > since and topic_of(change.row) in topics]
        return missed if all(isinstance(change.row, Listener) for change in missed) else None

    def _tell_all_of(self, service: str, deliver: Deliver) -> None:
        view = self._view(service)
        if isinstance(view, Dependencies):
            self._tell(deliver, LocalEvent("snapshot", view.revision, view))

    def _tell(self, deliver: Deliver, event: LocalEvent) -> None:
        """Deliver to one program; its failure does not affect others."""
        try:
            deliver(event)
        except Exception:
            self._log.failure("a watching program could not be told")
