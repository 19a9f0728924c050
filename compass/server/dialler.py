"""Push to hosts that keep no session: the server dials their Update listener (opengnsp.md, "Dialled sessions").

On the connection the host greets and watches as always, and gets what it missed. The server hangs up when nothing
has been due for a while.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from compass.model.catalogue import Catalogue
from compass.model.names import category_of
from compass.model.ports import Clock, Timer
from compass.model.rows import Host
from compass.server.push import Push
from compass.server.sessions import Session

DIALS_MAX = 32
"""Connections being made at once: a change that concerns 10,000 hosts must not open 10,000 sockets."""
DIAL_PAUSE_SECONDS_MAX = 60.0
"""Longest pause between two attempts to reach one host; the first is a second, then it doubles."""
LINGER_SECONDS = 2.0
"""A dialled session stays open so long after the last notice: changes come in groups."""
START_GRACE_SECONDS = 5.0
"""After the server's start hosts come back by themselves; only then are the others dialled."""

Dial = Callable[[str, str, int], Deferred[Session]]
"""Connects to a host by name, address and port; fires with the session once its greeting can begin."""


class Dialler:
    """Which hosts are to be dialled, and when again."""

    log = Logger()

    def __init__(self, clock: Clock, dial: Dial, push: Push, catalogue: Callable[[], Catalogue]) -> None:
        self._clock = clock
        self._dial = dial
        self._push = push
        self._catalogue = catalogue
        self._due: dict[str, None] = {}
        self._under_way: set[str] = set()
        self._retries: dict[str, Timer] = {}
        self._pauses: dict[str, float] = {}
        self._timers: set[Timer] = set()

    def start(self) -> None:
        """Look after a while who has not come back."""
        self._later(START_GRACE_SECONDS, lambda: self._consider(list(self._catalogue().hosts.values())))

    def stop(self) -> None:
        """Dial no more."""
        for timer in [*self._timers, *self._retries.values()]:
            if timer.active():
                timer.cancel()
        self._due.clear()

    def told(self, categories: frozenset[str]) -> None:
        """A notice went out to hosts with services of these categories; reach those that keep no session."""
        hosts = self._catalogue().hosts.values()
        absent = [host for host in hosts if host.update_port and self._push.session_of(host.name) is None]
        self._consider([h for h in absent if any(category_of(service) in categories for service in h.services)])

    def ended(self, host: str) -> None:
        """A session of that host is over; perhaps there is something it did not get."""
        row = self._catalogue().hosts.get(host)
        if row is not None:
            self._consider([row])

    def _consider(self, hosts: list[Host]) -> None:
        for host in hosts:
            wanted = host.update_port and not host.barred and self._push.session_of(host.name) is None
            if (
                wanted
                and host.name not in self._under_way
                and host.name not in self._retries
                and self._push.behind(host)
            ):
                self._due[host.name] = None
        self._go_on()

    def _go_on(self) -> None:
        while self._due and len(self._under_way) < DIALS_MAX:
            name = next(iter(self._due))
            del self._due[name]
            row = self._catalogue().hosts.get(name)
            if row is None or not row.update_port or self._push.session_of(name) is not None:
                continue
            self._under_way.add(name)
            dialled = self._dial(name, row.update_address, row.update_port)
            dialled.addCallbacks(self._reached, self._missed, (name,), errbackArgs=(name,))

    def _reached(self, session: Session, name: str) -> None:
        self._later(LINGER_SECONDS, lambda: self._hang_up(session, name))

    def _hang_up(self, session: Session, name: str) -> None:
        row = self._catalogue().hosts.get(name)
        if session.connected and (session.waiting or (row is not None and self._push.behind(row))):
            self._later(LINGER_SECONDS, lambda: self._hang_up(session, name))
            return
        self._under_way.discard(name)
        if row is not None and self._push.behind(row):
            self._try_again(name)
        else:
            self._pauses.pop(name, None)
        session.goodbye("nothing more for now")
        self._go_on()

    def _missed(self, failure: Failure, name: str) -> None:
        self.log.debug("host {name} cannot be dialled: {why}", name=name, why=failure.getErrorMessage())
        self._under_way.discard(name)
        self._try_again(name)
        self._go_on()

    def _try_again(self, name: str) -> None:
        pause = self._pauses.get(name, 1.0)
        self._pauses[name] = min(pause * 2, DIAL_PAUSE_SECONDS_MAX)

        def again() -> None:
            del self._retries[name]
            self.ended(name)

        self._retries[name] = self._clock.callLater(pause, again)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            call()

        timer = self._clock.callLater(seconds, run)
        self._timers.add(timer)
