"""Dependant of the scene: watches the dependencies of its service on its host, and records the time of each event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from compass.client.core.blocking_api import ApiProblem, HostApi
from compass.model.host_api import LocalEvent
from compass.model.names import format_endpoint
from compass.model.rows import Change, Listener

RETRY_SECONDS = 0.05


class Told:
    """Event with the wall clock's time at which it was received."""

    def __init__(self, event: LocalEvent, at: float) -> None:
        self.event = event
        self.at = at

    @property
    def change(self) -> Change | None:
        """The change, unless it is a snapshot."""
        return self.event.data if isinstance(self.event.data, Change) else None

    def states(self, service: str, endpoint: str) -> str:
        """The state that a listener has by it, `gone`, or nothing."""
        change = self.change
        if change is None or not isinstance(change.row, Listener) or change.row.service != service:
            return ""
        if format_endpoint(change.row.address, change.row.port) != endpoint:
            return ""
        return "gone" if change.removed or change.row.state == "offline" else change.row.state


class Watcher:
    """Follows one service's dependencies in a thread of its own, for as long as the scene plays."""

    def __init__(self, service: str, host: str, api: HostApi) -> None:
        self.service = service
        self.host = host
        self.api = api
        self.told: list[Told] = []
        self._news = threading.Condition()
        threading.Thread(target=self._follow, daemon=True).start()

    def __str__(self) -> str:
        return f"{self.service} on {self.host}"

    def wait(self, wanted: Callable[[Told], bool], since: int, seconds: float) -> Told | None:
        """The first event from number `since` on that is wanted; None when it does not come in time."""

        def found() -> Told | None:
            return next((told for told in self.told[since:] if wanted(told)), None)

        with self._news:
            return self._news.wait_for(found, seconds)

    def _follow(self) -> None:
        last: int | None = None
        while True:
            try:
                for event in self.api.watch(self.service, last):
                    last = event.revision
                    with self._news:
                        self.told.append(Told(event, time.time()))
                        self._news.notify_all()
            except ApiProblem:
                # Its daemon is restarted in the scene; the watch goes on after the last event.
                pass
            time.sleep(RETRY_SECONDS)
