"""A program on a host that watches a service's dependencies, and keeps each event with the moment it came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from compass.client.core.blocking_api import ApiProblem, HostApi
from compass.model.host_api import LocalEvent
from compass.model.rows import Change, Listener
from tests.e2e.processes import PATIENCE_SECONDS


class Dependant:
    """Watches in a thread until the daemon ends the connection; the first event, a snapshot, is there at once."""

    def __init__(self, api: HostApi, service: str) -> None:
        self.service = service
        self.events: list[tuple[float, LocalEvent]] = []
        """Monotonic time of arrival, and what came."""
        self.over = False
        self._api = api
        self._news = threading.Condition()
        threading.Thread(target=self._follow, daemon=True).start()
        self.wait(lambda event: event.kind == "snapshot")

    def wait(
        self, wanted: Callable[[LocalEvent], bool], since: int = 0, seconds: float = PATIENCE_SECONDS
    ) -> tuple[float, LocalEvent]:
        """The first such event from place `since` of `events` on, and when it came."""

        def found() -> tuple[float, LocalEvent] | None:
            return next((entry for entry in self.events[since:] if wanted(entry[1])), None)

        with self._news:
            self._news.wait_for(lambda: found() or self.over, seconds)
            entry = found()
        seen = [event for _, event in self.events[since:]]
        assert entry is not None, f"{self.service} was not notified within {seconds:g} s; it was notified of {seen}"
        return entry

    def told(self, service: str, state: str, port: int = 0, since: int = 0) -> float:
        """Return the time at which the program was notified that a listener of `service` (at `port`) is in `state`."""

        def is_it(event: LocalEvent) -> bool:
            row = listener_of(event)
            return row is not None and (row.service, row.state) == (service, state) and port in (0, row.port)

        return self.wait(is_it, since)[0]

    def mark(self) -> int:
        """The place from which the next events count."""
        with self._news:
            return len(self.events)

    def since(self, mark: int) -> list[LocalEvent]:
        """Return what came from that place on."""
        with self._news:
            return [event for _, event in self.events[mark:]]

    def _follow(self) -> None:
        try:
            for event in self._api.watch(self.service):
                now = time.monotonic()
                with self._news:
                    self.events.append((now, event))
                    self._news.notify_all()
        except ApiProblem:
            pass
        with self._news:
            self.over = True
            self._news.notify_all()


def listener_of(event: LocalEvent) -> Listener | None:
    """The listener that an event is about, if it is about one."""
    if isinstance(event.data, Change) and isinstance(event.data.row, Listener):
        return event.data.row
    return None
